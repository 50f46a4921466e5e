//! How many more traces would be needed.
//!
//! Two things grow with traces. The shadow split: a longer one needs fewer agreements
//! beyond the target, which is plain statistics. And the surrogate: its rate of
//! disagreement falls, for classifiers commonly about as a power of the training rows
//! (Hestness et al., "Deep learning scaling is predictable, empirically", 2017). A
//! power law is fitted to the learning curve, and its slope is an interval, not a number:
//! from the slowest to the fastest that the curve allows. Where the interval reaches 0,
//! nothing is said of learning, and statistics alone remain.

use serde::Serialize;

use super::CurvePoint;
use crate::{
    bounds::{binomial_at_most, clopper_pearson_reaches},
    gate::{Gate, Scored},
};

/// Nothing is said beyond this many times the traces.
pub(super) const FARTHEST: f64 = 20.0;
/// Multiples of the traces that are looked at.
const STEPS: [f64; 15] = [
    1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, FARTHEST,
];
/// Standard errors either side of the slope: nine in ten, were the fit exact.
const ERRORS: f64 = 1.64;
/// Disagreement falls no faster than 1/n: that is how it falls in the easiest problems.
const FASTEST: f64 = 1.0;
/// Disagreements below which a rate says nothing of a slope.
const LEAST_ERRORS: f64 = 5.0;

/// How the rate of disagreement falls with traces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Learning {
    /// As n to the power −slope.
    PowerLaw {
        /// The fitted slope.
        slope: f64,
        /// The slowest that the curve allows.
        slowest: f64,
        /// The fastest that the curve allows.
        fastest: f64,
    },
    /// The curve does not fall beyond its noise.
    Flat,
    /// Fewer than three points of the curve can be fitted.
    TooShort,
    /// Too few disagreements to fit anything: there is hardly any left to learn.
    NearlyPerfect,
}

impl Learning {
    /// Fits a line to logarithms by weighted least squares. The points of a curve share
    /// rows, so their errors are correlated and the interval is wide rather than narrow.
    pub(super) fn of(curve: &[CurvePoint]) -> Self {
        let errors = |p: &CurvePoint| (1.0 - p.agreement) * p.traces as f64;
        if curve.len() < 3 {
            return Self::TooShort;
        }
        if curve.iter().any(|p| errors(p) < LEAST_ERRORS) {
            return Self::NearlyPerfect;
        }
        let point = |p: &CurvePoint| {
            let rate = 1.0 - p.agreement;
            // The variance of the logarithm of a binomial rate, by the delta method.
            let weight = errors(p) / (1.0 - rate).max(1e-3);
            ((p.traces as f64).ln(), rate.ln(), weight)
        };
        let points: Vec<_> = curve.iter().map(point).collect();
        let sum = |f: &dyn Fn(&(f64, f64, f64)) -> f64| points.iter().map(f).sum::<f64>();
        let mass = sum(&|p| p.2);
        let (x, y) = (sum(&|p| p.2 * p.0) / mass, sum(&|p| p.2 * p.1) / mass);
        let spread = sum(&|p| p.2 * (p.0 - x).powi(2));
        if spread <= 0.0 {
            return Self::TooShort;
        }
        let slope = -sum(&|p| p.2 * (p.0 - x) * (p.1 - y)) / spread;
        // Where the points lie farther off the line than chance alone explains, the line
        // is the wrong shape: the error grows with it.
        let misfit = sum(&|p| p.2 * (p.1 - y + slope * (p.0 - x)).powi(2));
        let excess = (misfit / (points.len() - 2) as f64).max(1.0);
        let error = ERRORS * (excess / spread).sqrt();
        if slope - error <= 0.0 {
            return Self::Flat;
        }
        // A curve that bends is followed from its last stretch.
        let [.., before, last] = &points[..] else {
            return Self::TooShort;
        };
        let bend = (before.1 - last.1) / (last.0 - before.0);
        Self::PowerLaw {
            slope,
            slowest: (slope - error).min(bend.max(0.0)),
            fastest: (slope + error).clamp(slope, FASTEST.max(slope)),
        }
    }

    /// The slopes to reckon with, slowest and fastest; 0 where nothing can be said.
    fn slopes(self) -> (f64, f64) {
        match self {
            Self::PowerLaw {
                slowest, fastest, ..
            } => (slowest, fastest),
            Self::Flat | Self::TooShort | Self::NearlyPerfect => (0.0, 0.0),
        }
    }
}

/// How many traces in all it would take to expect a coverage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Need {
    /// The coverage.
    pub coverage: f64,
    /// If the surrogate learns as fast as the curve allows; absent beyond twenty times
    /// the traces.
    pub at_best: Option<usize>,
    /// If it learns as slowly as the curve allows; absent beyond twenty times the traces.
    pub at_worst: Option<usize>,
    /// If it learns nothing more and only the shadow split grows; absent beyond twenty
    /// times the traces.
    pub by_statistics: Option<usize>,
}

