//! The pool: what may become a surrogate. One file a candidate.

mod blend;
mod dense_logistic;
mod lexical_logistic;

use rayon::prelude::*;
use tracer_features::HashedText;

use crate::{
    confidence::top,
    config::FitConfig,
    dataset::Dataset,
    logistic::LogisticParams,
    surrogate::{Component, Input, Scratch, Surrogate},
};

/// The training rows, prepared once for all candidates and folds.
pub(crate) struct Training<'a> {
    pub(crate) data: &'a Dataset,
    /// Rows of `data`.
    pub(crate) rows: &'a [usize],
    /// Fold by training row.
    pub(crate) folds: &'a [usize],
    /// Class by training row.
    pub(crate) labels: &'a [u32],
    pub(crate) classes: usize,
    /// Hashed text by training row; empty when text is not used.
    pub(crate) hashed: Vec<HashedText>,
    pub(crate) config: &'a FitConfig,
}

/// A base candidate: one model on one kind of features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Base {
    /// Multinomial logistic regression on the embedding.
    DenseLogistic { c: f64 },
    /// Multinomial logistic regression on the text.
    LexicalLogistic { c: f64 },
}

/// A candidate with its out-of-fold class probabilities.
pub(crate) struct CrossFitted {
    pub(crate) name: String,
    pub(crate) parts: Vec<Base>,
    /// By part, by training row: class probabilities of a model that has not seen the row.
    pub(crate) out_of_fold: Vec<Vec<Vec<f32>>>,
    /// Macro-averaged F1 against the teacher's labels, out of fold.
    pub(crate) macro_f1: f64,
}

/// The base candidates that the features and the configuration allow.
pub(crate) fn pool(config: &FitConfig, dense: bool, lexical: bool) -> Vec<Base> {
    let mut pool = Vec::new();
    if dense {
        pool.extend(config.dense_c.iter().map(|&c| Base::DenseLogistic { c }));
    }
    if lexical {
        pool.extend(
            config
                .lexical_c
                .iter()
                .map(|&c| Base::LexicalLogistic { c }),
        );
    }
    pool
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Self::DenseLogistic { .. } => dense_logistic::NAME,
            Self::LexicalLogistic { .. } => lexical_logistic::NAME,
        }
    }

    /// Fits on all training rows, or on those outside a fold.
    pub(crate) fn fit(self, training: &Training<'_>, without_fold: Option<usize>) -> Component {
        let members: Vec<usize> = (0..training.rows.len())
            .filter(|&i| Some(training.folds[i]) != without_fold)
            .collect();
        let labels: Vec<u32> = members.iter().map(|&i| training.labels[i]).collect();
        let params = |c| LogisticParams {
            c,
            max_iterations: training.config.max_iterations,
            tolerance: training.config.tolerance,
        };
        match self {
            Self::DenseLogistic { c } => {
                dense_logistic::fit(training, &members, &labels, params(c))
            }
            Self::LexicalLogistic { c } => {
                lexical_logistic::fit(training, &members, &labels, params(c))
            }
        }
    }

    /// Class probabilities of the rows of a fold by a model fitted without it.
    fn predict_fold(self, training: &Training<'_>, fold: usize) -> Vec<(usize, Vec<f32>)> {
        let surrogate = Surrogate::new(vec![self.fit(training, Some(fold))]);
        let mut scratch = Scratch::default();
        (0..training.rows.len())
            .filter(|&i| training.folds[i] == fold)
            .map(|i| {
                let row = training.rows[i];
                let input = Input {
                    text: training.data.text(row),
                    embedding: training.data.embedding(row),
                };
                surrogate
                    .predict(input, &mut scratch)
                    .expect("training rows have every feature in use");
                (i, scratch.probabilities.clone())
            })
            .collect()
    }
}

/// Cross-fits the whole pool and the blends of its best, best macro-F1 first.
/// `done` is called after every fit.
pub(crate) fn cross_fit(
    training: &Training<'_>,
    pool: &[Base],
    done: &(dyn Fn(&str) + Sync),
) -> Vec<CrossFitted> {
    let folds = training.config.folds;
    let jobs: Vec<(usize, usize)> = (0..pool.len())
        .flat_map(|c| (0..folds).map(move |f| (c, f)))
        .collect();
    let predicted: Vec<_> = jobs
        .par_iter()
        .with_max_len(1)
        .map(|&(candidate, fold)| {
            let rows = pool[candidate].predict_fold(training, fold);
            done(pool[candidate].name());
            (candidate, rows)
        })
        .collect();
    let mut out_of_fold = vec![vec![Vec::new(); training.rows.len()]; pool.len()];
    for (candidate, rows) in predicted {
        for (i, probabilities) in rows {
            out_of_fold[candidate][i] = probabilities;
        }
    }
    let mut fitted: Vec<CrossFitted> = pool
        .iter()
        .zip(out_of_fold)
        .map(|(&base, probabilities)| CrossFitted {
            name: base.name().to_owned(),
            parts: vec![base],
            macro_f1: macro_f1(training, probabilities.iter().map(|p| top(p).label)),
            out_of_fold: vec![probabilities],
        })
        .collect();
    fitted.sort_by(|a, b| b.macro_f1.total_cmp(&a.macro_f1));
    fitted.extend(blend::of_the_best(training, &fitted));
    fitted.sort_by(|a, b| b.macro_f1.total_cmp(&a.macro_f1));
    fitted
}

/// The unweighted mean over classes of the F1 of predictions against the labels,
/// over the classes that occur.
pub(crate) fn macro_f1(training: &Training<'_>, predictions: impl Iterator<Item = usize>) -> f64 {
    let k = training.classes;
    let (mut hits, mut predicted, mut actual) = (vec![0_u32; k], vec![0_u32; k], vec![0_u32; k]);
    for (prediction, &label) in predictions.zip(training.labels) {
        let label = label as usize;
        predicted[prediction] += 1;
        actual[label] += 1;
        hits[label] += u32::from(prediction == label);
    }
    let classes: Vec<usize> = (0..k).filter(|&c| predicted[c] + actual[c] > 0).collect();
    let sum: f64 = classes
        .iter()
        .map(|&c| 2.0 * f64::from(hits[c]) / f64::from(predicted[c] + actual[c]))
        .sum();
    sum / classes.len().max(1) as f64
}
