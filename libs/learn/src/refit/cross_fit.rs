//! Fits of candidates on folds: the race of the whole pool over the first fold,
//! and the out-of-fold predictions of those that are still in it.

use std::borrow::Cow;

use ndarray::{Array2, Axis};
use rayon::prelude::*;
use tracer_features::{HashedText, Lexicon, LexiconConfig, Novelty, SparseRow};

use super::Progressing;
use crate::{
    candidate::{Candidate, Part},
    component::{Component, Needs, probabilities_of},
    confidence::top_of_row,
    config::FitConfig,
    design::{Sparse, stride_of},
    model::FitFailure,
    score::{Scores, scores},
};

/// Weights of a linear model on text at the most: 128 MiB of them.
const MOST_WEIGHTS: usize = 1 << 25;

/// The training rows, prepared once for all candidates and folds.
pub(crate) struct Training<'a> {
    /// Fold by row.
    pub(crate) folds: Cow<'a, [u32]>,
    /// Class by row.
    pub(crate) labels: Cow<'a, [u32]>,
    /// Weight by row, of mean 1; `None` when all are alike.
    pub(crate) weights: Option<Cow<'a, [f32]>>,
    pub(crate) classes: usize,
    /// Embeddings, a row each; `None` when they are not used.
    pub(crate) dense: Option<Array2<f32>>,
    /// Hashed texts; empty when text is not used.
    pub(crate) hashed: Vec<HashedText>,
    pub(crate) config: &'a FitConfig,
}

/// A candidate with its out-of-fold scores.
pub(crate) struct CrossFitted {
    pub(crate) candidate: Candidate,
    /// Raw scores, rows × classes, each of a model that has not seen the row.
    pub(crate) logits: Array2<f32>,
    /// Class probabilities from them.
    pub(crate) probabilities: Array2<f32>,
    /// The fit of the first fold: where the fit on all rows may begin.
    pub(crate) first: Component,
    /// The lexicon of that fit.
    pub(crate) first_lexicon: Option<Lexicon>,
}

impl CrossFitted {
    /// Forgets the predictions of all but these rows.
    fn keep(self, rows: &[usize]) -> Self {
        Self {
            logits: self.logits.select(Axis(0), rows),
            probabilities: self.probabilities.select(Axis(0), rows),
            ..self
        }
    }
}

/// What cross-fitting finds out.
pub(crate) struct Crossed {
    /// The finalists, in the order of the pool.
    pub(crate) fitted: Vec<CrossFitted>,
    pub(crate) dropped: Vec<Dropped>,
    /// By row, of the text to a lexicon fitted without the row's fold; empty
    /// without text.
    pub(crate) novelty: Vec<Novelty>,
}

impl Crossed {
    /// Forgets all but these rows.
    pub(crate) fn keep(self, rows: &[usize]) -> Self {
        let fitted = self.fitted.into_iter();
        Self {
            fitted: fitted.map(|fitted| fitted.keep(rows)).collect(),
            novelty: rows
                .iter()
                .filter_map(|&i| self.novelty.get(i).copied())
                .collect(),
            ..self
        }
    }
}

/// A candidate that is out of the race, and why.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) name: String,
    /// On the first fold; `None` for one that could not be fitted.
    pub(crate) macro_f1: Option<f64>,
    pub(crate) why: String,
}

/// Some of the training rows, with their features at hand.
pub(crate) struct Rows<'a> {
    dense: Option<Cow<'a, Array2<f32>>>,
    sparse: Option<Sparse>,
    labels: Vec<u32>,
    weights: Option<Vec<f32>>,
}

impl<'a> Training<'a> {
    /// The rows of the first `folds` folds, and where they stand here.
    pub(crate) fn of_folds(&self, folds: u32) -> (Training<'a>, Vec<usize>) {
        let rows: Vec<usize> = (0..self.len()).filter(|&i| self.folds[i] < folds).collect();
        let of = |all: &[u32]| rows.iter().map(|&i| all[i]).collect();
        let some = Training {
            folds: of(&self.folds),
            labels: of(&self.labels),
            weights: self
                .weights
                .as_ref()
                .map(|w| rows.iter().map(|&i| w[i]).collect()),
            classes: self.classes,
            dense: self.dense.as_ref().map(|x| x.select(Axis(0), &rows)),
            // Empty where text is not used.
            hashed: rows
                .iter()
                .filter_map(|&i| self.hashed.get(i).cloned())
                .collect(),
            config: self.config,
        };
        (some, rows)
    }
}

