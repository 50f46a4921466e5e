//! Why a refit was refused, in plain words, each verdict by a rule that can be measured.
//!
//! | cause | rule |
//! | --- | --- |
//! | too few traces | even if every shadow trace agreed, so few could not show the target; or no other rule holds and the surest traces may well agree as often as the target |
//! | noisy teacher | near-identical inputs get differing labels so often that no function of the input can reach the target |
//! | one class swallowed | half of the disagreements or more are one answer, and a label of ten shadow traces or more is given that answer four times of five |
//! | embedding does not separate | of the surest fifth of the shadow traces, fewer agree than the target, and not by chance |
//!
//! "Not by chance" is the exact bound of Clopper and Pearson at confidence 1 − δ.
//! Several rules may hold; the first finding is the one to act on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tracer_features::{normalise, stable_hash};
use tracer_learn::{
    Dataset, FitConfig, FitError, GateMode, clopper_pearson_lower, clopper_pearson_upper,
};

use super::{
    held_out::{HeldOut, name},
    space::Space,
};

/// Rows that are searched for near-identical inputs, at the most: the newest.
const ROWS: usize = 200_000;
/// Rows whose nearest neighbour is looked up, at the most.
const NEIGHBOURS: usize = 1000;
/// A label with fewer shadow traces is no evidence of being swallowed.
const LEAST_OF_A_LABEL: usize = 10;
/// The surest fifth has at least so many traces.
const LEAST_SUREST: usize = 20;
/// No forecast reaches further than so many times the traces there are.
const FORESIGHT: usize = 1000;

/// What stands in the way of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There are too few traces to show anything.
    TooFewTraces,
    /// The teacher labels near-identical inputs differently.
    NoisyTeacher,
    /// One label gets the answer of another nearly always.
    OneClassSwallowed,
    /// The features do not tell the labels apart.
    NotSeparable,
    /// Too little of the traffic can be handled to be worth it.
    LittleCoverage,
    /// There is only one label.
    OneLabel,
    /// The labels look like free text.
    TooManyLabels,
    /// The traces lack what the configured features stand on.
    NoFeatures,
    /// No candidate could be fitted.
    NoCandidate,
    /// The configuration does not allow a verdict.
    Configuration,
}

/// One reason of a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// What it is.
    pub cause: Cause,
    /// It in plain words, with its numbers.
    pub summary: String,
    /// What helps.
    pub advice: String,
    /// What the rule looked at.
    pub evidence: Vec<Evidence>,
}

/// A number that a rule looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// What it is.
    pub name: String,
    /// Its value: a count, or a share from 0 to 1.
    pub value: f64,
}

fn evidence(name: &str, value: f64) -> Evidence {
    Evidence {
        name: name.to_owned(),
        value,
    }
}

/// Of a refit that got as far as no verdict.
pub(crate) fn diagnose_error(error: &FitError, data: &Dataset) -> Finding {
    let (cause, advice, evidence) = match error {
        FitError::TooFewTraces { have, need } => (
            Cause::TooFewTraces,
            "Wait for more traces, or lower min_traces.",
            vec![
                evidence("usable traces", *have as f64),
                evidence("needed", *need as f64),
            ],
        ),
        FitError::OneClass { .. } => (
            Cause::OneLabel,
            "Check the prompt and the label field of the traces: a classifier that always says the same needs no surrogate.",
            vec![evidence("traces", data.len() as f64)],
        ),
        FitError::TooManyLabels { have, limit } => (
            Cause::TooManyLabels,
            "Check that the teacher answers with a label and not with free text.",
            vec![
                evidence("labels", *have as f64),
                evidence("supported", *limit as f64),
            ],
        ),
        FitError::NoFeatures(_) => (
            Cause::NoFeatures,
            "Send texts or embeddings with the traces, or configure other features.",
            vec![evidence("traces", data.len() as f64)],
        ),
        FitError::NoCandidate(_) => (
            Cause::NoCandidate,
            "The logs tell why each candidate was left out.",
            Vec::new(),
        ),
        FitError::Setting(_) => (
            Cause::Configuration,
            "Correct the task's configuration.",
            Vec::new(),
        ),
    };
    Finding {
        cause,
        summary: format!("{error}."),
        advice: advice.to_owned(),
        evidence,
    }
}

