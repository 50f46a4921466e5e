//! The dense product: `C += A · B` with few, padded columns.
//!
//! Every element of `C` is summed up in the order of `A`'s columns, one fused
//! multiply-add after the other, however the rows are blocked: a row alone and a
//! row among thousands get the same bits.

#![allow(clippy::inline_always)] // see `simd`

use pulp::{Arch, Simd, WithSimd};

/// `A`: the element of row `i` and column `k` is `data[i · row + k · column]`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Rows of `B` that a sweep over `C` uses: they stay in the first-level cache.
const DEPTH: usize = 96;

/// `c += a · b`, where `a` is `rows` × `depth`, `b` is `depth` × `stride` and `c`
/// is `rows` × `stride`, both row by row. `stride` is a multiple of
/// [`LANES`](crate::simd::LANES).
pub(crate) fn accumulate(
    arch: Arch,
    a: Strided<'_>,
    depth: usize,
    b: &[f32],
    stride: usize,
    c: &mut [f32],
) {
    arch.dispatch(Accumulate {
        a,
        depth,
        b,
        stride,
        c,
    });
}

struct Accumulate<'a> {
    a: Strided<'a>,
    depth: usize,
    b: &'a [f32],
    stride: usize,
    c: &'a mut [f32],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            a,
            depth,
            b,
            stride,
            c,
        } = self;
        let vectors = stride / S::F32_LANES;
        // The tile of sums fills the registers: 32 with AVX-512, 16 otherwise.
        let wide = S::F32_LANES == 16;
        let most = if wide { 5 } else { 3 };
        for begin in (0..depth).step_by(DEPTH) {
            let end = depth.min(begin + DEPTH);
            let a = Strided {
                data: &a.data[begin * a.column..],
                ..a
            };
            let b = &b[begin * stride..end * stride];
            let mut first = 0;
            while first < vectors {
                let left = vectors - first;
                let width = left.div_ceil(left.div_ceil(most));
                match (wide, width) {
                    (true, 5) => panel::<S, 5, 5>(simd, a, b, stride, first, c),
                    (true, 4) => panel::<S, 6, 4>(simd, a, b, stride, first, c),
                    (true, 3) => panel::<S, 8, 3>(simd, a, b, stride, first, c),
                    (false, 3) => panel::<S, 4, 3>(simd, a, b, stride, first, c),
                    (true, 2) => panel::<S, 8, 2>(simd, a, b, stride, first, c),
                    (false, 2) => panel::<S, 5, 2>(simd, a, b, stride, first, c),
                    _ => panel::<S, 8, 1>(simd, a, b, stride, first, c),
                }
                first += width;
            }
        }
    }
}

/// All rows of `NR` vectors' worth of columns, `MR` rows at a time.
#[inline(always)]
fn panel<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    a: Strided<'_>,
    b: &[f32],
    stride: usize,
    first: usize,
    c: &mut [f32],
) {
    let rows = c.len() / stride;
    let mut i = 0;
    while i + MR <= rows {
        tile::<S, MR, NR>(simd, a, i, b, stride, first, c);
        i += MR;
    }
    while i + 2 <= rows {
        tile::<S, 2, NR>(simd, a, i, b, stride, first, c);
        i += 2;
    }
    if i < rows {
        tile::<S, 1, NR>(simd, a, i, b, stride, first, c);
    }
}

#[inline(always)]
fn tile<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    a: Strided<'_>,
    i: usize,
    b: &[f32],
    stride: usize,
    first: usize,
    c: &mut [f32],
) {
    let at = first * S::F32_LANES;
    let width = NR * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); NR]; MR];
    for (m, sums) in sums.iter_mut().enumerate() {
        let (row, _) = S::as_simd_f32s(&c[(i + m) * stride + at..][..width]);
        sums.copy_from_slice(row);
    }
    let a_rows: [&[f32]; MR] = std::array::from_fn(|m| &a.data[(i + m) * a.row..]);
    for (k, row) in b.chunks_exact(stride).enumerate() {
        let (row, _) = S::as_simd_f32s(&row[at..at + width]);
        let row: &[S::f32s; NR] = row.try_into().expect("as many vectors as the panel has");
        for m in 0..MR {
            let x = simd.splat_f32s(a_rows[m][k * a.column]);
            for n in 0..NR {
                sums[m][n] = simd.mul_add_f32s(x, row[n], sums[m][n]);
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        let (row, _) = S::as_mut_simd_f32s(&mut c[(i + m) * stride + at..][..width]);
        row.copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    /// Against the plain triple loop, bit for bit, both ways round, for widths and
    /// heights that leave remainders.
    #[test]
    fn equals_the_triple_loop() {
        for (rows, depth, stride) in [(1, 1, 16), (7, 100, 48), (13, 97, 80), (9, 5, 112)] {
            let (a, b, start) = (
                numbers(rows * depth),
                numbers(depth * stride),
                numbers(rows * stride),
            );
            for (row, column) in [(depth, 1), (1, rows)] {
                let mut expected = start.clone();
                for i in 0..rows {
                    for k in 0..depth {
                        for j in 0..stride {
                            let sum = &mut expected[i * stride + j];
                            *sum = a[i * row + k * column].mul_add(b[k * stride + j], *sum);
                        }
                    }
                }
                let mut c = start.clone();
                let a = Strided {
                    data: &a,
                    row,
                    column,
                };
                accumulate(Arch::new(), a, depth, &b, stride, &mut c);
                assert_eq!(c, expected, "{rows} × {depth} × {stride}");
            }
        }
    }
}
