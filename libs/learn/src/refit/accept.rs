//! Acceptors from out-of-fold predictions.

use ndarray::{Array2, ArrayView1};

use super::{
    contest::{Contender, mean_of},
    cross_fit::{CrossFitted, Training},
    guarding::{Guarded, Guarding},
};
use crate::{
    acceptor::Acceptor,
    confidence::{Cue, Evidence, Reliability, read, top},
    gate::Scored,
};

/// A contender with its acceptor and its out-of-fold outcomes.
pub(crate) struct Accepted {
    pub(crate) members: Vec<usize>,
    pub(crate) name: String,
    pub(crate) acceptor: Acceptor,
    /// By training row; one that the guard objects to scores [`FOREIGN`].
    pub(crate) scored: Vec<Scored>,
    pub(crate) guarded: Option<Guarded>,
}

/// The score of a row that the guard defers: no threshold accepts it.
pub(crate) const FOREIGN: f32 = -1.0;

impl Accepted {
    /// The contender with each of the configured acceptors.
    pub(crate) fn fit(
        training: &Training<'_>,
        fitted: &[CrossFitted],
        contender: &Contender,
        guarding: Option<&Guarding<'_>>,
    ) -> Result<Vec<Self>, String> {
        let guarded = guarding
            .map(|guarding| guarding.fit(fitted, contender))
            .transpose()?;
        let foreignness = guarded.as_ref().map_or(&[][..], |g| &g.scores);
        let mean = mean_of(fitted, &contender.members);
        let components: Vec<&Array2<f32>> = contender
            .members
            .iter()
            .map(|&m| &fitted[m].probabilities)
            .collect();
        let predicted = Predicted {
            mean: &mean,
            components: &components,
            labels: &training.labels,
            weights: training.weights.as_deref(),
            folds: &training.folds,
            foreignness,
        };
        let accepted = training.config.acceptors.iter().map(|cues| {
            let (acceptor, mut scored) = fit_acceptor(training, &predicted, cues)?;
            if let Some(Guarded { guard, scores }) = &guarded {
                for (scored, &foreignness) in scored.iter_mut().zip(scores) {
                    if guard.is_foreign(foreignness) {
                        scored.score = FOREIGN;
                    }
                }
            }
            Ok(Self {
                members: contender.members.clone(),
                name: contender.name(fitted),
                acceptor,
                scored,
                guarded: guarded.clone(),
            })
        });
        accepted.collect()
    }
}

/// Out-of-fold predictions of some training rows.
pub(crate) struct Predicted<'a> {
    /// The surrogate's class probabilities, a row each.
    pub(crate) mean: &'a Array2<f32>,
    /// Those of its components.
    pub(crate) components: &'a [&'a Array2<f32>],
    pub(crate) labels: &'a [u32],
    pub(crate) weights: Option<&'a [f32]>,
    /// Fold by row.
    pub(crate) folds: &'a [u32],
    /// The guard's scores; none without a guard.
    pub(crate) foreignness: &'a [f32],
}

/// The acceptor, and the out-of-fold predictions with its scores.
pub(crate) fn fit_acceptor(
    training: &Training<'_>,
    predicted: &Predicted<'_>,
    cues: &[Cue],
) -> Result<(Acceptor, Vec<Scored>), String> {
    let n = predicted.labels.len();
    let tops: Vec<_> = predicted
        .mean
        .rows()
        .into_iter()
        .map(|row| top(slice(row)))
        .collect();
    let agrees: Vec<bool> = tops
        .iter()
        .zip(predicted.labels)
        .map(|(t, &l)| t.label == l as usize)
        .collect();
    let weight = |i: usize| predicted.weights.map_or(1.0, |w| f64::from(w[i]));
    let outcomes = (0..n).map(|i| (tops[i].label, agrees[i], weight(i)));
    let reliability = Reliability::fit(training.classes, outcomes.clone());
    // A row's own outcome must not be in the rate that it is shown: leaving out the
    // row alone would give every agreeing row a lower rate than every other one.
    let without: Vec<Reliability> = (0..training.config.folds as u32)
        .map(|fold| {
            let others = outcomes.clone().zip(predicted.folds);
            let others = others
                .filter(|(_, f)| **f != fold)
                .map(|(outcome, _)| outcome);
            Reliability::fit(training.classes, others)
        })
        .collect();
    let mut rows = Array2::zeros((n, cues.len()));
    let mut row = Vec::new();
    let mut components = Vec::new();
    for i in 0..n {
        components.clear();
        components.extend(predicted.components.iter().map(|c| slice(c.row(i))));
        let evidence = Evidence {
            probabilities: slice(predicted.mean.row(i)),
            components: &components,
            top: tops[i],
            reliability: without[predicted.folds[i] as usize].of(tops[i].label),
            foreignness: predicted.foreignness.get(i).copied().unwrap_or(0.0),
        };
        read(cues, &evidence, &mut row);
        rows.row_mut(i).assign(&ArrayView1::from(&row));
    }
    let acceptor = Acceptor::fit(cues, &rows, &agrees, predicted.weights, reliability)?;
    let scored = rows
        .rows()
        .into_iter()
        .zip(&agrees)
        .enumerate()
        .map(|(i, (row, &agrees))| Scored {
            score: acceptor.score(row.as_slice().expect("rows are contiguous")),
            agrees,
            weight: weight(i),
        })
        .collect();
    Ok((acceptor, scored))
}

fn slice(row: ArrayView1<'_, f32>) -> &[f32] {
    row.to_slice().expect("rows are contiguous")
}
