//! A few prototypes a class: what its inputs look like, small enough to be asked
//! on every route.
//!
//! Each class's embeddings are compressed to some unit vectors by spherical
//! k-means (Dhillon and Modha, 2001; seeded as in k-means++, Arthur and
//! Vassilvitskii, 2007) and stored as 8-bit integers. Only the prototypes of the
//! class that the surrogate predicts are compared with an input, so the cost
//! does not grow with the classes, nor with the rows.

#![allow(clippy::inline_always)] // as in `simd`: it is what makes the kernel fast

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

/// Prototypes of a class where there are many classes.
const FEWEST: usize = 8;
/// Prototypes of a class where there are few.
const MOST: usize = 32;
/// Prototypes of all classes together that few classes share.
const SHARED: usize = 256;
/// Rows of a class that its prototypes are made of, evenly spread over the class.
const ROWS_OF_A_CLASS: usize = 256;
/// Rounds of k-means. The sums settle early, and only a rough likeness is asked for.
const ROUNDS: usize = 6;
/// The longest embedding there may be.
pub(super) const MAX_DIMENSION: usize = 1 << 16;

/// Unit vectors by class, quantised.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prototypes {
    pub(super) dimension: usize,
    /// classes + 1: the prototypes of class c are `starts[c]..starts[c + 1]`.
    pub(super) starts: Vec<u32>,
    /// prototypes × dimension.
    pub(super) codes: Vec<i8>,
    /// By prototype: the reciprocal of the length of its codes.
    scales: Vec<f32>,
}

impl Prototypes {
    /// Compresses the given rows of `embeddings` (n × d), class by class. Rows of
    /// length 0 have no direction and are left out. The same rows give the same
    /// prototypes whatever the number of threads.
    pub(super) fn fit(
        embeddings: ArrayView2<'_, f32>,
        labels: &[u32],
        classes: usize,
        rows: impl Iterator<Item = usize>,
    ) -> Self {
        let mut members = vec![Vec::new(); classes];
        for row in rows {
            members[labels[row] as usize].push(row);
        }
        let most = (SHARED / classes.max(1)).clamp(FEWEST, MOST);
        let found: Vec<Array2<f32>> = members
            .par_iter()
            .enumerate()
            .map(|(class, rows)| compress(&unit_rows(embeddings, rows), most, class as u64))
            .collect();
        let (mut starts, mut codes) = (vec![0], Vec::new());
        for vectors in found {
            for vector in vectors.outer_iter() {
                let largest = largest(vector.iter().copied());
                codes.extend(vector.iter().map(|v| (v / largest * 127.0).round() as i8));
            }
            starts.push((codes.len() / embeddings.ncols()) as u32);
        }
        Self::assemble(embeddings.ncols(), starts, codes)
    }

    /// Prototypes of which none is all zeros.
    pub(super) fn assemble(dimension: usize, starts: Vec<u32>, codes: Vec<i8>) -> Self {
        let length =
            |codes: &[i8]| (codes.iter().map(|&c| f32::from(c).powi(2)).sum::<f32>()).sqrt();
        Self {
            scales: codes
                .chunks_exact(dimension)
                .map(|c| length(c).recip())
                .collect(),
            dimension,
            starts,
            codes,
        }
    }

    /// Cosine of an embedding, of this dimension, to the nearest prototype of a
    /// class. 0 where either has no direction.
    pub(super) fn nearest(&self, arch: Arch, x: &[f32], class: usize) -> f32 {
        let range = self.starts[class] as usize..self.starts[class + 1] as usize;
        arch.dispatch(Nearest {
            x,
            codes: &self.codes[range.start * self.dimension..range.end * self.dimension],
            scales: &self.scales[range],
        })
    }
}

/// The nearest of several prototypes to one embedding.
struct Nearest<'a> {
    x: &'a [f32],
    codes: &'a [i8],
    scales: &'a [f32],
}

/// Sums side by side: enough that no addition waits for the one before.
const SUMS: usize = 32;

