//! An approximate inverse of the Hessian, to start each quasi-Newton step from.
//!
//! The Hessian of the mean cross-entropy is `Σ wᵢ (diag pᵢ − pᵢpᵢᵀ) ⊗ x̃ᵢx̃ᵢᵀ` with
//! x̃ the row and a 1 for the intercept. On dense rows it is taken as the same
//! matrix for every class, `Σ wᵢ uᵢ x̃ᵢx̃ᵢᵀ + ridge` with uᵢ the mean of p (1 − p)
//! over the classes, estimated on a sample of the rows, and inverted. (At W = 0
//! that is, up to a factor, the bound of Böhning, Multinomial logistic regression
//! algorithm, 1992.) On sparse rows, and on very wide dense ones, it is taken as
//! diagonal: column j's mean square times class k's mean of p (1 − p), plus the ridge.

#![allow(clippy::inline_always)] // see `simd`

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use crate::{
    gemm::{Strided, accumulate},
    objective::Objective,
    simd::LANES,
    softmax::softmax,
};

/// Columns up to which the matrix is inverted: the cost is their cube.
const MOST_COLUMNS: usize = 2048;
/// Rows and columns of a block of the inversion.
const BLOCK: usize = 48;
/// Rows of the matrix for one thread to work on at a time.
const STRIP: usize = 40;

pub(crate) enum Preconditioner {
    /// The inverse, padded to `side` rows and columns.
    Full {
        arch: Arch,
        inverse: Vec<f32>,
        side: usize,
        /// Columns and the intercept.
        used: usize,
        stride: usize,
    },
    Diagonal {
        second_moments: Vec<f32>,
        /// By class.
        curvature: Vec<f32>,
        ridge: f32,
    },
    /// Lexical columns by their diagonal, the embedding's and the intercept by
    /// their inverse.
    Joint {
        lexical: Box<Self>,
        embedding: Box<Self>,
        /// Parameters of the lexical columns.
        split: usize,
    },
}

impl Preconditioner {
    /// The approximation at `parameters`, where the objective was evaluated last.
    pub(crate) fn at(objective: &Objective<'_>, parameters: &[f32], earlier: Option<Self>) -> Self {
        let small = |columns: usize| columns <= MOST_COLUMNS;
        if let Some(x) = objective.dense()
            && small(objective.columns())
        {
            return Self::full(objective, x, objective.columns(), Some(parameters));
        }
        let diagonal = Self::Diagonal {
            second_moments: match earlier {
                Some(Self::Diagonal { second_moments, .. }) => second_moments,
                Some(Self::Joint { lexical, .. }) => lexical.moments(),
                _ => objective.second_moments(),
            },
            curvature: objective.curvature().to_vec(),
            ridge: objective.ridge(),
        };
        match objective.beside() {
            Some((x, columns)) if small(columns) => Self::Joint {
                lexical: Box::new(diagonal),
                embedding: Box::new(Self::full(objective, x, columns, None)),
                split: (objective.columns() - columns) * objective.stride(),
            },
            _ => diagonal,
        }
    }

    fn moments(self) -> Vec<f32> {
        match self {
            Self::Diagonal { second_moments, .. } => second_moments,
            Self::Full { .. } | Self::Joint { .. } => Vec::new(),
        }
    }

