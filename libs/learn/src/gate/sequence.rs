//! In which order thresholds are tried.
//!
//! A short shadow split certifies a threshold only if very few of the handled rows
//! disagree, and how many may is a step function of the number of handled rows: at
//! α 0.95 and δ 0.05, none of 59 to 92 rows, one of 93 to 123. A threshold fixed by
//! its score falls anywhere between the steps. Where that costs, the walk opens with
//! a threshold fixed by *rank*: the lowest under which exactly `m` shadow rows are
//! handled, with `m` a count at which one more disagreement becomes allowed. It goes
//! on with thresholds fixed by score.
//!
//! That keeps the promise. Call a threshold bad if its true agreement is below α, and
//! let the scores have a density, so that the agreement is continuous in the
//! threshold. The opening threshold t is the (m+1)-th highest score; given t, the rows
//! above it are m independent draws from the traffic above t, so if t is bad it passes
//! with probability at most δ. If t is good, it lies in an interval of good thresholds
//! [a, b) whose ends have the agreement α exactly (or b is the top), and the only bad
//! threshold that matters is the first one tried below it, τ, which [a, b) determines.
//! Whether t lies in \[a, b) is a matter of how many rows lie above a and above b.
//! Given those counts, the rows are independent, with mean α above b and between a and
//! b, and with a mean below α between τ and a (τ is bad, a is not): so τ passes with
//! probability at most δ. Summed over the disjoint cases, δ. (Where scores have atoms
//! the ends may lie above α, and δ·(1 + Pr[t is bad]) takes the place of δ.)

use super::{ACCEPT_ALL, Curve, Gate};
use crate::{bounds::binomial_at_most, bounds::clopper_pearson_reaches, config::GateMode};

/// Thresholds in the order in which they are tried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sequence {
    /// Open where exactly so many shadow rows are handled, and go on below.
    pub(super) opening: Option<Opening>,
    /// Descending.
    pub(super) thresholds: Vec<f32>,
}

/// A threshold fixed by rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Opening {
    /// Shadow rows to handle.
    pub(super) handled: u64,
    /// The probability that it passes, as far as out-of-fold rows can tell.
    pub(super) passes: f64,
}

/// Rows out of fold from which on their agreement counts beside the shadow's.
const WITNESSES: usize = 4000;

/// Beyond so many allowed disagreements the steps are too small to matter.
const STEPS: u64 = 30;

impl Sequence {
    /// The thresholds on a shadow split.
    pub(super) fn on(&self, curve: &Curve) -> impl Iterator<Item = f32> {
        let opening = self.opening.and_then(|o| curve.rank(o.handled));
        let below = opening.unwrap_or(f32::INFINITY);
        opening
            .into_iter()
            .chain(self.thresholds.iter().copied().filter(move |t| *t < below))
    }
}

