//! The parity gate: which threshold may serve, if any.
//!
//! Thresholds come in an order fixed before the outcomes of the shadow split are
//! looked at, from the one surest to pass on towards more coverage, with "accept
//! everything" (the family `global`) at the end. Each is tested in turn at level δ,
//! and the walk stops at the first that fails. Because the order is fixed beforehand,
//! δ holds for the whole walk, however many thresholds it tries: fixed-sequence
//! testing, as in Learn-then-Test (Angelopoulos et al., 2021).
//!
//! Rows of equal weight are tested by Clopper–Pearson, weighted ones by betting
//! ([`betting_lower`](crate::betting_lower)). Where several policies compete, the
//! out-of-fold rows name the one that is walked: [`Gate::choose`].

mod choose;
mod curve;
mod sequence;
#[cfg(test)]
pub(crate) mod tests;

use crate::config::GateMode;

pub use choose::{Choice, Policy};
pub(crate) use curve::Curve;
pub(crate) use sequence::Sequence;

/// One prediction with its outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The acceptor's score, from 0 to 1; a negative one for a row that is deferred
    /// at every threshold.
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
pub(crate) struct Walk {
    /// The threshold to serve; after a refusal the first one tried.
    pub(crate) threshold: f32,
    /// Whether it may serve, or why it may not.
    pub(crate) verdict: Result<(), String>,
    /// The statistics of the threshold.
    pub(crate) stats: GateStats,
}

/// Everything is handled at this threshold.
pub const ACCEPT_ALL: f32 = 0.0;

/// Nothing is: a score is at most 1.
const NOTHING: f32 = 2.0;

impl Gate {
    /// Decides on the shadow split which threshold of `sequence` may serve.
    pub(crate) fn walk(&self, sequence: &Sequence, shadow: &[Scored]) -> Walk {
        let curve = self.curve(shadow);
        let mut chosen = None;
        let mut first = None;
        let mut handled = None;
        for threshold in sequence.on(&curve) {
            first.get_or_insert(threshold);
            let same = handled.replace(curve.at(threshold).rows) == Some(curve.at(threshold).rows);
            let passes = match self.mode {
                // The same rows are handled as at the threshold before, which passed.
                _ if same => true,
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
        let threshold = chosen.or(first).unwrap_or(NOTHING);
        let stats = curve.stats(threshold, self.delta);
        let verdict = if let Some(fault) = curve.fault() {
            Err(fault.to_owned())
        } else if chosen.is_none() {
            Err(self.refusal(&stats))
        } else if stats.coverage < self.coverage_floor {
            Err(format!(
                "coverage {:.3} on the shadow split is below the floor {:.3}",
                stats.coverage, self.coverage_floor
            ))
        } else {
            Ok(())
        };
        Walk {
            threshold,
            verdict,
            stats,
        }
    }

    fn refusal(&self, stats: &GateStats) -> String {
        if stats.n == 0 {
            return "the shadow split is empty".into();
        }
        if stats.coverage == 0.0 {
            return format!(
                "nothing is accepted on the shadow split: no row scores as high as the threshold surest to reach the target {:.3}",
                self.target
            );
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