    /// Of dense rows of so many columns. With `parameters` a row weighs by its own
    /// mean of p (1 − p), otherwise by that of all rows.
    fn full(
        objective: &Objective<'_>,
        x: &[f32],
        columns: usize,
        parameters: Option<&[f32]>,
    ) -> Self {
        let (arch, stride) = (objective.arch(), objective.stride());
        let classes = objective.classes() as f32;
        let mean_curvature = objective.curvature().iter().sum::<f32>() / classes;
        let used = columns + 1;
        let side = used.next_multiple_of(LANES);
        let sample = objective.sample((2 * columns).max(2000));

        // The sampled rows with the intercept's 1, and the same rows weighted.
        let mut rows = vec![0.0_f32; sample.len() * side];
        let mut weighted = vec![0.0_f32; sample.len() * side];
        let total: f32 = sample.iter().map(|&i| objective.weight(i)).sum();
        rows.par_chunks_mut(STRIP * side)
            .zip(weighted.par_chunks_mut(STRIP * side))
            .zip(sample.par_chunks(STRIP))
            .for_each(|((rows, weighted), sample)| {
                for (row, &i) in rows.chunks_exact_mut(side).zip(sample) {
                    row[..columns].copy_from_slice(&x[i * columns..(i + 1) * columns]);
                    row[columns] = 1.0;
                }
                let mut means = vec![mean_curvature; sample.len()];
                if let Some(parameters) = parameters {
                    let mut scores = vec![0.0_f32; sample.len() * stride];
                    let a = Strided {
                        data: rows,
                        row: side,
                        column: 1,
                    };
                    accumulate(arch, a, used, parameters, stride, &mut scores);
                    for (scores, mean) in scores.chunks_exact_mut(stride).zip(&mut means) {
                        softmax(arch, scores, objective.classes());
                        let spread = 1.0 - scores.iter().map(|p| p * p).sum::<f32>();
                        *mean = spread.max(0.0) / classes;
                    }
                }
                let rows = rows.chunks_exact(side);
                let weighted = weighted.chunks_exact_mut(side);
                for (((mean, row), weighted), &i) in
                    means.iter().zip(rows).zip(weighted).zip(sample)
                {
                    let weight = mean * objective.weight(i) / total.max(f32::MIN_POSITIVE);
                    for (w, x) in weighted.iter_mut().zip(row) {
                        *w = weight * x;
                    }
                }
            });
        let mut matrix = vec![0.0_f32; side * side];
        matrix
            .par_chunks_mut(STRIP * side)
            .enumerate()
            .for_each(|(i, strip)| {
                let a = Strided {
                    data: rows.get(i * STRIP..).unwrap_or_default(),
                    row: 1,
                    column: side,
                };
                accumulate(arch, a, sample.len(), &weighted, side, strip);
            });
        let top = (0..used).fold(0.0_f32, |m, i| m.max(matrix[i * side + i]));
        for i in 0..side {
            let diagonal = &mut matrix[i * side + i];
            *diagonal = match i {
                i if i < columns => *diagonal + objective.ridge(),
                i if i < used => *diagonal,
                _ => 1.0,
            } + 1e-6 * top;
        }
        invert(arch, &mut matrix, side);
        Self::Full {
            arch,
            inverse: matrix,
            side,
            used,
            stride,
        }
    }

    /// `out = H⁻¹ · gradient`.
    pub(crate) fn apply(&self, gradient: &[f32], out: &mut [f32]) {
        match self {
            Self::Full {
                arch,
                inverse,
                side,
                used,
                stride,
            } => {
                out.par_chunks_mut(STRIP * stride)
                    .enumerate()
                    .for_each(|(i, out)| {
                        out.fill(0.0);
                        let a = Strided {
                            data: &inverse[i * STRIP * side..],
                            row: *side,
                            column: 1,
                        };
                        accumulate(*arch, a, *used, gradient, *stride, out);
                    });
            }
            Self::Joint {
                lexical,
                embedding,
                split,
            } => {
                let (gradient, gradient_tail) = gradient.split_at(*split);
                let (out, out_tail) = out.split_at_mut(*split);
                lexical.apply(gradient, out);
                embedding.apply(gradient_tail, out_tail);
            }
            Self::Diagonal {
                second_moments,
                curvature,
                ridge,
            } => {
                let stride = curvature.len();
                out.par_chunks_mut(64 * stride)
                    .zip(gradient.par_chunks(64 * stride))
                    .enumerate()
                    .for_each(|(block, (out, gradient))| {
                        Arch::new().dispatch(Divide {
                            second_moments: second_moments.get(block * 64..).unwrap_or_default(),
                            curvature,
                            ridge: *ridge,
                            gradient,
                            out,
                        });
                    });
            }
        }
    }
}

