//! The out-of-distribution guard: is an input unlike all that was learned from?
//!
//! The score adds up to three cues, each standardised on the training rows:
//!
//! * **Fit**: how far the largest logit stands above the mean one, the components'
//!   logits added up first. The largest logit tells foreign inputs better than the
//!   largest probability does (Hendrycks et al., 2022), and components that look
//!   at different features are seldom wrong together. It costs next to nothing: the
//!   surrogate has computed the logits already.
//! * **Likeness**, where there are embeddings: the cosine to the nearest of a few
//!   prototypes of the predicted class ([`prototypes`]). What a classifier does not
//!   need to tell its classes apart is not in its logits, and is seen here.
//! * **Novelty**, where there is text: the share of the text's tf·idf mass that
//!   stands on n-grams the lexicon has never kept.
//!
//! The weights of the cues are fixed. A combination learned from pseudo-foreign rows
//! (each training row with its own class masked) was measured and is worse: the
//! logits of the other classes have been trained to be low on those rows, and the
//! learned weights trust the logits too much.
//!
//! All statistics are cross-fitted: a row is scored by logits, prototypes and
//! lexicon that have not seen its fold, as a new input will be. The threshold is the
//! quantile of those scores that leaves the budget above it. The models that serve
//! have seen more rows than those of the folds and are surer of themselves
//! ([`growth`]): without allowing for it the guard defers less than its budget.

mod parts;
mod prototypes;
mod reference;
#[cfg(test)]
mod tests;

use ndarray::{ArrayView1, ArrayView2};
use pulp::Arch;
use serde::{Deserialize, Serialize};
use tracer_features::Novelty;

use crate::simd::LANES;
pub(crate) use parts::GuardHeader;
use prototypes::Prototypes;
pub(crate) use reference::{GuardError, Likeness, Reference};

/// Budgets whose thresholds every report shows.
pub(crate) const SWEEP: [f64; 6] = [0.0, 0.01, 0.02, 0.03, 0.05, 0.10];

/// Weight of the novelty beside embeddings, which see most of it themselves.
const NOVELTY_BESIDE_LIKENESS: f32 = 0.15;
/// Weight of the novelty of text alone.
const NOVELTY_ALONE: f32 = 0.4;

/// One input as the surrogate saw it.
#[derive(Clone, Copy)]
pub(crate) struct Signals<'a, L> {
    /// The embedding, where the guard was fitted on embeddings.
    pub(crate) embedding: Option<&'a [f32]>,
    /// The text's novelty, where the guard was fitted on text.
    pub(crate) novelty: Option<Novelty>,
    /// Logits by component, of the kind the guard was fitted on.
    pub(crate) logits: &'a [L],
}

/// Working space of a score, reusable from call to call.
#[derive(Debug)]
pub(crate) struct GuardScratch {
    arch: Arch,
    sum: Vec<f32>,
}

impl Default for GuardScratch {
    fn default() -> Self {
        Self {
            arch: Arch::new(),
            sum: Vec::new(),
        }
    }
}

/// A threshold of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepPoint {
    /// Share of in-distribution traffic that may be deferred.
    pub(crate) budget: f64,
    /// Scores above it are foreign; `None` where nothing is.
    pub(crate) threshold: Option<f32>,
}

impl SweepPoint {
    /// Whether a score is beyond the threshold.
    pub(crate) fn excludes(self, score: f32) -> bool {
        self.threshold.is_some_and(|threshold| score > threshold)
    }
}

/// One cue's weight and its mean and spread on the training rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Standard {
    mean: f32,
    /// The weight over the standard deviation; 0 for a cue that does not vary.
    scale: f32,
}

impl Standard {
    fn of(self, cue: f32) -> f32 {
        (cue - self.mean) * self.scale
    }
}

/// A fitted guard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    chosen: SweepPoint,
    sweep: Vec<SweepPoint>,
    classes: usize,
    /// By component: the reciprocal of the spread of its largest logit, so that none
    /// drowns the others.
    component_scales: Vec<f32>,
    fit: Standard,
    likeness: Standard,
    prototypes: Option<Prototypes>,
    novelty: Option<NoveltyCue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoveltyCue {
    /// Squared idf of an n-gram the lexicon does not know.
    unknown: f32,
    standard: Standard,
}

