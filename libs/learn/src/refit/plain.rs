//! One candidate on all rows, with nothing held out.

use tracer_features::Hasher;

use super::{FitError, cross_fit::Training, embeddings, label_space::LabelSpace, usable::usable};
use crate::{
    candidate::pool, classifier::LogisticClassifier, config::FitConfig, dataset::Dataset,
    surrogate::Surrogate,
};

/// Fits the first candidate of a pool of logistic regressions on all usable rows.
pub(crate) fn fit_plain(
    data: &Dataset,
    config: &FitConfig,
) -> Result<LogisticClassifier, FitError> {
    let config = FitConfig {
        only: vec!["dense_logistic".to_owned(), "lexical_logistic".to_owned()],
        skip: Vec::new(),
        ..config.clone()
    };
    config.check()?;
    let usable = usable(data, config.features)?;
    let space = LabelSpace::of(data, &usable.rows, &config)?;
    let labels: Vec<u32> = usable
        .rows
        .iter()
        .map(|&row| space.class(data, row).expect("in the label space"))
        .collect();
    let dense = usable.features.dense;
    let hasher = Hasher::new(&config.lexicon);
    let training = Training {
        folds: (&[]).into(),
        labels: labels.as_slice().into(),
        weights: None,
        classes: space.names.len(),
        dense: dense.then(|| embeddings(data, &usable.rows)),
        hashed: if dense {
            Vec::new()
        } else {
            let texts = usable.rows.iter();
            texts
                .filter_map(|&row| Some(data.hashed(row, &hasher)?.into_owned()))
                .collect()
        },
        config: &config,
    };
    let all: Vec<usize> = (0..training.len()).collect();
    let lexicon = training.lexicon(&all);
    let candidate = pool(&config, training.available())
        .into_iter()
        .next()
        .ok_or_else(|| FitError::NoCandidate("the pool is empty".into()))?;
    let component = candidate
        .fit(&training.rows(&all, lexicon.as_ref()).part(&training, &[]))
        .map_err(|failure| FitError::NoCandidate(format!("{candidate}: {failure}")))?;
    Ok(LogisticClassifier {
        labels: space.names,
        lexicon,
        surrogate: Surrogate::new(vec![component]),
        dimension: data.dimension(),
    })
}
