//! Which rows are trained on when there are too many.

use std::collections::HashSet;

use crate::{dataset::Dataset, split::input_hash};

/// The rows kept, and what each stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Rows of the dataset, ascending.
    pub(crate) rows: Vec<usize>,
    /// Weight of each kept row: its own, over the probability that it was kept.
    pub(crate) weights: Vec<f64>,
    /// Rows left out.
    pub(crate) left_out: usize,
}

/// What a row is drawn for: draws for one are independent of those for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Train,
    Certify,
}

impl Purpose {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Certify => "certify",
        }
    }
}

/// Rows of which a sample is drawn.
pub(crate) trait Sampled {
    /// Number of labels.
    fn labels(&self) -> usize;
    /// The label of a row.
    fn label(&self, row: usize) -> u32;
    /// How many rows of the traffic a row stands for.
    fn weight(&self, row: usize) -> f64;
    /// A hash that belongs to the row's input: the same in every refit, and for every
    /// copy of the input.
    fn drawn_by(&self, row: usize, purpose: Purpose, seed: u64) -> u64;
}

impl Sampled for Dataset {
    fn labels(&self) -> usize {
        self.label_names().len()
    }

    fn label(&self, row: usize) -> u32 {
        self.label(row)
    }

    fn weight(&self, row: usize) -> f64 {
        self.weight(row)
    }

    fn drawn_by(&self, row: usize, purpose: Purpose, seed: u64) -> u64 {
        input_hash(purpose.as_str(), self, row, seed)
    }
}

/// Every label may expect to keep this many rows, as far as it has them.
const LEAST_PER_LABEL: f64 = 20.0;
/// The oldest row counts half as much as the newest.
const OLDEST: f64 = 0.5;

/// Keeps about `cap` of `rows` (which are in order of arrival) to train on: the
/// newer and the heavier a row, the likelier; rare labels keep a few dozen rows.
///
/// Poisson sampling: a row is kept where a hash of the row and the seed falls
/// below its inclusion probability, so a row that is in one refit's sample tends
/// to be in the next one's. Kept rows weigh `weight / probability` (Horvitz and
/// Thompson, 1952), so that rare labels do not look frequent; only recency shifts
/// what the sample stands for, and it is left in the weights on purpose.
pub(crate) fn to_train_on(data: &impl Sampled, rows: &[usize], cap: usize, seed: u64) -> Sample {
    if cap == 0 || rows.len() <= cap {
        return all(data, rows);
    }
    let mut counts = vec![0.0_f64; data.labels()];
    for &row in rows {
        counts[data.label(row) as usize] += 1.0;
    }
    let newest = (rows.len() - 1).max(1) as f64;
    let recency: Vec<f64> = (0..rows.len())
        .map(|age| OLDEST + (1.0 - OLDEST) * age as f64 / newest)
        .collect();
    let size: Vec<f64> = rows
        .iter()
        .zip(&recency)
        .map(|(&row, recency)| data.weight(row) * recency)
        .collect();
    let least: Vec<f64> = rows
        .iter()
        .map(|&row| (LEAST_PER_LABEL / counts[data.label(row) as usize]).min(1.0))
        .collect();
    let scale = inclusion_scale(&size, &least, cap as f64);
    let mut sample = Sample {
        rows: Vec::with_capacity(cap),
        weights: Vec::with_capacity(cap),
        left_out: 0,
    };
    for (i, &row) in rows.iter().enumerate() {
        let probability = (scale * size[i]).max(least[i]).min(1.0);
        if uniform(data.drawn_by(row, Purpose::Train, seed)) < probability {
            sample.rows.push(row);
            sample.weights.push(size[i] / probability);
        } else {
            sample.left_out += 1;
        }
    }
    sample
}

/// Keeps about `cap` of `rows` to certify on: each with the same probability, so
/// that they stand for the traffic as it was, and each at its own weight.
pub(crate) fn to_certify_on(data: &impl Sampled, rows: &[usize], cap: usize, seed: u64) -> Sample {
    if cap == 0 || rows.len() <= cap {
        return all(data, rows);
    }
    let probability = cap as f64 / rows.len() as f64;
    let kept: Vec<usize> = rows
        .iter()
        .copied()
        .filter(|&row| uniform(data.drawn_by(row, Purpose::Certify, seed)) < probability)
        .collect();
    Sample {
        left_out: rows.len() - kept.len(),
        ..all(data, &kept)
    }
}

fn all(data: &impl Sampled, rows: &[usize]) -> Sample {
    Sample {
        rows: rows.to_vec(),
        weights: rows.iter().map(|&row| data.weight(row)).collect(),
        left_out: 0,
    }
}

