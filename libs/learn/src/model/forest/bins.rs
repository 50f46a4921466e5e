//! Columns cut into bins of about as many distinct values each, a byte a value: a
//! split then looks at bytes that stand side by side, and at a few cuts.

use ndarray::ArrayView2;
use rayon::prelude::*;

/// Bins of a column at the most.
pub(super) const BINS: usize = 64;

/// Rows whose values place the cuts, at the most.
const SAMPLE: usize = 4096;

/// Rows of a node below which its bins are gathered row by row: the columns of a few
/// rows stand closer together than the rows of a few columns.
const FEW: usize = 512;

/// Binned rows.
pub(super) struct Binned {
    rows: usize,
    /// Bins once more, row by row.
    by_row: Vec<u8>,
    columns: Vec<Column>,
}

struct Column {
    /// Bin by row: the number of cuts below the value.
    bins: Vec<u8>,
    /// Rising; a value up to and including `cuts[b]` is in bin `b` or below.
    cuts: Vec<f32>,
}

impl Binned {
    /// Cuts every column of `x`, whose values are finite.
    pub(super) fn new(x: ArrayView2<'_, f32>) -> Self {
        let stride = x.nrows().div_ceil(SAMPLE).max(1);
        let columns: Vec<Column> = (0..x.ncols())
            .into_par_iter()
            .map(|column| {
                let column = x.column(column);
                let mut values: Vec<f32> = column.iter().step_by(stride).copied().collect();
                values.sort_unstable_by(f32::total_cmp);
                values.dedup();
                let cuts = cuts(&values);
                let bins = column
                    .iter()
                    .map(|&v| cuts.partition_point(|&cut| cut < v) as u8)
                    .collect();
                Column { bins, cuts }
            })
            .collect();
        let mut by_row = vec![0; x.len()];
        for (j, column) in columns.iter().enumerate() {
            for (row, &bin) in by_row.chunks_exact_mut(columns.len()).zip(&column.bins) {
                row[j] = bin;
            }
        }
        Self {
            rows: x.nrows(),
            by_row,
            columns,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Bin by row.
    pub(super) fn bins(&self, column: usize) -> &[u8] {
        &self.columns[column].bins
    }

    /// The bins of some rows in some columns, column by column.
    pub(super) fn gather(&self, rows: &[u32], columns: &[u16], out: &mut Vec<u8>) {
        let n = rows.len();
        out.resize(n * columns.len(), 0);
        if n < FEW {
            let width = self.columns.len();
            for (i, &row) in rows.iter().enumerate() {
                let bins = &self.by_row[row as usize * width..][..width];
                let out = out[i..].iter_mut().step_by(n);
                for (out, &column) in out.zip(columns) {
                    *out = bins[usize::from(column)];
                }
            }
        } else {
            for (out, &column) in out.chunks_exact_mut(n).zip(columns) {
                let bins = self.bins(usize::from(column));
                for (out, &row) in out.iter_mut().zip(rows) {
                    *out = bins[row as usize];
                }
            }
        }
    }

    /// A value in the middle of two bins' upper ends; neither is the column's last
    /// bin. With `bin` twice, what is up to it (inclusive) is in the bin or below.
    pub(super) fn between(&self, column: usize, bin: u8, other: u8) -> f32 {
        let cuts = &self.columns[column].cuts;
        let (low, high) = (cuts[usize::from(bin)], cuts[usize::from(other)]);
        // Halves first: a sum could overflow, and the half of a tiny value underflow.
        (low / 2.0 + high / 2.0).clamp(low, high)
    }
}

/// Cuts halfway between neighbours of the sorted distinct `values`, between all of
/// them if they are few.
fn cuts(values: &[f32]) -> Vec<f32> {
    let gaps = values.len().saturating_sub(1);
    let cuts = gaps.min(BINS - 1);
    (0..cuts)
        .map(|i| {
            // As many gaps as cuts: each. Else evenly spread.
            let gap = (2 * i + 1) * gaps / (2 * cuts);
            let (low, high) = (values[gap], values[gap + 1]);
            let middle = low / 2.0 + high / 2.0;
            if low <= middle && middle < high {
                middle
            } else {
                low
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn few_values_get_a_bin_each() {
        assert_eq!(cuts(&[1.0, 2.0, 4.0]), [1.5, 3.0]);
        assert_eq!(cuts(&[1.0]), [] as [f32; 0]);
        assert_eq!(cuts(&[]), [] as [f32; 0]);
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        assert_eq!(cuts(&[1.0, next]), [1.0]);
        assert!(cuts(&[f32::MIN, f32::MAX])[0].is_finite());
        let x = Array2::from_shape_vec((4, 1), vec![4.0, 1.0, 2.0, 1.0]).unwrap();
        assert_eq!(Binned::new(x.view()).bins(0), [2, 0, 1, 0]);
    }

    #[test]
    fn many_values_are_spread_evenly() {
        let x = Array2::from_shape_fn((10_000, 1), |(i, _)| (i as f32).sqrt());
        let binned = Binned::new(x.view());
        let mut counts = [0; BINS];
        for &bin in binned.bins(0) {
            counts[usize::from(bin)] += 1;
        }
        assert!(counts.iter().all(|&c| c > 60 && c < 250), "{counts:?}");
        for (v, &bin) in x.iter().zip(binned.bins(0)) {
            assert!(bin == 0 || *v > binned.between(0, bin - 1, bin - 1));
            assert!(usize::from(bin) == BINS - 1 || *v <= binned.between(0, bin, bin));
        }
    }

    #[test]
    fn few_and_many_rows_are_gathered_alike() {
        let x = Array2::from_shape_fn((2 * FEW, 7), |(i, j)| ((i * 31 + j * 17) % 97) as f32);
        let binned = Binned::new(x.view());
        let rows: Vec<u32> = (0..FEW as u32 + 50)
            .map(|i| (i * 7) % (2 * FEW as u32))
            .collect();
        let (mut many, mut few) = (Vec::new(), Vec::new());
        binned.gather(&rows, &[5, 2], &mut many);
        let (first, second) = many.split_at(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            assert_eq!(first[i], binned.bins(5)[row as usize]);
            assert_eq!(second[i], binned.bins(2)[row as usize]);
        }
        binned.gather(&rows[..40], &[5, 2], &mut few);
        assert_eq!(few, [&first[..40], &second[..40]].concat());
    }
}
