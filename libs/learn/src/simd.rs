//! The inner loops, compiled for the vector instructions of the machine at hand
//! and chosen at run time.
//!
//! Each kernel is a struct with an `#[inline(always)]` body: a closure would be
//! compiled apart, without the instructions, and call a software fused
//! multiply-add for every element.

#![allow(clippy::inline_always)] // see above: it is what makes the kernels fast

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

use crate::gemm::{Strided, accumulate};

/// The name of the vector instructions that this machine's numerics use. Others round
/// otherwise, so that a fit gives other bytes.
pub fn instructions() -> String {
    let arch = format!("{:?}", Arch::new());
    let name = arch.split(['(', ' ', '{']).next().unwrap_or_default();
    format!("{}-{}", std::env::consts::ARCH, name.to_lowercase())
}

/// Classes are padded to a multiple of this many f32 lanes.
pub(crate) const LANES: usize = 16;

/// Sparse rows, or the columns of sparse rows: line `i` holds the entries
/// `starts[i]..starts[i + 1]`.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) starts: &'a [usize],
    pub(crate) indices: &'a [u32],
    pub(crate) values: &'a [f32],
}

/// `out[i] += Σ value · table[index]` over the entries of line `i`; `table` and
/// `out` have `stride` numbers a line. The sums run in the order of the entries.
pub(crate) fn gather_lines(
    arch: Arch,
    lines: Lines<'_>,
    table: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    arch.dispatch(GatherLines {
        lines,
        table,
        stride,
        out,
    });
}

/// `out += Σ value · weights[column]`: the scores of one sparse row.
pub(crate) fn gather(
    arch: Arch,
    columns: &[u32],
    values: &[f32],
    weights: &[f32],
    out: &mut [f32],
) {
    let lines = Lines {
        starts: &[0, columns.len()],
        indices: columns,
        values,
    };
    let stride = out.len();
    gather_lines(arch, lines, weights, stride, out);
}

/// `out += x · weights`: the scores of one dense row.
pub(crate) fn dense_row(arch: Arch, x: &[f32], weights: &[f32], out: &mut [f32]) {
    let stride = out.len();
    let a = Strided {
        data: x,
        row: x.len(),
        column: 1,
    };
    accumulate(arch, a, x.len(), weights, stride, out);
}

/// Dot products of `a` with each of `others`, f32 lanes summed up in f64.
/// Meant for blocks of a few thousand numbers.
pub(crate) fn dot(arch: Arch, a: &[f32], b: &[f32]) -> f64 {
    arch.dispatch(Dot { a, b })
}

/// `y += a · x`.
pub(crate) fn add_scaled(arch: Arch, a: f32, x: &[f32], y: &mut [f32]) {
    arch.dispatch(AddScaled { a, x, y });
}

struct GatherLines<'a> {
    lines: Lines<'a>,
    table: &'a [f32],
    stride: usize,
    out: &'a mut [f32],
}

impl WithSimd for GatherLines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            lines,
            table,
            stride,
            out,
        } = self;
        let vectors = stride / S::F32_LANES;
        let mut first = 0;
        while first < vectors {
            let left = vectors - first;
            let width = left.div_ceil(left.div_ceil(10));
            match width {
                1 => gather_panel::<S, 1>(simd, lines, table, stride, first, out),
                2 => gather_panel::<S, 2>(simd, lines, table, stride, first, out),
                3 => gather_panel::<S, 3>(simd, lines, table, stride, first, out),
                4 => gather_panel::<S, 4>(simd, lines, table, stride, first, out),
                5 => gather_panel::<S, 5>(simd, lines, table, stride, first, out),
                6 => gather_panel::<S, 6>(simd, lines, table, stride, first, out),
                7 => gather_panel::<S, 7>(simd, lines, table, stride, first, out),
                8 => gather_panel::<S, 8>(simd, lines, table, stride, first, out),
                9 => gather_panel::<S, 9>(simd, lines, table, stride, first, out),
                _ => gather_panel::<S, 10>(simd, lines, table, stride, first, out),
            }
            first += width;
        }
    }
}

/// `NR` vectors' worth of every line, the sums in registers.
#[inline(always)]
fn gather_panel<S: Simd, const NR: usize>(
    simd: S,
    lines: Lines<'_>,
    table: &[f32],
    stride: usize,
    first: usize,
    out: &mut [f32],
) {
    let at = first * S::F32_LANES;
    let width = NR * S::F32_LANES;
    for (bounds, out) in lines.starts.windows(2).zip(out.chunks_exact_mut(stride)) {
        let entries = bounds[0]..bounds[1];
        if entries.is_empty() {
            continue;
        }
        let (out, _) = S::as_mut_simd_f32s(&mut out[at..at + width]);
        let out: &mut [S::f32s; NR] = out.try_into().expect("a panel");
        let mut sums = *out;
        let indices = &lines.indices[entries.clone()];
        for (&index, &value) in indices.iter().zip(&lines.values[entries]) {
            let (row, _) = S::as_simd_f32s(&table[index as usize * stride + at..][..width]);
            let row: &[S::f32s; NR] = row.try_into().expect("a panel");
            let value = simd.splat_f32s(value);
            for n in 0..NR {
                sums[n] = simd.mul_add_f32s(value, row[n], sums[n]);
            }
        }
        *out = sums;
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
            let (a_lanes, a_rest) = a.as_chunks::<32>();
            let (b_lanes, b_rest) = b.as_chunks::<32>();
            let mut sums = [0.0_f32; 32];
            for (a, b) in a_lanes.iter().zip(b_lanes) {
                for lane in 0..32 {
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