impl NullaryFnOnce for Nearest<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let (x, x_rest) = self.x.as_chunks::<SUMS>();
        let mut sums = [0.0_f32; SUMS];
        for x in x {
            for i in 0..SUMS {
                sums[i] = x[i].mul_add(x[i], sums[i]);
            }
        }
        let length = (total(&sums) + x_rest.iter().map(|x| x * x).sum::<f32>()).sqrt();
        // A length that under- or overflows is no direction either.
        if self.scales.is_empty() || length < 1e-18 || !length.is_finite() {
            return 0.0;
        }
        let mut nearest = f32::NEG_INFINITY;
        for (codes, scale) in self.codes.chunks_exact(self.x.len()).zip(self.scales) {
            let (codes, codes_rest) = codes.as_chunks::<SUMS>();
            let mut sums = [0.0_f32; SUMS];
            for (x, c) in x.iter().zip(codes) {
                for i in 0..SUMS {
                    sums[i] = x[i].mul_add(f32::from(c[i]), sums[i]);
                }
            }
            let mut sum = total(&sums);
            for (&x, &c) in x_rest.iter().zip(codes_rest) {
                sum += x * f32::from(c);
            }
            nearest = nearest.max(sum * scale);
        }
        (nearest / length).clamp(-1.0, 1.0)
    }
}

/// The sum of all lanes, halves upon halves.
#[inline(always)]
fn total(sums: &[f32; SUMS]) -> f32 {
    let mut sums = *sums;
    let mut half = SUMS / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0_f32, |m, v| m.max(v.abs()))
}

/// At most [`ROWS_OF_A_CLASS`] of the rows, evenly spread, scaled to unit length.
fn unit_rows(embeddings: ArrayView2<'_, f32>, rows: &[usize]) -> Array2<f32> {
    let count = rows.len().min(ROWS_OF_A_CLASS);
    let mut block = Vec::with_capacity(count * embeddings.ncols());
    let mut kept = 0;
    for i in 0..count {
        let row = embeddings.row(rows[i * rows.len() / count]);
        let length = length(row);
        if length > 1e-18 && length.is_finite() {
            block.extend(row.iter().map(|v| (f64::from(*v) / length) as f32));
            kept += 1;
        }
    }
    Array2::from_shape_vec((kept, embeddings.ncols()), block).expect("a row kept, a row long")
}

