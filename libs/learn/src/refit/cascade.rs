//! The family `rsb`: a second stage, fitted on what the first one defers.

use ndarray::Array2;

use super::{
    accept::{Accepted, FOREIGN, Predicted, fit_acceptor},
    cross_fit::{CrossFitted, Training},
};
use crate::{
    acceptor::Acceptor,
    candidate::Candidate,
    component::{Component, probabilities_of},
    gate::{Gate, Scored},
    pipeline::{first_score, second_score},
};
use tracer_features::Lexicon;

/// Fewer deferred rows than this teach a second surrogate nothing.
const LEAST_ROWS: usize = 100;

/// A second stage in the making.
pub(crate) struct Cascade {
    pub(crate) entry: f32,
    /// Training rows that the first stage defers.
    pub(crate) rows: Vec<usize>,
    pub(crate) candidate: Candidate,
    pub(crate) acceptor: Acceptor,
    /// All training rows with the scores of the cascade.
    pub(crate) scored: Vec<Scored>,
}

impl Cascade {
    /// A second stage behind `first` for the gate's target: of the candidates
    /// that are still in the race, the one that comes first in the pool's order.
    /// `None` when the first stage defers too little to learn from.
    pub(crate) fn fit(
        training: &Training<'_>,
        fitted: &[CrossFitted],
        first: &Accepted,
        gate: &Gate,
    ) -> Option<Self> {
        let entry = entry(&first.scored, 0.5 * (1.0 + gate.target))?;
        let rows: Vec<usize> = (0..training.len())
            .filter(|&i| (0.0..entry).contains(&first.scored[i].score))
            .collect();
        if rows.len() < LEAST_ROWS {
            return None;
        }
        let candidate = fitted[*first.members.first()?].candidate;
        let logits = out_of_fold(training, candidate, &rows)?;
        let mean = probabilities_of(logits);
        let labels: Vec<u32> = rows.iter().map(|&i| training.labels[i]).collect();
        let weights: Option<Vec<f32>> = training
            .weights
            .as_ref()
            .map(|w| rows.iter().map(|&i| w[i]).collect());
        let folds: Vec<u32> = rows.iter().map(|&i| training.folds[i]).collect();
        let foreignness: Vec<f32> = first
            .guarded
            .iter()
            .flat_map(|guarded| rows.iter().map(|&i| guarded.scores[i]))
            .collect();
        let (acceptor, second) = fit_acceptor(
            training,
            &Predicted {
                mean: &mean,
                components: &[&mean],
                labels: &labels,
                weights: weights.as_deref(),
                folds: &folds,
                foreignness: &foreignness,
            },
            &first.acceptor.cues,
        )
        .ok()?;
        let mut scored: Vec<Scored> = first
            .scored
            .iter()
            .map(|scored| match scored.score {
                FOREIGN => *scored,
                score => Scored {
                    score: first_score(score),
                    ..*scored
                },
            })
            .collect();
        for (&i, scored_second) in rows.iter().zip(&second) {
            scored[i] = Scored {
                score: second_score(scored_second.score),
                agrees: scored_second.agrees,
                ..scored[i]
            };
        }
        Some(Self {
            entry,
            rows,
            candidate,
            acceptor,
            scored,
        })
    }

    /// The second stage's component, fitted on all rows that the first defers.
    pub(crate) fn component(
        &self,
        training: &Training<'_>,
        lexicon: Option<&Lexicon>,
    ) -> Result<Component, String> {
        let rows = training.rows(&self.rows, lexicon);
        self.candidate
            .fit(&rows.part(training, &[]))
            .map_err(|failure| failure.to_string())
    }
}

/// The lowest score at and above which the agreement reaches the target, which is half
/// way between the gate's and 1: a first stage that took all that the gate lets pass
/// would have spent the disagreements allowed, and leave none to the second.
/// `None` when there is none, or when it is that of all rows.
fn entry(scored: &[Scored], target: f64) -> Option<f32> {
    let mut sorted: Vec<&Scored> = scored.iter().filter(|s| s.score > FOREIGN).collect();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (mut mass, mut right, mut entry) = (0.0, 0.0, None);
    for (i, row) in sorted.iter().enumerate() {
        mass += row.weight;
        right += row.weight * f64::from(u8::from(row.agrees));
        let last_of_its_score = sorted.get(i + 1).is_none_or(|next| next.score < row.score);
        if last_of_its_score && right >= target * mass {
            entry = Some((i, row.score));
        }
    }
    entry
        .filter(|(i, _)| i + 1 < sorted.len())
        .map(|(_, score)| score)
}

/// Scores of the rows by fits on the others of them, fold by fold.
fn out_of_fold(
    training: &Training<'_>,
    candidate: Candidate,
    rows: &[usize],
) -> Option<Array2<f32>> {
    let mut logits = Array2::zeros((rows.len(), training.classes));
    for fold in 0..training.config.folds as u32 {
        let (held, members): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|&i| training.folds[rows[i]] == fold);
        if held.is_empty() {
            continue;
        }
        let of = |places: &[usize]| places.iter().map(|&i| rows[i]).collect::<Vec<_>>();
        let members = of(&members);
        // As it will serve: with a lexicon of all rows, not of the deferred ones.
        let outside: Vec<usize> = (0..training.len())
            .filter(|&i| training.folds[i] != fold)
            .collect();
        let lexicon = training.lexicon(&outside);
        let fitted = candidate
            .fit(
                &training
                    .rows(&members, lexicon.as_ref())
                    .part(training, &[]),
            )
            .ok()?;
        let test = training.rows(&of(&held), lexicon.as_ref());
        let predicted = fitted.logits_of(test.part(training, &[]).block());
        if predicted.iter().any(|score| !score.is_finite()) {
            return None;
        }
        for (&i, row) in held.iter().zip(predicted.rows()) {
            logits.row_mut(i).assign(&row);
        }
    }
    Some(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_the_lowest_score_that_keeps_the_target() {
        let row = |score: f32, agrees: bool| Scored {
            score,
            agrees,
            weight: 1.0,
        };
        let rows = [
            row(0.9, true),
            row(0.8, true),
            row(0.7, false),
            row(0.6, true),
            row(0.5, false),
        ];
        assert_eq!(entry(&rows, 0.75), Some(0.6));
        assert_eq!(entry(&rows, 0.9), Some(0.8));
        // Everything reaches it, or nothing does.
        assert_eq!(entry(&rows, 0.5), None);
        assert_eq!(entry(&[row(0.9, false)], 0.5), None);
        // Rows of one score stand or fall together.
        assert_eq!(
            entry(&[row(0.9, true), row(0.9, false), row(0.1, true)], 0.9),
            None
        );
    }
}
