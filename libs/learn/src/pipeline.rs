//! The whole fitted policy. What the gate certifies and what is served are this
//! one object, through this one function: [`Pipeline::decide`].

use pulp::Arch;
use serde::{Deserialize, Serialize};
use tracer_features::{HashedText, LexicalScratch, Lexicon, SparseRow};

use crate::{
    acceptor::Acceptor,
    component::{Features, Lacks, Needs},
    confidence::{Evidence, read, top},
    gate::{ACCEPT_ALL, GateStats},
    model::MlpScratch,
    ood::{Guard, GuardScratch, Signals},
    surrogate::{Prediction, Surrogate},
};

/// What is classified: text, an embedding, or both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// The text, where there is one.
    pub text: Option<&'a str>,
    /// The dense embedding, where there is one.
    pub embedding: Option<&'a [f32]>,
}

/// The text of an input, or what is kept of one that the gate may not see.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Words<'a> {
    Text(&'a str),
    Hashed(&'a HashedText),
}

/// Working space for deciding one input, reusable from call to call.
#[derive(Debug)]
pub struct Scratch {
    arch: Arch,
    lexical: LexicalScratch,
    row: SparseRow,
    mlp: MlpScratch,
    guard: GuardScratch,
    pub(crate) prediction: Prediction,
    cues: Vec<f64>,
    /// The guard's score of the last input; 0 without a guard.
    pub(crate) foreignness: f32,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            arch: Arch::new(),
            lexical: LexicalScratch::default(),
            row: SparseRow::default(),
            mlp: MlpScratch::default(),
            guard: GuardScratch::default(),
            prediction: Prediction::default(),
            cues: Vec::new(),
            foreignness: 0.0,
        }
    }
}

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
    /// The candidates that reached the end of the refit: those that an incremental
    /// refit tries again.
    #[serde(default)]
    pub finalists: Vec<String>,
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
    /// The input is unlike what the pipeline was certified on, or so large that the
    /// surrogate's scores are no numbers.
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
        let text = input.text.filter(|t| !t.trim().is_empty());
        self.decide_words(text.map(Words::Text), input.embedding, scratch)
    }

    /// [`Pipeline::decide`], for an input whose text may be there as its n-grams alone.
    pub(crate) fn decide_words(
        &self,
        words: Option<Words<'_>>,
        embedding: Option<&[f32]>,
        scratch: &mut Scratch,
    ) -> Result<Decision, DecideError> {
        if let (Some(embedding), Some(expected)) = (embedding, self.card.embedding_dimension) {
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
        let scored = match self.score(words, embedding, scratch) {
            Ok(scored) => scored,
            Err(lacks) => {
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
        };
        let Looked {
            label,
            score,
            foreign,
        } = scored;
        let deferred = |reason| Decision::Deferred {
            reason,
            label: Some(label),
            score,
        };
        Ok(if foreign {
            deferred(DeferReason::OutOfDistribution)
        } else if score >= self.card.threshold {
            Decision::Handled { label, score }
        } else {
            deferred(DeferReason::LowScore)
        })
    }

    /// What the pipeline makes of an input, before any threshold.
    fn score(
        &self,
        words: Option<Words<'_>>,
        embedding: Option<&[f32]>,
        scratch: &mut Scratch,
    ) -> Result<Looked, Lacks> {
        let Scratch {
            arch,
            lexical,
            row,
            mlp,
            guard,
            prediction,
            cues,
            foreignness: last,
        } = scratch;
        if let Some(lexicon) = &self.lexicon {
            match words.ok_or(Lacks::Text)? {
                Words::Text(text) => lexicon.features(text, lexical, row),
                Words::Hashed(hashed) => lexicon.weigh(hashed, row),
            }
        }
        let features = Features {
            dense: embedding,
            lexical: self.lexicon.is_some().then_some(&*row),
        };
        let first = &self.first;
        first.surrogate.predict(*arch, features, mlp, prediction)?;
        let (mut foreignness, mut foreign) = (0.0, false);
        if let Some(fitted) = &self.guard {
            let hashed = match words {
                Some(Words::Hashed(hashed)) => hashed,
                _ => lexical.hashed(),
            };
            let novelty = self.lexicon.as_ref().map(|l| l.novelty(hashed));
            let signals = Signals {
                embedding: features.dense,
                novelty,
                logits: &prediction.logits,
            };
            foreignness = fitted.score(&signals, guard);
            foreign = fitted.is_foreign(foreignness);
        }
        *last = foreignness;
        let (label, score) = first.accept(prediction, foreignness, cues);
        if score.is_nan() {
            return Ok(Looked::overflowed(label));
        }
        let Some(residual) = &self.residual else {
            return Ok(Looked {
                label,
                score,
                foreign,
            });
        };
        if score >= residual.entry {
            return Ok(Looked {
                label,
                score: first_score(score),
                foreign,
            });
        }
        let second = &residual.stage;
        second.surrogate.predict(*arch, features, mlp, prediction)?;
        let (label, score) = second.accept(prediction, foreignness, cues);
        if score.is_nan() {
            return Ok(Looked::overflowed(label));
        }
        Ok(Looked {
            label,
            score: second_score(score),
            foreign,
        })
    }

    /// The class probabilities of the last [`Pipeline::decide`] on this scratch
    /// that got as far as scoring, by [`Pipeline::labels`].
    pub fn probabilities<'s>(&self, scratch: &'s Scratch) -> &'s [f32] {
        &scratch.prediction.probabilities
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

/// What a pipeline makes of an input: label, score, and whether the guard objects.
struct Looked {
    label: usize,
    score: f32,
    foreign: bool,
}

impl Looked {
    /// Of an input so far out that the surrogate's numbers overflow. It is foreign,
    /// guard or no guard: no threshold may be held against what is not a number.
    fn overflowed(label: usize) -> Self {
        Self {
            label,
            score: 0.0,
            foreign: true,
        }
    }
}

impl Stage {
    /// The features it stands on.
    pub(crate) fn needs(&self) -> Needs {
        self.surrogate.needs()
    }

    /// The label and the acceptor's score.
    fn accept(
        &self,
        prediction: &Prediction,
        foreignness: f32,
        cues: &mut Vec<f64>,
    ) -> (usize, f32) {
        let best = top(&prediction.probabilities);
        let evidence = Evidence {
            probabilities: &prediction.probabilities,
            components: &prediction.components,
            top: best,
            reliability: self.acceptor.reliability.of(best.label),
            foreignness,
        };
        read(&self.acceptor.cues, &evidence, cues);
        (best.label, self.acceptor.score(cues))
    }
}

/// The scores of a cascade stand in one order: all that the first stage takes
/// come before all that is left to the second.
pub(crate) fn first_score(score: f32) -> f32 {
    0.5 + 0.5 * score
}

/// See [`first_score`]. Always below 0.5, were the second stage ever so sure.
pub(crate) fn second_score(score: f32) -> f32 {
    (0.5 * score).min(0.499_999)
}
