//! A refit: from rows to certified pipelines.
//!
//! 1. The shadow split is set aside; nothing but the gate looks at it.
//! 2. Every candidate is cross-fitted on the rest. Out-of-fold predictions
//!    select the surrogate, train the acceptor and order the thresholds.
//! 3. The surrogate is fitted on all of the rest.
//! 4. For each target, the gate walks the thresholds on the shadow split through
//!    the same [`Pipeline::decide`] that will serve.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use rayon::prelude::*;
use tracer_features::Hasher;

use crate::{
    acceptor::Acceptor,
    candidate::{CrossFitted, Training, cross_fit, pool},
    confidence::{FEATURES, Reliability, features, top},
    config::{FeatureMode, FitConfig, InvalidSetting},
    dataset::Dataset,
    gate::{ACCEPT_ALL, Curve, Gate, GateStats, Policy, Scored},
    pipeline::{Decision, Family, Input, Pipeline, PipelineCard, Scratch},
    split::{Split, split},
    surrogate::{Surrogate, average},
};

/// How far a refit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was just finished.
    pub stage: String,
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
}

/// A refit that gets as far as no verdict: nothing is published.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// Too few rows to learn and to certify anything.
    #[error("{have} usable traces; a refit needs at least {need}")]
    TooFewTraces {
        /// Rows with every feature in use.
        have: usize,
        /// The configured least.
        need: usize,
    },
    /// Nothing to tell apart.
    #[error("every training trace has the label {label:?}; there is nothing to classify")]
    OneClass {
        /// The only label.
        label: String,
    },
    /// Labels that look like free text.
    #[error("{have} distinct labels; at most {limit} are supported")]
    TooManyLabels {
        /// Distinct labels.
        have: usize,
        /// The configured most.
        limit: usize,
    },
    /// The traces lack what the configured features stand on.
    #[error("no usable features: {0}")]
    NoFeatures(&'static str),
    /// No candidate could be fitted.
    #[error("no candidate could be fitted: {0}")]
    NoCandidate(String),
}

impl FitError {
    /// A short word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Setting(_) => "bad_setting",
            Self::TooFewTraces { .. } => "too_few_traces",
            Self::OneClass { .. } => "one_class",
            Self::TooManyLabels { .. } => "too_many_labels",
            Self::NoFeatures(_) => "no_features",
            Self::NoCandidate(_) => "no_candidate",
        }
    }
}

/// What the gate said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pipeline may serve.
    Passed,
    /// It may not.
    Refused {
        /// Why, in plain words.
        reason: String,
    },
}

/// One row of the shadow split as the pipeline saw it, at the outcome's threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowRow {
    /// Row of the dataset.
    pub row: usize,
    /// The surrogate's label: an index into [`Outcome::labels`].
    pub predicted: usize,
    /// Whether it is the teacher's.
    pub agrees: bool,
    /// The acceptor's score.
    pub score: f32,
    /// Whether the outcome's pipeline handles it. After a refusal: whether the
    /// first threshold that was tried would.
    pub handled: bool,
}

/// A candidate's standing in the selection.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateScore {
    /// The candidate.
    pub name: String,
    /// Macro-averaged F1 against the teacher, out of fold.
    pub macro_f1: f64,
}

/// The outcome of a refit for one target.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The target agreement α.
    pub target: f64,
    /// What the gate said.
    pub verdict: Verdict,
    /// The certified pipeline, exactly when the verdict is `Passed`.
    pub pipeline: Option<Pipeline>,
    /// The shadow statistics at the chosen threshold, or at the first one tried.
    pub shadow: GateStats,
    /// How the pipeline decides.
    pub family: Family,
    /// The selected candidate.
    pub surrogate: String,
    /// The threshold, chosen or first tried.
    pub threshold: f32,
    /// Rows trained on.
    pub training_traces: usize,
    /// Rows without the features in use, which neither trained nor certified.
    pub left_out: usize,
    /// All candidates, best first.
    pub candidates: Vec<CandidateScore>,
    /// The label space of the surrogate.
    pub labels: Vec<String>,
    /// The shadow split, row by row.
    pub shadow_rows: Vec<ShadowRow>,
    /// Shadow statistics over the whole range of thresholds, by rising coverage.
    /// For the eye only: the gate's promise is about the chosen threshold.
    pub frontier: Vec<GateStats>,
    /// Wall time of the fits, which all targets share, and of this target's gate.
    pub fit_seconds: f64,
}

