//! The loss of a multinomial logistic regression and its gradient, on some of the
//! rows of a design.
//!
//! The work is cut into blocks that depend on the data alone, and their results
//! are added up in order: the numbers do not depend on the number of threads.

use std::{borrow::Cow, ops::Range};

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    aligned::Aligned,
    design::{Design, Sparse, Transposed, stride_of},
    gemm::{Strided, accumulate},
    simd::{add_scaled, gather_lines},
    softmax::Residuals,
};

/// Rows of a dense block: its features, scores and the weights stay in the
/// second-level cache. A multiple of the kernel's tile heights.
const DENSE_BLOCK: usize = 120;
/// Gradients that dense blocks are gathered in, at most.
const DENSE_PARTS: usize = 16;
/// Rows of a sparse block of the forward product.
const SPARSE_BLOCK: usize = 64;
/// Rows of a transposed block: its residuals stay in the second-level cache.
const TRANSPOSED_BLOCK: usize = 2048;
/// Sparse rows whose residuals are held at a time.
const STAGE: usize = 16_384;
/// Groups of columns that the transposed product is cut into.
const COLUMN_GROUPS: usize = 32;
/// Numbers of a block of a long vector.
pub(crate) const CHUNK: usize = 8192;

/// A design ready for the products, whose rows stand fold by fold.
pub(crate) struct Rows<'a> {
    kind: Kind<'a>,
    columns: usize,
    labels: Cow<'a, [u32]>,
    weights: Vec<f32>,
    /// The rows of each fold.
    folds: Vec<Range<usize>>,
}

enum Kind<'a> {
    Dense(Cow<'a, [f32]>),
    Sparse {
        x: Cow<'a, Sparse>,
        transposed: Vec<Transposed>,
        /// Columns of each group: about as many entries in each.
        groups: Vec<Range<usize>>,
    },
}

impl<'a> Rows<'a> {
    /// All rows as they stand.
    pub(crate) fn whole(design: &'a Design, labels: &'a [u32], weights: Option<&[f32]>) -> Self {
        let whole = 0..design.rows();
        let weights = weights.map_or_else(|| vec![1.0; labels.len()], <[f32]>::to_vec);
        Self::new(
            Cow::Borrowed(design),
            Cow::Borrowed(labels),
            weights,
            std::iter::once(whole).collect(),
        )
    }

    /// All rows, moved together fold by fold.
    pub(crate) fn folded(
        design: &Design,
        labels: &[u32],
        weights: Option<&[f32]>,
        folds: &[u32],
        k: usize,
    ) -> Self {
        let mut order: Vec<usize> = (0..folds.len()).collect();
        order.sort_by_key(|&i| folds[i]);
        let mut begin = 0;
        let ranges = (0..k as u32)
            .map(|fold| {
                let end = begin + folds.iter().filter(|&&f| f == fold).count();
                let range = begin..end;
                begin = end;
                range
            })
            .collect();
        assert_eq!(begin, folds.len(), "every fold is below k");
        Self::new(
            Cow::Owned(design.select(&order)),
            order.iter().map(|&i| labels[i]).collect(),
            order
                .iter()
                .map(|&i| weights.map_or(1.0, |w| w[i]))
                .collect(),
            ranges,
        )
    }

    fn new(
        design: Cow<'a, Design>,
        labels: Cow<'a, [u32]>,
        weights: Vec<f32>,
        folds: Vec<Range<usize>>,
    ) -> Self {
        assert_eq!(design.rows(), labels.len(), "a label a row");
        assert_eq!(design.rows(), weights.len(), "a weight a row");
        let columns = design.columns();
        let kind = match design {
            Cow::Borrowed(Design::Dense(x)) => Kind::Dense(match x.as_slice() {
                Some(x) => Cow::Borrowed(x),
                None => Cow::Owned(x.iter().copied().collect()),
            }),
            Cow::Owned(Design::Dense(x)) => Kind::Dense(Cow::Owned(if x.is_standard_layout() {
                x.into_raw_vec_and_offset().0
            } else {
                x.iter().copied().collect()
            })),
            Cow::Borrowed(Design::Sparse(x)) => Kind::sparse(Cow::Borrowed(x), &folds),
            Cow::Owned(Design::Sparse(x)) => Kind::sparse(Cow::Owned(x), &folds),
        };
        Self {
            kind,
            columns,
            labels,
            weights,
            folds,
        }
    }

