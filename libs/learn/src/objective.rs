//! The loss of a multinomial logistic regression and its gradient, on some of the
//! rows of a design.
//!
//! The work is cut into blocks that depend on the data alone, and their results
//! are added up in order: the numbers do not depend on the number of threads.

use std::{borrow::Cow, ops::Range};

use ndarray::ArrayView2;
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

/// A design ready for the products.
pub(crate) struct Rows<'a> {
    kind: Kind<'a>,
    columns: usize,
    labels: &'a [u32],
    weights: Cow<'a, [f32]>,
}

enum Kind<'a> {
    Dense(Cow<'a, [f32]>),
    Sparse(SparseRows<'a>),
}

/// Lexical rows, and embeddings beside them in a joint design.
struct SparseRows<'a> {
    x: &'a Sparse,
    transposed: Vec<Transposed>,
    /// Columns of each group: about as many entries in each.
    groups: Vec<Range<usize>>,
    beside: Option<Beside<'a>>,
}

/// The embeddings of a joint design, row by row.
struct Beside<'a> {
    x: Cow<'a, [f32]>,
    columns: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(design: Design<'a>, labels: &'a [u32], weights: Option<&'a [f32]>) -> Self {
        assert_eq!(design.rows(), labels.len(), "a label a row");
        let weights = weights.map_or_else(|| Cow::Owned(vec![1.0; labels.len()]), Cow::Borrowed);
        assert_eq!(design.rows(), weights.len(), "a weight a row");
        let kind = match design {
            Design::Dense(x) => Kind::Dense(flat(x)),
            Design::Sparse(x) => Kind::Sparse(SparseRows::new(x, None)),
            Design::Joint(sparse, dense) => {
                let beside = Beside {
                    x: flat(dense),
                    columns: dense.ncols(),
                };
                Kind::Sparse(SparseRows::new(sparse, Some(beside)))
            }
        };
        Self {
            kind,
            columns: design.columns(),
            labels,
            weights,
        }
    }

    fn len(&self) -> usize {
        self.labels.len()
    }
}

/// A matrix row by row.
fn flat(x: ArrayView2<'_, f32>) -> Cow<'_, [f32]> {
    match x.to_slice() {
        Some(x) => Cow::Borrowed(x),
        None => Cow::Owned(x.iter().copied().collect()),
    }
}

impl Beside<'_> {
    fn rows(&self, rows: Range<usize>) -> &[f32] {
        &self.x[rows.start * self.columns..rows.end * self.columns]
    }

    fn strided(&self, rows: Range<usize>) -> Strided<'_> {
        Strided {
            data: self.rows(rows),
            row: self.columns,
            column: 1,
        }
    }

    /// The rows turned round, from a column on.
    fn transposed(&self, rows: Range<usize>, column: usize) -> Strided<'_> {
        Strided {
            data: &self.rows(rows)[column..],
            row: 1,
            column: self.columns,
        }
    }
}

impl<'a> SparseRows<'a> {
    fn new(x: &'a Sparse, beside: Option<Beside<'a>>) -> Self {
        let transposed: Vec<Transposed> = cut(0..x.rows(), TRANSPOSED_BLOCK)
            .into_par_iter()
            .map(|rows| Transposed::new(x, rows))
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
        Self {
            x,
            transposed,
            groups,
            beside,
        }
    }
}

/// Cuts a range into blocks of at most `size`.
fn cut(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range
        .clone()
        .step_by(size)
        .map(|begin| begin..range.end.min(begin + size))
        .collect()
}

/// Columns of a piece of the transposed product of embeddings in a joint design.
const BESIDE_PIECE: usize = 48;

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
    pub(crate) fn new(rows: &'a Rows<'a>, classes: usize, c: f64) -> Self {
        let stride = stride_of(classes);
        let n = rows.len();
        let total: f64 = rows.weights.iter().map(|&w| f64::from(w)).sum();
        assert!(n == 0 || total > 0.0, "some row weighs something");
        let mut parts = Vec::new();
        let mut residuals = Aligned::zeros(0);
        match rows.kind {
            Kind::Dense(_) => {
                let blocks = cut(0..n, DENSE_BLOCK);
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
            Kind::Sparse(_) => {
                residuals = Aligned::zeros(n.min(STAGE + TRANSPOSED_BLOCK) * stride);
            }
        }
        Self {
            arch: Arch::new(),
            rows,
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
            Kind::Sparse(_) => None,
        }
    }

    /// The embeddings beside lexical rows, row by row, and their columns.
    pub(crate) fn beside(&self) -> Option<(&[f32], usize)> {
        match &self.rows.kind {
            Kind::Dense(_) => None,
            Kind::Sparse(sparse) => sparse.beside.as_ref().map(|b| (&b.x[..], b.columns)),
        }
    }

    /// Up to `most` of the rows, evenly spread.
    pub(crate) fn sample(&self, most: usize) -> Vec<usize> {
        let n = self.rows.len();
        (0..n).step_by(n.div_ceil(most).max(1)).collect()
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
        for row in 0..self.rows.len() {
            let weight = self.weight(row);
            match &self.rows.kind {
                Kind::Dense(x) => {
                    let x = &x[row * sums.len()..][..sums.len()];
                    for (s, v) in sums.iter_mut().zip(x) {
                        *s += weight * v * v;
                    }
                }
                Kind::Sparse(sparse) => {
                    let (columns, values) = sparse.x.row(row);
                    for (&c, v) in columns.iter().zip(values) {
                        sums[c as usize] += weight * v * v;
                    }
                    if let Some(beside) = &sparse.beside {
                        let sums = &mut sums[sparse.x.columns()..];
                        for (s, v) in sums.iter_mut().zip(beside.rows(row..row + 1)) {
                            *s += weight * v * v;
                        }
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
            Kind::Sparse(sparse) => self.sparse(sparse, weights, intercepts, weight_gradient),
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
        lexical: &SparseRows<'_>,
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
        let SparseRows {
            x,
            transposed,
            groups,
            beside,
        } = lexical;
        let split = x.columns() * stride;
        let mut sums = Part::new(stride);
        let mut first = true;
        let mut rest = transposed.as_slice();
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
            for rows in stage.iter().flat_map(|t| cut(t.rows.clone(), SPARSE_BLOCK)) {
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
                    let (own, others) = weights.split_at(split);
                    gather_lines(arch, x.lines(block.clone()), own, stride, scores);
                    if let Some(beside) = beside {
                        let a = beside.strided(block.clone());
                        accumulate(arch, a, beside.columns, others, stride, scores);
                    }
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
            let others = beside.as_ref().map_or(0, |b| b.columns);
            let others = cut(x.columns()..x.columns() + others, BESIDE_PIECE);
            let mut pieces = Vec::with_capacity(groups.len() + others.len());
            let mut free = &mut *gradient;
            for group in groups.iter().chain(&others) {
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
                    match beside {
                        Some(beside) if group.start >= x.columns() => {
                            let column = group.start - x.columns();
                            let a = beside.transposed(block.rows.clone(), column);
                            accumulate(arch, a, block.rows.len(), residuals, stride, gradient);
                        }
                        _ => {
                            let lines = block.lines(group.clone());
                            gather_lines(arch, lines, residuals, stride, gradient);
                        }
                    }
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
