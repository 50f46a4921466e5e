//! The inner loops of the models, compiled for the vector instructions of the
//! machine at hand and chosen at run time (see `simd.rs` for why each is a struct).

#![allow(clippy::inline_always)] // it is what makes the kernels fast

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

/// Outputs of a layer are padded to a multiple of this.
pub(super) const LANES: usize = 16;

/// `out += x · weights`, where `weights` is `x.len()` × `out.len()` and
/// `out.len()` a multiple of [`LANES`]. Every sum is taken in the order of `x`.
pub(super) fn row_product(arch: Arch, x: &[f32], weights: &[f32], out: &mut [f32]) {
    arch.dispatch(RowProduct { x, weights, out });
}

struct RowProduct<'a> {
    x: &'a [f32],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for RowProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (weights, _) = S::as_simd_f32s(self.weights);
        let (out, _) = S::as_mut_simd_f32s(self.out);
        // As many sums as the registers hold beside an operand, in blocks of columns.
        let mut begin = 0;
        while begin < out.len() {
            match out.len() - begin {
                8.. => block::<S, 8>(simd, self.x, weights, &mut begin, out),
                5.. => block::<S, 5>(simd, self.x, weights, &mut begin, out),
                4 => block::<S, 4>(simd, self.x, weights, &mut begin, out),
                2.. => block::<S, 2>(simd, self.x, weights, &mut begin, out),
                _ => block::<S, 1>(simd, self.x, weights, &mut begin, out),
            }
        }
    }
}

#[inline(always)]
fn block<S: Simd, const N: usize>(
    simd: S,
    x: &[f32],
    weights: &[S::f32s],
    begin: &mut usize,
    out: &mut [S::f32s],
) {
    let stride = out.len();
    let range = *begin..*begin + N;
    let mut sums = [simd.splat_f32s(0.0); N];
    sums.copy_from_slice(&out[range.clone()]);
    for (&x, row) in x.iter().zip(weights.chunks_exact(stride)) {
        let x = simd.splat_f32s(x);
        let row = &row[range.clone()];
        for lane in 0..N {
            sums[lane] = simd.mul_add_f32s(x, row[lane], sums[lane]);
        }
    }
    out[range].copy_from_slice(&sums);
    *begin += N;
}

/// One step of Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov
/// and Hutter 2019).
pub(super) struct Adam {
    /// Step length, with the bias correction of both means in it.
    pub(super) rate: f32,
    /// Added to the root of the mean square, with the bias correction in it.
    pub(super) epsilon: f32,
    /// Share of a parameter that decays.
    pub(super) decay: f32,
}

/// Decay of Adam's mean of gradients.
pub(super) const ADAM_MEAN: f32 = 0.9;
/// Decay of Adam's mean of squared gradients.
pub(super) const ADAM_SQUARE: f32 = 0.99;

impl Adam {
    /// Moves `parameters` against `gradient`. All four are equally long.
    pub(super) fn step(
        &self,
        arch: Arch,
        parameters: &mut [f32],
        gradient: &[f32],
        mean: &mut [f32],
        square: &mut [f32],
    ) {
        arch.dispatch(AdamStep {
            adam: self,
            parameters,
            gradient,
            mean,
            square,
        });
    }
}

struct AdamStep<'a> {
    adam: &'a Adam,
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl NullaryFnOnce for AdamStep<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Adam {
            rate,
            epsilon,
            decay,
        } = *self.adam;
        let moments = self.mean.iter_mut().zip(self.square.iter_mut());
        for ((p, &g), (m, v)) in self.parameters.iter_mut().zip(self.gradient).zip(moments) {
            *m = ADAM_MEAN * *m + (1.0 - ADAM_MEAN) * g;
            *v = ADAM_SQUARE * *v + (1.0 - ADAM_SQUARE) * g * g;
            *p -= rate * *m / (v.sqrt() + epsilon) + decay * *p;
        }
    }
}

/// Scores to probabilities, in place. Returns the logarithm of the sum of the
/// exponentials, so that `score − it` is a log-probability.
pub(super) fn softmax(arch: Arch, row: &mut [f32]) -> f32 {
    arch.dispatch(Softmax(row))
}

struct Softmax<'a>(&'a mut [f32]);

impl NullaryFnOnce for Softmax<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let row = self.0;
        let (lanes, rest) = row.as_chunks::<LANES>();
        let mut tops = [f32::NEG_INFINITY; LANES];
        for chunk in lanes {
            for lane in 0..LANES {
                tops[lane] = if chunk[lane] > tops[lane] {
                    chunk[lane]
                } else {
                    tops[lane]
                };
            }
        }
        let top = rest
            .iter()
            .chain(&tops)
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let (lanes, rest) = row.as_chunks_mut::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for chunk in lanes {
            for lane in 0..LANES {
                chunk[lane] = exp(chunk[lane] - top);
                sums[lane] += chunk[lane];
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for v in rest {
            *v = exp(*v - top);
            sum += *v;
        }
        let scale = 1.0 / sum;
        for v in row.iter_mut() {
            *v *= scale;
        }
        top + sum.ln()
    }
}