    /// The ranges of rows of all folds but one.
    pub(crate) fn without(&self, fold: usize) -> Vec<Range<usize>> {
        let mut ranges = self.folds.clone();
        ranges.remove(fold);
        ranges
    }

    /// The ranges of rows of all folds.
    pub(crate) fn all(&self) -> Vec<Range<usize>> {
        self.folds.clone()
    }
}

impl Kind<'_> {
    fn sparse<'a>(x: Cow<'a, Sparse>, folds: &[Range<usize>]) -> Kind<'a> {
        let blocks = cut(folds, TRANSPOSED_BLOCK);
        let transposed: Vec<Transposed> = blocks
            .into_par_iter()
            .map(|rows| Transposed::new(&x, rows))
            .collect();
        let columns = x.columns();
        let entries = |c: usize| -> usize { transposed.iter().map(|t| t.entries_before(c)).sum() };
        let total = entries(columns);
        let mut groups = Vec::new();
        let mut begin = 0;
        for column in 1..=columns {
            // An entry costs about as much as reading and writing a column's sums.
            let cost = |c: usize| entries(c) + 2 * c;
            let share = (total + 2 * columns).div_ceil(COLUMN_GROUPS);
            if cost(column) - cost(begin) >= share || column == columns {
                groups.push(begin..column);
                begin = column;
            }
        }
        Kind::Sparse {
            x,
            transposed,
            groups,
        }
    }
}

/// Cuts ranges into blocks of at most `size`.
fn cut(ranges: &[Range<usize>], size: usize) -> Vec<Range<usize>> {
    ranges
        .iter()
        .flat_map(|r| {
            (r.start..r.end)
                .step_by(size)
                .map(|begin| begin..r.end.min(begin + size))
        })
        .collect()
}

/// What a block adds to the loss and to the gradient of the intercepts.
struct Part {
    loss: f64,
    intercept_gradient: Vec<f32>,
    /// Σ weight · p · (1 − p) by class.
    curvature: Vec<f32>,
}

impl Part {
    fn new(stride: usize) -> Self {
        Self {
            loss: 0.0,
            intercept_gradient: vec![0.0; stride],
            curvature: vec![0.0; stride],
        }
    }
}

/// Dense blocks whose gradients are added up in one place.
struct DensePart {
    blocks: Vec<Range<usize>>,
    gradient: Vec<f32>,
    scores: Vec<f32>,
    sums: Part,
}

/// The loss as a function of the weights and intercepts.
pub(crate) struct Objective<'a> {
    arch: Arch,
    rows: &'a Rows<'a>,
    ranges: Vec<Range<usize>>,
    classes: usize,
    stride: usize,
    ridge: f32,
    /// 1 / Σ weights.
    scale: f32,
    /// Mean of p · (1 − p) by class at the last point.
    curvature: Vec<f32>,
    parts: Vec<DensePart>,
    residuals: Aligned,
}

impl<'a> Objective<'a> {
    /// The objective on the rows of `ranges`.
    pub(crate) fn new(
        rows: &'a Rows<'a>,
        ranges: Vec<Range<usize>>,
        classes: usize,
        c: f64,
    ) -> Self {
        let stride = stride_of(classes);
        let n: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        let total: f64 = ranges
            .iter()
            .flat_map(|r| &rows.weights[r.clone()])
            .map(|&w| f64::from(w))
            .sum();
        assert!(n == 0 || total > 0.0, "some row weighs something");
        let mut parts = Vec::new();
        let mut residuals = Aligned::zeros(0);
        match rows.kind {
            Kind::Dense(_) => {
                let blocks = cut(&ranges, DENSE_BLOCK);
                let most = DENSE_PARTS.min((1 << 26) / (rows.columns * stride).max(1));
                parts = blocks
                    .chunks(blocks.len().div_ceil(most.max(2)).max(1))
                    .map(|blocks| DensePart {
                        blocks: blocks.to_vec(),
                        gradient: vec![0.0; rows.columns * stride],
                        scores: vec![0.0; DENSE_BLOCK * stride],
                        sums: Part::new(stride),
                    })
                    .collect();
            }
            Kind::Sparse { .. } => {
                residuals = Aligned::zeros(n.min(STAGE + TRANSPOSED_BLOCK) * stride);
            }
        }
        Self {
            arch: Arch::new(),
            rows,
            ranges,
            classes,
            stride,
            ridge: (1.0 / (c * n.max(1) as f64)) as f32,
            scale: (1.0 / total.max(f64::MIN_POSITIVE)) as f32,
            curvature: vec![0.0; stride],
            parts,
            residuals,
        }
    }

