//! Feature matrices, and the two products a linear model needs of them.
//!
//! Weights stand feature by feature, each feature's classes side by side and
//! padded to [`LANES`], so that both a sparse row's gather and its scatter run
//! over whole vectors.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice, linalg::general_mat_mul};
use pulp::Arch;
use tracer_features::SparseRow;

use crate::simd::{LANES, gather, scatter};

/// The padded number of classes.
pub(crate) fn stride_of(classes: usize) -> usize {
    classes.next_multiple_of(LANES)
}

/// Rows to learn from.
#[derive(Clone, Debug)]
pub enum Design {
    /// One row of an embedding matrix after the other.
    Dense(Array2<f32>),
    /// Lexical rows.
    Sparse(Sparse),
}

/// Compressed sparse rows.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    columns: usize,
    starts: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Sparse {
    /// No rows of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            starts: vec![0],
            indices: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &SparseRow) {
        debug_assert!(row.columns.iter().all(|&c| (c as usize) < self.columns));
        self.indices.extend_from_slice(&row.columns);
        self.values.extend_from_slice(&row.values);
        self.starts.push(self.indices.len());
    }

    fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.starts[i]..self.starts[i + 1];
        (&self.indices[range.clone()], &self.values[range])
    }
}

impl Design {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(x) => x.nrows(),
            Self::Sparse(x) => x.starts.len() - 1,
        }
    }

    /// The rows named, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Dense(x) => Self::Dense(x.select(Axis(0), rows)),
            Self::Sparse(x) => {
                let mut out = Sparse::new(x.columns);
                for &i in rows {
                    let (columns, values) = x.row(i);
                    out.indices.extend_from_slice(columns);
                    out.values.extend_from_slice(values);
                    out.starts.push(out.indices.len());
                }
                Self::Sparse(out)
            }
        }
    }

    /// Number of features.
    pub fn columns(&self) -> usize {
        match self {
            Self::Dense(x) => x.ncols(),
            Self::Sparse(x) => x.columns,
        }
    }

    /// `scores += X[start..] · weights` for as many rows as `scores` has.
    /// `weights` is features × stride.
    pub fn multiply(
        &self,
        arch: Arch,
        start: usize,
        weights: &[f32],
        stride: usize,
        scores: &mut [f32],
    ) {
        let rows = scores.len() / stride;
        match self {
            Self::Dense(x) => {
                let x = x.slice_axis(Axis(0), Slice::from(start..start + rows));
                let weights = view(weights, x.ncols(), stride);
                general_mat_mul(1.0, &x, &weights, 1.0, &mut view_mut(scores, rows, stride));
            }
            Self::Sparse(x) => {
                for (i, out) in scores.chunks_exact_mut(stride).enumerate() {
                    let (columns, values) = x.row(start + i);
                    gather(arch, columns, values, weights, out);
                }
            }
        }
    }

    /// `gradient += X[start..]ᵀ · residuals` for as many rows as `residuals` has.
    pub fn multiply_transposed(
        &self,
        arch: Arch,
        start: usize,
        residuals: &[f32],
        stride: usize,
        gradient: &mut [f32],
    ) {
        let rows = residuals.len() / stride;
        match self {
            Self::Dense(x) => {
                let x = x.slice_axis(Axis(0), Slice::from(start..start + rows));
                let residuals = view(residuals, rows, stride);
                general_mat_mul(
                    1.0,
                    &x.t(),
                    &residuals,
                    1.0,
                    &mut view_mut(gradient, x.ncols(), stride),
                );
            }
            Self::Sparse(x) => {
                for (i, residual) in residuals.chunks_exact(stride).enumerate() {
                    let (columns, values) = x.row(start + i);
                    scatter(arch, columns, values, residual, gradient);
                }
            }
        }
    }
}

fn view(data: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), data).expect("a block of rows × columns")
}

fn view_mut(data: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), data).expect("a block of rows × columns")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same matrix dense and sparse gives the same products.
    #[test]
    fn dense_and_sparse_agree() {
        let x = ndarray::array![[1.0_f32, 0.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]];
        let mut sparse = Sparse::new(3);
        sparse.push(&SparseRow {
            columns: vec![0, 2],
            values: vec![1.0, 2.0],
        });
        sparse.push(&SparseRow {
            columns: vec![1],
            values: vec![3.0],
        });
        sparse.push(&SparseRow::default());
        let stride = stride_of(3);
        let weights: Vec<f32> = (0..3 * stride).map(|i| i as f32 * 0.5 - 3.0).collect();
        let residuals: Vec<f32> = (0..3 * stride).map(|i| (i as f32).sin()).collect();
        let arch = Arch::new();
        let products = |design: &Design| {
            let mut scores = vec![0.5; 3 * stride];
            design.multiply(arch, 0, &weights, stride, &mut scores);
            let mut gradient = vec![0.0; 3 * stride];
            design.multiply_transposed(arch, 0, &residuals, stride, &mut gradient);
            (scores, gradient)
        };
        let (a, b) = (
            products(&Design::Dense(x)),
            products(&Design::Sparse(sparse)),
        );
        for (a, b) in a.0.iter().zip(&b.0).chain(a.1.iter().zip(&b.1)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