/// Fits all candidates once and certifies a pipeline for each target.
///
/// CPU-bound and blocking; uses the current rayon pool. The outcome depends on
/// data, configuration and seed alone, not on the number of threads.
pub fn refit(
    task: &str,
    data: &Dataset,
    config: &FitConfig,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Outcome>, FitError> {
    let started = Instant::now();
    config.check()?;
    let usable = usable_rows(data, config.features)?;
    if usable.rows.len() < config.min_traces.max(2) {
        return Err(FitError::TooFewTraces {
            have: usable.rows.len(),
            need: config.min_traces.max(2),
        });
    }
    let split = split(
        task,
        data,
        &usable.rows,
        config.shadow_share,
        config.folds,
        config.seed,
    );
    let space = LabelSpace::of(data, &split, config)?;
    let labels: Vec<u32> = split
        .training
        .iter()
        .map(|&row| space.class(data, row).expect("trained on"))
        .collect();
    let mut training = Training {
        data,
        rows: &split.training,
        folds: &split.folds,
        labels: &labels,
        classes: space.names.len(),
        hashed: Vec::new(),
        config,
    };
    if usable.lexical {
        let hasher = Hasher::new(&config.lexicon);
        training.hashed = split
            .training
            .par_iter()
            .map(|&row| hasher.hash(data.text(row).expect("has text")))
            .collect();
    }

    let pool = pool(config, usable.dense, usable.lexical);
    let total = pool.len() * config.folds + 2;
    let done = AtomicUsize::new(0);
    let progress = Mutex::new(progress);
    let report = |stage: &str| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(mut progress) = progress.lock() {
            (*progress)(Progress {
                stage: stage.to_owned(),
                done,
                total,
            });
        }
    };
    let candidates = cross_fit(&training, &pool, &report);
    let best = candidates
        .first()
        .ok_or_else(|| FitError::NoCandidate("the pool is empty".into()))?;

    let (acceptor, out_of_fold) = fit_acceptor(&training, best)?;
    let components = best
        .parts
        .par_iter()
        .map(|base| base.fit(&training, None))
        .collect();
    report(&format!("{} on all training traces", best.name));
    let surrogate = Surrogate::new(components);
    let mut pipeline = Pipeline {
        card: PipelineCard {
            task: task.to_owned(),
            family: Family::L2d,
            surrogate: best.name.clone(),
            target_agreement: 0.0,
            delta: config.delta,
            threshold: ACCEPT_ALL,
            embedding_dimension: surrogate.embedding_dimension(),
            needs_text: surrogate.needs_text(),
            shadow: GateStats::default(),
            training_traces: split.training.len(),
        },
        labels: space.names.clone(),
        surrogate,
        acceptor,
    };
    let shadow_rows = score_shadow(&pipeline, data, &split, &space);
    report("the shadow split");
    let shared_seconds = started.elapsed().as_secs_f64();

    let scored: Vec<Scored> = shadow_rows
        .iter()
        .map(|r| Scored::new(r.score, r.agrees))
        .collect();
    let outcomes = config.targets.iter().map(|&target| {
        let started = Instant::now();
        let gate = Gate {
            target,
            delta: config.delta,
            coverage_floor: config.coverage_floor,
            mode: config.gate,
            weight_cap: None,
        };
        let choice = gate.choose(&[Policy {
            out_of_fold: &out_of_fold,
            shadow: &scored,
        }]);
        let threshold = choice.threshold;
        pipeline.card.target_agreement = target;
        pipeline.certify(threshold, choice.stats);
        let passed = choice.verdict.is_ok();
        Outcome {
            target,
            verdict: match choice.verdict {
                Ok(()) => Verdict::Passed,
                Err(reason) => Verdict::Refused { reason },
            },
            shadow: choice.stats,
            family: pipeline.card.family,
            surrogate: best.name.clone(),
            threshold,
            training_traces: split.training.len(),
            left_out: data.len() - usable.rows.len(),
            candidates: candidates
                .iter()
                .map(|c| CandidateScore {
                    name: c.name.clone(),
                    macro_f1: c.macro_f1,
                })
                .collect(),
            labels: space.names.clone(),
            shadow_rows: shadow_rows
                .iter()
                .map(|r| ShadowRow {
                    handled: r.score >= threshold,
                    ..*r
                })
                .collect(),
            frontier: frontier(&scored, config.delta),
            fit_seconds: shared_seconds + started.elapsed().as_secs_f64(),
            pipeline: passed.then(|| pipeline.clone()),
        }
    });
    Ok(outcomes.collect())
}

struct Usable {
    rows: Vec<usize>,
    dense: bool,
    lexical: bool,
}

/// The kinds of features to use and the rows that have them. A kind that nine
/// rows in ten carry is used, and the rows without it are left out; of two
/// rarer kinds the commoner one is.
fn usable_rows(data: &Dataset, mode: FeatureMode) -> Result<Usable, FitError> {
    let n = data.len();
    let with_text = (0..n).filter(|&i| data.text(i).is_some()).count();
    let with_embedding = (0..n).filter(|&i| data.embedding(i).is_some()).count();
    let common = |count: usize| count > 0 && count * 10 >= n * 9;
    let (dense, lexical) = match mode {
        FeatureMode::Dense if with_embedding == 0 && n > 0 => {
            return Err(FitError::NoFeatures(
                "dense features are asked for and no trace has an embedding",
            ));
        }
        FeatureMode::Lexical if with_text == 0 && n > 0 => {
            return Err(FitError::NoFeatures(
                "lexical features are asked for and no trace has text",
            ));
        }
        FeatureMode::Dense => (true, false),
        FeatureMode::Lexical => (false, true),
        FeatureMode::Auto if common(with_embedding) || common(with_text) => {
            (common(with_embedding), common(with_text))
        }
        FeatureMode::Auto => (with_embedding > with_text, with_embedding <= with_text),
    };
    let rows = (0..n)
        .filter(|&i| {
            (!dense || data.embedding(i).is_some()) && (!lexical || data.text(i).is_some())
        })
        .collect();
    Ok(Usable {
        rows,
        dense,
        lexical,
    })
}