/// Of a refit that the gate refused: at least one finding, the one to act on first.
pub(crate) fn diagnose(
    held: &HeldOut<'_>,
    space: &Space<'_>,
    config: &FitConfig,
    reason: &str,
) -> Vec<Finding> {
    let other = |cause, advice: &str| {
        vec![Finding {
            cause,
            summary: format!("{reason}."),
            advice: advice.to_owned(),
            evidence: Vec::new(),
        }]
    };
    if held.rows.is_empty() {
        return other(
            Cause::NoCandidate,
            "The logs tell why the surrogate could not be fitted.",
        );
    }
    if held.data.is_weighted() && config.weight_cap.is_none() {
        return other(
            Cause::Configuration,
            "Traces of unequal weight need weight_cap, the largest weight there can be.",
        );
    }
    let (target, delta) = (held.outcome.target, config.delta);
    let needed = flawless(target, delta);
    if held.rows.len() < needed && config.gate == GateMode::Bound {
        return vec![Finding {
            cause: Cause::TooFewTraces,
            summary: format!(
                "{} shadow traces are too few for any verdict at the target {}: even if surrogate and teacher agreed on all of them, only {needed} or more would show it at confidence {}.",
                held.rows.len(),
                share(target),
                share(1.0 - delta),
            ),
            advice: "Collect more traces; about a fifth of them become shadow traces. A lower target or a larger delta needs fewer.".to_owned(),
            evidence: vec![
                evidence("shadow traces", held.rows.len() as f64),
                evidence("needed if all agree", needed as f64),
            ],
        }];
    }
    if let Some(finding) = little_coverage(held, config) {
        return vec![finding];
    }
    let mut findings: Vec<Finding> = noisy(held.data, target, delta).into_iter().collect();
    let inseparable = not_separable(held, space, target, delta);
    let swallowed = swallowed(held, delta);
    // Where one label has most of the traffic, a surrogate may do well and yet know only
    // that one; else answering one label for all is what not knowing any looks like.
    match (inseparable, swallowed) {
        (Some(inseparable), Some((swallowed, true))) => findings.extend([swallowed, inseparable]),
        (inseparable, swallowed) => {
            findings.extend(inseparable);
            findings.extend(swallowed.map(|(finding, _)| finding));
        }
    }
    if findings.is_empty() {
        findings.push(not_shown(held, target, delta));
    }
    findings
}

/// What reaches the target handles less than the floor.
fn little_coverage(held: &HeldOut<'_>, config: &FitConfig) -> Option<Finding> {
    let points = held.outcome.frontier.iter().chain([&held.outcome.shadow]);
    let reached = points.filter(|point| match config.gate {
        GateMode::Bound => point.agreement_lower >= held.outcome.target,
        GateMode::Point => point.coverage > 0.0 && point.agreement >= held.outcome.target,
    });
    let most = reached.map(|point| point.coverage).max_by(f64::total_cmp)?;
    (most < config.coverage_floor).then(|| Finding {
        cause: Cause::LittleCoverage,
        summary: format!(
            "What reaches the target {} is {} of the traffic at the most, less than the configured floor of {}.",
            share(held.outcome.target),
            share(most),
            share(config.coverage_floor),
        ),
        advice: "More traces usually raise the coverage. If so little is worth serving, lower coverage_floor.".to_owned(),
        evidence: vec![
            evidence("coverage that reaches the target", most),
            evidence("floor", config.coverage_floor),
        ],
    })
}

/// Shadow traces that show a target if all of them agree: pⁿ ≤ δ.
fn flawless(target: f64, delta: f64) -> usize {
    let n = (delta.ln() / target.ln()).ceil();
    if n.is_finite() {
        (n as usize).max(1)
    } else {
        1
    }
}

/// What a text says but for case, punctuation and white space; an input without text is
/// what it is. Digits count: a label may well hang on an amount.
fn folded(data: &Dataset, row: usize) -> Option<u64> {
    if let Some(kept) = data.withheld(row) {
        return Some(stable_hash(&[b"hash", kept.hash.as_bytes()]));
    }
    if let Some(text) = data.text(row) {
        let text = normalise(text);
        let mut key = String::with_capacity(text.len());
        for c in text.chars() {
            if c.is_alphanumeric() {
                key.push(c);
            } else if !key.ends_with(' ') {
                key.push(' ');
            }
        }
        // Punctuation alone may be all there is.
        let key = if key.trim().is_empty() {
            text.as_str()
        } else {
            key.trim()
        };
        return Some(stable_hash(&[b"text", key.as_bytes()]));
    }
    let embedding = data.embedding(row)?;
    let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
    Some(stable_hash(&[b"embedding", &bytes]))
}

