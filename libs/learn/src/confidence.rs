//! What the acceptor sees of a prediction.

use serde::{Deserialize, Serialize};

/// Number of confidence features.
pub(crate) const FEATURES: usize = 7;

/// The most probable class and the runner-up's probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Top {
    pub(crate) label: usize,
    pub(crate) first: f32,
    pub(crate) second: f32,
}

/// The top of a probability vector. Ties go to the lower class, always.
pub(crate) fn top(probabilities: &[f32]) -> Top {
    let mut top = Top {
        label: 0,
        first: f32::NEG_INFINITY,
        second: 0.0,
    };
    for (label, &p) in probabilities.iter().enumerate() {
        if p > top.first {
            top.second = top.first.max(0.0);
            top = Top {
                label,
                first: p,
                ..top
            };
        } else if p > top.second {
            top.second = p;
        }
    }
    top
}

/// How often each predicted class was right out of fold, shrunk to the overall
/// rate: a class the teacher labels inconsistently is unreliable however sure
/// the surrogate is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliability {
    right: Vec<f64>,
    predicted: Vec<f64>,
    overall: f64,
}

/// The overall rate counts as this many predictions of each class.
const PRIOR: f64 = 10.0;

impl Reliability {
    /// From out-of-fold predictions: (predicted class, whether it was right).
    pub(crate) fn fit(classes: usize, predictions: impl Iterator<Item = (usize, bool)>) -> Self {
        let (mut right, mut predicted) = (vec![0.0; classes], vec![0.0; classes]);
        for (label, agrees) in predictions {
            predicted[label] += 1.0;
            right[label] += f64::from(u8::from(agrees));
        }
        let overall = right.iter().sum::<f64>() / predicted.iter().sum::<f64>().max(1.0);
        Self {
            right,
            predicted,
            overall,
        }
    }

    /// The rate of a class; `without` leaves out one prediction of it, so that a
    /// training row does not see its own outcome.
    pub(crate) fn of(&self, label: usize, without: Option<bool>) -> f64 {
        let (own, n) = without.map_or((0.0, 0.0), |agrees| (f64::from(u8::from(agrees)), 1.0));
        (self.right[label] - own + PRIOR * self.overall) / (self.predicted[label] - n + PRIOR)
    }

    pub(crate) fn classes(&self) -> usize {
        self.right.len()
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.right.len() == self.predicted.len()
            && self.overall.is_finite()
            && self
                .right
                .iter()
                .chain(&self.predicted)
                .all(|v| v.is_finite() && *v >= 0.0)
    }
}

/// The features of one prediction: the paper's four (top-1, top-2, margin,
/// normalised entropy), then the log-odds of the top class, the least
/// probability a component gives to it, and the class's reliability.
pub(crate) fn features<P: AsRef<[f32]>>(
    probabilities: &[f32],
    components: &[P],
    top: Top,
    reliability: f64,
    out: &mut Vec<f64>,
) {
    let p = f64::from(top.first).clamp(1e-6, 1.0 - 1e-6);
    let entropy: f64 = probabilities
        .iter()
        .filter(|p| **p > 0.0)
        .map(|&p| -f64::from(p) * f64::from(p).ln())
        .sum();
    let least = components
        .iter()
        .map(|c| c.as_ref()[top.label])
        .fold(f32::INFINITY, f32::min);
    out.clear();
    out.extend([
        f64::from(top.first),
        f64::from(top.second),
        f64::from(top.first - top.second),
        entropy / (probabilities.len().max(2) as f64).ln(),
        (p / (1.0 - p)).ln(),
        f64::from(least),
        reliability,
    ]);
    debug_assert_eq!(out.len(), FEATURES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_two_and_ties() {
        assert_eq!(
            top(&[0.2, 0.5, 0.3]),
            Top {
                label: 1,
                first: 0.5,
                second: 0.3
            }
        );
        assert_eq!(
            top(&[0.4, 0.4, 0.2]),
            Top {
                label: 0,
                first: 0.4,
                second: 0.4
            }
        );
        assert_eq!(
            top(&[1.0]),
            Top {
                label: 0,
                first: 1.0,
                second: 0.0
            }
        );
    }

    #[test]
    fn reliability_leaves_out_the_row_itself() {
        let r = Reliability::fit(2, [(0, true), (0, false), (1, true)].into_iter());
        let overall = 2.0 / 3.0;
        assert!((r.of(0, None) - (1.0 + PRIOR * overall) / (2.0 + PRIOR)).abs() < 1e-12);
        assert!((r.of(0, Some(true)) - (PRIOR * overall) / (1.0 + PRIOR)).abs() < 1e-12);
    }
}