/// `out = gradient / (second moment · curvature + ridge)`, row by row. The row after
/// the last column is the intercepts'.
struct Divide<'a> {
    second_moments: &'a [f32],
    curvature: &'a [f32],
    ridge: f32,
    gradient: &'a [f32],
    out: &'a mut [f32],
}

impl NullaryFnOnce for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let stride = self.curvature.len();
        let out = self.out.chunks_exact_mut(stride);
        for (i, (out, gradient)) in out.zip(self.gradient.chunks_exact(stride)).enumerate() {
            let (moment, ridge) = self
                .second_moments
                .get(i)
                .map_or((1.0, 1e-6), |&m| (m, self.ridge));
            for ((o, g), c) in out.iter_mut().zip(gradient).zip(self.curvature) {
                *o = g / moment.mul_add(*c, ridge);
            }
        }
    }
}

/// Inverts a symmetric positive definite matrix in place, by the sweep operator
/// (Goodnight, A tutorial on the sweep operator, 1979) on blocks of rows.
fn invert(arch: Arch, matrix: &mut [f32], side: usize) {
    for begin in (0..side).step_by(BLOCK) {
        let end = side.min(begin + BLOCK);
        let n = end - begin;
        // The pivot block, inverted by single sweeps; the sign comes out negative.
        let mut pivot = vec![0.0_f32; n * n];
        for (row, pivot) in pivot.chunks_exact_mut(n).enumerate() {
            pivot.copy_from_slice(&matrix[(begin + row) * side + begin..][..n]);
        }
        for k in 0..n {
            let inverse = 1.0 / pivot[k * n + k];
            let row_k: Vec<f32> = pivot[k * n..(k + 1) * n].to_vec();
            for i in (0..n).filter(|&i| i != k) {
                let factor = pivot[i * n + k] * inverse;
                for j in (0..n).filter(|&j| j != k) {
                    pivot[i * n + j] -= factor * row_k[j];
                }
                pivot[i * n + k] = factor;
            }
            for j in (0..n).filter(|&j| j != k) {
                pivot[k * n + j] = row_k[j] * inverse;
            }
            pivot[k * n + k] = -inverse;
        }
        // The block row before the sweep, and −P⁻¹ times it.
        let row = matrix[begin * side..end * side].to_vec();
        let mut scaled = vec![0.0_f32; n * side];
        let a = Strided {
            data: &pivot,
            row: n,
            column: 1,
        };
        accumulate(arch, a, n, &row, side, &mut scaled);
        // Everything else: A_IJ − A_IK P⁻¹ A_KJ, with A_IK = A_KIᵀ.
        matrix
            .par_chunks_mut(STRIP * side)
            .enumerate()
            .for_each(|(i, strip)| {
                let a = Strided {
                    data: &row[i * STRIP..],
                    row: 1,
                    column: side,
                };
                accumulate(arch, a, n, &scaled, side, strip);
            });
        for k in 0..n {
            let source = &scaled[k * side..(k + 1) * side];
            for (j, &value) in source.iter().enumerate() {
                if !(begin..end).contains(&j) {
                    matrix[(begin + k) * side + j] = -value;
                    matrix[j * side + begin + k] = -value;
                }
            }
            matrix[(begin + k) * side + begin..][..n].copy_from_slice(&pivot[k * n..(k + 1) * n]);
        }
    }
    for v in matrix {
        *v = -*v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverts() {
        let side = 112;
        let mut matrix = vec![0.0_f32; side * side];
        for i in 0..side {
            for j in 0..side {
                let (a, b) = (i as f32, j as f32);
                matrix[i * side + j] = (-(a - b).abs() / 9.0).exp() / (1.0 + 0.01 * (a + b));
            }
            matrix[i * side + i] += 0.05;
        }
        let mut inverse = matrix.clone();
        invert(Arch::new(), &mut inverse, side);
        for i in 0..side {
            for j in 0..side {
                let product: f64 = (0..side)
                    .map(|k| f64::from(matrix[i * side + k]) * f64::from(inverse[k * side + j]))
                    .sum();
                let expected = f64::from(i == j);
                assert!((product - expected).abs() < 1e-3, "{i} {j}: {product}");
            }
        }
    }
}
