//! Which features a refit uses, and which rows have them.

use rayon::prelude::*;

use crate::{component::Needs, config::FeatureMode, dataset::Dataset, refit::FitError};

pub(crate) struct Usable {
    pub(crate) rows: Vec<usize>,
    pub(crate) features: Needs,
}

/// The kinds of features to use and the rows that have them. A kind that nine
/// rows in ten carry is used, and the rows without it are left out; of two
/// rarer kinds the commoner one is.
pub(crate) fn usable(data: &Dataset, mode: FeatureMode) -> Result<Usable, FitError> {
    let n = data.len();
    let with_text = (0..n).filter(|&i| data.has_lexical(i)).count();
    let with_embedding = (0..n).filter(|&i| data.embedding(i).is_some()).count();
    let common = |count: usize| count > 0 && count * 10 >= n * 9;
    let (dense, lexical) = match mode {
        FeatureMode::Dense if with_embedding == 0 && n > 0 => {
            return Err(FitError::NoFeatures(
                "dense features are asked for and no trace has an embedding",
            ));
        }
        FeatureMode::Lexical if with_text == 0 && n > 0 => {
            return Err(FitError::NoFeatures(
                "lexical features are asked for and no trace has text",
            ));
        }
        FeatureMode::Dense => (true, false),
        FeatureMode::Lexical => (false, true),
        FeatureMode::Auto if common(with_embedding) || common(with_text) => {
            (common(with_embedding), common(with_text))
        }
        FeatureMode::Auto => (with_embedding > with_text, with_embedding <= with_text),
    };
    let rows = (0..n)
        .filter(|&i| (!dense || data.embedding(i).is_some()) && (!lexical || data.has_lexical(i)))
        .collect();
    Ok(Usable {
        rows,
        features: Needs { dense, lexical },
    })
}

/// So many times as long as the median one, an embedding is a mistake.
const OUTSIZED: f64 = 1000.0;

/// Those of the rows whose embedding is in proportion to the others. A single one
/// that is a thousand million times as long would be all that a fit sees, and anybody
/// may send it. Only training leaves such rows out: the gate judges what comes.
pub(crate) fn in_proportion(data: &Dataset, rows: &[usize]) -> Vec<usize> {
    let lengths: Vec<f64> = rows
        .par_iter()
        .map(|&row| {
            let squares = data.embedding(row).into_iter().flatten();
            squares.map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
        })
        .collect();
    let mut sorted = lengths.clone();
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        return Vec::new();
    }
    let (_, &mut median, _) = sorted.select_nth_unstable_by(middle, f64::total_cmp);
    let kept = |length: f64| median <= 0.0 || length <= OUTSIZED * median;
    let rows = rows.iter().zip(lengths);
    rows.filter(|(_, length)| kept(*length))
        .map(|(&row, _)| row)
        .collect()
}
