//! The whole fitted policy. What the gate certifies and what is served are this
//! one object, through one function: [`Pipeline::decide`], in `decide.rs`.

use serde::{Deserialize, Serialize};
use tracer_features::{Lexicon, LexiconConfig};

use crate::{
    acceptor::Acceptor,
    component::Needs,
    dataset::Dataset,
    gate::{ACCEPT_ALL, GateStats},
    ood::Guard,
    surrogate::Surrogate,
};

pub(crate) use crate::decide::{Decision, DeferReason, Scratch, first_score, second_score};

/// How a pipeline decides what it handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The surrogate handles everything that the guard lets through.
    Global,
    /// The acceptor decides.
    L2d,
    /// A residual two-stage cascade: what the first acceptor turns down, a second
    /// surrogate with an acceptor of its own looks at, fitted on such rows alone.
    Rsb,
}

impl Family {
    /// As in reports and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::L2d => "l2d",
            Self::Rsb => "rsb",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a pipeline is, apart from its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineCard {
    /// The task it was fitted for.
    pub task: String,
    /// How it decides.
    pub family: Family,
    /// The selected surrogate: a candidate, or several joined by `+`.
    pub surrogate: String,
    /// Its candidates with their settings, in the order of its components.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// The candidates that reached the end of the last refit that tried the whole pool:
    /// those that an incremental refit tries again.
    #[serde(default)]
    pub finalists: Vec<String>,
    /// The training traces of that refit.
    #[serde(default)]
    pub pool_traces: usize,
    /// The target agreement α it was certified at.
    pub target_agreement: f64,
    /// The promise may fail with this probability.
    pub delta: f64,
    /// The threshold τ on the acceptor's score.
    pub threshold: f32,
    /// Dimension of the embeddings it needs; `None` when it needs none.
    pub embedding_dimension: Option<usize>,
    /// Whether it needs text.
    pub needs_text: bool,
    /// The certificate.
    pub shadow: GateStats,
    /// Rows it was fitted on, the gate's not among them.
    pub training_traces: usize,
    /// What its split was drawn with.
    pub seed: u64,
    /// The share of the rows that its shadow split had.
    pub shadow_share: f64,
    /// How the inputs were hashed that its split was drawn by; empty when by their texts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub split_by: String,
}

/// A surrogate with its acceptor.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) surrogate: Surrogate,
    pub(crate) acceptor: Acceptor,
}

/// The second stage of a cascade, and what it gets to see.
#[derive(Clone, Debug)]
pub(crate) struct Residual {
    pub(crate) stage: Stage,
    /// Inputs that the first stage scores below this.
    pub(crate) entry: f32,
}

/// A fitted, certified pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) card: PipelineCard,
    pub(crate) labels: Vec<String>,
    /// Turns text into features, where the pipeline needs text.
    pub(crate) lexicon: Option<Lexicon>,
    pub(crate) guard: Option<Guard>,
    pub(crate) first: Stage,
    pub(crate) residual: Option<Residual>,
}

impl Pipeline {
    /// The label space.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What this pipeline is.
    pub fn card(&self) -> &PipelineCard {
        &self.card
    }

    /// How it cuts text into n-grams; `None` when it needs no text.
    pub fn lexicon_config(&self) -> Option<&LexiconConfig> {
        self.lexicon.as_ref().map(Lexicon::config)
    }

    /// Whether nothing of this pipeline was fitted on a row that is in the shadow split of
    /// a refit of `data` under `seed`, which sets `shadow_share` of the rows aside. Rows
    /// move from the shadow split to training as it becomes smaller, never back.
    pub fn has_not_seen(&self, task: &str, data: &Dataset, seed: u64, shadow_share: f64) -> bool {
        let same_draw = self.card.seed == seed && self.card.split_by == data.scheme();
        self.card.task == task && same_draw && self.card.shadow_share >= shadow_share
    }

    pub(crate) fn certify(&mut self, threshold: f32, shadow: GateStats) {
        self.card.threshold = threshold;
        self.card.family = if self.residual.is_some() {
            Family::Rsb
        } else if threshold <= ACCEPT_ALL {
            Family::Global
        } else {
            Family::L2d
        };
        self.card.shadow = shadow;
    }
}

impl Stage {
    /// The features it stands on.
    pub(crate) fn needs(&self) -> Needs {
        self.surrogate.needs()
    }
}