impl Training<'_> {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The features there are.
    pub(crate) fn available(&self) -> Needs {
        Needs {
            dense: self.dense.is_some(),
            lexical: !self.hashed.is_empty(),
        }
    }

    /// A lexicon fitted on some rows: a held-out text must not decide which of
    /// its own n-grams are features.
    pub(crate) fn lexicon(&self, members: &[usize]) -> Option<Lexicon> {
        (!self.hashed.is_empty()).then(|| {
            let texts = members.iter().map(|&i| &self.hashed[i]);
            // A linear model has columns × classes weights, and its search a score
            // of vectors as long: with many classes there must be fewer columns.
            let columns = MOST_WEIGHTS / stride_of(self.classes);
            let config = LexiconConfig {
                max_features: self.config.lexicon.max_features.min(columns),
                ..self.config.lexicon.clone()
            };
            Lexicon::fit(&config, texts)
        })
    }

    pub(crate) fn rows(&self, members: &[usize], lexicon: Option<&Lexicon>) -> Rows<'_> {
        let all = members.len() == self.len();
        let dense = self.dense.as_ref().map(|x| {
            if all {
                Cow::Borrowed(x)
            } else {
                Cow::Owned(x.select(Axis(0), members))
            }
        });
        let sparse = lexicon.map(|lexicon| {
            let mut sparse = Sparse::new(lexicon.len());
            let mut row = SparseRow::default();
            for &i in members {
                lexicon.weigh(&self.hashed[i], &mut row);
                sparse.push(&row);
            }
            sparse
        });
        Rows {
            dense,
            sparse,
            labels: members.iter().map(|&i| self.labels[i]).collect(),
            weights: self
                .weights
                .as_ref()
                .map(|w| members.iter().map(|&i| w[i]).collect()),
        }
    }

    /// (rows outside the fold, rows in it)
    fn split(&self, fold: u32) -> (Vec<usize>, Vec<usize>) {
        (0..self.len()).partition(|&i| self.folds[i] != fold)
    }
}

impl Rows<'_> {
    pub(crate) fn part<'a>(
        &'a self,
        training: &'a Training<'_>,
        starts: &'a [&'a Component],
    ) -> Part<'a> {
        Part {
            dense: self.dense.as_ref().map(|x| x.view()),
            lexical: self.sparse.as_ref(),
            labels: &self.labels,
            weights: self.weights.as_deref(),
            classes: training.classes,
            config: training.config,
            starts,
        }
    }

    fn scores(&self, training: &Training<'_>, predicted: &[u32]) -> Scores {
        scores(
            &self.labels,
            predicted,
            self.weights.as_deref(),
            training.classes,
        )
    }
}

/// A fit without a fold, and its scores of the fold's rows, rows × classes.
type Fit = (Component, Array2<f32>);

/// A fold with its features at hand.
struct Fold<'a> {
    held: Vec<usize>,
    lexicon: Option<Lexicon>,
    train: Rows<'a>,
    test: Rows<'a>,
}

impl<'a> Fold<'a> {
    fn of(training: &'a Training<'_>, fold: u32) -> Self {
        let (members, held) = training.split(fold);
        let lexicon = training.lexicon(&members);
        Self {
            train: training.rows(&members, lexicon.as_ref()),
            test: training.rows(&held, lexicon.as_ref()),
            held,
            lexicon,
        }
    }

    /// Fits a candidate on the rows outside the fold and scores those in it.
    fn fit(
        &self,
        training: &Training<'_>,
        candidate: Candidate,
        starts: &[&Component],
    ) -> Result<Fit, FitFailure> {
        let component = candidate.fit(&self.train.part(training, starts))?;
        let logits = component.logits_of(self.test.part(training, &[]).block());
        if logits.iter().all(|score| score.is_finite()) {
            Ok((component, logits))
        } else {
            Err(FitFailure::Scores)
        }
    }

