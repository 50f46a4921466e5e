//! Growing one tree.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{
    ForestKind, ForestParams, LEAF, LEAF_CLASSES, Leaves, Node,
    bins::Binned,
    cut::{Cut, Local},
};
use crate::model::random::Random;

/// A grown tree. Numbers of leaves of several classes count from the number of
/// classes.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) leaves: Leaves,
}

/// What all trees of a forest grow on.
pub(super) struct Grower<'a> {
    binned: &'a Binned,
    labels: &'a [u32],
    weights: Option<&'a [f32]>,
    params: &'a ForestParams,
    /// Columns a split looks at.
    columns: usize,
}

/// A node that may yet be split.
struct Open {
    /// What a perfect split would gain.
    impurity: f64,
    node: usize,
    depth: usize,
    /// Its rows within the order.
    begin: usize,
    end: usize,
}

impl Ord for Open {
    /// The largest impurity first, then the oldest node.
    fn cmp(&self, other: &Self) -> Ordering {
        self.impurity
            .total_cmp(&other.impurity)
            .then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

impl<'a> Grower<'a> {
    pub(super) fn new(
        binned: &'a Binned,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        params: &'a ForestParams,
    ) -> Self {
        let all = binned.columns();
        let columns = params.columns.unwrap_or(match params.kind {
            ForestKind::Tree => all,
            ForestKind::RandomForest | ForestKind::ExtraTrees => (all as f64).sqrt() as usize,
        });
        Self {
            binned,
            labels,
            weights,
            params,
            columns: columns.clamp(1, all),
        }
    }

    /// Grows a tree.
    pub(super) fn grow(&self, classes: usize, mut random: Random) -> Tree {
        let (mut order, row_weights) = self.draw(&mut random);
        let mut local = Local {
            numbers: vec![0; classes],
            ..Local::default()
        };
        let mut columns: Vec<u16> = (0..self.binned.columns() as u16).collect();
        let mut tree = Tree {
            nodes: Vec::new(),
            leaves: Leaves::default(),
        };
        tree.leaves.starts.push(0);
        let mut open = BinaryHeap::new();
        let mut leaves = 1;
        let add = |tree: &mut Tree,
                   open: &mut BinaryHeap<Open>,
                   local: &mut Local,
                   order: &[u32],
                   (begin, end): (usize, usize),
                   depth: usize| {
            local.load(&order[begin..end], self.labels, &row_weights);
            let node = tree.nodes.len();
            let leaf = tree.leaf(local, classes);
            tree.nodes.push(leaf);
            let splits = end - begin >= 2 * self.params.min_leaf.max(1);
            if local.classes.len() > 1 && splits && depth < self.params.max_depth {
                open.push(Open {
                    impurity: local.total - local.squares / local.total,
                    node,
                    depth,
                    begin,
                    end,
                });
            }
        };
        let all = (0, order.len());
        add(&mut tree, &mut open, &mut local, &order, all, 0);
        while let Some(at) = open.pop() {
            if leaves >= self.params.max_leaves {
                break;
            }
            let rows = &mut order[at.begin..at.end];
            local.load(rows, self.labels, &row_weights);
            let Some((column, cut)) = self.split(rows, &mut local, &mut columns, &mut random)
            else {
                continue;
            };
            let bins = self.binned.bins(column);
            let middle = at.begin + partition(rows, |row| bins[row as usize] <= cut.bin);
            let next = tree.nodes.len() as u32;
            tree.nodes[at.node] = Node {
                threshold: self.binned.between(column, cut.bin, cut.gap),
                next,
                feature: column as u16,
            };
            leaves += 1;
            let (left, right) = ((at.begin, middle), (middle, at.end));
            add(&mut tree, &mut open, &mut local, &order, left, at.depth + 1);
            add(
                &mut tree,
                &mut open,
                &mut local,
                &order,
                right,
                at.depth + 1,
            );
        }
        tree.drop_unused_leaves(classes);
        tree
    }

    /// The rows a tree grows on, and the weight of every row.
    fn draw(&self, random: &mut Random) -> (Vec<u32>, Vec<f32>) {
        let n = self.binned.rows();
        let mut weights = self.weights.map_or_else(|| vec![1.0; n], <[f32]>::to_vec);
        if self.params.kind == ForestKind::RandomForest {
            let mut drawn = vec![0.0_f32; n];
            (0..n).for_each(|_| drawn[random.below(n)] += 1.0);
            weights
                .iter_mut()
                .zip(drawn)
                .for_each(|(w, times)| *w *= times);
            if weights.iter().all(|&w| w == 0.0) {
                // Nothing but rows of weight 0 was drawn: all rows, then.
                weights = self.weights.map_or_else(|| vec![1.0; n], <[f32]>::to_vec);
            }
        }
        let order = (0..n as u32).filter(|&i| weights[i as usize] > 0.0);
        (order.collect(), weights)
    }

    /// The best cut of some random columns. More columns are drawn until one of them
    /// has a cut at all.
    fn split(
        &self,
        rows: &[u32],
        local: &mut Local,
        columns: &mut [u16],
        random: &mut Random,
    ) -> Option<(usize, Cut)> {
        let draw = |columns: &mut [u16], random: &mut Random, drawn: usize| {
            let other = drawn + random.below(columns.len() - drawn);
            columns.swap(drawn, other);
        };
        (0..self.columns).for_each(|drawn| draw(columns, random, drawn));
        let mut bins = std::mem::take(&mut local.bins);
        self.binned
            .gather(rows, &columns[..self.columns], &mut bins);
        let mut best: Option<(usize, Cut)> = None;
        let mut look = |local: &mut Local, random: &mut Random, column: u16, bins: &[u8]| {
            let min_leaf = self.params.min_leaf;
            let cut = match self.params.kind {
                ForestKind::ExtraTrees => local.random_cut(bins, min_leaf, random),
                ForestKind::Tree | ForestKind::RandomForest => local.best_cut(bins, min_leaf),
            };
            if let Some(cut) = cut
                && best.is_none_or(|(_, b)| cut.purity > b.purity)
            {
                best = Some((usize::from(column), cut));
            }
            best.is_some()
        };
        let mut found = false;
        for (&column, bins) in columns.iter().zip(bins.chunks_exact(rows.len())) {
            found = look(local, random, column, bins);
        }
        for drawn in self.columns..columns.len() {
            if found {
                break;
            }
            draw(columns, random, drawn);
            self.binned.gather(rows, &columns[drawn..=drawn], &mut bins);
            found = look(local, random, columns[drawn], &bins);
        }
        local.bins = bins;
        best
    }
}

impl Tree {
    /// A leaf of the rows at hand.
    fn leaf(&mut self, local: &Local, classes: usize) -> Node {
        let next = if let [class] = local.classes[..] {
            class
        } else {
            let mut shares: Vec<(u32, f64)> = local
                .classes
                .iter()
                .copied()
                .zip(local.totals.iter().copied())
                .collect();
            shares.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            shares.truncate(LEAF_CLASSES);
            for (class, weight) in shares {
                self.leaves.classes.push(class as u16);
                self.leaves.shares.push((weight / local.total) as f32);
            }
            self.leaves.starts.push(self.leaves.classes.len() as u32);
            (classes + self.leaves.starts.len() - 2) as u32
        };
        Node {
            threshold: 0.0,
            next,
            feature: LEAF,
        }
    }

    /// Drops the distributions of nodes that were split later.
    fn drop_unused_leaves(&mut self, classes: usize) {
        let mut kept = Leaves::default();
        kept.starts.push(0);
        for node in &mut self.nodes {
            if node.feature != LEAF || (node.next as usize) < classes {
                continue;
            }
            for (class, share) in self.leaves.entries(node.next as usize - classes) {
                kept.classes.push(class as u16);
                kept.shares.push(share);
            }
            kept.starts.push(kept.classes.len() as u32);
            node.next = (classes + kept.starts.len() - 2) as u32;
        }
        self.leaves = kept;
    }
}

/// Brings the rows for which `left` holds to the front. Returns their number.
fn partition(rows: &mut [u32], left: impl Fn(u32) -> bool) -> usize {
    let mut middle = 0;
    for i in 0..rows.len() {
        if left(rows[i]) {
            rows.swap(i, middle);
            middle += 1;
        }
    }
    middle
}
