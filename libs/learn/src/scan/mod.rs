//! The day-one read: what a refit could be expected to certify, without one.
//!
//! A small pool is cross-fitted on the traces. Nothing is published, nothing is
//! certified: all rows take part, none is set aside, and what is said of a refit is
//! said by applying the gate's own rule to out-of-fold predictions, with a shadow split
//! as large as a refit would have.

mod contents;
mod forecast;

use rayon::prelude::*;
use serde::Serialize;
use tracer_features::stable_hash;

use self::forecast::{at_twice, need_beyond, shadow_need};
pub use self::{
    contents::{Contents, Contradiction},
    forecast::{Learning, Need, ShadowNeed},
};
use crate::{
    bounds::clopper_pearson_interval,
    config::FitConfig,
    dataset::Dataset,
    gate::{Curve, Gate, GateStats, Policy, Scored},
    refit::{Assessed, FitError, Progress, Progressing, out_of_fold, usable_rows},
    sample::to_certify_on,
};

/// Fewer rows than this tell nothing.
const LEAST: usize = 30;
/// Parts of the traces, in the order of arrival, on which the learning curve stands.
const PARTS: [usize; 4] = [8, 4, 2, 1];
/// A point of the curve has at least this many rows.
const LEAST_OF_POINT: usize = 100;
/// Splits drawn to see what the gate would say.
const DRAWS: u64 = 100;
/// The coverage that is "most of the traffic".
const MOST: f64 = 0.9;
/// Expected coverage that is worth a start, in multiples of the floor.
const START: f64 = 2.0;

/// What could be certified at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certifiable {
    /// A refit on these traces would sooner pass than not.
    Now,
    /// With more traces it would, as far as can be told.
    NotYet,
    /// Not even with twenty times the traces, as far as can be told.
    NotWithTheseFeatures,
    /// There are too few traces to tell.
    CannotTell,
}

/// What is to be expected at one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanTarget {
    /// The target agreement.
    pub target: f64,
    /// In short.
    pub verdict: Certifiable,
    /// The coverage to expect of a refit on these traces: the mean over many draws of a
    /// shadow split, refusals counting as 0.
    pub expected_coverage: f64,
    /// The same by the approximation that refits and projections go by. It errs on the
    /// low side where few disagreements are allowed.
    pub promised_coverage: f64,
    /// The share of draws of a shadow split in which the gate passed.
    pub passes: f64,
    /// The 10th and the 90th percentile of the coverage over these draws.
    pub coverage_range: [f64; 2],
    /// The surrogate that lets one expect it.
    pub surrogate: String,
    /// The largest share of the rows, the surest first, on which out-of-fold agreement
    /// reaches the target: no shadow split, however long, would certify more.
    pub coverage_limit: f64,
    /// Expected coverage with twice the traces, at worst and at best.
    pub coverage_at_twice: [f64; 2],
    /// Traces for a first pipeline; absent where one can be certified now.
    pub to_start: Option<Need>,
    /// Traces to handle most of the traffic.
    pub to_handle_most: Need,
    /// What the exact bound alone asks for, at the agreement seen.
    pub shadow: ShadowNeed,
}

/// A point of the learning curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The first so many traces.
    pub traces: usize,
    /// Labels among them.
    pub labels: usize,
    /// The share of them on which surrogate and teacher agree, out of fold.
    pub agreement: f64,
    /// The coverage to expect, by target.
    pub expected_coverage: Vec<f64>,
}

/// What became of one row, out of fold, with the surrogate of the middle target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanRow {
    /// Row of the dataset.
    pub row: usize,
    /// The label predicted: an index into [`Dataset::label_names`].
    pub predicted: u32,
    /// Whether it would be handled at the middle target.
    pub handled: bool,
}

/// What is to be expected of a set of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Rows with every feature in use.
    pub usable: usize,
    /// Rows that were looked at: all usable ones, or a sample.
    pub looked_at: usize,
    /// Whether embeddings were used.
    pub dense: bool,
    /// Whether text was used.
    pub lexical: bool,
    /// The surrogates that competed and their macro-F1 out of fold, the best first.
    pub surrogates: Vec<(String, f64)>,
    /// The share of all rows on which the best agrees with the teacher, out of fold.
    pub agreement: f64,
    /// Its two-sided exact interval.
    pub agreement_interval: (f64, f64),
    /// By target, ascending.
    pub targets: Vec<ScanTarget>,
    /// The target of [`Scan::rows`].
    pub middle_target: f64,
    /// By row.
    pub rows: Vec<ScanRow>,
    /// Coverage against agreement out of fold, by rising coverage.
    pub frontier: Vec<GateStats>,
    /// The learning curve, by rising number of traces.
    pub curve: Vec<CurvePoint>,
    /// The law it follows.
    pub learning: Learning,
}

