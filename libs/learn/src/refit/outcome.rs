//! What a refit says.

use crate::{
    config::InvalidSetting,
    gate::GateStats,
    pipeline::{Family, Pipeline},
};

/// How far a refit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was just finished.
    pub stage: String,
    /// Steps done.
    pub done: usize,
    /// Steps in all, as far as is known yet: it may grow while candidates race.
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
    /// The score that is held against the threshold.
    pub score: f32,
    /// Whether the out-of-distribution guard defers it, whatever the score.
    pub foreign: bool,
    /// Whether the outcome's pipeline handles it. After a refusal: whether the
    /// first threshold that was tried would.
    pub handled: bool,
}

/// A candidate's standing in the selection.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateScore {
    /// The candidate, or the candidates of a blend joined by `+`.
    pub name: String,
    /// Macro-averaged F1 against the teacher, out of fold: over all folds, or
    /// over the first one for a candidate that dropped out after it. `None` for
    /// one that could not be fitted.
    pub macro_f1: Option<f64>,
    /// Why it dropped out.
    pub dropped: Option<String>,
}

/// What a family promised at the outcome's target before the shadow split was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyScore {
    /// The family.
    pub family: Family,
    /// Its surrogate, or its first one.
    pub surrogate: String,
    /// The coverage that out-of-fold predictions let one expect to certify.
    pub expected_coverage: f64,
}

/// A point of the frontier over targets: what the gate says at another target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetPoint {
    /// The other target.
    pub target: f64,
    /// Whether it would pass.
    pub passed: bool,
    /// The shadow statistics there.
    pub shadow: GateStats,
}

/// What the guard would do at another budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetPoint {
    /// The budget: share of in-distribution traffic the guard may defer.
    pub budget: f64,
    /// Share of the shadow split it defers.
    pub foreign: f64,
    /// The shadow statistics at the outcome's threshold.
    pub shadow: GateStats,
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
    /// The pipeline that the gate turned down, for what it can tell of the refusal. Nothing
    /// vouches for it: it must never serve.
    pub uncertified: Option<Pipeline>,
    /// The share of the rows that was set aside for the gate.
    pub shadow_share: f64,
    /// The shadow statistics at the chosen threshold, or at the first one tried.
    pub shadow: GateStats,
    /// How the pipeline decides.
    pub family: Family,
    /// The selected surrogate.
    pub surrogate: String,
    /// The threshold, chosen or first tried.
    pub threshold: f32,
    /// Rows trained on.
    pub training_traces: usize,
    /// Rows that neither trained nor certified: those without the features in use,
    /// and those of the training side whose embedding is out of all proportion.
    pub left_out: usize,
    /// Rows beyond the cap, which did not train either.
    pub not_sampled: usize,
    /// All candidates and blends, best first; then those that dropped out.
    pub candidates: Vec<CandidateScore>,
    /// The families that competed at this target, the one of the most expected
    /// coverage first. [`Outcome::family`] tells what became of it: a walk of `l2d`
    /// that ends at "accept everything" is `global`.
    pub families: Vec<FamilyScore>,
    /// The label space of the surrogate.
    pub labels: Vec<String>,
    /// The shadow split, row by row.
    pub shadow_rows: Vec<ShadowRow>,
    /// Shadow statistics over the whole range of thresholds, by rising coverage.
    /// For the eye only: the gate's promise is about the chosen threshold.
    pub frontier: Vec<GateStats>,
    /// What this outcome's policy would pass with at other targets. For the eye only.
    pub targets: Vec<TargetPoint>,
    /// What the guard would defer at other budgets. For the eye only.
    pub budgets: Vec<BudgetPoint>,
    /// Wall time of the fits, which all targets share, and of this target's gate.
    pub fit_seconds: f64,
}