    /// Fits candidates on the rows outside the fold, those that begin at others' fits
    /// after these.
    fn fit_all(
        &self,
        training: &Training<'_>,
        candidates: &[Candidate],
        progress: &Progressing<'_>,
    ) -> Vec<Result<Fit, FitFailure>> {
        let mut results: Vec<Option<Result<Fit, FitFailure>>> = Vec::new();
        results.resize_with(candidates.len(), || None);
        for after_others in [false, true] {
            let due: Vec<_> = candidates
                .par_iter()
                .with_max_len(1)
                .map(|candidate| {
                    if candidate.kind.begins_at.is_empty() == after_others {
                        return None;
                    }
                    let starts: Vec<&Component> = candidates
                        .iter()
                        .zip(&results)
                        .filter(|(other, _)| candidate.begins_at(**other))
                        .filter_map(|(_, result)| Some(&result.as_ref()?.as_ref().ok()?.0))
                        .collect();
                    let result = self.fit(training, *candidate, &starts);
                    progress.done(&candidate.to_string());
                    Some(result)
                })
                .collect();
            for (slot, result) in results.iter_mut().zip(due) {
                if result.is_some() {
                    *slot = result;
                }
            }
        }
        let results = results.into_iter();
        results.map(|result| result.expect("due once")).collect()
    }
}

fn tell_novelty(
    training: &Training<'_>,
    lexicon: Option<&Lexicon>,
    held: &[usize],
    novelty: &mut [Novelty],
) {
    if let Some(lexicon) = lexicon {
        for &i in held {
            novelty[i] = lexicon.novelty(&training.hashed[i]);
        }
    }
}

/// A candidate's fit on the first fold.
struct Raced {
    candidate: Candidate,
    component: Component,
    logits: Array2<f32>,
    scores: Scores,
}

/// Rows up to which the folds are fitted beside each other.
const MOST_BESIDE: usize = 50_000;

/// Cross-fits the pool. Every candidate is fitted without the first fold and
/// scored on it; the best of each group that is not outpaced is then fitted
/// without each of the other folds, of the first `folds` of them. Returns the
/// finalists, in the order of the pool, and those that dropped out. Predictions of
/// rows of later folds are left at 0.
pub(crate) fn cross_fit(
    training: &Training<'_>,
    pool: &[Candidate],
    folds: u32,
    progress: &Progressing<'_>,
) -> Crossed {
    let mut novelty = vec![Novelty::default(); training.hashed.len()];
    let fold = Fold::of(training, 0);
    tell_novelty(training, fold.lexicon.as_ref(), &fold.held, &mut novelty);
    let (raced, mut dropped) = race(training, pool, &fold, progress);
    let finalists = finalists(raced, training.config, &mut dropped);
    progress.expect(finalists.len() * (folds as usize - 1));
    let candidates: Vec<Candidate> = finalists.iter().map(|raced| raced.candidate).collect();
    let mut fitted: Vec<Option<CrossFitted>> = finalists
        .into_iter()
        .map(|raced| {
            let mut logits = Array2::zeros((training.len(), training.classes));
            place(&mut logits, &fold.held, &raced.logits);
            Some(CrossFitted {
                candidate: raced.candidate,
                logits,
                probabilities: Array2::default((0, 0)),
                first: raced.component,
                first_lexicon: fold.lexicon.clone(),
            })
        })
        .collect();
    drop(fold);
    // Folds beside each other keep all cores busy to the end; of many rows, one after
    // the other keeps fewer copies of them.
    let beside = if training.len() > MOST_BESIDE {
        1
    } else {
        training.config.folds
    };
    let numbers: Vec<u32> = (1..folds)
        .filter(|number| training.folds.contains(number))
        .collect();
    for numbers in numbers.chunks(beside) {
        let results: Vec<_> = numbers
            .par_iter()
            .with_max_len(1)
            .map(|&number| {
                let fold = Fold::of(training, number);
                let results = fold.fit_all(training, &candidates, progress);
                let logits: Vec<_> = results
                    .into_iter()
                    .map(|result| result.map(|(_, logits)| logits))
                    .collect();
                (fold.held, fold.lexicon, logits)
            })
            .collect();
        for (held, lexicon, results) in results {
            tell_novelty(training, lexicon.as_ref(), &held, &mut novelty);
            for (slot, result) in fitted.iter_mut().zip(results) {
                match (result, slot.as_mut()) {
                    (Ok(logits), Some(fitted)) => place(&mut fitted.logits, &held, &logits),
                    (Err(failure), Some(fitted)) => {
                        dropped.push(Dropped {
                            name: fitted.candidate.to_string(),
                            macro_f1: None,
                            why: failure.to_string(),
                        });
                        *slot = None;
                    }
                    (_, None) => {}
                }
            }
        }
    }
    let fitted = fitted
        .into_iter()
        .flatten()
        .map(|fitted| CrossFitted {
            probabilities: probabilities_of(fitted.logits.clone()),
            ..fitted
        })
        .collect();
    Crossed {
        fitted,
        dropped,
        novelty,
    }
}