/// Near-identical inputs of differing labels. With A the share of pairs of such inputs
/// whose labels are the same, no function of the input agrees with the teacher on more
/// than √A of them: on one input that gets label l with probability p(l) it is max p at
/// best, max p ≤ √Σp², and Σp² is the probability that two labels are the same; over
/// inputs, Jensen's inequality. Pairs share no trace, so they are independent draws.
fn noisy(data: &Dataset, target: f64, delta: f64) -> Option<Finding> {
    let mut open: HashMap<u64, u32> = HashMap::new();
    let (mut pairs, mut differ) = (0_u64, 0_u64);
    for row in data.len().saturating_sub(ROWS)..data.len() {
        let Some(key) = folded(data, row) else {
            continue;
        };
        match open.remove(&key) {
            Some(label) => {
                pairs += 1;
                differ += u64::from(label != data.label(row));
            }
            None => {
                open.insert(key, data.label(row));
            }
        }
    }
    let ceiling = (1.0 - clopper_pearson_lower(differ, pairs, delta)).sqrt();
    (ceiling < target).then(|| Finding {
        cause: Cause::NoisyTeacher,
        summary: format!(
            "The teacher contradicts itself: of {pairs} pairs of inputs that differ in case, punctuation or white space alone, {differ} got two different labels. No surrogate can agree with it on more than about {} of such inputs; the target is {}.",
            share(ceiling),
            share(target),
        ),
        advice: "Make the teacher consistent: temperature 0, a prompt that tells apart the labels it confuses, or one label for them. More traces do not help.".to_owned(),
        evidence: vec![
            evidence("pairs of near-identical inputs", pairs as f64),
            evidence("pairs with differing labels", differ as f64),
            evidence("highest possible agreement on them", ceiling),
        ],
    })
}

/// One label that gets another one's answer. True when that other one is the teacher's
/// answer to most of the traffic.
fn swallowed(held: &HeldOut<'_>, delta: f64) -> Option<(Finding, bool)> {
    let classes = held.outcome.labels.len();
    let mut wrong = vec![0_usize; classes];
    // By label of the teacher: traces, and how often each answer was given.
    let mut answers: HashMap<u32, (usize, HashMap<usize, usize>)> = HashMap::new();
    for seen in &held.rows {
        if !seen.agrees {
            wrong[seen.predicted] += 1;
        }
        let (n, given) = answers.entry(seen.label).or_default();
        *n += 1;
        *given.entry(seen.predicted).or_default() += 1;
    }
    let disagreements: usize = wrong.iter().sum();
    let (taker, &taken) = wrong
        .iter()
        .enumerate()
        .max_by_key(|&(class, n)| (*n, std::cmp::Reverse(class)))?;
    if disagreements < LEAST_OF_A_LABEL || 2 * taken < disagreements {
        return None;
    }
    let taker_name = held.class(taker);
    let is_taker = |label: u32| {
        let label = &held.data.label_names()[label as usize];
        normalise(label) == normalise(taker_name)
    };
    let (label, n, given) = answers
        .iter()
        .filter(|(label, _)| !is_taker(**label))
        .map(|(label, (n, given))| (*label, *n, given.get(&taker).copied().unwrap_or(0)))
        .filter(|&(_, n, given)| {
            n >= LEAST_OF_A_LABEL
                && 5 * given >= 4 * n
                && clopper_pearson_lower(given as u64, n as u64, delta) > 0.5
        })
        .max_by_key(|&(label, n, _)| (n, std::cmp::Reverse(label)))?;
    let own: usize = answers
        .iter()
        .filter(|(label, _)| is_taker(**label))
        .map(|(_, (n, _))| n)
        .sum();
    let swallowed = name(&held.data.label_names()[label as usize]);
    let taker = name(taker_name);
    let finding = Finding {
        cause: Cause::OneClassSwallowed,
        summary: format!(
            "The surrogate answers “{taker}” to {given} of the {n} shadow traces that the teacher labels “{swallowed}”, and {taken} of its {disagreements} disagreements are that answer.",
        ),
        advice: format!(
            "Read the disagreement cards under “{taker}”. If the two labels mean the same, merge them; else collect more traces of “{swallowed}”, or features that tell the two apart.",
        ),
        evidence: vec![
            evidence("disagreements", disagreements as f64),
            evidence("of these, the one answer", taken as f64),
            evidence("shadow traces of the swallowed label", n as f64),
            evidence("of these, given the one answer", given as f64),
            evidence(
                "the answer's own share of the traffic",
                own as f64 / held.rows.len() as f64,
            ),
        ],
    };
    Some((finding, 2 * own >= held.rows.len()))
}

/// Agreements among the surest fifth, and how many that is.
fn surest(held: &HeldOut<'_>) -> (u64, u64) {
    let mut rows: Vec<(f32, bool)> = held
        .rows
        .iter()
        .filter(|seen| !seen.foreign)
        .map(|seen| (seen.score, seen.agrees))
        .collect();
    // Of equal scores those that disagree come first: the rule must not be kind.
    rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    rows.truncate((rows.len() / 5).max(LEAST_SUREST));
    let right = rows.iter().filter(|(_, agrees)| *agrees).count();
    (right as u64, rows.len() as u64)
}

