//! The first layer's weights of lexical columns. A batch touches few of them, so
//! only those take a step: Adam with each column's means standing still in between.

#![allow(clippy::inline_always)] // see `kernels`

use pulp::{Arch, NullaryFnOnce};

use crate::{
    design::Sparse,
    model::{
        kernels::{ADAM_MEAN, ADAM_SQUARE, Adam, LANES},
        random::Random,
    },
    simd::gather,
};

/// Numbers of a column whose gradient is summed up in registers.
const BLOCK: usize = 64;

/// Lexical columns × hidden units, in training.
pub(super) struct TextLayer {
    stride: usize,
    pub(super) weights: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    /// Entries of the batch by column; 0 between steps.
    counts: Vec<u32>,
    batch: Batch,
}

/// The rows of a batch, column by column.
#[derive(Default)]
struct Batch {
    columns: Vec<u32>,
    /// Where the entries of each of the columns begin; then, where the last ones end.
    starts: Vec<u32>,
    /// Rows of the batch.
    rows: Vec<u32>,
    values: Vec<f32>,
}

impl TextLayer {
    pub(super) fn new(columns: usize, stride: usize, random: &mut Random) -> Self {
        let deviation = (2.0 / columns.max(1) as f32).sqrt();
        let size = columns * stride;
        Self {
            stride,
            weights: (0..size).map(|_| random.normal() * deviation).collect(),
            mean: vec![0.0; size],
            square: vec![0.0; size],
            counts: vec![0; columns],
            batch: Batch::default(),
        }
    }

    /// Adds the products of some rows to `out`, which has `stride` numbers a row.
    pub(super) fn forward(&self, arch: Arch, x: &Sparse, members: &[usize], out: &mut [f32]) {
        for (&i, out) in members.iter().zip(out.chunks_exact_mut(self.stride)) {
            let (columns, values) = x.row(i);
            gather(arch, columns, values, &self.weights, out);
        }
    }

    /// One step: `residuals` is the derivative of the loss by what [`Self::forward`]
    /// has added to.
    pub(super) fn step(
        &mut self,
        arch: Arch,
        x: &Sparse,
        members: &[usize],
        residuals: &[f32],
        adam: &Adam,
    ) {
        self.batch.turn(x, members, &mut self.counts);
        let (batch, stride) = (&self.batch, self.stride);
        for (bounds, &column) in batch.starts.windows(2).zip(&batch.columns) {
            let entries = bounds[0] as usize..bounds[1] as usize;
            let at = column as usize * stride;
            arch.dispatch(ColumnStep {
                adam,
                stride,
                residuals,
                rows: &batch.rows[entries.clone()],
                values: &batch.values[entries],
                weights: &mut self.weights[at..at + stride],
                mean: &mut self.mean[at..at + stride],
                square: &mut self.square[at..at + stride],
            });
        }
    }
}

impl Batch {
    /// Becomes the rows `members` of `x`. The columns come as they are met first, so
    /// that nothing but the rows decides their order.
    fn turn(&mut self, x: &Sparse, members: &[usize], counts: &mut [u32]) {
        self.columns.clear();
        self.starts.clear();
        let mut entries = 0;
        for &i in members {
            for &column in x.row(i).0 {
                let count = &mut counts[column as usize];
                if *count == 0 {
                    self.columns.push(column);
                }
                *count += 1;
                entries += 1;
            }
        }
        self.rows.resize(entries, 0);
        self.values.resize(entries, 0.0);
        // A column's count becomes the place of its next entry.
        let mut begin = 0;
        for &column in &self.columns {
            self.starts.push(begin);
            begin += std::mem::replace(&mut counts[column as usize], begin);
        }
        self.starts.push(begin);
        for (row, &i) in members.iter().enumerate() {
            let (columns, values) = x.row(i);
            for (&column, &value) in columns.iter().zip(values) {
                let place = &mut counts[column as usize];
                self.rows[*place as usize] = row as u32;
                self.values[*place as usize] = value;
                *place += 1;
            }
        }
        for &column in &self.columns {
            counts[column as usize] = 0;
        }
    }
}