/// eˣ for x ≤ 0 with a relative error below 3e-7: two to the whole part by the
/// exponent bits, two to the rest by a polynomial. Plain arithmetic, so that a
/// loop over it becomes vector code. Below −87 it is about 1e-38. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let t = x * std::f32::consts::LOG2_E;
    let rounded = t + ROUND;
    let f = (t - (rounded - ROUND)) * std::f32::consts::LN_2;
    // eᶠ on [−ln 2 / 2, ln 2 / 2], Taylor to the sixth power.
    let p = (1.0_f32 / 720.0).mul_add(f, 1.0 / 120.0);
    let p = p.mul_add(f, 1.0 / 24.0);
    let p = p.mul_add(f, 1.0 / 6.0);
    let p = p.mul_add(f, 0.5);
    let p = p.mul_add(f, 1.0);
    let p = p.mul_add(f, 1.0);
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// Rectification and dropout, in place: an entry is kept when it is positive and its random
/// byte at least `threshold`, and then scaled by `scale`.
pub(super) fn relu_dropout(arch: Arch, row: &mut [f32], bytes: &[u8], threshold: u8, scale: f32) {
    arch.dispatch(ReluDropout {
        row,
        bytes,
        threshold,
        scale,
    });
}

struct ReluDropout<'a> {
    row: &'a mut [f32],
    bytes: &'a [u8],
    threshold: u8,
    scale: f32,
}

impl NullaryFnOnce for ReluDropout<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (v, &byte) in self.row.iter_mut().zip(self.bytes) {
            // A NaN must come through, or a divergence would look like a dead unit.
            let kept = if byte < self.threshold {
                0.0
            } else {
                *v * self.scale
            };
            *v = if *v <= 0.0 { 0.0 } else { kept };
        }
    }
}

/// One row of stochastic gradient descent on the multinomial log loss.
pub(super) struct SgdRow<'a> {
    /// The row's features.
    pub(super) columns: &'a [u32],
    /// Their values.
    pub(super) values: &'a [f32],
    pub(super) label: usize,
    pub(super) classes: usize,
    /// The row's weight.
    pub(super) weight: f32,
    /// Step length of the weights.
    pub(super) rate: f32,
    /// Step length of the intercepts.
    pub(super) intercept_rate: f32,
    /// features × stride.
    pub(super) weights: &'a mut [f32],
    /// stride.
    pub(super) intercepts: &'a mut [f32],
    /// Sums of squared gradients: features, then one for the intercepts.
    pub(super) squares: &'a mut [f32],
    /// Room for stride scores.
    pub(super) scores: &'a mut [f32],
}

/// Takes the step. Returns the row's weighted loss before it.
pub(super) fn sgd_step(arch: Arch, row: SgdRow<'_>) -> f32 {
    arch.dispatch(row)
}

impl NullaryFnOnce for SgdRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let stride = self.intercepts.len();
        let scores = self.scores;
        scores.copy_from_slice(self.intercepts);
        for (&column, &value) in self.columns.iter().zip(self.values) {
            let at = column as usize * stride;
            axpy(value, &self.weights[at..at + stride], scores);
        }
        let score = scores[self.label];
        let log_sum = Softmax(&mut scores[..self.classes]).call();
        scores[self.label] -= 1.0;
        let mut square = 0.0;
        for r in &mut scores[..self.classes] {
            *r *= self.weight;
            square += *r * *r;
        }
        scores[self.classes..].fill(0.0);
        for (&column, &value) in self.columns.iter().zip(self.values) {
            let at = column as usize * stride;
            let sum = &mut self.squares[column as usize];
            *sum += value * value * square;
            // Not 0 / 0 for a gradient of 0.
            let length = self.rate * value / sum.sqrt().max(f32::MIN_POSITIVE);
            axpy(-length, scores, &mut self.weights[at..at + stride]);
        }
        if let Some(sum) = self.squares.last_mut() {
            *sum += square;
            let length = self.intercept_rate / sum.sqrt().max(f32::MIN_POSITIVE);
            axpy(-length, scores, self.intercepts);
        }
        self.weight * (log_sum - score)
    }
}

/// `y += a · x` over whole vectors of 8.
#[inline(always)]
fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    let (x, _) = x.as_chunks::<8>();
    let (y, _) = y.as_chunks_mut::<8>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..8 {
            y[lane] = a.mul_add(x[lane], y[lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close() {
        for i in 0..870 {
            let x = -(i as f32) / 10.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 8e-6, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn softmax_sums_to_one_and_returns_the_log_sum() {
        for n in [1, 2, 15, 16, 17, 77, 1000] {
            let scores: Vec<f32> = (0..n).map(|i| (i as f32 * 1.7).sin() * 9.0).collect();
            let mut row = scores.clone();
            let log_sum = softmax(Arch::new(), &mut row);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for (p, s) in row.iter().zip(&scores) {
                assert!((p.ln() - (s - log_sum)).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_row_product_is_the_sum_of_scaled_rows() {
        for stride in [16, 32, 64, 80, 144] {
            let x: Vec<f32> = (0..9)
                .map(|i| if i % 3 == 0 { 0.0 } else { i as f32 })
                .collect();
            let weights: Vec<f32> = (0..9 * stride).map(|i| (i as f32).cos()).collect();
            let mut out = vec![0.5; stride];
            row_product(Arch::new(), &x, &weights, &mut out);
            for j in 0..stride {
                let exact: f32 = (0..9).map(|i| x[i] * weights[i * stride + j]).sum();
                assert!((out[j] - exact - 0.5).abs() < 1e-4);
            }
        }
    }
}