/// The classes a surrogate can answer: the labels of the training rows, by name.
struct LabelSpace {
    names: Vec<String>,
    /// Class by the dataset's label; `None` for labels only the shadow split has.
    classes: Vec<Option<u32>>,
}

impl LabelSpace {
    fn of(data: &Dataset, split: &Split, config: &FitConfig) -> Result<Self, FitError> {
        let mut seen = vec![false; data.label_names().len()];
        for &row in &split.training {
            seen[data.label(row) as usize] = true;
        }
        let mut order: Vec<usize> = (0..seen.len()).filter(|&l| seen[l]).collect();
        order.sort_by_key(|&l| &data.label_names()[l]);
        if order.len() > config.max_labels {
            return Err(FitError::TooManyLabels {
                have: order.len(),
                limit: config.max_labels,
            });
        }
        if let [only] = order[..] {
            return Err(FitError::OneClass {
                label: data.label_names()[only].clone(),
            });
        }
        if order.is_empty() {
            return Err(FitError::TooFewTraces {
                have: 0,
                need: config.min_traces,
            });
        }
        let mut classes = vec![None; seen.len()];
        for (class, &label) in order.iter().enumerate() {
            classes[label] = Some(class as u32);
        }
        Ok(Self {
            names: order
                .iter()
                .map(|&l| data.label_names()[l].clone())
                .collect(),
            classes,
        })
    }

    fn class(&self, data: &Dataset, row: usize) -> Option<u32> {
        self.classes[data.label(row) as usize]
    }
}

/// The acceptor, and the out-of-fold predictions with its scores.
fn fit_acceptor(
    training: &Training<'_>,
    best: &CrossFitted,
) -> Result<(Acceptor, Vec<Scored>), FitError> {
    let n = training.rows.len();
    let parts = |i: usize| {
        best.out_of_fold
            .iter()
            .map(|part| part[i].as_slice())
            .collect::<Vec<_>>()
    };
    let mut mean = Vec::new();
    let tops: Vec<_> = (0..n)
        .map(|i| {
            average(&parts(i), &mut mean);
            top(&mean)
        })
        .collect();
    let agrees: Vec<bool> = tops
        .iter()
        .zip(training.labels)
        .map(|(t, &l)| t.label == l as usize)
        .collect();
    let outcomes = tops.iter().zip(&agrees).map(|(t, &a)| (t.label, a));
    let reliability = Reliability::fit(training.classes, outcomes);
    let mut row = Vec::new();
    let rows: Vec<[f64; FEATURES]> = (0..n)
        .map(|i| {
            let parts = parts(i);
            average(&parts, &mut mean);
            features(
                &mean,
                &parts,
                tops[i],
                reliability.of(tops[i].label, Some(agrees[i])),
                &mut row,
            );
            std::array::from_fn(|j| row[j])
        })
        .collect();
    let acceptor = Acceptor::fit(&rows, &agrees, reliability).map_err(FitError::NoCandidate)?;
    let scored = rows
        .iter()
        .zip(&agrees)
        .map(|(row, &agrees)| Scored::new(acceptor.score(row), agrees))
        .collect();
    Ok((acceptor, scored))
}

fn score_shadow(
    pipeline: &Pipeline,
    data: &Dataset,
    split: &Split,
    space: &LabelSpace,
) -> Vec<ShadowRow> {
    split
        .shadow
        .par_iter()
        .map_init(Scratch::default, |scratch, &row| {
            let input = Input {
                text: data.text(row),
                embedding: data.embedding(row),
            };
            let decision = pipeline
                .decide(input, scratch)
                .expect("the dataset's rows are of one shape");
            let (predicted, score) = match decision {
                Decision::Handled { label, score }
                | Decision::Deferred {
                    label: Some(label),
                    score,
                    ..
                } => (label, score),
                Decision::Deferred { label: None, .. } => {
                    unreachable!("rows in use have every feature in use")
                }
            };
            let agrees = space.class(data, row) == Some(predicted as u32);
            ShadowRow {
                row,
                predicted,
                agrees,
                score,
                handled: false,
            }
        })
        .collect()
}

fn frontier(shadow: &[Scored], delta: f64) -> Vec<GateStats> {
    let curve = Curve::new(shadow, None);
    curve
        .thresholds((shadow.len() / 50).max(1))
        .into_iter()
        .map(|t| curve.stats(t, delta))
        .collect()
}
