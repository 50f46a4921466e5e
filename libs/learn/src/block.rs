//! Scores of many inputs at a time: one product for all of them where there are
//! embeddings, and the same bits as for each alone.
//!
//! A product of one row reads every weight for one multiplication; a product of a
//! block reads it once for all rows of the block.

use pulp::Arch;
use tracer_features::{Novelty, SparseRow};

use crate::{
    component::{Component, Features},
    model::MlpBlock,
    surrogate::Surrogate,
};

/// Inputs of a block: enough that the weights are read seldom, few enough that the
/// rows and their scores stay in the second-level cache.
pub(crate) const BLOCK: usize = 64;

/// Working space of a block, reusable from call to call.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    /// Rows × dimension.
    embeddings: Vec<f32>,
    /// By component: rows × stride.
    scores: Vec<Vec<f32>>,
    /// Lexical features by row.
    pub(crate) lexical: Vec<SparseRow>,
    /// By row, where the pipeline looks at text.
    pub(crate) novelty: Vec<Novelty>,
    mlp: MlpBlock,
}

impl BlockScratch {
    /// Scores `rows` rows by all components of a surrogate. Each row has the
    /// features that the surrogate stands on; lexical ones are in `self.lexical`.
    pub(crate) fn score<'a>(
        &mut self,
        arch: Arch,
        surrogate: &Surrogate,
        embeddings: impl Iterator<Item = Option<&'a [f32]>>,
        rows: usize,
    ) {
        self.embeddings.clear();
        for x in embeddings.flatten() {
            self.embeddings.extend_from_slice(x);
        }
        let components = surrogate.components();
        self.scores.resize_with(components.len(), Vec::new);
        let dimension = self.embeddings.len() / rows.max(1);
        for (component, scores) in components.iter().zip(&mut self.scores) {
            let block = Block {
                rows,
                dimension,
                embeddings: &self.embeddings,
                lexical: &self.lexical,
            };
            component.block_logits(arch, block, &mut self.mlp, scores);
        }
    }

    /// The scores of a row by one component, `classes` long.
    pub(crate) fn logits(&self, component: usize, row: usize, classes: usize) -> &[f32] {
        let scores = &self.scores[component];
        let stride = classes.next_multiple_of(crate::simd::LANES);
        &scores[row * stride..][..classes]
    }
}

/// Rows with what a component may stand on.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) rows: usize,
    pub(crate) dimension: usize,
    /// Rows × dimension; empty where there are none.
    pub(crate) embeddings: &'a [f32],
    /// By row; empty where there are none.
    pub(crate) lexical: &'a [SparseRow],
}

impl<'a> Block<'a> {
    /// The features of one row.
    pub(crate) fn row(&self, row: usize) -> Features<'a> {
        Features {
            dense: self.embeddings.chunks_exact(self.dimension.max(1)).nth(row),
            lexical: self.lexical.get(row),
        }
    }
}

/// A component without a product of its own for blocks: row by row.
pub(crate) fn row_by_row(
    component: &Component,
    arch: Arch,
    block: Block<'_>,
    classes: usize,
    mlp: &mut MlpBlock,
    out: &mut Vec<f32>,
) {
    let stride = classes.next_multiple_of(crate::simd::LANES);
    out.clear();
    out.resize(block.rows * stride, 0.0);
    for (row, out) in out.chunks_exact_mut(stride).enumerate() {
        let (scratch, logits) = mlp.single();
        if component
            .logits(arch, block.row(row), scratch, logits)
            .is_ok()
        {
            out[..classes].copy_from_slice(logits);
        }
    }
}
