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

    /// All values of the label `verdict`.
    pub const VERDICTS: [&'static str; 3] = ["passed", "refused", "failed"];
}
