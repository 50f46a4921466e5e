//! Which rows train and which certify, by a hash of (task, normalised input).
//!
//! A text stays on its side across refits, and duplicates never straddle: what
//! the gate looks at has never been trained on, in this refit or an earlier one.

use tracer_features::{normalise, stable_hash};

use crate::dataset::Dataset;

/// Where the rows of a dataset stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Rows to train on.
    pub(crate) training: Vec<usize>,
    /// The fold of each training row, in the order of `training`.
    pub(crate) folds: Vec<usize>,
    /// Rows only the gate sees.
    pub(crate) shadow: Vec<usize>,
}

/// Splits the given rows of a dataset, of a population of so many.
pub(crate) fn split(
    task: &str,
    data: &Dataset,
    rows: &[usize],
    population: usize,
    shadow_share: f64,
    folds: usize,
    seed: u64,
) -> Split {
    let mut split = Split {
        training: Vec::new(),
        folds: Vec::new(),
        shadow: Vec::new(),
    };
    for &row in rows {
        let hash = input_hash(task, data, row, seed);
        // The high half decides the side, the low half the fold: independent draws.
        if side_of(hash, shadow_share, population) {
            split.shadow.push(row);
        } else {
            split.training.push(row);
            split.folds.push((hash as u32) as usize % folds);
        }
    }
    split
}

/// Shadow rows below which the share is raised.
const FEW: f64 = 600.0;

/// The share of the shadow split of so many rows. It never rises with the rows: a
/// row may move from the shadow split to training as traces come in, never back.
pub(crate) fn share(shadow_share: f64, rows: usize) -> f64 {
    let wanted = FEW / rows.max(1) as f64;
    wanted.clamp(
        shadow_share,
        (1.5 * shadow_share).min(0.5).max(shadow_share),
    )
}

/// Whether a row of this hash is of the shadow split, in a population of so many rows.
pub(crate) fn side_of(hash: u64, shadow_share: f64, population: usize) -> bool {
    let side = (hash >> 32) as f64 / 2.0_f64.powi(32);
    side < share(shadow_share, population)
}

/// What tells a row's input from others.
#[derive(Clone, Debug)]
pub(crate) enum Identity<'a> {
    /// The normalised text.
    Text(String),
    /// The hash of one that is withheld.
    Withheld(&'a str),
    /// The embedding, where there is no text.
    Embedding(&'a [f32]),
}

impl Identity<'_> {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(normalise(text))
    }

    /// A hash of the task, or of another purpose, the seed and the normalised input.
    pub(crate) fn hash(&self, task: &str, seed: u64) -> u64 {
        let (seed, task) = (seed.to_le_bytes(), task.as_bytes());
        match self {
            Self::Text(text) => stable_hash(&[&seed, task, text.as_bytes()]),
            Self::Withheld(hash) => stable_hash(&[&seed, task, b"withheld", hash.as_bytes()]),
            Self::Embedding(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                stable_hash(&[&seed, task, &bytes])
            }
        }
    }
}

/// The hash of a row's input.
pub(crate) fn input_hash(task: &str, data: &Dataset, row: usize, seed: u64) -> u64 {
    let identity = match (data.text(row), data.withheld(row)) {
        (Some(text), _) => Identity::text(text),
        (None, Some(withheld)) => Identity::Withheld(&withheld.hash),
        (None, None) => Identity::Embedding(data.embedding(row).unwrap_or_default()),
    };
    identity.hash(task, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;

    fn texts(texts: &[String]) -> Dataset {
        let mut data = Dataset::new();
        for text in texts {
            data.push(Row {
                text: Some(text),
                embedding: None,
                label: "x",
            })
            .unwrap();
        }
        data
    }

    #[test]
    fn the_share_is_raised_for_few_rows_and_never_rises_with_them() {
        assert!((share(0.2, 1000) - 0.3).abs() < 1e-12);
        assert!((share(0.2, 2400) - 0.25).abs() < 1e-12);
        assert_eq!(share(0.2, 10_000), 0.2);
        assert_eq!(share(0.6, 100), 0.6);
        let shares: Vec<f64> = (1..200).map(|n| share(0.2, n * 50)).collect();
        assert!(shares.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn a_text_keeps_its_side_and_duplicates_never_straddle() {
        let first: Vec<String> = (0..500).map(|i| format!("Text {i}")).collect();
        let mut later: Vec<String> = (500..600).map(|i| format!("text {i}")).collect();
        later.extend(first.iter().map(|t| format!("  {}", t.to_uppercase())));
        let (a, b) = (texts(&first), texts(&later));
        let rows = |n: usize| (0..n).collect::<Vec<_>>();
        let (a, b) = (
            split("t", &a, &rows(500), 500, 0.2, 5, 0),
            split("t", &b, &rows(600), 600, 0.2, 5, 0),
        );
        for row in 0..500 {
            assert_eq!(
                a.shadow.contains(&row),
                b.shadow.contains(&(row + 100)),
                "row {row}"
            );
        }
        assert!((125..=175).contains(&a.shadow.len()), "{}", a.shadow.len());
    }
}