/// What the exact bound asks of a shadow split, whatever the surrogate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShadowNeed {
    /// The coverage at which the agreement was read off.
    pub coverage: f64,
    /// The agreement there, out of fold.
    pub agreement: f64,
    /// Shadow rows (handled or not) for an even chance to pass and for nine in ten;
    /// absent where the agreement is not above the target, or no fewer than millions are.
    pub rows: Option<[usize; 2]>,
    /// Traces that have so long a shadow split.
    pub traces: Option<[usize; 2]>,
}

/// The expected coverage with `times` as many traces, if the rate of disagreement falls
/// as n to the power −`slope`.
///
/// The disagreements are thinned out evenly over the scores, and the gate's own rule is
/// applied to what is left.
pub(super) fn projected(gate: &Gate, sorted: &[Scored], share: f64, times: f64, slope: f64) -> f64 {
    let gone = 1.0 - times.powf(-slope);
    let mut owed = 0.0;
    let thinned: Vec<Scored> = sorted
        .iter()
        .map(|row| {
            let mut row = *row;
            if !row.agrees {
                owed += gone;
                if owed >= 1.0 {
                    owed -= 1.0;
                    row.agrees = true;
                }
            }
            row
        })
        .collect();
    let shadow = share * times * sorted.len() as f64;
    gate.expected_coverage(&thinned, shadow.round() as usize)
}

/// The coverage at twice the traces, at worst and at best.
pub(super) fn at_twice(gate: &Gate, sorted: &[Scored], share: f64, learning: Learning) -> [f64; 2] {
    let (slow, fast) = learning.slopes();
    let at = |slope| projected(gate, sorted, share, 2.0, slope);
    let (slow, fast) = (at(slow), at(fast));
    [slow.min(fast), slow.max(fast)]
}

/// The traces it takes to expect `coverage`, which those there are do not let one expect.
pub(super) fn need_beyond(
    gate: &Gate,
    sorted: &[Scored],
    share: f64,
    learning: Learning,
    coverage: f64,
) -> Need {
    let first = |slope: f64| {
        let reached = |times: &&f64| projected(gate, sorted, share, **times, slope) >= coverage;
        let times = STEPS.iter().find(reached)?;
        Some((times * sorted.len() as f64).ceil() as usize)
    };
    let (slow, fast) = learning.slopes();
    let by_statistics = first(0.0);
    let known = matches!(learning, Learning::PowerLaw { .. });
    Need {
        coverage,
        at_best: if known { first(fast) } else { by_statistics },
        at_worst: if known { first(slow) } else { by_statistics },
        by_statistics,
    }
}

/// What the exact bound asks for at the agreement of the `coverage` best rows.
pub(super) fn shadow_need(gate: &Gate, sorted: &[Scored], share: f64, coverage: f64) -> ShadowNeed {
    let handled = ((coverage * sorted.len() as f64).round() as usize).clamp(1, sorted.len());
    let right = sorted[..handled].iter().filter(|row| row.agrees).count();
    let agreement = right as f64 / handled as f64;
    let rows = |power: f64| {
        let handled = rows_to_pass(agreement, gate.target, gate.delta, power)?;
        Some((handled as f64 / coverage).ceil() as usize)
    };
    let rows = rows(0.5).zip(rows(0.9)).map(|(even, sure)| [even, sure]);
    ShadowNeed {
        coverage,
        agreement,
        rows,
        traces: rows.map(|rows| rows.map(|rows| (rows as f64 / share).ceil() as usize)),
    }
}

