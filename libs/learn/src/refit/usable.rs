//! Which features a refit uses, and which rows have them.

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
    let with_text = (0..n).filter(|&i| data.text(i).is_some()).count();
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
        .filter(|&i| {
            (!dense || data.embedding(i).is_some()) && (!lexical || data.text(i).is_some())
        })
        .collect();
    Ok(Usable {
        rows,
        features: Needs { dense, lexical },
    })
}
