//! Feature matrices.
//!
//! Weights stand feature by feature, each feature's classes side by side and
//! padded to [`LANES`], so that every product runs over whole vectors.

use std::ops::Range;

use ndarray::ArrayView2;
use tracer_features::SparseRow;

use crate::simd::{LANES, Lines};

/// The padded number of classes.
pub(crate) fn stride_of(classes: usize) -> usize {
    classes.next_multiple_of(LANES)
}

/// The place of a column that is not there.
pub(crate) const ABSENT: u32 = u32::MAX;

/// The place of each of `all` columns among `some` of them, or [`ABSENT`].
pub(crate) fn places(some: &[u32], all: usize) -> Vec<u32> {
    let mut places = vec![ABSENT; all];
    for (place, &column) in some.iter().enumerate() {
        places[column as usize] = place as u32;
    }
    places
}

/// Rows to learn from.
#[derive(Clone, Copy, Debug)]
pub enum Design<'a> {
    /// One row of an embedding matrix after the other.
    Dense(ArrayView2<'a, f32>),
    /// Lexical rows.
    Sparse(&'a Sparse),
    /// Both, row by row: the lexical columns first, then the embedding's.
    Joint(&'a Sparse, ArrayView2<'a, f32>),
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

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The columns that the most rows have, at most so many, ascending; of equals the
    /// first ones.
    pub(crate) fn commonest(&self, most: usize) -> Vec<u32> {
        let mut counts = vec![0_u32; self.columns];
        for &column in &self.indices {
            counts[column as usize] += 1;
        }
        let mut columns: Vec<u32> = (0..self.columns as u32)
            .filter(|&c| counts[c as usize] > 0)
            .collect();
        if columns.len() > most {
            columns.sort_by_key(|&c| (std::cmp::Reverse(counts[c as usize]), c));
            columns.truncate(most);
            columns.sort_unstable();
        }
        columns
    }

    /// The same rows with some of their columns, numbered anew, ascending, and every
    /// value times `factor`.
    pub(crate) fn narrowed(&self, columns: &[u32], factor: f32) -> Self {
        let places = places(columns, self.columns);
        let mut out = Self::new(columns.len());
        for i in 0..self.rows() {
            let (columns, values) = self.row(i);
            for (&column, value) in columns.iter().zip(values) {
                let place = places[column as usize];
                if place != ABSENT {
                    out.indices.push(place);
                    out.values.push(value * factor);
                }
            }
            out.starts.push(out.indices.len());
        }
        out
    }

    pub(crate) fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.starts[i]..self.starts[i + 1];
        (&self.indices[range.clone()], &self.values[range])
    }
}

impl Design<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(x) | Self::Joint(_, x) => x.nrows(),
            Self::Sparse(x) => x.rows(),
        }
    }

    /// Number of features.
    pub fn columns(&self) -> usize {
        match self {
            Self::Dense(x) => x.ncols(),
            Self::Sparse(x) => x.columns,
            Self::Joint(sparse, dense) => sparse.columns + dense.ncols(),
        }
    }
}

impl Sparse {
    /// The rows of `range` as lines for the kernels.
    pub(crate) fn lines(&self, range: Range<usize>) -> Lines<'_> {
        Lines {
            starts: &self.starts[range.start..=range.end],
            indices: &self.indices,
            values: &self.values,
        }
    }
}

/// A block of sparse rows, column by column.
#[derive(Debug)]
pub(crate) struct Transposed {
    /// The rows of the block, in the whole design.
    pub(crate) rows: Range<usize>,
    starts: Vec<usize>,
    /// Rows, counted from the block's first.
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Transposed {
    pub(crate) fn new(x: &Sparse, rows: Range<usize>) -> Self {
        let (begin, end) = (x.starts[rows.start], x.starts[rows.end]);
        let mut starts = vec![0_usize; x.columns + 2];
        for &column in &x.indices[begin..end] {
            starts[column as usize + 2] += 1;
        }
        for i in 2..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut indices = vec![0_u32; end - begin];
        let mut values = vec![0.0_f32; end - begin];
        for i in rows.clone() {
            let (columns, row_values) = x.row(i);
            for (&column, &value) in columns.iter().zip(row_values) {
                // `starts[c + 1]` walks from the start of column c to its end.
                let at = &mut starts[column as usize + 1];
                indices[*at] = (i - rows.start) as u32;
                values[*at] = value;
                *at += 1;
            }
        }
        starts.pop();
        Self {
            rows,
            starts,
            indices,
            values,
        }
    }

    /// Entries of the columns before `column`.
    pub(crate) fn entries_before(&self, column: usize) -> usize {
        self.starts[column]
    }

    /// Some columns as lines for the kernels.
    pub(crate) fn lines(&self, columns: Range<usize>) -> Lines<'_> {
        Lines {
            starts: &self.starts[columns.start..=columns.end],
            indices: &self.indices,
            values: &self.values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block's columns are its rows turned round.
    #[test]
    fn transposes_a_block() {
        let mut sparse = Sparse::new(4);
        for (columns, values) in [
            (vec![0, 2], vec![1.0, 2.0]),
            (vec![1], vec![3.0]),
            (vec![], vec![]),
            (vec![2, 1], vec![4.0, 5.0]),
        ] {
            sparse.push(&SparseRow { columns, values });
        }
        let block = Transposed::new(&sparse, 1..4);
        let column = |c: usize| {
            let lines = block.lines(c..c + 1);
            let entries = lines.starts[0]..lines.starts[1];
            (&lines.indices[entries.clone()], &lines.values[entries])
        };
        assert_eq!(column(0), (&[][..], &[][..]));
        assert_eq!(column(1), (&[0, 2][..], &[3.0, 5.0][..]));
        assert_eq!(column(2), (&[2][..], &[4.0][..]));
        assert_eq!(column(3), (&[][..], &[][..]));
    }
}
