//! The activation x·Φ(x), where Φ is the normal distribution.
//!
//! candle calls the error function of libm for each value, a quarter of a pass. This one
//! is a polynomial and an exponential without branches, which compilers turn into vector
//! instructions; the error of Φ is below 3e-7 (Abramowitz and Stegun 1964, 7.1.26).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};
use rayon::prelude::*;

/// Values that one thread takes at a time.
const CHUNK: usize = 16 << 10;

/// The operation, on contiguous 32-bit floats.
pub(super) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(values) = storage else {
            bail!("gelu is for 32-bit floats");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("gelu is for contiguous values");
        };
        let values = &values[start..end];
        let mut activated = vec![0.0_f32; values.len()];
        let chunks = activated
            .par_chunks_mut(CHUNK)
            .zip(values.par_chunks(CHUNK));
        chunks.for_each(|(activated, values)| {
            for (activated, value) in activated.iter_mut().zip(values) {
                *activated = gelu(*value);
            }
        });
        Ok((CpuStorage::F32(activated), layout.shape().clone()))
    }
}

#[inline]
fn gelu(x: f32) -> f32 {
    let half = x * 0.5;
    half + half * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// The error function.
#[inline]
fn erf(x: f32) -> f32 {
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_72,
        1.421_413_7,
        -1.453_152,
        1.061_405_4,
    ];
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((A[4] * t + A[3]) * t + A[2]) * t + A[1]) * t + A[0]) * t;
    (1.0 - p * exp_of_negative(-z * z)).copysign(x)
}

/// e^x for x ≤ 0, to about the precision of the type: 2^n for the whole part, the series
/// for the rest. Below −87 it is as at −87.
#[inline]
fn exp_of_negative(x: f32) -> f32 {
    /// Adding it leaves the nearest whole number in the last bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, so that the difference loses nothing.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (0.166_666_67
                    + r * (0.041_666_67 + r * (0.008_333_334 + r * 0.001_388_889)))));
    let exponent = shifted
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .wrapping_add(127)
        << 23;
    series * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn it_is_candles_own_to_seven_digits() {
        let values: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 / 2_000.0).collect();
        let x = Tensor::from_vec(values.clone(), values.len(), &Device::Cpu).unwrap();
        let expected = x.gelu_erf().unwrap().to_vec1::<f32>().unwrap();
        let ours = x.apply_op1_no_bwd(&Gelu).unwrap().to_vec1::<f32>().unwrap();
        for ((x, expected), ours) in values.iter().zip(expected).zip(ours) {
            let error = (ours - expected).abs();
            assert!(error <= 4e-7 * x.abs().max(1.0), "{x}: {ours}, {expected}");
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!gelu(odd).is_finite() || gelu(odd) == 0.0);
        }
    }
}