/// The configuration of a scan: logistic regressions alone, one of each kind, and no guard.
pub fn scan_config() -> FitConfig {
    FitConfig {
        only: ["dense_logistic", "lexical_logistic", "fused_logistic"]
            .map(str::to_owned)
            .to_vec(),
        dense_c: vec![30.0],
        lexical_c: vec![30.0],
        fused_c: vec![30.0],
        ood_budget: 0.0,
        cascade: false,
        max_fit_traces: 30_000,
        ..FitConfig::default()
    }
}

/// Looks at a dataset, whose rows are in the order of their arrival and weigh the same.
///
/// `config` is [`scan_config`] with targets, δ, features and seed of one's own. Above
/// its `max_fit_traces` an even sample is looked at. CPU-bound and blocking; uses the
/// current rayon pool. An error says why nothing can be estimated.
pub fn scan(
    task: &str,
    data: &Dataset,
    config: &FitConfig,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Scan, FitError> {
    let mut config = config.clone();
    config.targets.sort_by(f64::total_cmp);
    config.targets.dedup();
    config.check()?;
    let usable = usable_rows(data, config.features)?;
    if usable.rows.len() < LEAST {
        return Err(FitError::TooFewTraces {
            have: usable.rows.len(),
            need: LEAST,
        });
    }
    let rows = to_certify_on(data, &usable.rows, config.max_fit_traces, config.seed).rows;
    let parts: Vec<&[usize]> = PARTS
        .iter()
        .map(|part| &rows[..rows.len() / part])
        .filter(|part| part.len() == rows.len() || part.len() >= LEAST_OF_POINT)
        .collect();
    let progress = Progressing::new(config.only.len() * parts.len(), progress);
    let gates: Vec<Gate> = config
        .targets
        .iter()
        .map(|&target| Gate {
            target,
            delta: config.delta,
            coverage_floor: config.coverage_floor,
            mode: config.gate,
            weight_cap: None,
        })
        .collect();
    let mut curve = Vec::with_capacity(parts.len());
    let mut assessed = Vec::new();
    for part in parts {
        let fitted = out_of_fold(task, data, part, usable.features, &config, &progress);
        match fitted {
            Ok(fitted) => {
                curve.push(point(data, part, &fitted, &gates, &config));
                assessed = fitted;
            }
            // Too little of it yet: that says nothing of the whole.
            Err(_) if part.len() < rows.len() => {}
            Err(error) => return Err(error),
        }
    }
    let learning = Learning::of(&curve);
    let targets: Vec<ScanTarget> = gates
        .par_iter()
        .map(|gate| target(gate, &config, &assessed, learning))
        .collect();
    let middle = targets.len() / 2;
    let (best, _) = best_of(&assessed, &gates[middle], shadow(rows.len(), &config));
    let chosen = &assessed[best];
    let handled = handled(&chosen.scored, targets[middle].expected_coverage);
    let right = agreeing(&assessed[0].scored);
    let outlook = Curve::new(&chosen.scored, None);
    Ok(Scan {
        usable: usable.rows.len(),
        looked_at: rows.len(),
        dense: usable.features.dense,
        lexical: usable.features.lexical,
        surrogates: assessed
            .iter()
            .map(|a| (a.name.clone(), a.macro_f1))
            .collect(),
        agreement: right as f64 / rows.len() as f64,
        agreement_interval: clopper_pearson_interval(right as u64, rows.len() as u64, config.delta),
        middle_target: targets[middle].target,
        rows: rows
            .iter()
            .enumerate()
            .map(|(i, &row)| ScanRow {
                row,
                predicted: chosen.predicted[i],
                handled: handled[i],
            })
            .collect(),
        frontier: outlook
            .thresholds((rows.len() / 50).max(1))
            .into_iter()
            .map(|t| outlook.stats(t, config.delta))
            .collect(),
        targets,
        curve,
        learning,
    })
}

/// Rows of the shadow split of a refit on `traces`.
fn shadow(traces: usize, config: &FitConfig) -> usize {
    (config.shadow_share * traces as f64).round() as usize
}

fn agreeing(scored: &[Scored]) -> usize {
    scored.iter().filter(|row| row.agrees).count()
}

fn point(
    data: &Dataset,
    part: &[usize],
    fitted: &[Assessed],
    gates: &[Gate],
    config: &FitConfig,
) -> CurvePoint {
    let mut labels: Vec<u32> = part.iter().map(|&row| data.label(row)).collect();
    labels.sort_unstable();
    labels.dedup();
    let shadow = shadow(part.len(), config);
    CurvePoint {
        traces: part.len(),
        labels: labels.len(),
        agreement: agreeing(&fitted[0].scored) as f64 / part.len() as f64,
        expected_coverage: gates
            .iter()
            .map(|gate| {
                if part.len() < config.min_traces {
                    return 0.0;
                }
                let (best, _) = best_of(fitted, gate, shadow);
                mean(&draws(gate, &fitted[best].scored, config.shadow_share))
            })
            .collect(),
    }
}

/// The surrogate that lets one expect the most coverage, and that coverage.
fn best_of(fitted: &[Assessed], gate: &Gate, shadow: usize) -> (usize, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, one) in fitted.iter().enumerate() {
        let coverage = gate.expected_coverage(&one.scored, shadow);
        if coverage > best.1 {
            best = (i, coverage);
        }
    }
    (best.0, best.1.clamp(0.0, 1.0))
}