/// Handled rows that the exact bound needs to pass with probability `power`, when each
/// agrees with probability `agreement`; `None` when it is not above the target, or so
/// near that more than [`MOST_WRONG`] disagreements would have to be seen.
fn rows_to_pass(agreement: f64, target: f64, delta: f64, power: f64) -> Option<u64> {
    if agreement <= target {
        return None;
    }
    // The fewest rows at which so many disagreements still pass.
    let rows = |wrong: u64| {
        let (mut low, mut high) = (wrong, (wrong + 1) * 2);
        let passes = |n: u64| n > wrong && clopper_pearson_reaches(n - wrong, n, delta, target);
        while !passes(high) {
            low = high;
            high *= 2;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if passes(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    };
    let enough = |wrong: u64| binomial_at_most(wrong, rows(wrong), 1.0 - agreement) >= power;
    let mut high = 0;
    let mut low = None;
    while !enough(high) {
        low = Some(high);
        high = high * 2 + 1;
        if high > MOST_WRONG {
            return None;
        }
    }
    if let Some(mut low) = low {
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
    }
    Some(rows(high))
}

/// See [`rows_to_pass`].
const MOST_WRONG: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GateMode;

    fn gate(target: f64) -> Gate {
        Gate {
            target,
            delta: 0.05,
            coverage_floor: 0.05,
            mode: GateMode::Bound,
            weight_cap: None,
        }
    }

    fn curve(points: &[(usize, f64)]) -> Vec<CurvePoint> {
        points
            .iter()
            .map(|&(traces, agreement)| CurvePoint {
                traces,
                labels: 2,
                agreement,
                expected_coverage: Vec::new(),
            })
            .collect()
    }

    /// Rows whose rate of disagreement rises from 0 to `worst` as scores fall.
    fn rows(n: usize, worst: f64) -> Vec<Scored> {
        let mut owed = 0.0;
        (0..n)
            .map(|i| {
                owed += worst * i as f64 / n as f64;
                let wrong = owed >= 1.0;
                owed -= f64::from(u8::from(wrong));
                Scored::new(1.0 - i as f32 / n as f32, !wrong)
            })
            .collect()
    }

    #[test]
    fn a_power_law_is_recovered_and_lies_within_its_interval() {
        let law = |n: usize| (n, 1.0 - 2.0 * (n as f64).powf(-0.35));
        let points: Vec<_> = [2000, 4000, 8000, 16_000].map(law).to_vec();
        let Learning::PowerLaw {
            slope,
            slowest,
            fastest,
        } = Learning::of(&curve(&points))
        else {
            panic!("a law");
        };
        assert!((slope - 0.35).abs() < 1e-9, "{slope}");
        assert!(slowest < slope && slope < fastest && slowest > 0.0 && fastest < 0.6);
    }

    #[test]
    fn says_so_where_nothing_can_be_told() {
        let of = |points: &[(usize, f64)]| Learning::of(&curve(points));
        assert_eq!(of(&[(500, 0.8), (1000, 0.9)]), Learning::TooShort);
        assert_eq!(of(&[(500, 0.9), (1000, 0.9), (2000, 0.9)]), Learning::Flat);
        assert_eq!(
            of(&[(500, 0.9), (1000, 0.88), (2000, 0.87)]),
            Learning::Flat
        );
        assert_eq!(
            of(&[(500, 1.0), (1000, 1.0), (2000, 1.0)]),
            Learning::NearlyPerfect
        );
        // A fall that is over: the last stretch is what is followed.
        let Learning::PowerLaw { slowest, .. } =
            of(&[(4000, 0.80), (8000, 0.88), (16_000, 0.93), (32_000, 0.93)])
        else {
            return;
        };
        assert_eq!(slowest, 0.0);
    }

    #[test]
    fn the_exact_bound_needs_59_flawless_rows() {
        // 0.95^59 is the first power below 0.05.
        assert_eq!(rows_to_pass(1.0, 0.95, 0.05, 0.9), Some(59));
        assert_eq!(rows_to_pass(0.95, 0.95, 0.05, 0.5), None);
        assert_eq!(rows_to_pass(0.950_000_1, 0.95, 0.05, 0.9), None);
        let even = rows_to_pass(0.97, 0.95, 0.05, 0.5).unwrap();
        let sure = rows_to_pass(0.97, 0.95, 0.05, 0.9).unwrap();
        // The normal approximation: ((1.645·√(.95·.05) + z·√(.97·.03)) / .02)².
        assert!(
            (270..=400).contains(&even) && (700..=1000).contains(&sure),
            "{even} {sure}"
        );
    }

    #[test]
    fn more_traces_never_promise_less_and_learning_promises_more() {
        let rows = rows(2000, 0.3);
        let gate = gate(0.9);
        let at = |times, slope| projected(&gate, &rows, 0.2, times, slope);
        assert!(at(4.0, 0.0) > at(1.0, 0.0) && at(4.0, 0.4) > at(4.0, 0.0));
        let law = Learning::PowerLaw {
            slope: 0.3,
            slowest: 0.2,
            fastest: 0.4,
        };
        let need = need_beyond(&gate, &rows, 0.2, law, 0.8);
        let (best, worst) = (need.at_best.unwrap(), need.at_worst.unwrap());
        assert!(2000 < best && best <= worst && worst <= 40_000, "{need:?}");
        assert!(need.by_statistics.is_none_or(|n| n >= worst));
        // Not with all the shadow rows in the world.
        let none = need_beyond(&gate, &rows, 0.2, Learning::Flat, 0.9);
        assert_eq!((none.at_best, none.at_worst), (None, None));
        let [low, high] = at_twice(&gate, &rows, 0.2, law);
        assert!(low <= high && high <= 1.0);
    }

    #[test]
    fn a_shadow_need_is_read_off_the_best_rows() {
        let rows = rows(2000, 0.1);
        let need = shadow_need(&gate(0.90), &rows, 0.2, 0.9);
        assert!((need.agreement - 0.955).abs() < 0.01, "{need:?}");
        let [even, sure] = need.rows.unwrap();
        assert!(even <= sure && need.traces.unwrap()[1] >= 5 * sure - 5);
        assert_eq!(shadow_need(&gate(0.99), &rows, 0.2, 0.9).rows, None);
    }
}
