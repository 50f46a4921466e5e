//! Short vectors in whose products the similarity of inputs is kept: random signs, summed
//! (Charikar, *Finding frequent items in data streams*, 2002; Weinberger et al., *Feature
//! hashing*, 2009). The same input has the same sketch anywhere.

use tracer_features::stable_hash;

/// Numbers of a sketch: products of two are off by about a tenth.
const LENGTH: usize = 128;

/// A vector of length one, or of zeros.
#[derive(Clone, Debug)]
pub(crate) struct Sketch([f32; LENGTH]);

impl Sketch {
    /// The cosine of two, about that of what they were made of.
    pub(crate) fn similarity(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

/// Makes sketches.
#[derive(Debug, Default)]
pub(crate) struct Sketcher {
    /// Of each dimension of an embedding, the sign in each number of the sketch.
    signs: Vec<u128>,
}

impl Sketcher {
    /// Of an embedding: a projection on random signs.
    pub(crate) fn of_values(&mut self, values: &[f32]) -> Sketch {
        for place in self.signs.len()..values.len() {
            let half = |salt: u8| {
                let place = (place as u64).to_le_bytes();
                u128::from(stable_hash(&[&place[..], &[salt][..]]))
            };
            self.signs.push(half(1) << 64 | half(2));
        }
        let mut sums = [0.0_f32; LENGTH];
        for (value, signs) in values.iter().zip(&self.signs) {
            for (bit, sum) in sums.iter_mut().enumerate() {
                *sum += if signs >> bit & 1 == 1 {
                    *value
                } else {
                    -value
                };
            }
        }
        unit(sums)
    }

    /// Of counted n-grams, each in one number of the sketch, sublinear.
    pub(crate) fn of_counts(counts: &[(u32, u32)]) -> Sketch {
        let mut sums = [0.0_f32; LENGTH];
        for &(bucket, count) in counts {
            let hash = stable_hash(&[&bucket.to_le_bytes()[..]]);
            let weight = 1.0 + (count.max(1) as f32).ln();
            let sign = if hash >> 32 & 1 == 1 { weight } else { -weight };
            sums[hash as usize % LENGTH] += sign;
        }
        unit(sums)
    }
}

fn unit(mut sums: [f32; LENGTH]) -> Sketch {
    let length = sums.iter().map(|sum| sum * sum).sum::<f32>().sqrt();
    if length > 0.0 && length.is_finite() {
        for sum in &mut sums {
            *sum /= length;
        }
    } else {
        sums = [0.0; LENGTH];
    }
    Sketch(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_stays_alike() {
        let mut sketcher = Sketcher::default();
        let vector = |seed: u32| -> Vec<f32> {
            let value = |i: u32| {
                let hash = stable_hash(&[&seed.to_le_bytes()[..], &i.to_le_bytes()[..]]);
                (hash % 2001) as f32 / 1000.0 - 1.0
            };
            (0..384).map(value).collect()
        };
        let (a, b) = (vector(1), vector(2));
        let near: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + 0.1 * b).collect();
        let [a, b, near] = [&a, &b, &near].map(|values| sketcher.of_values(values));
        assert!((a.similarity(&a) - 1.0).abs() < 1e-4);
        assert!(a.similarity(&near) > 0.98, "{}", a.similarity(&near));
        assert!(a.similarity(&b).abs() < 0.4, "{}", a.similarity(&b));
        let none = sketcher.of_values(&[0.0; 384]);
        assert_eq!(none.similarity(&a), 0.0);

        let grams = |from: u32| (from..from + 100).map(|b| (b, 1)).collect::<Vec<_>>();
        let [a, near, far] = [0, 3, 5000].map(|from| Sketcher::of_counts(&grams(from)));
        assert!(a.similarity(&near) > 0.85, "{}", a.similarity(&near));
        assert!(a.similarity(&far).abs() < 0.4, "{}", a.similarity(&far));
    }
}