/// The share `coverage` of the rows, the surest first.
fn handled(scored: &[Scored], coverage: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scored.len()).collect();
    order.sort_by(|&a, &b| scored[b].score.total_cmp(&scored[a].score));
    let mut handled = vec![false; scored.len()];
    for &i in &order[..(coverage * scored.len() as f64).round() as usize] {
        handled[i] = true;
    }
    handled
}

fn target(
    gate: &Gate,
    config: &FitConfig,
    assessed: &[Assessed],
    learning: Learning,
) -> ScanTarget {
    let traces = assessed[0].scored.len();
    let (best, promised) = best_of(assessed, gate, shadow(traces, config));
    let scored = &assessed[best].scored;
    let mut sorted = scored.clone();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let share = config.shadow_share;
    // A refit refuses fewer traces, whatever they promise.
    let enough = traces >= config.min_traces;
    let draws = if enough {
        draws(gate, scored, share)
    } else {
        vec![0.0]
    };
    let passed = draws.iter().filter(|coverage| **coverage > 0.0).count();
    let passes = passed as f64 / draws.len() as f64;
    let percentile = |p: f64| draws[(p * (draws.len() - 1) as f64).round() as usize];
    let expected = mean(&draws);
    let need = |coverage: f64| {
        let needed = need_beyond(gate, &sorted, share, learning, coverage);
        if expected >= coverage && passes >= 0.5 {
            return Need {
                at_best: Some(traces),
                at_worst: Some(traces),
                by_statistics: Some(traces),
                ..needed
            };
        }
        // A refit needs so many in any case, and these were not enough.
        let least = |n: Option<usize>| n.map(|n| n.max(config.min_traces));
        Need {
            at_best: least(needed.at_best),
            at_worst: least(needed.at_worst),
            by_statistics: least(needed.by_statistics),
            ..needed
        }
    };
    let limit = limit(&sorted, gate.target);
    // About where a refit passes as often as not: half of what it would handle.
    let to_start = need((0.5 * limit).max(START * gate.coverage_floor));
    let verdict = if passes >= 0.5 {
        Certifiable::Now
    } else if to_start.at_best.is_some() {
        Certifiable::NotYet
    } else if enough {
        Certifiable::NotWithTheseFeatures
    } else {
        Certifiable::CannotTell
    };
    ScanTarget {
        target: gate.target,
        verdict,
        expected_coverage: expected,
        promised_coverage: if enough { promised } else { 0.0 },
        passes,
        coverage_range: [percentile(0.1), percentile(0.9)],
        surrogate: assessed[best].name.clone(),
        coverage_limit: limit,
        // More traces of the same kind never promise less.
        coverage_at_twice: at_twice(gate, &sorted, share, learning).map(|c| c.max(expected)),
        to_start: (verdict != Certifiable::Now).then_some(to_start),
        to_handle_most: need(MOST),
        shadow: shadow_need(gate, &sorted, share, MOST),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What the gate certifies on shadow splits drawn from the rows, the rest being out of
/// fold: coverage, ascending, 0 for a refusal. The draws overlap, so they vary somewhat
/// less than refits on fresh traces would.
fn draws(gate: &Gate, scored: &[Scored], share: f64) -> Vec<f64> {
    let mut coverages: Vec<f64> = (0..DRAWS)
        .into_par_iter()
        .map(|draw| {
            let is_shadow = |row: usize| {
                let hash = stable_hash(&[&draw.to_le_bytes(), &(row as u64).to_le_bytes()]);
                ((hash >> 11) as f64 / (1_u64 << 53) as f64) < share
            };
            let (mut shadow, mut out_of_fold) = (Vec::new(), Vec::new());
            for (row, scored) in scored.iter().enumerate() {
                if is_shadow(row) {
                    shadow.push(*scored);
                } else {
                    out_of_fold.push(*scored);
                }
            }
            let choice = gate.choose(&[Policy {
                out_of_fold: &out_of_fold,
                shadow: &shadow,
            }]);
            choice.verdict.map_or(0.0, |()| choice.stats.coverage)
        })
        .collect();
    coverages.sort_by(f64::total_cmp);
    coverages
}

/// The largest share of sorted rows on which agreement reaches the target. Rows of one
/// score are taken together.
fn limit(sorted: &[Scored], target: f64) -> f64 {
    let (mut right, mut most) = (0_usize, 0_usize);
    for (i, row) in sorted.iter().enumerate() {
        right += usize::from(row.agrees);
        let whole = sorted.get(i + 1).is_none_or(|next| next.score < row.score);
        if whole && right as f64 >= target * (i + 1) as f64 {
            most = i + 1;
        }
    }
    most as f64 / sorted.len().max(1) as f64
}

#[cfg(test)]
mod tests;