    /// Length of the parameters: weights, then intercepts.
    pub(crate) fn len(&self) -> usize {
        (self.rows.columns + 1) * self.stride
    }

    pub(crate) fn arch(&self) -> Arch {
        self.arch
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn columns(&self) -> usize {
        self.rows.columns
    }

    pub(crate) fn ridge(&self) -> f32 {
        self.ridge
    }

    /// Weighted mean of p · (1 − p) by class at the last point evaluated.
    pub(crate) fn curvature(&self) -> &[f32] {
        &self.curvature
    }

    /// The features row by row, when they are dense.
    pub(crate) fn dense(&self) -> Option<&[f32]> {
        match &self.rows.kind {
            Kind::Dense(x) => Some(x),
            Kind::Sparse { .. } => None,
        }
    }

    /// Up to `most` of the rows, evenly spread.
    pub(crate) fn sample(&self, most: usize) -> Vec<usize> {
        let n: usize = self.ranges.iter().map(ExactSizeIterator::len).sum();
        self.ranges
            .iter()
            .cloned()
            .flatten()
            .step_by(n.div_ceil(most).max(1))
            .collect()
    }

    /// A row's share of the weights.
    pub(crate) fn weight(&self, row: usize) -> f32 {
        self.rows.weights[row] * self.scale
    }

    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// The mean square of each column over the rows.
    pub(crate) fn second_moments(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f32; self.rows.columns];
        for row in self.ranges.iter().cloned().flatten() {
            let weight = self.weight(row);
            match &self.rows.kind {
                Kind::Dense(x) => {
                    let x = &x[row * sums.len()..][..sums.len()];
                    for (s, v) in sums.iter_mut().zip(x) {
                        *s += weight * v * v;
                    }
                }
                Kind::Sparse { x, .. } => {
                    let (columns, values) = x.row(row);
                    for (&c, v) in columns.iter().zip(values) {
                        sums[c as usize] += weight * v * v;
                    }
                }
            }
        }
        sums
    }

    /// The loss at `parameters`; leaves its gradient in `gradient`.
    pub(crate) fn evaluate(&mut self, parameters: &[f32], gradient: &mut [f32]) -> f64 {
        let split = self.rows.columns * self.stride;
        let (weights, intercepts) = parameters.split_at(split);
        let (weight_gradient, intercept_gradient) = gradient.split_at_mut(split);
        let rows = self.rows;
        let sums = match &rows.kind {
            Kind::Dense(x) => {
                self.dense_parts(x, weights, intercepts);
                let ridge = self.ridge;
                let parts = &self.parts;
                let arch = self.arch;
                weight_gradient
                    .par_chunks_mut(CHUNK)
                    .enumerate()
                    .for_each(|(i, g)| {
                        let range = i * CHUNK..i * CHUNK + g.len();
                        for (g, w) in g.iter_mut().zip(&weights[range.clone()]) {
                            *g = ridge * w;
                        }
                        for part in parts {
                            add_scaled(arch, 1.0, &part.gradient[range.clone()], g);
                        }
                    });
                let mut sums = Part::new(self.stride);
                for part in &self.parts {
                    sums.add(&part.sums);
                }
                sums
            }
            Kind::Sparse {
                x,
                transposed,
                groups,
            } => self.sparse(x, transposed, groups, weights, intercepts, weight_gradient),
        };
        intercept_gradient.copy_from_slice(&sums.intercept_gradient);
        self.curvature.copy_from_slice(&sums.curvature);
        let arch = self.arch;
        let squares: Vec<f64> = weights
            .par_chunks(CHUNK)
            .map(|w| crate::simd::dot(arch, w, w))
            .collect();
        sums.loss + 0.5 * f64::from(self.ridge) * squares.iter().sum::<f64>()
    }