fn length(row: ArrayView1<'_, f32>) -> f64 {
    row.iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Spherical k-means of unit rows: at most `most` unit centres, fewer where there
/// are not as many distinct rows.
fn compress(rows: &Array2<f32>, most: usize, seed: u64) -> Array2<f32> {
    let seeds = seeds(rows, most, seed);
    let mut centres = rows.select(Axis(0), &seeds);
    if seeds.len() == rows.nrows() {
        return centres;
    }
    let mut previous = Vec::new();
    for _ in 0..ROUNDS {
        let likeness = rows.dot(&centres.t());
        let nearest: Vec<usize> = likeness.outer_iter().map(position_of_largest).collect();
        if nearest == previous {
            break;
        }
        let mut sums = Array2::<f32>::zeros(centres.dim());
        for (row, &centre) in rows.outer_iter().zip(&nearest) {
            let mut sum = sums.row_mut(centre);
            sum += &row;
        }
        for (mut centre, sum) in centres.outer_iter_mut().zip(sums.outer_iter()) {
            let length = length(sum);
            // A centre nobody is nearest to, or whose rows cancel out, stays.
            if length > 1e-6 {
                centre.assign(&sum.mapv(|v| (f64::from(v) / length) as f32));
            }
        }
        previous = nearest;
    }
    centres
}

fn position_of_largest(values: ArrayView1<'_, f32>) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// Rows drawn with chances in proportion to their squared distance to those drawn.
fn seeds(rows: &Array2<f32>, most: usize, seed: u64) -> Vec<usize> {
    if rows.nrows() == 0 {
        return Vec::new();
    }
    let mut drawn = Vec::new();
    let mut next = 0;
    let mut distance = vec![f32::INFINITY; rows.nrows()];
    loop {
        drawn.push(next);
        for (d, likeness) in distance.iter_mut().zip(rows.dot(&rows.row(next))) {
            // Half the squared distance of unit vectors; rounding is no distance.
            let half = 1.0 - likeness;
            *d = d.min(if half < 1e-5 { 0.0 } else { half });
        }
        let total: f64 = distance.iter().map(|d| f64::from(*d)).sum();
        if drawn.len() == most || total <= 0.0 {
            return drawn;
        }
        let mut left = uniform(seed, drawn.len() as u64) * total;
        next = distance.iter().rposition(|d| *d > 0.0).unwrap_or(0);
        for (i, d) in distance.iter().enumerate() {
            left -= f64::from(*d);
            if left < 0.0 {
                next = i;
                break;
            }
        }
    }
}

/// A number in [0, 1) that depends on its arguments alone (`SplitMix64`).
fn uniform(seed: u64, step: u64) -> f64 {
    let mut z = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add((step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, d: usize, seed: u64) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| {
            uniform(seed, (i * d + j) as u64) as f32 - 0.5
        })
    }

    /// Eight bits are enough, at dimensions that do and do not fill the lanes,
    /// and at any length of the embedding.
    #[test]
    fn the_quantised_cosine_is_close_to_the_exact_one() {
        for (d, scale) in [(1, 1.0), (7, 1.0), (16, 1e-3), (384, 1.0), (391, 1e6)] {
            let rows = random(5, d, 3);
            let prototypes = Prototypes::fit(rows.view(), &[0, 0, 0, 1, 1], 2, 0..5);
            for query in random(20, d, 4).outer_iter() {
                let x: Vec<f32> = query.iter().map(|v| v * scale).collect();
                let exact = (0..3)
                    .map(|i| {
                        let dot: f32 = rows.row(i).iter().zip(query).map(|(a, b)| a * b).sum();
                        f64::from(dot) / (length(rows.row(i)) * length(query))
                    })
                    .fold(-1.0_f64, f64::max);
                let found = prototypes.nearest(Arch::new(), &x, 0);
                assert!(
                    (f64::from(found) - exact).abs() < 0.01,
                    "dimension {d}: {found} {exact}"
                );
            }
        }
    }

    #[test]
    fn k_means_finds_the_clusters_of_a_class() {
        // 40 directions' worth of noise around 3 axes of 12.
        let mut rows = random(120, 12, 5).mapv(|v| v * 0.2);
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            row[i % 3] += 1.0;
        }
        let prototypes = Prototypes::fit(rows.view(), &[0; 120], 1, 0..120);
        let near = |x: &[f32]| prototypes.nearest(Arch::new(), x, 0);
        let axis = |i: usize| std::array::from_fn::<f32, 12, _>(|j| f32::from(u8::from(i == j)));
        for i in 0..3 {
            assert!(near(&axis(i)) > 0.9, "axis {i}: {}", near(&axis(i)));
        }
        assert!(near(&axis(7)) < 0.5, "{}", near(&axis(7)));
        assert!(prototypes.scales.len() <= MOST);
    }

    #[test]
    fn points_without_direction_or_company_are_no_trouble() {
        let rows = ndarray::array![[0.0_f32, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]];
        let prototypes = Prototypes::fit(rows.view(), &[0, 1, 1, 1], 3, 0..4);
        // One distinct direction in all; classes 0 and 2 have none.
        assert_eq!(prototypes.starts, [0, 0, 1, 1]);
        let near = |x: &[f32], c| prototypes.nearest(Arch::new(), x, c);
        assert!((near(&[2.0, 0.0], 1) - 1.0).abs() < 1e-6);
        assert_eq!(near(&[2.0, 0.0], 0), 0.0);
        assert_eq!(near(&[0.0, 0.0], 1), 0.0);
        assert_eq!(near(&[f32::INFINITY, 0.0], 1), 0.0);
    }
}
