//! Scores to probabilities, and to the gradient of the cross-entropy.

#![allow(clippy::inline_always)] // see `simd`

use pulp::{Arch, NullaryFnOnce};

use crate::simd::LANES;

/// Scores to probabilities, in place. The length is a multiple of [`LANES`];
/// entries from `classes` on become 0.
pub(crate) fn softmax(arch: Arch, row: &mut [f32], classes: usize) {
    arch.dispatch(Softmax { row, classes });
}

/// A block of rows: scores to weighted residuals, in place.
pub(crate) struct Residuals<'a> {
    /// Rows × stride.
    pub(crate) scores: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) classes: usize,
    pub(crate) labels: &'a [u32],
    pub(crate) weights: &'a [f32],
    /// What all weights are multiplied by.
    pub(crate) scale: f32,
    /// `+= Σ` of the residuals.
    pub(crate) intercept_gradient: &'a mut [f32],
    /// `+= Σ weight · p · (1 − p)` by class.
    pub(crate) curvature: &'a mut [f32],
}

impl Residuals<'_> {
    /// Leaves `scale · weight · (p − [class = label])` in the scores and returns
    /// the sum of `scale · weight · cross-entropy`.
    pub(crate) fn compute(self, arch: Arch) -> f64 {
        arch.dispatch(self)
    }
}

struct Softmax<'a> {
    row: &'a mut [f32],
    classes: usize,
}

impl NullaryFnOnce for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (_, sum) = exponentials(self.row, self.classes);
        let scale = 1.0 / sum;
        for v in self.row {
            *v *= scale;
        }
    }
}

impl NullaryFnOnce for Residuals<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut loss = 0.0_f64;
        let (gradient, _) = self.intercept_gradient.as_chunks_mut::<LANES>();
        let (curvature, _) = self.curvature.as_chunks_mut::<LANES>();
        let rows = self.scores.chunks_exact_mut(self.stride);
        for ((row, &label), &weight) in rows.zip(self.labels).zip(self.weights) {
            let label = label as usize;
            let score = row[label];
            let (top, sum) = exponentials(row, self.classes);
            let weight = weight * self.scale;
            loss += f64::from(weight) * (f64::from(sum).ln() + f64::from(top - score));
            let inverse = 1.0 / sum;
            let (lanes, _) = row.as_chunks_mut::<LANES>();
            for ((v, g), c) in lanes
                .iter_mut()
                .zip(gradient.iter_mut())
                .zip(curvature.iter_mut())
            {
                for lane in 0..LANES {
                    let p = v[lane] * inverse;
                    let r = p * weight;
                    v[lane] = r;
                    g[lane] += r;
                    c[lane] = (-r).mul_add(p, c[lane] + r);
                }
            }
            row[label] -= weight;
            gradient[label / LANES][label % LANES] -= weight;
        }
        loss
    }
}

/// Replaces scores by `exp(score − top)`, and padding by 0; returns the top and
/// the sum.
#[inline(always)]
fn exponentials(row: &mut [f32], classes: usize) -> (f32, f32) {
    row[classes..].fill(f32::NEG_INFINITY);
    let (lanes, _) = row.as_chunks_mut::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for v in lanes.iter() {
        for lane in 0..LANES {
            tops[lane] = if v[lane] > tops[lane] {
                v[lane]
            } else {
                tops[lane]
            };
        }
    }
    let top = tops.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0_f32; LANES];
    for v in lanes.iter_mut() {
        for lane in 0..LANES {
            let e = exp(v[lane] - top);
            v[lane] = e;
            sums[lane] += e;
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    (top, sums[0])
}

/// eˣ for x ≤ 0, within 2 ulp; 0 below −87, where the result would be subnormal.
/// (Cephes' `expf`: range reduction by ln 2 in two parts, a polynomial of degree 5
/// for the rest.)
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 · 2²³: adding it rounds to an integer, which stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0_f64;
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-88.0), 0.0);
    }

    #[test]
    fn residuals_are_the_gradient_of_the_cross_entropy() {
        let (classes, stride) = (5, LANES);
        let scores = [0.3_f32, -2.0, 1.5, 0.0, 0.7];
        let mut row = vec![0.0_f32; stride];
        row[..classes].copy_from_slice(&scores);
        let (mut gradient, mut curvature) = (vec![0.0; stride], vec![0.0; stride]);
        let loss = Residuals {
            scores: &mut row,
            stride,
            classes,
            labels: &[2],
            weights: &[2.0],
            scale: 0.25,
            intercept_gradient: &mut gradient,
            curvature: &mut curvature,
        }
        .compute(Arch::new());
        let sum: f64 = scores.iter().map(|&s| f64::from(s).exp()).sum();
        assert!((loss - 0.5 * (sum.ln() - 1.5)).abs() < 1e-6);
        for class in 0..classes {
            let p = f64::from(scores[class]).exp() / sum;
            let expected = 0.5 * (p - f64::from(class == 2));
            assert!((f64::from(row[class]) - expected).abs() < 1e-6);
            assert!((f64::from(curvature[class]) - 0.5 * p * (1.0 - p)).abs() < 1e-6);
        }
        assert!(row[classes..].iter().all(|&r| r == 0.0));
        assert_eq!(row, gradient);
    }
}