    fn dense_parts(&mut self, x: &[f32], weights: &[f32], intercepts: &[f32]) {
        let Self {
            arch,
            rows,
            classes,
            stride,
            scale,
            ..
        } = *self;
        let columns = rows.columns;
        self.parts.par_iter_mut().for_each(|part| {
            part.gradient.fill(0.0);
            part.sums = Part::new(stride);
            for block in &part.blocks {
                let scores = &mut part.scores[..block.len() * stride];
                for row in scores.chunks_exact_mut(stride) {
                    row.copy_from_slice(intercepts);
                }
                let x = &x[block.start * columns..block.end * columns];
                let forward = Strided {
                    data: x,
                    row: columns,
                    column: 1,
                };
                accumulate(arch, forward, columns, weights, stride, scores);
                part.sums.loss += Residuals {
                    scores,
                    stride,
                    classes,
                    labels: &rows.labels[block.clone()],
                    weights: &rows.weights[block.clone()],
                    scale,
                    intercept_gradient: &mut part.sums.intercept_gradient,
                    curvature: &mut part.sums.curvature,
                }
                .compute(arch);
                let back = Strided {
                    data: x,
                    row: 1,
                    column: columns,
                };
                accumulate(arch, back, block.len(), scores, stride, &mut part.gradient);
            }
        });
    }

    fn sparse(
        &mut self,
        x: &Sparse,
        transposed: &[Transposed],
        groups: &[Range<usize>],
        weights: &[f32],
        intercepts: &[f32],
        gradient: &mut [f32],
    ) -> Part {
        let Self {
            arch,
            rows,
            classes,
            stride,
            ridge,
            scale,
            ..
        } = *self;
        let mut sums = Part::new(stride);
        let members: Vec<&Transposed> = transposed
            .iter()
            .filter(|t| self.ranges.iter().any(|r| r.contains(&t.rows.start)))
            .collect();
        let mut first = true;
        let mut rest = members.as_slice();
        while first || !rest.is_empty() {
            let mut held = 0;
            let taken = rest
                .iter()
                .take_while(|t| {
                    held += t.rows.len();
                    held <= STAGE || held == t.rows.len()
                })
                .count();
            let stage;
            (stage, rest) = rest.split_at(taken);

            let mut blocks = Vec::new();
            let mut free = &mut self.residuals[..];
            for rows in stage
                .iter()
                .flat_map(|t| cut(std::slice::from_ref(&t.rows), SPARSE_BLOCK))
            {
                let scores;
                (scores, free) = free.split_at_mut(rows.len() * stride);
                blocks.push((rows, scores));
            }
            let parts: Vec<Part> = blocks
                .into_par_iter()
                .map(|(block, scores)| {
                    for row in scores.chunks_exact_mut(stride) {
                        row.copy_from_slice(intercepts);
                    }
                    gather_lines(arch, x.lines(block.clone()), weights, stride, scores);
                    let mut part = Part::new(stride);
                    part.loss = Residuals {
                        scores,
                        stride,
                        classes,
                        labels: &rows.labels[block.clone()],
                        weights: &rows.weights[block],
                        scale,
                        intercept_gradient: &mut part.intercept_gradient,
                        curvature: &mut part.curvature,
                    }
                    .compute(arch);
                    part
                })
                .collect();
            for part in &parts {
                sums.add(part);
            }

            let residuals = &self.residuals[..];
            let mut pieces = Vec::with_capacity(groups.len());
            let mut free = &mut *gradient;
            for group in groups {
                let piece;
                (piece, free) = free.split_at_mut(group.len() * stride);
                pieces.push((group.clone(), piece));
            }
            pieces.into_par_iter().for_each(|(group, gradient)| {
                if first {
                    let weights = &weights[group.start * stride..group.end * stride];
                    for (g, w) in gradient.iter_mut().zip(weights) {
                        *g = ridge * w;
                    }
                }
                let mut begin = 0;
                for block in stage {
                    let end = begin + block.rows.len();
                    let residuals = &residuals[begin * stride..end * stride];
                    let lines = block.lines(group.clone());
                    gather_lines(arch, lines, residuals, stride, gradient);
                    begin = end;
                }
            });
            first = false;
        }
        sums
    }
}

impl Part {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        for (a, b) in self
            .intercept_gradient
            .iter_mut()
            .zip(&other.intercept_gradient)
        {
            *a += b;
        }
        for (a, b) in self.curvature.iter_mut().zip(&other.curvature) {
            *a += b;
        }
    }
}