fn place(into: &mut Array2<f32>, rows: &[usize], from: &Array2<f32>) {
    for (&i, row) in rows.iter().zip(from.rows()) {
        into.row_mut(i).assign(&row);
    }
}

/// Fits every candidate without the first fold. Candidates of one kind differ in
/// strength alone and come from weak to strong: each begins at the one before.
fn race(
    training: &Training<'_>,
    pool: &[Candidate],
    fold: &Fold<'_>,
    progress: &Progressing<'_>,
) -> (Vec<Raced>, Vec<Dropped>) {
    let paths: Vec<&[Candidate]> = pool.chunk_by(|a, b| a.kind.name == b.kind.name).collect();
    let (mut all, mut dropped): (Vec<Raced>, Vec<Dropped>) = Default::default();
    for after_others in [false, true] {
        let due: Vec<&[Candidate]> = paths
            .iter()
            .copied()
            .filter(|path| path[0].kind.begins_at.is_empty() != after_others)
            .collect();
        let raced: Vec<_> = due
            .into_par_iter()
            .with_max_len(1)
            .map(|path| run(training, path, &all, fold, progress))
            .collect();
        for (raced, failed) in raced {
            all.extend(raced);
            dropped.extend(failed);
        }
    }
    (all, dropped)
}

/// One kind's candidates, one after the other.
fn run(
    training: &Training<'_>,
    path: &[Candidate],
    others: &[Raced],
    fold: &Fold<'_>,
    progress: &Progressing<'_>,
) -> (Vec<Raced>, Vec<Dropped>) {
    let (mut raced, mut dropped): (Vec<Raced>, Vec<Dropped>) = Default::default();
    for &candidate in path {
        let starts: Vec<&Component> = others
            .iter()
            .chain(&raced)
            .filter(|raced| candidate.begins_at(raced.candidate))
            .map(|raced| &raced.component)
            .collect();
        match fold.fit(training, candidate, &starts) {
            Ok((component, logits)) => {
                let predicted: Vec<u32> = logits.rows().into_iter().map(top_of_row).collect();
                raced.push(Raced {
                    candidate,
                    component,
                    logits,
                    scores: fold.test.scores(training, &predicted),
                });
            }
            Err(failure) => dropped.push(Dropped {
                name: candidate.to_string(),
                macro_f1: None,
                why: failure.to_string(),
            }),
        }
        progress.done(&candidate.to_string());
    }
    (raced, dropped)
}

/// The best of each group, if it is not outpaced, and at most as many as the
/// configuration says.
fn finalists(raced: Vec<Raced>, config: &FitConfig, dropped: &mut Vec<Dropped>) -> Vec<Raced> {
    let mut order: Vec<usize> = (0..raced.len()).collect();
    order.sort_by(|&a, &b| {
        raced[b]
            .scores
            .macro_f1
            .total_cmp(&raced[a].scores.macro_f1)
    });
    let best = order.first().map_or(0.0, |&i| raced[i].scores.macro_f1);
    let mut groups: Vec<&str> = Vec::new();
    let mut keep = vec![false; raced.len()];
    let mut why = vec![""; raced.len()];
    for &i in &order {
        let group = raced[i].candidate.kind.group;
        if groups.contains(&group) {
            why[i] = "another of its kind does better";
        } else if groups.len() == config.finalists {
            why[i] = "enough others do better";
        } else if raced[i].scores.macro_f1 < best - config.race_margin {
            why[i] = "outpaced on the first fold";
        } else {
            groups.push(group);
            keep[i] = true;
        }
    }
    // Where a candidate's search begins is cheap to go on with, and good in blends.
    let begins_at: Vec<&str> = (0..raced.len())
        .filter(|&i| keep[i])
        .flat_map(|i| raced[i].candidate.kind.begins_at.iter().copied())
        .collect();
    for name in begins_at {
        let of_kind = |i: &&usize| raced[**i].candidate.kind.name == name;
        if let Some(&best) = order.iter().find(of_kind) {
            keep[best] = true;
        }
    }
    let mut kept = Vec::new();
    for (i, raced) in raced.into_iter().enumerate() {
        if keep[i] {
            kept.push(raced);
        } else {
            dropped.push(Dropped {
                name: raced.candidate.to_string(),
                macro_f1: Some(raced.scores.macro_f1),
                why: why[i].to_owned(),
            });
        }
    }
    kept
}
