//! The whole fitted policy. What the gate certifies and what is served are this
//! one object, through this one function: [`Pipeline::decide`].

use serde::{Deserialize, Serialize};

pub use crate::surrogate::{Input, Scratch};
use crate::{
    acceptor::Acceptor,
    confidence::{features, top},
    gate::{ACCEPT_ALL, GateStats},
    surrogate::{Lacks, Surrogate},
};

/// How a pipeline decides what it handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The surrogate handles everything.
    Global,
    /// The acceptor decides.
    L2d,
}

impl Family {
    /// As in reports and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::L2d => "l2d",
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
    /// The selected candidate.
    pub surrogate: String,
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
}

/// A fitted, certified pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) card: PipelineCard,
    pub(crate) labels: Vec<String>,
    pub(crate) surrogate: Surrogate,
    pub(crate) acceptor: Acceptor,
}

/// What a pipeline says to one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// The surrogate answers.
    Handled {
        /// Index into [`Pipeline::labels`].
        label: usize,
        /// The acceptor's score.
        score: f32,
    },
    /// The teacher must be asked.
    Deferred {
        /// Why.
        reason: DeferReason,
        /// What the surrogate would have said, when it looked.
        label: Option<usize>,
        /// The acceptor's score; 0 when nothing was scored.
        score: f32,
    },
}

/// Why a pipeline defers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// The score is below the threshold.
    LowScore,
    /// The input is unlike what the pipeline was certified on.
    OutOfDistribution,
    /// It needs an embedding and there is none.
    NoEmbedding,
    /// It needs text and there is none.
    NoText,
}

/// An input that is wrong, rather than hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// The embedding comes from another model.
    #[error("the embedding has {got} dimensions, the pipeline takes {expected}")]
    WrongDimension {
        /// What the pipeline takes.
        expected: usize,
        /// What was sent.
        got: usize,
    },
    /// A value that is not a number, or infinite.
    #[error("value {index} of the embedding is not finite")]
    NotFinite {
        /// Position in the embedding.
        index: usize,
    },
}

impl Pipeline {
    /// Decides one input. `scratch` is working space: keep one per thread.
    pub fn decide(&self, input: Input<'_>, scratch: &mut Scratch) -> Result<Decision, DecideError> {
        let input = Input {
            text: input.text.filter(|t| !t.trim().is_empty()),
            ..input
        };
        if let (Some(embedding), Some(expected)) = (input.embedding, self.card.embedding_dimension)
        {
            if embedding.len() != expected {
                return Err(DecideError::WrongDimension {
                    expected,
                    got: embedding.len(),
                });
            }
            if let Some(index) = embedding.iter().position(|v| !v.is_finite()) {
                return Err(DecideError::NotFinite { index });
            }
        }
        if let Err(lacks) = self.surrogate.predict(input, scratch) {
            let reason = match lacks {
                Lacks::Text => DeferReason::NoText,
                Lacks::Embedding => DeferReason::NoEmbedding,
            };
            return Ok(Decision::Deferred {
                reason,
                label: None,
                score: 0.0,
            });
        }
        let best = top(&scratch.probabilities);
        let reliability = self.acceptor.reliability.of(best.label, None);
        features(
            &scratch.probabilities,
            &scratch.components,
            best,
            reliability,
            &mut scratch.features,
        );
        let score = self.acceptor.score(&scratch.features);
        Ok(if score >= self.card.threshold {
            Decision::Handled {
                label: best.label,
                score,
            }
        } else {
            Decision::Deferred {
                reason: DeferReason::LowScore,
                label: Some(best.label),
                score,
            }
        })
    }

    /// The class probabilities of the last [`Pipeline::decide`] on this scratch
    /// that got as far as scoring, by [`Pipeline::labels`].
    pub fn probabilities<'s>(&self, scratch: &'s Scratch) -> &'s [f32] {
        &scratch.probabilities
    }

    /// The label space.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What this pipeline is.
    pub fn card(&self) -> &PipelineCard {
        &self.card
    }

    pub(crate) fn certify(&mut self, threshold: f32, shadow: GateStats) {
        self.card.threshold = threshold;
        self.card.family = if threshold <= ACCEPT_ALL {
            Family::Global
        } else {
            Family::L2d
        };
        self.card.shadow = shadow;
    }
}
