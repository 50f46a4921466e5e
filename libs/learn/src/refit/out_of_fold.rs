//! Out-of-fold predictions of all rows, with nothing set aside for a gate: what a
//! refit would learn of them, without the refit.

use rayon::prelude::*;
use tracer_features::Hasher;

use super::{
    FitError, Progressing,
    accept::Accepted,
    contest::{competitors, contenders, mean_of},
    cross_fit::{Training, cross_fit},
    embeddings,
    label_space::LabelSpace,
};
use crate::{
    candidate::pool, component::Needs, confidence::top_of_row, config::FitConfig, dataset::Dataset,
    gate::Scored, split::split,
};

/// A surrogate that competes, with its acceptor: both out of fold.
pub(crate) struct Assessed {
    pub(crate) name: String,
    pub(crate) macro_f1: f64,
    /// The dataset's label that it predicts, by row.
    pub(crate) predicted: Vec<u32>,
    /// By row.
    pub(crate) scored: Vec<Scored>,
}

/// Cross-fits the configured pool on `rows` and fits the acceptors of its best. A
/// fold's models have seen (folds − 1) / folds of the rows, which at five folds and
/// a shadow share of a fifth are as many as train a refit's pipeline.
pub(crate) fn out_of_fold(
    task: &str,
    data: &Dataset,
    rows: &[usize],
    features: Needs,
    config: &FitConfig,
    progress: &Progressing<'_>,
) -> Result<Vec<Assessed>, FitError> {
    let space = LabelSpace::of(data, rows, config)?;
    let labels: Vec<u32> = rows
        .iter()
        .map(|&row| space.class(data, row).expect("in the label space"))
        .collect();
    let mut names = vec![0; space.names.len()];
    for (&row, &class) in rows.iter().zip(&labels) {
        names[class as usize] = data.label(row);
    }
    let folds: Vec<u32> = split(task, data, rows, rows.len(), 0.0, config.folds, config.seed)
        .folds
        .into_iter()
        .map(|fold| fold as u32)
        .collect();
    if folds.iter().all(|fold| *fold == folds[0]) {
        return Err(FitError::NoCandidate(
            "the inputs are the same, or so few that nothing can be held out".into(),
        ));
    }
    let training = Training {
        folds: folds.as_slice().into(),
        labels: labels.as_slice().into(),
        weights: None,
        classes: space.names.len(),
        dense: features.dense.then(|| embeddings(data, rows)),
        hashed: if features.lexical {
            let hasher = Hasher::new(&config.lexicon);
            rows.par_iter()
                .map(|&row| data.hashed(row, &hasher).expect("has text").into_owned())
                .collect()
        } else {
            Vec::new()
        },
        config,
    };
    let pool = pool(config, training.available());
    let crossed = cross_fit(&training, &pool, config.folds as u32, progress);
    if crossed.fitted.is_empty() {
        let why: Vec<String> = crossed
            .dropped
            .iter()
            .map(|d| format!("{}: {}", d.name, d.why))
            .collect();
        return Err(FitError::NoCandidate(why.join("; ")));
    }
    let contenders = contenders(&training, &crossed.fitted);
    competitors(&contenders)
        .par_iter()
        .map(|contender| {
            let predicted: Vec<u32> = mean_of(&crossed.fitted, &contender.members)
                .rows()
                .into_iter()
                .map(|row| names[top_of_row(row) as usize])
                .collect();
            let accepted = Accepted::fit(&training, &crossed.fitted, contender, None)?;
            Ok(accepted.into_iter().map(move |accepted| Assessed {
                name: accepted.name,
                macro_f1: contender.scores.macro_f1,
                predicted: predicted.clone(),
                scored: accepted.scored,
            }))
        })
        .collect::<Result<Vec<_>, String>>()
        .map(|assessed| assessed.into_iter().flatten().collect())
        .map_err(FitError::NoCandidate)
}