impl Guard {
    /// Fits a guard that defers at most the share `budget` of traffic like the
    /// reference; 0 turns it off. Also returns the cross-fitted score of every row.
    /// Linear in the rows; uses the current rayon pool, and does not depend on its size.
    pub(crate) fn fit(
        reference: &Reference<'_>,
        budget: f64,
    ) -> Result<(Self, Vec<f32>), GuardError> {
        reference.check()?;
        if !(0.0..1.0).contains(&budget) {
            return Err(GuardError::Budget(budget));
        }
        let n = reference.labels.len();
        let component_scales = component_scales(reference);
        let mut scratch = GuardScratch::default();
        let mut fits = Vec::with_capacity(n);
        let mut predicted = Vec::with_capacity(n);
        for row in 0..n {
            let logits: Vec<Vec<f32>> = reference
                .logits
                .iter()
                .map(|l| l.row(row).to_vec())
                .collect();
            let (class, fit) = best_fit(&logits, &component_scales, &mut scratch.sum);
            predicted.push(class);
            fits.push(-fit);
        }
        let fit = reference.standard(&fits, 1.0);
        let mut scores: Vec<f32> = fits.iter().map(|&cue| fit.of(cue)).collect();
        let mut add = |cues: &[f32], weight: f32| {
            let standard = reference.standard(cues, weight);
            for (score, &cue) in scores.iter_mut().zip(cues) {
                *score += standard.of(cue);
            }
            standard
        };
        let mut likeness = Standard::default();
        let mut prototypes = None;
        if let Some(likenesses) = reference.likeness {
            let cues = likenesses.cross_fitted(reference.folds, &predicted, scratch.arch);
            likeness = add(&cues, 1.0);
            prototypes = Some(likenesses.all.clone());
        }
        let novelty = reference.novelty.map(|novelty| {
            let unknown = ((1.0 + n as f64).ln() + 1.0).powi(2) as f32;
            let cues: Vec<f32> = novelty.iter().map(|&text| share(text, unknown)).collect();
            let weight = match reference.likeness {
                Some(_) => NOVELTY_BESIDE_LIKENESS,
                None => NOVELTY_ALONE,
            };
            NoveltyCue {
                unknown,
                standard: add(&cues, weight),
            }
        });
        let point = |budget| SweepPoint {
            budget,
            threshold: reference.threshold(&scores, budget),
        };
        let guard = Self {
            chosen: point(budget),
            sweep: SWEEP.into_iter().map(point).collect(),
            classes: reference.classes,
            component_scales,
            fit,
            likeness,
            prototypes,
            novelty,
        };
        Ok((guard, scores))
    }

    /// Allows for how much larger, by component, the logits of the models that
    /// serve are than those it was fitted on: see [`growth`].
    pub(crate) fn allow_for(&mut self, growth: &[f32]) {
        for (scale, growth) in self.component_scales.iter_mut().zip(growth) {
            *scale /= growth;
        }
    }

    /// How foreign an input is: the larger, the more. Allocates nothing once
    /// `scratch` has grown. Infinite for signals of another shape than the guard's.
    pub(crate) fn score<L: AsRef<[f32]>>(
        &self,
        signals: &Signals<'_, L>,
        scratch: &mut GuardScratch,
    ) -> f32 {
        let fits = signals.logits.len() == self.component_scales.len()
            && signals
                .logits
                .iter()
                .all(|l| l.as_ref().len() == self.classes);
        if !fits {
            return f32::INFINITY;
        }
        let (class, fit) = best_fit(signals.logits, &self.component_scales, &mut scratch.sum);
        let mut score = self.fit.of(-fit);
        if let Some(prototypes) = &self.prototypes {
            match signals.embedding {
                Some(x) if x.len() == prototypes.dimension => {
                    let cosine = prototypes.nearest(scratch.arch, x, class);
                    score += self.likeness.of(-cosine);
                }
                _ => return f32::INFINITY,
            }
        }
        if let Some(cue) = self.novelty {
            match signals.novelty {
                Some(text) => score += cue.standard.of(share(text, cue.unknown)),
                None => return f32::INFINITY,
            }
        }
        if score.is_nan() { f32::INFINITY } else { score }
    }

