//! What a guard is fitted on, and the statistics over it.

use ndarray::{Array2, ArrayView1, ArrayView2};
use pulp::Arch;
use tracer_features::Novelty;

use super::{
    Standard,
    prototypes::{MAX_DIMENSION, Prototypes},
};
/// The rows a guard is fitted on: the training rows, the shadow not among them.
#[derive(Clone, Copy)]
pub(crate) struct Reference<'a> {
    /// What the embeddings look like; `None` where the pipeline takes none.
    pub(crate) likeness: Option<&'a Likeness>,
    /// By row, of a lexicon fitted without the row's fold; `None` where the pipeline
    /// takes no text.
    pub(crate) novelty: Option<&'a [Novelty]>,
    /// By component: n × classes, by a model fitted without the row's fold. Raw
    /// scores where the model has them, logarithms of probabilities where it has not.
    pub(crate) logits: &'a [ArrayView2<'a, f32>],
    /// Class by row.
    pub(crate) labels: &'a [u32],
    /// Fold by row.
    pub(crate) folds: &'a [usize],
    /// Number of classes.
    pub(crate) classes: usize,
    /// What each row stands for; `None` where all stand for the same.
    pub(crate) weights: Option<&'a [f64]>,
}

/// Rows no guard can be fitted on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum GuardError {
    /// A part with another number of rows, classes or dimensions than it must have.
    #[error("the guard's reference: {0}")]
    Shape(&'static str),
    /// A value that is not a number, or infinite.
    #[error("the guard's reference: row {row} has {what} that is not finite")]
    NotFinite {
        /// The row.
        row: usize,
        /// What it has.
        what: &'static str,
    },
    /// A share is in [0, 1).
    #[error("ood_budget = {0}: expected a share in [0, 1)")]
    Budget(f64),
}

impl Reference<'_> {
    pub(super) fn check(&self) -> Result<(), GuardError> {
        let n = self.labels.len();
        let shape = |fits: bool, what| {
            if fits {
                Ok(())
            } else {
                Err(GuardError::Shape(what))
            }
        };
        shape(n > 0, "there are no rows")?;
        shape(
            self.labels.iter().all(|&l| (l as usize) < self.classes),
            "a label is not below the number of classes",
        )?;
        shape(self.folds.len() == n, "not a fold a row")?;
        shape(!self.logits.is_empty(), "there are no logits")?;
        for logits in self.logits {
            shape(
                logits.dim() == (n, self.classes),
                "the logits are not rows × classes",
            )?;
            // 0 times anything finite is 0.
            finite(
                logits.outer_iter().map(|r| r.iter().map(|l| l * 0.0).sum()),
                "a logit",
            )?;
        }
        if let Some(likeness) = self.likeness {
            shape(likeness.rows.nrows() == n, "not an embedding a row")?;
        }
        if let Some(novelty) = self.novelty {
            shape(novelty.len() == n, "not a novelty a row")?;
            finite(novelty.iter().map(|t| t.known + t.unknown), "a novelty")?;
        }
        if let Some(weights) = self.weights {
            shape(weights.len() == n, "not a weight a row")?;
            finite(weights.iter().map(|&w| w as f32), "a weight")?;
            shape(
                weights.iter().all(|&w| w >= 0.0) && weights.iter().sum::<f64>() > 0.0,
                "the weights are negative, or all 0",
            )?;
        }
        Ok(())
    }

    fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[row])
    }

    /// Mean and standard deviation over the rows.
    pub(super) fn moments(&self, cues: &[f32]) -> (f64, f64) {
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            let (mut sum, mut total) = (0.0, 0.0);
            for (row, &cue) in cues.iter().enumerate() {
                sum += self.weight(row) * f(f64::from(cue));
                total += self.weight(row);
            }
            sum / total
        };
        let mean = mean_of(&|cue| cue);
        (mean, mean_of(&|cue| (cue - mean).powi(2)).sqrt())
    }

    pub(super) fn standard(&self, cues: &[f32], weight: f32) -> Standard {
        let (mean, spread) = self.moments(cues);
        Standard {
            mean: mean as f32,
            scale: if spread > 1e-6 {
                weight / spread as f32
            } else {
                0.0
            },
        }
    }

    /// The smallest score that at most the share `budget` of the rows is above.
    pub(super) fn threshold(&self, scores: &[f32], budget: f64) -> Option<f32> {
        if budget <= 0.0 {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let mut left = budget * order.iter().map(|&row| self.weight(row)).sum::<f64>();
        for &row in &order {
            left -= self.weight(row);
            if left < 0.0 {
                return Some(scores[row]);
            }
        }
        order.last().map(|&row| scores[row])
    }
}

/// Errs at the first row whose value is not finite.
fn finite(rows: impl Iterator<Item = f32>, what: &'static str) -> Result<(), GuardError> {
    for (row, value) in rows.enumerate() {
        if !value.is_finite() {
            return Err(GuardError::NotFinite { row, what });
        }
    }
    Ok(())
}

/// Prototypes of every fold's other rows and of all, which all guards on the same
/// embeddings share.
pub(crate) struct Likeness {
    /// n × d.
    rows: Array2<f32>,
    /// By fold, of the rows outside it.
    folds: Vec<(usize, Prototypes)>,
    pub(super) all: Prototypes,
}

impl Likeness {
    /// Of embeddings (n × d) with a label below `classes` and a fold each.
    pub(crate) fn fit(
        embeddings: ArrayView2<'_, f32>,
        labels: &[u32],
        folds: &[usize],
        classes: usize,
    ) -> Result<Self, GuardError> {
        let n = embeddings.nrows();
        if labels.len() != n || folds.len() != n {
            return Err(GuardError::Shape("not an embedding a row"));
        }
        if labels.iter().any(|&l| l as usize >= classes) {
            return Err(GuardError::Shape(
                "a label is not below the number of classes",
            ));
        }
        if !(1..=MAX_DIMENSION).contains(&embeddings.ncols()) {
            return Err(GuardError::Shape(
                "the embeddings have no dimension, or too many",
            ));
        }
        let zero = |row: ArrayView1<'_, f32>| row.iter().map(|v| v * 0.0).sum();
        finite(embeddings.outer_iter().map(zero), "an embedding")?;
        let mut numbers = folds.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(Self {
            rows: embeddings.to_owned(),
            folds: numbers
                .into_iter()
                .map(|fold| {
                    let others = (0..n).filter(|&row| folds[row] != fold);
                    (fold, Prototypes::fit(embeddings, labels, classes, others))
                })
                .collect(),
            all: Prototypes::fit(embeddings, labels, classes, 0..n),
        })
    }

    /// Minus the cosine of each row to the nearest prototype, made of the other
    /// folds, of the class predicted for it.
    pub(super) fn cross_fitted(
        &self,
        folds: &[usize],
        predicted: &[usize],
        arch: Arch,
    ) -> Vec<f32> {
        let mut cues = vec![0.0; predicted.len()];
        for (fold, prototypes) in &self.folds {
            for row in (0..cues.len()).filter(|&row| folds[row] == *fold) {
                let x = self.rows.row(row);
                let x = x.as_slice().expect("an owned matrix stands row by row");
                cues[row] = -prototypes.nearest(arch, x, predicted[row]);
            }
        }
        cues
    }
}
