//! Decision trees, random forests and extremely randomised trees.
//!
//! (Breiman 2001; Geurts, Ernst and Wehenkel 2006.) Splits are chosen by the Gini
//! impurity among the cuts of binned columns.

mod bins;
mod cut;
mod grow;
mod store;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{FitFailure, check_dense, random::Random};
use bins::Binned;
use grow::{Grower, Tree};

/// What is grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForestKind {
    /// One tree on all rows; a split looks at every column.
    Tree,
    /// Each tree on rows drawn with replacement; a split looks at a few columns.
    RandomForest,
    /// Each tree on all rows; a split looks at one random cut of a few columns.
    ExtraTrees,
}

/// Parameters of a fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForestParams {
    /// What is grown.
    pub(crate) kind: ForestKind,
    /// Number of trees; a [`ForestKind::Tree`] has one.
    pub(crate) trees: usize,
    /// Splits between the root and a leaf at the most.
    pub(crate) max_depth: usize,
    /// Rows of a leaf at the least.
    pub(crate) min_leaf: usize,
    /// Leaves of a tree at the most; the largest impurities are split first.
    pub(crate) max_leaves: usize,
    /// Columns a split looks at; `None` for all of them in a single tree and the
    /// square root of their number in an ensemble.
    pub(crate) columns: Option<usize>,
}

impl Default for ForestParams {
    fn default() -> Self {
        Self {
            kind: ForestKind::RandomForest,
            trees: 32,
            max_depth: 40,
            min_leaf: 1,
            max_leaves: 4096,
            columns: None,
        }
    }
}

/// Trees at the most.
const MAX_TREES: usize = 2000;
/// Leaves of a tree at the most.
const MAX_LEAVES: usize = 1 << 20;
/// The feature of a node that is a leaf.
const LEAF: u16 = u16::MAX;
/// Classes kept in a leaf: the most frequent.
const LEAF_CLASSES: usize = 16;

/// Fitted trees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forest {
    features: usize,
    classes: usize,
    /// First node by tree, and the number of nodes.
    roots: Vec<u32>,
    nodes: Vec<Node>,
    leaves: Leaves,
}

/// A node. An inner node's children stand side by side, behind it in the same tree.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// Values up to and including it go to the first child.
    threshold: f32,
    /// The first child, counted from the tree's root; for a leaf its number: below the
    /// number of classes the leaf of that class alone, from there on one of `Leaves`.
    next: u32,
    /// The feature to look at, or [`LEAF`].
    feature: u16,
}

/// Class distributions of leaves that hold several classes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Leaves {
    /// First entry by leaf, and the number of entries.
    starts: Vec<u32>,
    classes: Vec<u16>,
    shares: Vec<f32>,
}

impl Leaves {
    fn entries(&self, leaf: usize) -> impl Iterator<Item = (usize, f32)> {
        let range = self.starts[leaf] as usize..self.starts[leaf + 1] as usize;
        let classes = self.classes[range.clone()].iter().map(|&c| usize::from(c));
        classes.zip(self.shares[range].iter().copied())
    }
}

impl Forest {
    /// Number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// Grows trees on dense rows with their labels, each below `classes`, and weights.
    /// Trees grow in parallel, each from a seed of its own.
    pub(crate) fn fit(
        x: ArrayView2<'_, f32>,
        labels: &[u32],
        weights: Option<&[f32]>,
        classes: usize,
        params: &ForestParams,
        seed: u64,
    ) -> Result<Self, FitFailure> {
        check_dense(x, labels, weights, classes)?;
        let trees = match params.kind {
            ForestKind::Tree => 1,
            ForestKind::RandomForest | ForestKind::ExtraTrees => params.trees,
        };
        for (what, got, limit) in [
            ("columns", x.ncols(), usize::from(LEAF) - 1),
            ("classes", classes, usize::from(u16::MAX)),
            ("rows", x.nrows(), u32::MAX as usize - 1),
            ("trees (at least one)", trees, MAX_TREES),
            (
                "leaves of a tree (at least one)",
                params.max_leaves,
                MAX_LEAVES,
            ),
        ] {
            if got > limit || got == 0 {
                return Err(FitFailure::TooLarge { what, got, limit });
            }
        }
        let binned = Binned::new(x);
        let grower = Grower::new(&binned, labels, weights, params);
        let trees: Vec<Tree> = (0..trees)
            .into_par_iter()
            .with_max_len(1)
            .map(|tree| grower.grow(classes, Random::new(seed, tree as u64 + 1)))
            .collect();
        Ok(Self::from_trees(x.ncols(), classes, trees))
    }