impl Gate {
    /// The sequence of thresholds to try, from out-of-fold predictions alone:
    /// it begins where a shadow split of `shadow` rows most surely passes.
    pub(super) fn sequence(&self, out_of_fold: &Curve, shadow: usize) -> Sequence {
        let mut thresholds = out_of_fold.thresholds((out_of_fold.len() / 400).max(1));
        if thresholds.last().is_none_or(|t| *t > ACCEPT_ALL) {
            thresholds.push(ACCEPT_ALL);
        }
        let surest = thresholds
            .iter()
            .enumerate()
            .map(|(i, &t)| {
                let slack = if out_of_fold.coverage(t) >= self.coverage_floor {
                    self.slack(out_of_fold, t, shadow)
                } else {
                    f64::NEG_INFINITY
                };
                (i, slack)
            })
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(i, _)| i);
        let vouched = thresholds
            .iter()
            .rposition(|&t| self.vouches(out_of_fold, t))
            .map_or(surest, |last| last.max(surest));
        thresholds.truncate(vouched + 1);
        let opening = self.opening(out_of_fold, thresholds[surest], shadow);
        if opening.is_none() {
            thresholds.drain(..surest);
        }
        Sequence {
            opening,
            thresholds,
        }
    }

    /// Whether the target is reached on the rows out of fold, too. (They have a part in
    /// the choice of the threshold, so this is caution and no certificate.) They are
    /// several times as many as the shadow's, so a walk that goes further owes it to a
    /// lucky shadow split. With few rows the folds' models are much weaker than the one
    /// that serves, and not asked.
    fn vouches(&self, out_of_fold: &Curve, threshold: f32) -> bool {
        let few = out_of_fold.len() < WITNESSES;
        few || self.mode == GateMode::Point || !out_of_fold.is_unweighted() || {
            out_of_fold.at(threshold).agreement() >= self.target
        }
    }

    /// By how many standard deviations the agreement on a shadow split of `shadow`
    /// rows may be expected to exceed the target.
    pub(super) fn slack(&self, curve: &Curve, threshold: f32, shadow: usize) -> f64 {
        let sums = curve.at(threshold);
        if sums.rows == 0 {
            return f64::NEG_INFINITY;
        }
        // Half an error more than seen, so that a short flawless head does not look sure.
        let half = 0.5 / sums.effective().max(1.0);
        let agreement = (sums.agreement() - half).max(0.0);
        let expected = shadow as f64 * sums.effective() / curve.len() as f64;
        let deviation = (self.target * (1.0 - self.target)).sqrt();
        (agreement - self.target) * expected.sqrt() / deviation
    }

    /// The rank to open with, if that is surer than the threshold `surest`.
    fn opening(&self, out_of_fold: &Curve, surest: f32, shadow: usize) -> Option<Opening> {
        if self.mode == GateMode::Point || !out_of_fold.is_unweighted() || out_of_fold.len() == 0 {
            return None;
        }
        let (n, all) = (shadow as u64, out_of_fold.len() as u64);
        // P[at most `wrong` of `handled` rows disagree], the rate being that of the
        // `rank` best rows out of fold, with half an error more than seen.
        let passes = |wrong: u64, handled: u64, rank: u64| {
            let sums = out_of_fold.top(rank);
            let rate = ((sums.rows - sums.right) as f64 + 0.5) / sums.rows.max(1) as f64;
            binomial_at_most(wrong, handled, rate.min(1.0))
        };
        let mut steps = Vec::new();
        let mut above = 0;
        for wrong in 0..=STEPS {
            let Some(handled) = self.least_handled(wrong, above, n) else {
                break;
            };
            above = handled;
            if handled as f64 >= self.coverage_floor * n as f64 {
                steps.push(Opening {
                    handled,
                    passes: passes(wrong, handled, handled * all / n.max(1)),
                });
            }
        }
        let most = steps.iter().map(|s| s.passes).fold(0.0, f64::max);
        let best = *steps.iter().rfind(|s| s.passes >= most - 0.002)?;

        // The threshold fixed by score handles more rows or fewer than expected.
        let rank = out_of_fold.at(surest).rows;
        let share = rank as f64 / all as f64;
        let deviation = (n as f64 * share * (1.0 - share)).sqrt();
        let fixed = [-1.2, -0.6, 0.0, 0.6, 1.2].map(|z| {
            let handled = (n as f64 * share + z * deviation).clamp(0.0, n as f64) as u64;
            self.most_wrong(handled)
                .map_or(0.0, |wrong| passes(wrong, handled, rank))
        });
        let fixed = fixed.iter().sum::<f64>() / fixed.len() as f64;
        (most > fixed + 0.005).then_some(best)
    }

    /// The fewest handled rows, more than `above` and at most `n`, that pass with
    /// `wrong` disagreements.
    fn least_handled(&self, wrong: u64, above: u64, n: u64) -> Option<u64> {
        let reaches = |handled: u64| {
            handled > wrong
                && clopper_pearson_reaches(handled - wrong, handled, self.delta, self.target)
        };
        if !reaches(n) {
            return None;
        }
        let (mut fails, mut passes) = (above, n);
        while passes - fails > 1 {
            let middle = fails.midpoint(passes);
            if reaches(middle) {
                passes = middle;
            } else {
                fails = middle;
            }
        }
        Some(passes)
    }

    /// The most disagreements with which `handled` rows pass.
    fn most_wrong(&self, handled: u64) -> Option<u64> {
        let reaches =
            |wrong: u64| clopper_pearson_reaches(handled - wrong, handled, self.delta, self.target);
        if !reaches(0) {
            return None;
        }
        let (mut passes, mut fails) = (0, handled);
        while fails - passes > 1 {
            let middle = passes.midpoint(fails);
            if reaches(middle) {
                passes = middle;
            } else {
                fails = middle;
            }
        }
        Some(passes)
    }
}
