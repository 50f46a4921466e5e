//! The parity gate: which threshold may serve, if any.
//!
//! Thresholds come in an order fixed before the shadow split is looked at, from
//! the one surest to pass on towards more coverage, with "accept everything"
//! (the family `global`) at the end. Each is tested in turn at level δ, and the
//! walk stops at the first that fails. Because the order is fixed beforehand,
//! δ holds for the whole walk, however many thresholds it tries: fixed-sequence
//! testing, as in Learn-then-Test (Angelopoulos et al., 2021).
//!
//! Rows of equal weight are tested by Clopper–Pearson, weighted ones by betting
//! ([`betting_lower`](crate::betting_lower)). Where several policies compete,
//! [`Gate::choose`] lets out-of-fold rows name the one that is walked.

mod choose;
mod curve;
#[cfg(test)]
pub(crate) mod tests;

use crate::config::GateMode;

pub use choose::{Choice, Policy};
pub(crate) use curve::Curve;

/// One prediction with its outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The acceptor's score.
    pub score: f32,
    /// Whether the surrogate agreed with the teacher.
    pub agrees: bool,
    /// How much of the traffic the row stands for: finite and not negative, 1 where
    /// rows are drawn evenly. Only ratios of weights matter.
    pub weight: f64,
}

impl Scored {
    /// A row drawn evenly from the traffic.
    pub fn new(score: f32, agrees: bool) -> Self {
        Self {
            score,
            agrees,
            weight: 1.0,
        }
    }
}

/// What a threshold does on a set of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GateStats {
    /// Share of the traffic that is handled: of the rows, by weight.
    pub coverage: f64,
    /// Share of the handled traffic on which surrogate and teacher agree; 0 when none is handled.
    pub agreement: f64,
    /// Lower bound of the agreement at confidence 1 − δ, valid at every n.
    pub agreement_lower: f64,
    /// All rows, handled or not.
    pub n: usize,
    /// How many rows of equal weight the handled ones are worth, (Σw)²/Σw² (Kish):
    /// their number where weights are equal. 0 in records older than the field.
    #[serde(default)]
    pub n_effective: f64,
}

/// The rule of one gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Target agreement α.
    pub target: f64,
    /// Allowed probability of a broken promise.
    pub delta: f64,
    /// Least coverage worth serving.
    pub coverage_floor: f64,
    /// Bound or point estimate.
    pub mode: GateMode,
    /// The largest weight a row can have, known before the rows are drawn; `None`
    /// where rows are drawn evenly. Without it, rows of unequal weight are refused.
    ///
    /// The bound's power hangs on it, so give the smallest that holds: see
    /// [`weight_cap`]. Where all weights equal the cap the exact bound is used.
    pub weight_cap: Option<f64>,
}

/// The largest weight the balance heuristic can give, Σ nᵥ / Σ nᵥ·pᵥ(x), where
/// `unrouted` requests came while nothing served (all labelled) and `routed` while
/// some version did, which labels at least the share `audit_rate` of whatever it
/// sees. It is known from counts alone, before any row is looked at, and is far
/// below 1/`audit_rate` where full labelling has been more than a moment. Infinite
/// where nothing is labelled for certain.
pub fn weight_cap(unrouted: u64, routed: u64, audit_rate: f64) -> f64 {
    let (unrouted, routed) = (unrouted as f64, routed as f64);
    if unrouted + routed == 0.0 {
        return 1.0;
    }
    (unrouted + routed) / (unrouted + audit_rate.clamp(0.0, 1.0) * routed)
}

/// The outcome of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// The threshold to serve, or why there is none.
    pub verdict: Result<f32, String>,
    /// The statistics of the chosen threshold; of the first one tried after a refusal.
    pub stats: GateStats,
}

/// Everything is handled at this threshold.
pub const ACCEPT_ALL: f32 = 0.0;

impl Gate {
    /// The sequence of thresholds to try, from out-of-fold predictions alone:
    /// it begins where a shadow split of `shadow` rows most surely passes.
    pub fn sequence(&self, out_of_fold: &[Scored], shadow: usize) -> Vec<f32> {
        self.sequence_on(&self.curve(out_of_fold), shadow)
    }

    fn sequence_on(&self, curve: &Curve, shadow: usize) -> Vec<f32> {
        let mut thresholds = curve.thresholds((curve.len() / 400).max(1));
        if thresholds.last().is_none_or(|t| *t > ACCEPT_ALL) {
            thresholds.push(ACCEPT_ALL);
        }
        let surest = thresholds
            .iter()
            .enumerate()
            .map(|(i, &t)| {
                let slack = if curve.coverage(t) >= self.coverage_floor {
                    self.slack(curve, t, shadow)
                } else {
                    f64::NEG_INFINITY
                };
                (i, slack)
            })
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(i, _)| i);
        thresholds.split_off(surest)
    }

    /// By how many standard deviations the agreement on a shadow split of `shadow`
    /// rows may be expected to exceed the target.
    fn slack(&self, curve: &Curve, threshold: f32, shadow: usize) -> f64 {
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

    /// Decides on the shadow split which threshold of `sequence` may serve.
    pub fn walk(&self, sequence: &[f32], shadow: &[Scored]) -> Walk {
        let curve = self.curve(shadow);
        let mut chosen = None;
        for &threshold in sequence {
            let passes = match self.mode {
                GateMode::Bound => curve.reaches(threshold, self.delta, self.target),
                GateMode::Point => {
                    let sums = curve.at(threshold);
                    sums.weight > 0.0 && sums.agreement() >= self.target
                }
            };
            if !passes {
                break;
            }
            chosen = Some(threshold);
        }
        let tried = chosen.or(sequence.first().copied());
        let stats = tried.map_or_else(
            || GateStats {
                n: shadow.len(),
                ..GateStats::default()
            },
            |threshold| curve.stats(threshold, self.delta),
        );
        let verdict = match chosen {
            _ if curve.fault().is_some() => Err(curve.fault().unwrap_or_default().to_owned()),
            Some(threshold) if stats.coverage >= self.coverage_floor => Ok(threshold),
            Some(_) => Err(format!(
                "coverage {:.3} on the shadow split is below the floor {:.3}",
                stats.coverage, self.coverage_floor
            )),
            None => Err(self.refusal(&stats)),
        };
        Walk { verdict, stats }
    }

    fn refusal(&self, stats: &GateStats) -> String {
        if stats.n == 0 {
            return "the shadow split is empty".into();
        }
        if stats.coverage == 0.0 {
            return "nothing is accepted on the shadow split".into();
        }
        let (what, value) = match self.mode {
            GateMode::Bound => ("the lower bound of the agreement", stats.agreement_lower),
            GateMode::Point => ("the agreement", stats.agreement),
        };
        format!(
            "{what}, {value:.3}, is below the target {:.3} (agreement {:.3} at coverage {:.3} of {} shadow rows)",
            self.target, stats.agreement, stats.coverage, stats.n
        )
    }
}
