//! The inner loops, compiled for the vector instructions of the machine at hand
//! and chosen at run time.
//!
//! Each kernel is a struct with an `#[inline(always)]` body: a closure would be
//! compiled apart, without the instructions, and call a software fused
//! multiply-add for every element.

#![allow(clippy::inline_always)] // see above: it is what makes the kernels fast

use pulp::{Arch, NullaryFnOnce};

/// Classes are padded to a multiple of this many f32 lanes.
pub(crate) const LANES: usize = 8;

/// `out += Σ value · weights[column]`: the scores of one sparse row.
pub(crate) fn gather(
    arch: Arch,
    columns: &[u32],
    values: &[f32],
    weights: &[f32],
    out: &mut [f32],
) {
    arch.dispatch(Gather {
        columns,
        values,
        weights,
        out,
    });
}

/// `gradient[column] += value · residual`: the gradient of one sparse row.
pub(crate) fn scatter(
    arch: Arch,
    columns: &[u32],
    values: &[f32],
    residual: &[f32],
    gradient: &mut [f32],
) {
    arch.dispatch(Scatter {
        columns,
        values,
        residual,
        gradient,
    });
}

/// `out += x · weights`: the scores of one dense row.
pub(crate) fn dense_row(arch: Arch, x: &[f32], weights: &[f32], out: &mut [f32]) {
    arch.dispatch(DenseRow { x, weights, out });
}

/// A dot product: blocked f32 lanes, summed up in f64.
pub(crate) fn dot(arch: Arch, a: &[f32], b: &[f32]) -> f64 {
    arch.dispatch(Dot { a, b })
}

/// `y += a · x`.
pub(crate) fn add_scaled(arch: Arch, a: f32, x: &[f32], y: &mut [f32]) {
    arch.dispatch(AddScaled { a, x, y });
}

struct Gather<'a> {
    columns: &'a [u32],
    values: &'a [f32],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl NullaryFnOnce for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let stride = self.out.len();
        for (&column, &value) in self.columns.iter().zip(self.values) {
            let at = column as usize * stride;
            axpy(value, &self.weights[at..at + stride], self.out);
        }
    }
}

struct Scatter<'a> {
    columns: &'a [u32],
    values: &'a [f32],
    residual: &'a [f32],
    gradient: &'a mut [f32],
}

impl NullaryFnOnce for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let stride = self.residual.len();
        for (&column, &value) in self.columns.iter().zip(self.values) {
            let at = column as usize * stride;
            axpy(value, self.residual, &mut self.gradient[at..at + stride]);
        }
    }
}

struct DenseRow<'a> {
    x: &'a [f32],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl NullaryFnOnce for DenseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let stride = self.out.len();
        for (&value, row) in self.x.iter().zip(self.weights.chunks_exact(stride)) {
            axpy(value, row, self.out);
        }
    }
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl NullaryFnOnce for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut total = 0.0_f64;
        for (a, b) in self.a.chunks(4096).zip(self.b.chunks(4096)) {
            let (a_lanes, a_rest) = a.as_chunks::<16>();
            let (b_lanes, b_rest) = b.as_chunks::<16>();
            let mut sums = [0.0_f32; 16];
            for (a, b) in a_lanes.iter().zip(b_lanes) {
                for lane in 0..16 {
                    sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
                }
            }
            total += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
            total += a_rest
                .iter()
                .zip(b_rest)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum::<f64>();
        }
        total
    }
}

struct AddScaled<'a> {
    a: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl NullaryFnOnce for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = self.a.mul_add(x, *y);
        }
    }
}

/// `y += a · x` over whole lanes.
#[inline(always)]
fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    let (x, _) = x.as_chunks::<LANES>();
    let (y, _) = y.as_chunks_mut::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            y[lane] = a.mul_add(x[lane], y[lane]);
        }
    }
}
