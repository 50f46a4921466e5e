//! Deciding: what the gate certifies and what serves, one input or many at a time.

use pulp::Arch;
use tracer_features::{HashedText, LexicalScratch, Novelty, SparseRow};

use crate::{
    block::{BLOCK, BlockScratch},
    component::{Features, Lacks},
    confidence::{Evidence, read, top},
    dataset::Dataset,
    model::MlpScratch,
    ood::{GuardScratch, Signals},
    pipeline::{Pipeline, Stage},
    surrogate::Prediction,
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

/// An input that is not wrong. A text of blanks is none.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    words: Option<Words<'a>>,
    embedding: Option<&'a [f32]>,
}

/// Working space for deciding one input, reusable from call to call.
#[derive(Debug)]
pub struct Scratch {
    arch: Arch,
    lexical: LexicalScratch,
    row: SparseRow,
    mlp: MlpScratch,
    block: BlockScratch,
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
            block: BlockScratch::default(),
            guard: GuardScratch::default(),
            prediction: Prediction::default(),
            cues: Vec::new(),
            foreignness: 0.0,
        }
    }
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

impl Decision {
    /// Of an input that lacks what the pipeline stands on.
    fn without(lacks: Lacks) -> Self {
        Self::Deferred {
            reason: match lacks {
                Lacks::Text => DeferReason::NoText,
                Lacks::Embedding => DeferReason::NoEmbedding,
            },
            label: None,
            score: 0.0,
        }
    }
}