/// The gradient of one column's weights, and their step.
struct ColumnStep<'a> {
    adam: &'a Adam,
    stride: usize,
    residuals: &'a [f32],
    rows: &'a [u32],
    values: &'a [f32],
    weights: &'a mut [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl NullaryFnOnce for ColumnStep<'_> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let mut at = 0;
        while at + BLOCK <= self.stride {
            self.block::<BLOCK>(at);
            at += BLOCK;
        }
        while at < self.stride {
            self.block::<LANES>(at);
            at += LANES;
        }
    }
}

impl ColumnStep<'_> {
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: usize) {
        let mut gradient = [0.0_f32; N];
        for (&row, &value) in self.rows.iter().zip(self.values) {
            let begin = row as usize * self.stride + at;
            let residuals: &[f32; N] = self.residuals[begin..begin + N]
                .try_into()
                .expect("a block");
            for (g, r) in gradient.iter_mut().zip(residuals) {
                *g = value.mul_add(*r, *g);
            }
        }
        let Adam {
            rate,
            epsilon,
            decay,
        } = *self.adam;
        let moments = self.mean[at..at + N]
            .iter_mut()
            .zip(&mut self.square[at..at + N]);
        let weights = self.weights[at..at + N].iter_mut();
        for ((w, g), (m, v)) in weights.zip(gradient).zip(moments) {
            *m = ADAM_MEAN * *m + (1.0 - ADAM_MEAN) * g;
            *v = ADAM_SQUARE * *v + (1.0 - ADAM_SQUARE) * g * g;
            *w -= rate * *m / (v.sqrt() + epsilon) + decay * *w;
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_features::SparseRow;

    use super::*;

    /// A step moves the touched columns as Adam on the whole gradient does, and no other.
    #[test]
    fn a_step_is_adams() {
        let (columns, stride) = (5, 80);
        let mut x = Sparse::new(columns);
        for (columns, values) in [
            (vec![0, 3], vec![1.0, 2.0]),
            (vec![3], vec![-1.0]),
            (vec![1], vec![9.0]),
            (vec![], vec![]),
        ] {
            x.push(&SparseRow { columns, values });
        }
        let members = [1, 3, 0];
        let residuals: Vec<f32> = (0..3 * stride).map(|i| (i as f32).sin()).collect();
        let adam = Adam {
            rate: 0.1,
            epsilon: 1e-8,
            decay: 0.01,
        };
        let mut layer = TextLayer::new(columns, stride, &mut Random::new(1, 0));
        let before = layer.weights.clone();
        let mut expected = before.clone();
        let mut gradient = vec![0.0; columns * stride];
        for (row, &i) in members.iter().enumerate() {
            let (columns, values) = x.row(i);
            for (&column, value) in columns.iter().zip(values) {
                for k in 0..stride {
                    gradient[column as usize * stride + k] += value * residuals[row * stride + k];
                }
            }
        }
        let (mut mean, mut square) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
        for column in [0, 3] {
            let at = column * stride..(column + 1) * stride;
            adam.step(
                Arch::new(),
                &mut expected[at.clone()],
                &gradient[at.clone()],
                &mut mean[at.clone()],
                &mut square[at],
            );
        }
        layer.step(Arch::new(), &x, &members, &residuals, &adam);
        for (got, expected) in layer.weights.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        assert_eq!(
            layer.weights[stride..3 * stride],
            before[stride..3 * stride]
        );
        assert_ne!(layer.weights[..stride], before[..stride]);
        // The next batch finds nothing of this one.
        assert!(layer.counts.iter().all(|&c| c == 0));
        layer.batch.turn(&x, &[2], &mut layer.counts);
        assert_eq!(
            (&layer.batch.columns, &layer.batch.rows),
            (&vec![1], &vec![0])
        );
    }
}
