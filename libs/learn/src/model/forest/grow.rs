//! Growing one tree.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{
    ForestKind, ForestParams, LEAF, LEAF_CLASSES, Leaves, Node,
    bins::{BINS, Binned},
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

/// A cut of a column: bins up to `bin` go left. The next bin with rows of the node
/// comes after `gap`, so a threshold between the upper ends of the two parts them as
/// well.
#[derive(Clone, Copy)]
struct Cut {
    bin: u8,
    gap: u8,
    /// Σ of the sides' squared class weights over their weights: the larger, the purer.
    purity: f64,
}

/// The rows of the node at hand, side by side, with the classes that occur in it
/// numbered from 0.
#[derive(Default)]
struct Local {
    labels: Vec<u16>,
    weights: Vec<f32>,
    /// Class of a local number.
    classes: Vec<u32>,
    /// Weight by local class.
    totals: Vec<f64>,
    total: f64,
    /// Σ totals².
    squares: f64,
    /// Local number + 1 by class, 0 for a class not met yet.
    numbers: Vec<u32>,
    left: Vec<f64>,
    /// Bins of the columns at hand, column by column.
    bins: Vec<u8>,
    order: Vec<u32>,
}

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

impl Local {
    /// Takes up the rows of a node.
    fn load(&mut self, rows: &[u32], labels: &[u32], weights: &[f32]) {
        self.labels.clear();
        self.weights.clear();
        self.classes.clear();
        self.totals.clear();
        for &row in rows {
            let (label, weight) = (labels[row as usize], weights[row as usize]);
            let number = &mut self.numbers[label as usize];
            if *number == 0 {
                self.classes.push(label);
                self.totals.push(0.0);
                *number = self.classes.len() as u32;
            }
            let local = *number - 1;
            self.labels.push(local as u16);
            self.weights.push(weight);
            self.totals[local as usize] += f64::from(weight);
        }
        for &class in &self.classes {
            self.numbers[class as usize] = 0;
        }
        self.total = self.totals.iter().sum();
        self.squares = self.totals.iter().map(|t| t * t).sum();
        self.left.resize(self.totals.len(), 0.0);
    }

    /// The best cut of a column.
    fn best_cut(&mut self, bins: &[u8], min_leaf: usize) -> Option<Cut> {
        // Sort by bin, by counting. A bit for each bin with rows spares small nodes
        // the walk over all bins.
        let mut ends = [0_u32; BINS];
        let mut occupied = 0_u64;
        for &bin in bins {
            ends[usize::from(bin) % BINS] += 1;
            occupied |= 1 << (usize::from(bin) % BINS);
        }
        let mut sum = 0;
        for bin in bits(occupied) {
            sum += ends[bin];
            ends[bin] = sum - ends[bin];
        }
        self.order.resize(bins.len(), 0);
        for (i, &bin) in bins.iter().enumerate() {
            let at = &mut ends[usize::from(bin) % BINS];
            self.order[*at as usize] = i as u32;
            *at += 1;
        }
        self.left.fill(0.0);
        let (mut left_squares, mut right_squares, mut left) = (0.0, self.squares, 0.0);
        let n = self.order.len();
        let mut best: Option<Cut> = None;
        let mut open_gap = false;
        let mut begin = 0;
        for bin in bits(occupied) {
            let end = ends[bin] as usize;
            if let Some(best) = best.as_mut().filter(|_| open_gap) {
                best.gap = bin as u8 - 1;
                open_gap = false;
            }
            if end == n {
                break;
            }
            for &i in &self.order[begin..end] {
                let class = usize::from(self.labels[i as usize]);
                let weight = f64::from(self.weights[i as usize]);
                let before = self.left[class];
                let rest = self.totals[class] - before;
                left_squares += weight * (2.0 * before + weight);
                right_squares += weight * (weight - 2.0 * rest);
                self.left[class] = before + weight;
                left += weight;
            }
            begin = end;
            if end >= min_leaf && n - end >= min_leaf {
                let purity = left_squares / left + right_squares / (self.total - left);
                if best.is_none_or(|b| purity > b.purity) {
                    let bin = bin as u8;
                    best = Some(Cut {
                        bin,
                        gap: bin,
                        purity,
                    });
                    open_gap = true;
                }
            }
        }
        best
    }

    /// One random cut of a column between the least and the largest of its bins.
    fn random_cut(&mut self, bins: &[u8], min_leaf: usize, random: &mut Random) -> Option<Cut> {
        let (mut low, mut high) = (u8::MAX, 0);
        for &bin in bins {
            low = low.min(bin);
            high = high.max(bin);
        }
        if low >= high {
            return None;
        }
        let cut = low + random.below(usize::from(high - low)) as u8;
        self.left.fill(0.0);
        let mut count = 0;
        for ((&bin, &label), &weight) in bins.iter().zip(&self.labels).zip(&self.weights) {
            let is_left = bin <= cut;
            count += usize::from(is_left);
            self.left[usize::from(label)] += if is_left { f64::from(weight) } else { 0.0 };
        }
        if count < min_leaf || bins.len() - count < min_leaf {
            return None;
        }
        let (mut left, mut left_squares, mut right_squares) = (0.0, 0.0, 0.0);
        for (l, total) in self.left.iter().zip(&self.totals) {
            left += l;
            left_squares += l * l;
            right_squares += (total - l) * (total - l);
        }
        Some(Cut {
            bin: cut,
            gap: cut,
            purity: left_squares / left + right_squares / (self.total - left),
        })
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

/// The positions of the bits that are set, rising.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        (word != 0).then(|| {
            word &= word - 1;
            bit
        })
    })
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
