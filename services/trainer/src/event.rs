//! What the trainer tells whoever listens in the same process.

use tracer_learn::{Family, GateStats};
use tracer_trace::TaskName;

/// A refit has ended.
#[derive(Clone, Debug)]
pub struct RefitEvent {
    /// The task.
    pub task: TaskName,
    /// Distinct traces of the task at the time.
    pub traces: u64,
    /// Whether it began at the active version.
    pub incremental: bool,
    /// How it ended.
    pub result: RefitResult,
    /// How long it took, reading included.
    pub seconds: f64,
}

/// How a refit ended.
#[derive(Clone, Debug)]
pub enum RefitResult {
    /// A version was published.
    Published {
        /// Its number.
        version: u64,
        /// How it decides.
        family: Family,
        /// The selected candidate.
        surrogate: String,
        /// What the gate saw on the shadow split.
        shadow: GateStats,
    },
    /// The gate, or the learner before it, refused.
    Refused {
        /// Why, in plain words.
        reason: String,
        /// What the gate saw, when it came to that.
        shadow: Option<GateStats>,
        /// The selected candidate, when there was one.
        surrogate: Option<String>,
    },
    /// It could not be finished.
    Failed {
        /// What went wrong.
        error: String,
    },
}

impl RefitResult {
    /// The value of the label `verdict`.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Published { .. } => "passed",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
        }
    }

    /// The version that was published.
    pub fn version(&self) -> Option<u64> {
        match self {
            Self::Published { version, .. } => Some(*version),
            Self::Refused { .. } | Self::Failed { .. } => None,
        }
    }

    /// How the published version decides.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::Published { family, .. } => Some(*family),
            Self::Refused { .. } | Self::Failed { .. } => None,
        }
    }

    /// The selected candidate, published or refused.
    pub fn surrogate(&self) -> Option<&str> {
        match self {
            Self::Published { surrogate, .. } => Some(surrogate),
            Self::Refused { surrogate, .. } => surrogate.as_deref(),
            Self::Failed { .. } => None,
        }
    }

    /// What the gate saw on the shadow split, when it came to that.
    pub fn shadow(&self) -> Option<GateStats> {
        match self {
            Self::Published { shadow, .. } => Some(*shadow),
            Self::Refused { shadow, .. } => *shadow,
            Self::Failed { .. } => None,
        }
    }

    /// Why nothing was published.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Published { .. } => None,
            Self::Refused { reason, .. } => Some(reason),
            Self::Failed { error } => Some(error),
        }
    }

    /// All values of the label `verdict`.
    pub const VERDICTS: [&'static str; 3] = ["passed", "refused", "failed"];
}
