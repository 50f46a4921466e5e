//! The acceptor's reliability: whether its score means what it says.

use serde::{Deserialize, Serialize};
use tracer_learn::{Family, clopper_pearson_interval};

use super::held_out::{HeldOut, Seen};

/// Bins, at the most, and traces of one, at the least.
const BINS: usize = 10;
const LEAST: usize = 20;

/// Shadow traces of about one score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReliabilityBin {
    /// Traces.
    pub n: usize,
    /// The probability of agreement that the acceptor gives them, on average.
    pub score: f64,
    /// The share on which surrogate and teacher agree.
    pub agreement: f64,
    /// Exact two-sided interval of that share at confidence 1 − δ, for this bin alone.
    /// Absent where traces are weighted.
    pub agreement_interval: Option<[f64; 2]>,
}

/// Bins of about equally many traces, the lowest scores first. The guard's are left out:
/// they are deferred whatever their score.
pub(crate) fn reliability(held: &HeldOut<'_>, delta: f64) -> Vec<ReliabilityBin> {
    let mut rows: Vec<(f64, &Seen)> = held
        .rows
        .iter()
        .filter(|seen| !seen.foreign)
        .map(|seen| (probability(held, seen), seen))
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = (rows.len() / LEAST).min(BINS);
    (0..bins)
        .map(|bin| {
            let rows = &rows[bin * rows.len() / bins..(bin + 1) * rows.len() / bins];
            let weight: f64 = rows.iter().map(|(_, seen)| seen.weight).sum();
            let mean = |value: &dyn Fn(&(f64, &Seen)) -> f64| {
                rows.iter()
                    .map(|row| row.1.weight * value(row))
                    .sum::<f64>()
                    / weight
            };
            let right = rows.iter().filter(|(_, seen)| seen.agrees).count();
            ReliabilityBin {
                n: rows.len(),
                score: mean(&|row| row.0),
                agreement: mean(&|row| f64::from(u8::from(row.1.agrees))),
                agreement_interval: (!held.data.is_weighted()).then(|| {
                    clopper_pearson_interval(right as u64, rows.len() as u64, delta).into()
                }),
            }
        })
        .collect()
}

/// What the acceptor said. A cascade puts the scores of its two stages in one order,
/// the second's below a half.
fn probability(held: &HeldOut<'_>, seen: &Seen) -> f64 {
    let score = f64::from(seen.score);
    match held.outcome.family {
        Family::Rsb if score >= 0.5 => 2.0 * score - 1.0,
        Family::Rsb => 2.0 * score,
        Family::Global | Family::L2d => score,
    }
}