    /// Whether an input of this score is to be deferred as foreign.
    pub(crate) fn is_foreign(&self, score: f32) -> bool {
        self.chosen.excludes(score)
    }

    /// The thresholds of other budgets, by [`SWEEP`].
    pub(crate) fn sweep(&self) -> &[SweepPoint] {
        &self.sweep
    }
}

/// How much surer of itself a model is than one fitted on fewer rows: the ratio of
/// their mean largest logits (above the mean one), each on the rows it was fitted on,
/// rows × classes. On rows a model has seen, the smaller fit is flattered more, so the
/// ratio errs on the side of too little growth, and the guard on that of its budget.
///
/// It is a correction of some per cent; beyond a quarter it is taken for a mistake.
pub(crate) fn growth(served: ArrayView2<'_, f32>, of_a_fold: ArrayView2<'_, f32>) -> f32 {
    let mut sum = Vec::new();
    let mut mean = |logits: ArrayView2<'_, f32>| {
        let fits = fits(logits, &mut sum);
        fits.iter().map(|f| f64::from(*f)).sum::<f64>() / fits.len().max(1) as f64
    };
    let ratio = mean(served) / mean(of_a_fold);
    if ratio.is_finite() && ratio > 0.0 {
        ratio.clamp(0.8, 1.25) as f32
    } else {
        1.0
    }
}

/// By row, the largest logit above the mean one.
fn fits(logits: ArrayView2<'_, f32>, sum: &mut Vec<f32>) -> Vec<f32> {
    let mut fit = |row: ArrayView1<'_, f32>| best_fit(&[&row.to_vec()], &[1.0], sum).1;
    logits.outer_iter().map(&mut fit).collect()
}

/// By component, the reciprocal of the spread over the rows of its largest logit
/// above the mean one; 0 for a component that says the same to every row.
fn component_scales(reference: &Reference<'_>) -> Vec<f32> {
    let mut sum = Vec::new();
    let scale = |logits: &ArrayView2<'_, f32>| {
        let (_, spread) = reference.moments(&fits(*logits, &mut sum));
        if spread > 1e-6 {
            (1.0 / spread) as f32
        } else {
            0.0
        }
    };
    reference.logits.iter().map(scale).collect()
}

/// The class of the largest sum of scaled logits, and how far it is above the mean.
fn best_fit<L: AsRef<[f32]>>(logits: &[L], scales: &[f32], sum: &mut Vec<f32>) -> (usize, f32) {
    sum.clear();
    sum.extend(logits[0].as_ref().iter().map(|l| l * scales[0]));
    for (logits, scale) in logits.iter().zip(scales).skip(1) {
        for (s, l) in sum.iter_mut().zip(logits.as_ref()) {
            *s += l * scale;
        }
    }
    // In lanes, which the compiler turns into vectors.
    let (mut totals, mut tops) = ([0.0_f32; LANES], [f32::NEG_INFINITY; LANES]);
    let (lanes, rest) = sum.as_chunks::<LANES>();
    for lane in lanes {
        for i in 0..LANES {
            totals[i] += lane[i];
            tops[i] = if lane[i] > tops[i] { lane[i] } else { tops[i] };
        }
    }
    let total = totals.iter().chain(rest).sum::<f32>();
    let top = tops
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    let best = sum.iter().position(|&s| s == top).unwrap_or(0);
    (best, top - total / sum.len() as f32)
}

/// The unknown share of a text's mass. A text without n-grams is all unknown.
fn share(text: Novelty, unknown: f32) -> f32 {
    let unknown = text.unknown * unknown;
    let total = text.known + unknown;
    if total > 0.0 { unknown / total } else { 1.0 }
}