    fn from_trees(features: usize, classes: usize, trees: Vec<Tree>) -> Self {
        let mut forest = Self {
            features,
            classes,
            roots: vec![0],
            nodes: Vec::new(),
            leaves: Leaves::default(),
        };
        forest.leaves.starts.push(0);
        for tree in trees {
            let leaves_before = forest.leaves.starts.len() as u32 - 1;
            forest.nodes.extend(tree.nodes.iter().map(|node| {
                let several = node.feature == LEAF && node.next as usize >= classes;
                Node {
                    next: node.next + if several { leaves_before } else { 0 },
                    ..*node
                }
            }));
            forest.roots.push(forest.nodes.len() as u32);
            let entries_before = forest.leaves.classes.len() as u32;
            let starts = tree.leaves.starts[1..].iter().map(|s| s + entries_before);
            forest.leaves.starts.extend(starts);
            forest.leaves.classes.extend(tree.leaves.classes);
            forest.leaves.shares.extend(tree.leaves.shares);
        }
        forest
    }

    /// Number of trees.
    #[cfg(test)]
    pub(crate) fn trees(&self) -> usize {
        self.roots.len() - 1
    }

    /// Number of nodes, leaves included.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Class probabilities of a row of the fitted number of values: the mean of the
    /// trees'. Classes no leaf knows have probability 0. `out` becomes `classes` long.
    pub(crate) fn probabilities(&self, x: &[f32], out: &mut Vec<f32>) {
        debug_assert_eq!(x.len(), self.features);
        out.clear();
        out.resize(self.classes, 0.0);
        for tree in self.roots.windows(2) {
            self.add_tree(tree, x, out);
        }
        normalise(out);
    }

    /// Class probabilities of many rows: rows × classes, in parallel.
    pub(crate) fn probabilities_batch(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        const BLOCK: usize = 64;
        let x = x.as_standard_layout();
        let mut out = vec![0.0; x.nrows() * self.classes];
        out.par_chunks_mut(BLOCK * self.classes)
            .enumerate()
            .for_each(|(block, out)| {
                // Tree by tree: its nodes stay in the cache over the block.
                for tree in self.roots.windows(2) {
                    for (i, out) in out.chunks_exact_mut(self.classes).enumerate() {
                        let row = x.row(block * BLOCK + i);
                        self.add_tree(tree, row.to_slice().expect("standard layout"), out);
                    }
                }
                out.chunks_exact_mut(self.classes).for_each(normalise);
            });
        Array2::from_shape_vec((x.nrows(), self.classes), out).expect("rows × classes")
    }

    /// Adds the distribution of the leaf that a row falls into.
    fn add_tree(&self, tree: &[u32], x: &[f32], out: &mut [f32]) {
        let nodes = &self.nodes[tree[0] as usize..tree[1] as usize];
        let mut node = nodes[0];
        while node.feature != LEAF {
            let left = x[usize::from(node.feature)] <= node.threshold;
            node = nodes[node.next as usize + usize::from(!left)];
        }
        let leaf = node.next as usize;
        if let Some(several) = leaf.checked_sub(self.classes) {
            for (class, share) in self.leaves.entries(several) {
                out[class] += share;
            }
        } else {
            out[leaf] += 1.0;
        }
    }
}

/// Brings a row to a sum of 1. Shares left out of leaves count for none of the classes.
fn normalise(row: &mut [f32]) {
    let sum: f32 = row.iter().sum();
    if sum > 0.0 {
        let scale = 1.0 / sum;
        for p in row {
            *p *= scale;
        }
    } else {
        let even = 1.0 / row.len() as f32;
        row.fill(even);
    }
}

#[cfg(test)]
mod tests;