/// The position of the first value that is not a number, or infinite. Looks at all
/// values before it looks for one: nearly always there is none.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    const EXPONENT: u32 = 0x7f80_0000;
    // Without a way out of the loop it becomes vector code.
    let found = values.iter().fold(0_u32, |found, v| {
        found | u32::from(v.to_bits() & EXPONENT == EXPONENT)
    });
    if found == 0 {
        return None;
    }
    values.iter().position(|v| !v.is_finite())
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
        self.decide_words(words(input), input.embedding, scratch)
    }

    /// [`Pipeline::decide`], for a row of a dataset. What is kept of a withheld text is
    /// taken to be cut as this pipeline's lexicon cuts: see [`Pipeline::has_not_seen`].
    pub fn decide_row(
        &self,
        data: &Dataset,
        row: usize,
        scratch: &mut Scratch,
    ) -> Result<Decision, DecideError> {
        let words = match data.withheld(row) {
            Some(withheld) => Some(Words::Hashed(&withheld.hashed)),
            None => data.text(row).map(Words::Text),
        };
        self.decide_words(words, data.embedding(row), scratch)
    }

    /// [`Pipeline::decide`], for an input whose text may be there as its n-grams alone.
    pub(crate) fn decide_words(
        &self,
        words: Option<Words<'_>>,
        embedding: Option<&[f32]>,
        scratch: &mut Scratch,
    ) -> Result<Decision, DecideError> {
        let input = self.checked(Checked { words, embedding })?;
        Ok(match self.score(input, scratch) {
            Ok(looked) => self.judge(&looked),
            Err(lacks) => Decision::without(lacks),
        })
    }

    /// Decides many inputs, each the same way, bit by bit, as [`Pipeline::decide`]:
    /// where there are embeddings one product serves many inputs. `each` is told the
    /// decision of every input in their order, and its class probabilities, empty
    /// where nothing was scored.
    pub fn decide_batch<'a>(
        &self,
        inputs: impl IntoIterator<Item = Input<'a>>,
        scratch: &mut Scratch,
        mut each: impl FnMut(Result<Decision, DecideError>, &[f32]),
    ) {
        let mut inputs = inputs.into_iter();
        let mut block: Vec<Checked<'a>> = Vec::with_capacity(BLOCK);
        let mut refused: Vec<Option<Result<Decision, DecideError>>> = Vec::with_capacity(BLOCK);
        loop {
            block.clear();
            refused.clear();
            for input in inputs.by_ref().take(BLOCK) {
                let input = Checked {
                    words: words(input),
                    embedding: input.embedding,
                };
                let (input, answer) = match self.checked(input) {
                    Ok(input) => {
                        let lacks = self.lacks(input);
                        (input, lacks.map(|lacks| Ok(Decision::without(lacks))))
                    }
                    Err(error) => (input, Some(Err(error))),
                };
                if answer.is_none() {
                    block.push(input);
                }
                refused.push(answer);
            }
            if refused.is_empty() {
                return;
            }
            self.score_block(&block, scratch);
            let mut row = 0;
            for answer in refused.drain(..) {
                if let Some(answer) = answer {
                    each(answer, &[]);
                    continue;
                }
                let looked = self.look_at(row, block[row], scratch);
                row += 1;
                match looked {
                    Ok(looked) => {
                        each(Ok(self.judge(&looked)), &scratch.prediction.probabilities);
                    }
                    Err(lacks) => each(Ok(Decision::without(lacks)), &[]),
                }
            }
        }
    }

    /// The input, unless it is wrong.
    fn checked<'a>(&self, input: Checked<'a>) -> Result<Checked<'a>, DecideError> {
        if let (Some(embedding), Some(expected)) = (input.embedding, self.card.embedding_dimension)
        {
            if embedding.len() != expected {
                return Err(DecideError::WrongDimension {
                    expected,
                    got: embedding.len(),
                });
            }
            if let Some(index) = first_not_finite(embedding) {
                return Err(DecideError::NotFinite { index });
            }
        }
        Ok(input)
    }

    /// What an input lacks that the first stage needs.
    fn lacks(&self, input: Checked<'_>) -> Option<Lacks> {
        let needs = self.first.needs();
        // In the order in which `score` asks.
        if self.lexicon.is_some() && input.words.is_none() {
            Some(Lacks::Text)
        } else if needs.dense && input.embedding.is_none() {
            Some(Lacks::Embedding)
        } else {
            None
        }
    }

    /// Holds the threshold against what was found.
    fn judge(&self, looked: &Looked) -> Decision {
        let Looked {
            label,
            score,
            foreign,
        } = *looked;
        let deferred = |reason| Decision::Deferred {
            reason,
            label: Some(label),
            score,
        };
        if foreign {
            deferred(DeferReason::OutOfDistribution)
        } else if score >= self.card.threshold {
            Decision::Handled { label, score }
        } else {
            deferred(DeferReason::LowScore)
        }
    }

    /// What the pipeline makes of an input, before any threshold.
    fn score(&self, input: Checked<'_>, scratch: &mut Scratch) -> Result<Looked, Lacks> {
        let Scratch {
            arch,
            lexical,
            row,
            mlp,
            prediction,
            ..
        } = scratch;
        let mut novelty = None;
        if let Some(lexicon) = &self.lexicon {
            novelty = Some(match input.words.ok_or(Lacks::Text)? {
                Words::Text(text) => lexicon.features(text, lexical, row),
                Words::Hashed(hashed) => lexicon.weigh(hashed, row),
            });
        }
        let features = Features {
            dense: input.embedding,
            lexical: self.lexicon.is_some().then_some(&*row),
        };
        let surrogate = &self.first.surrogate;
        surrogate.predict(*arch, features, mlp, prediction)?;
        self.accept(input, novelty, None, scratch)
    }

    /// The first stage's scores of inputs that lack nothing.
    fn score_block(&self, inputs: &[Checked<'_>], scratch: &mut Scratch) {
        let Scratch {
            arch,
            lexical,
            block,
            ..
        } = scratch;
        if inputs.is_empty() {
            return;
        }
        block.novelty.clear();
        if let Some(lexicon) = &self.lexicon {
            block.lexical.resize_with(inputs.len(), SparseRow::default);
            for (input, row) in inputs.iter().zip(&mut block.lexical) {
                let novelty = match input.words {
                    Some(Words::Hashed(hashed)) => lexicon.weigh(hashed, row),
                    Some(Words::Text(text)) => lexicon.features(text, lexical, row),
                    None => lexicon.features("", lexical, row),
                };
                block.novelty.push(novelty);
            }
        } else {
            block.lexical.clear();
        }
        let dense = self.first.needs().dense;
        let embeddings = inputs.iter().map(|input| input.embedding.filter(|_| dense));
        let rows = inputs.len();
        block.score(*arch, &self.first.surrogate, embeddings, rows);
    }

    /// What the pipeline makes of a row of the block that was scored last.
    fn look_at(
        &self,
        row: usize,
        input: Checked<'_>,
        scratch: &mut Scratch,
    ) -> Result<Looked, Lacks> {
        let Scratch {
            arch,
            block,
            prediction,
            ..
        } = scratch;
        let classes = self.labels.len();
        self.first
            .surrogate
            .predicted(*arch, block, row, classes, prediction);
        let novelty = block.novelty.get(row).copied();
        self.accept(input, novelty, Some(row), scratch)
    }

    /// From the first stage's prediction to a label and a score. The lexical
    /// features are in `scratch.row`, or those of a row of its block.
    fn accept(
        &self,
        input: Checked<'_>,
        novelty: Option<Novelty>,
        of_block: Option<usize>,
        scratch: &mut Scratch,
    ) -> Result<Looked, Lacks> {
        let Scratch {
            arch,
            row,
            block,
            mlp,
            guard,
            prediction,
            cues,
            foreignness: last,
            ..
        } = scratch;
        let first = &self.first;
        let (mut foreignness, mut foreign) = (0.0, false);
        if let Some(fitted) = &self.guard {
            let signals = Signals {
                embedding: input.embedding,
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
        let row = of_block.map_or(&*row, |at| &block.lexical[at]);
        let features = Features {
            dense: input.embedding,
            lexical: self.lexicon.is_some().then_some(row),
        };
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
}

fn words(input: Input<'_>) -> Option<Words<'_>> {
    let text = input.text.filter(|text| !text.trim().is_empty());
    text.map(Words::Text)
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