/// The factor on sizes at which the inclusion probabilities add up to `cap`, by
/// bisection: their sum rises with it. The bits of positive numbers are in the order
/// of the numbers, and to halve the range of bits finds the factor however many
/// orders of magnitude lie between the smallest size and the largest.
fn inclusion_scale(size: &[f64], least: &[f64], cap: f64) -> f64 {
    let expected = |scale: f64| -> f64 {
        size.iter()
            .zip(least)
            .map(|(size, least)| (scale * size).max(*least).min(1.0))
            .sum()
    };
    let smallest = size
        .iter()
        .copied()
        .filter(|s| *s > 0.0)
        .fold(f64::INFINITY, f64::min);
    let (mut low, mut high) = (0, smallest.recip().min(f64::MAX).to_bits());
    while high - low > 1 {
        let middle = low.midpoint(high);
        if expected(f64::from_bits(middle)) < cap {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::from_bits(low)
}

/// A draw from [0, 1).
fn uniform(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// The first of the rows of each input, in order.
///
/// Copies of an input share its side of the split, so that they are no independent
/// draws: an exact bound over all of them would claim too much. Each input counts
/// once, by the label that came first.
pub(crate) fn distinct(data: &Dataset, rows: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::new();
    rows.iter()
        .copied()
        .filter(|&row| seen.insert(input_hash("", data, row, 0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;

    /// 10,000 rows, of which every hundredth has a rare label.
    fn data() -> Dataset {
        let mut data = Dataset::new();
        for i in 0..10_000 {
            let text = format!("text {i}");
            let label = if i % 100 == 0 { "rare" } else { "common" };
            let row = Row {
                text: Some(&text),
                embedding: None,
                label,
            };
            data.push_weighted(row, if i % 2 == 0 { 1.0 } else { 3.0 })
                .unwrap();
        }
        data
    }

    #[test]
    fn keeps_about_as_many_as_asked_and_stands_for_all() {
        let data = data();
        let rows: Vec<usize> = (0..data.len()).collect();
        let sample = to_train_on(&data, &rows, 1000, 1);
        assert!(
            (850..1150).contains(&sample.rows.len()),
            "{}",
            sample.rows.len()
        );
        assert_eq!(sample.rows.len() + sample.left_out, 10_000);
        assert!(sample.rows.is_sorted());
        // Rare rows are kept beyond their share …
        let rare = sample.rows.iter().filter(|&&row| row % 100 == 0).count();
        assert!((10..=40).contains(&rare), "{rare}");
        // … and the newer half more often than the older one.
        let new = sample.rows.iter().filter(|&&row| row >= 5000).count();
        assert!(
            new * 100 > sample.rows.len() * 53,
            "{new} of {}",
            sample.rows.len()
        );
        // The weights undo the selection, but for recency: their sum is that of all.
        let sum: f64 = sample.weights.iter().sum();
        assert!((sum / 15_000.0 - 1.0).abs() < 0.1, "{sum}");
        assert_eq!(sample, to_train_on(&data, &rows, 1000, 1));
    }

    #[test]
    fn the_rows_that_certify_are_drawn_alike() {
        let data = data();
        let rows: Vec<usize> = (0..data.len()).collect();
        let sample = to_certify_on(&data, &rows, 2000, 1);
        assert!(
            (1850..2150).contains(&sample.rows.len()),
            "{}",
            sample.rows.len()
        );
        let new = sample.rows.iter().filter(|&&row| row >= 5000).count();
        assert!((new as f64 / sample.rows.len() as f64 - 0.5).abs() < 0.05);
        for (&row, &weight) in sample.rows.iter().zip(&sample.weights) {
            assert_eq!(weight, data.weight(row));
        }
    }

    #[test]
    fn sizes_of_any_spread_fill_the_sample() {
        let size: Vec<f64> = (0..100)
            .map(|i| if i == 0 { 1e-200 } else { 1.0 })
            .collect();
        let scale = inclusion_scale(&size, &[0.0; 100], 33.0);
        assert!((scale - 33.0 / 99.0).abs() < 1e-9, "{scale}");
    }

    #[test]
    fn copies_of_an_input_count_once() {
        let mut data = Dataset::new();
        for (text, label) in [("a", "x"), ("b", "x"), (" A ", "y"), ("c", "x"), ("b", "x")] {
            let row = Row {
                text: Some(text),
                embedding: None,
                label,
            };
            data.push(row).unwrap();
        }
        assert_eq!(distinct(&data, &[0, 1, 2, 3, 4]), [0, 1, 3]);
    }

    #[test]
    fn few_rows_are_all_kept() {
        let data = data();
        let rows: Vec<usize> = (0..100).collect();
        assert_eq!(to_train_on(&data, &rows, 100, 1).rows, rows);
        assert_eq!(to_train_on(&data, &rows, 0, 1).rows, rows);
    }
}