fn not_separable(
    held: &HeldOut<'_>,
    space: &Space<'_>,
    target: f64,
    delta: f64,
) -> Option<Finding> {
    let (right, n) = surest(held);
    if clopper_pearson_upper(right, n, delta) >= target {
        return None;
    }
    let overall = held.rows.iter().filter(|seen| seen.agrees).count();
    let overall = overall as f64 / held.rows.len() as f64;
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for seen in &held.rows {
        *counts.entry(seen.label).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let guessing = most as f64 / held.rows.len() as f64;
    let mut found = vec![
        evidence("shadow traces among the surest fifth", n as f64),
        evidence("agreement of these", right as f64 / n as f64),
        evidence("agreement of all shadow traces", overall),
        evidence("agreement of always guessing the commonest label", guessing),
    ];
    let mut beside = String::new();
    if let Some((alike, chance)) = neighbours(held, space) {
        beside = format!(
            " The nearest neighbour of a trace, by its {}, has the same label in {} of cases; by chance it would be {}.",
            if space.is_dense() {
                "embedding"
            } else {
                "words"
            },
            share(alike),
            share(chance),
        );
        found.push(evidence("nearest neighbours of the same label", alike));
        found.push(evidence("the same by chance", chance));
    }
    Some(Finding {
        cause: Cause::NotSeparable,
        summary: format!(
            "The {} do not tell the labels apart well enough: even among the fifth of the traces that the surrogate is surest of, it agrees with the teacher on {right} of {n}, short of the target {} by more than chance. Over all it agrees on {}; always guessing the commonest label would agree on {}.{beside}",
            if space.is_dense() { "embeddings" } else { "words of the inputs" },
            share(target),
            share(overall),
            share(guessing),
        ),
        advice: "Try embeddings that know more of what the labels are about, or lower the target. More traces alone seldom help here.".to_owned(),
        evidence: found,
    })
}

/// How often the nearest neighbour has the same label, and how often it would by chance.
fn neighbours(held: &HeldOut<'_>, space: &Space<'_>) -> Option<(f64, f64)> {
    let placed: Vec<usize> = (0..held.rows.len()).filter(|&i| space.has(i)).collect();
    let step = placed.len().div_ceil(NEIGHBOURS).max(1);
    let placed: Vec<usize> = placed.into_iter().step_by(step).collect();
    if placed.len() < LEAST_SUREST {
        return None;
    }
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let (mut alike, mut centre) = (0_usize, Vec::new());
    for &i in &placed {
        let label = held.rows[i].label;
        *counts.entry(label).or_default() += 1;
        space.centre(&[i], &mut centre);
        let others = placed.iter().copied().filter(|&other| other != i);
        if let Some((nearest, _)) = space.nearest(&centre, others) {
            alike += usize::from(held.rows[nearest].label == label);
        }
    }
    let n = placed.len() as f64;
    let chance = counts.values().map(|&n| (n * n.saturating_sub(1)) as f64);
    // Whole numbers: the sum does not depend on the order.
    let chance = chance.sum::<f64>() / (n * (n - 1.0));
    Some((alike as f64 / n, chance))
}

/// What is left: the surest may well agree often enough, and this split cannot show it.
fn not_shown(held: &HeldOut<'_>, target: f64, delta: f64) -> Finding {
    let (right, n) = surest(held);
    let seen = right as f64 / n.max(1) as f64;
    let mut found = vec![
        evidence("shadow traces among the surest fifth", n as f64),
        evidence("agreement of these", seen),
        evidence("their lower bound", clopper_pearson_lower(right, n, delta)),
    ];
    let needed = needed(seen, target, delta, FORESIGHT * n.max(1) as usize);
    let outlook = match needed {
        Some(needed) => {
            found.push(evidence("needed at this agreement", needed as f64));
            format!(
                " At this agreement about {needed} such traces would show it, {:.1} times as many.",
                needed as f64 / n.max(1) as f64
            )
        }
        None => String::new(),
    };
    Finding {
        cause: Cause::TooFewTraces,
        summary: format!(
            "There are too few traces to tell: of the fifth of the shadow traces that the surrogate is surest of, it agrees on {right} of {n}. That does not rule the target {} out, and does not show it.{outlook}",
            share(target),
        ),
        advice: "Collect more traces; about a fifth of them become shadow traces.".to_owned(),
        evidence: found,
    }
}

/// The least number of traces that would show the target if this share of them agreed.
fn needed(seen: f64, target: f64, delta: f64, most: usize) -> Option<usize> {
    let shows = |n: usize| {
        let right = (seen * n as f64).round().min(n as f64);
        clopper_pearson_lower(right as u64, n as u64, delta) >= target
    };
    let mut high = 1;
    while !shows(high) {
        high *= 2;
        if high > most {
            return None;
        }
    }
    // Rounding makes it jump a little; the forecast is about.
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low.midpoint(high);
        if shows(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

fn share(value: f64) -> String {
    format!("{}\u{a0}%", (value * 1e3).round() / 10.0)
}
