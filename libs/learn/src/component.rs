//! What a surrogate is made of: one fitted model on one kind of features.

use ndarray::{Array2, ArrayView1, ArrayView2};
use pulp::Arch;
use tracer_features::SparseRow;

use crate::{
    block,
    design::{Design, Sparse, stride_of},
    gemm::{Strided, accumulate},
    logistic::Logistic,
    model::{Forest, Mlp, MlpBlock, MlpScratch},
    simd::{dense_row, gather},
    softmax::softmax,
};

/// The features of one input, or of none of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features<'a> {
    /// The embedding.
    pub(crate) dense: Option<&'a [f32]>,
    /// The lexical features.
    pub(crate) lexical: Option<&'a SparseRow>,
}

/// The features of many rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block<'a> {
    /// Embeddings, a row each.
    pub(crate) dense: Option<ArrayView2<'a, f32>>,
    /// Lexical features, a row each.
    pub(crate) lexical: Option<&'a Sparse>,
}

/// Which features a component stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) dense: bool,
    pub(crate) lexical: bool,
}

impl Needs {
    pub(crate) const DENSE: Self = Self {
        dense: true,
        lexical: false,
    };
    pub(crate) const LEXICAL: Self = Self {
        dense: false,
        lexical: true,
    };
    pub(crate) const BOTH: Self = Self {
        dense: true,
        lexical: true,
    };

    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            dense: self.dense || other.dense,
            lexical: self.lexical || other.lexical,
        }
    }

    /// Whether these features are all among `available`.
    pub(crate) fn are_in(self, available: Self) -> bool {
        (available.dense || !self.dense) && (available.lexical || !self.lexical)
    }
}

/// What an input lacks for a component to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Text,
    Embedding,
}

/// A fitted model on one kind of features.
#[derive(Clone, Debug)]
pub(crate) enum Component {
    /// A linear model on the embedding.
    Dense(Logistic),
    /// A linear model on the lexical features.
    Lexical(Logistic),
    /// One linear model on both: the lexical columns first, then the embedding.
    Fused(Logistic),
    /// A neural network on the embedding.
    Mlp(Mlp),
    /// A neural network on the lexical features.
    LexicalMlp(Mlp),
    /// Trees on the embedding.
    Forest(Forest),
}

impl Component {
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Dense(_) | Self::Mlp(_) | Self::Forest(_) => Needs::DENSE,
            Self::Lexical(_) | Self::LexicalMlp(_) => Needs::LEXICAL,
            Self::Fused(_) => Needs::BOTH,
        }
    }

    /// Scores of one input by class, before the softmax; a forest's are the
    /// logarithms of its probabilities. `out` becomes `classes` long.
    pub(crate) fn logits(
        &self,
        arch: Arch,
        input: Features<'_>,
        scratch: &mut MlpScratch,
        out: &mut Vec<f32>,
    ) -> Result<(), Lacks> {
        let embedding = input.dense.ok_or(Lacks::Embedding);
        let text = input.lexical.ok_or(Lacks::Text);
        match self {
            Self::Dense(model) => {
                let x = embedding?;
                model.logits(out, |weights, scores| dense_row(arch, x, weights, scores));
            }
            Self::Lexical(model) => {
                let row = text?;
                model.logits(out, |weights, scores| {
                    gather(arch, &row.columns, &row.values, weights, scores);
                });
            }
            Self::Fused(model) => {
                let (x, row) = (embedding?, text?);
                model.logits(out, |weights, scores| {
                    let split = weights.len() - x.len() * scores.len();
                    let (lexical, dense) = weights.split_at(split);
                    gather(arch, &row.columns, &row.values, lexical, scores);
                    dense_row(arch, x, dense, scores);
                });
            }
            Self::Mlp(model) => model.logits((&[], &[]), embedding?, scratch, out),
            Self::LexicalMlp(model) => {
                let row = text?;
                model.logits((&row.columns, &row.values), &[], scratch, out);
            }
            Self::Forest(model) => {
                model.probabilities(embedding?, out);
                for p in out {
                    *p = p.max(LEAST).ln();
                }
            }
        }
        Ok(())
    }

    /// Scores of a block of rows, each the same as [`Component::logits`] gives: rows ×
    /// padded classes. Every row has the features that the component needs.
    pub(crate) fn block_logits(
        &self,
        arch: Arch,
        block: block::Block<'_>,
        mlp: &mut MlpBlock,
        out: &mut Vec<f32>,
    ) {
        match self {
            Self::Dense(model) | Self::Fused(model) => {
                let stride = model.intercepts().len();
                out.clear();
                for _ in 0..block.rows {
                    out.extend_from_slice(model.intercepts());
                }
                let split = model.weights().len() - block.dimension * stride;
                let (lexical, dense) = model.weights().split_at(split);
                if matches!(self, Self::Fused(_)) {
                    for (row, scores) in block.lexical.iter().zip(out.chunks_exact_mut(stride)) {
                        gather(arch, &row.columns, &row.values, lexical, scores);
                    }
                }
                let a = Strided {
                    data: block.embeddings,
                    row: block.dimension,
                    column: 1,
                };
                accumulate(arch, a, block.dimension, dense, stride, out);
            }
            Self::Lexical(model) => {
                let stride = model.intercepts().len();
                out.clear();
                for row in &block.lexical[..block.rows] {
                    let start = out.len();
                    out.extend_from_slice(model.intercepts());
                    let scores = &mut out[start..start + stride];
                    gather(arch, &row.columns, &row.values, model.weights(), scores);
                }
            }
            Self::Mlp(model) => model.block_logits(arch, block.embeddings, block.rows, mlp, out),
            Self::LexicalMlp(model) => {
                block::row_by_row(self, arch, block, model.classes(), mlp, out);
            }
            Self::Forest(model) => {
                block::row_by_row(self, arch, block, model.classes(), mlp, out);
            }
        }
    }

    /// Scores of many rows, rows × classes.
    pub(crate) fn logits_of(&self, rows: Block<'_>) -> Array2<f32> {
        let dense = || rows.dense.expect("the candidate's features are there");
        let lexical = || rows.lexical.expect("the candidate's features are there");
        match self {
            Self::Dense(model) => model.logits_of(Design::Dense(dense())),
            Self::Lexical(model) => model.logits_of(Design::Sparse(lexical())),
            Self::Fused(model) => model.logits_of(Design::Joint(lexical(), dense())),
            Self::Mlp(model) => model.logits_batch(Design::Dense(dense())),
            Self::LexicalMlp(model) => model.logits_batch(Design::Sparse(lexical())),
            Self::Forest(model) => model
                .probabilities_batch(dense())
                .mapv_into(|p| p.max(LEAST).ln()),
        }
    }
}

/// Class probabilities from scores, row by row.
pub(crate) fn probabilities_of(mut logits: Array2<f32>) -> Array2<f32> {
    let arch = Arch::new();
    let mut probabilities = Vec::new();
    for mut row in logits.rows_mut() {
        let scores = row.as_slice().expect("rows are contiguous");
        probabilities_from(arch, scores, &mut probabilities);
        row.assign(&ArrayView1::from(&probabilities));
    }
    logits
}

/// Class probabilities from the scores of one row.
pub(crate) fn probabilities_from(arch: Arch, logits: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(logits);
    out.resize(stride_of(logits.len()), 0.0);
    softmax(arch, out, logits.len());
    out.truncate(logits.len());
}

/// A tree's share of 0 counts as this probability.
const LEAST: f32 = 1e-6;
