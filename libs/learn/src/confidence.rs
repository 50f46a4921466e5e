//! What the acceptor sees of a prediction.

use serde::{Deserialize, Serialize};

/// One thing the acceptor looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cue {
    /// The probability of the top class.
    Top1,
    /// The probability of the runner-up.
    Top2,
    /// The difference of the two.
    Margin,
    /// The entropy of the class probabilities, over that of equal ones.
    Entropy,
    /// The log-odds of the top class.
    LogOdds,
    /// The least probability that a component gives to the top class.
    LeastComponent,
    /// The share of the components whose own top class it is.
    ComponentsAgree,
    /// How often predictions of the class agreed out of fold.
    Reliability,
    /// The out-of-distribution guard's score.
    Foreignness,
}

impl Cue {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Top1,
        Self::Top2,
        Self::Margin,
        Self::Entropy,
        Self::LogOdds,
        Self::LeastComponent,
        Self::ComponentsAgree,
        Self::Reliability,
        Self::Foreignness,
    ];
    /// The paper's four.
    pub const PAPER: [Self; 4] = [Self::Top1, Self::Top2, Self::Margin, Self::Entropy];
}

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

/// The class of the highest score. Ties go to the lower class, always.
pub(crate) fn top_of_row(row: ndarray::ArrayView1<'_, f32>) -> u32 {
    let mut best = 0;
    for (class, score) in row.iter().enumerate() {
        if *score > row[best] {
            best = class;
        }
    }
    best as u32
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
    /// From out-of-fold predictions: (predicted class, whether it was right, weight).
    pub(crate) fn fit(
        classes: usize,
        predictions: impl Iterator<Item = (usize, bool, f64)>,
    ) -> Self {
        let (mut right, mut predicted) = (vec![0.0; classes], vec![0.0; classes]);
        for (label, agrees, weight) in predictions {
            predicted[label] += weight;
            right[label] += weight * f64::from(u8::from(agrees));
        }
        let overall =
            right.iter().sum::<f64>() / predicted.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        Self {
            right,
            predicted,
            overall,
        }
    }

    /// The rate of a class.
    pub(crate) fn of(&self, label: usize) -> f64 {
        (self.right[label] + PRIOR * self.overall) / (self.predicted[label] + PRIOR)
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

/// What the cues are read off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a, P> {
    /// The surrogate's class probabilities.
    pub(crate) probabilities: &'a [f32],
    /// Those of its components.
    pub(crate) components: &'a [P],
    pub(crate) top: Top,
    /// Of the top class.
    pub(crate) reliability: f64,
    /// The guard's score; 0 without a guard.
    pub(crate) foreignness: f32,
}

/// Reads the cues off a prediction, in the order of `cues`.
pub(crate) fn read<P: AsRef<[f32]>>(cues: &[Cue], evidence: &Evidence<'_, P>, out: &mut Vec<f64>) {
    let Evidence {
        probabilities,
        components,
        top: best,
        reliability,
        foreignness,
    } = *evidence;
    out.clear();
    out.extend(cues.iter().map(|cue| {
        match cue {
            Cue::Top1 => f64::from(best.first),
            Cue::Top2 => f64::from(best.second),
            Cue::Margin => f64::from(best.first - best.second),
            Cue::Entropy => {
                let entropy: f64 = probabilities
                    .iter()
                    .filter(|p| **p > 0.0)
                    .map(|&p| -f64::from(p) * f64::from(p.ln()))
                    .sum();
                entropy / (probabilities.len().max(2) as f64).ln()
            }
            Cue::LogOdds => {
                let p = f64::from(best.first).clamp(1e-6, 1.0 - 1e-6);
                (p / (1.0 - p)).ln()
            }
            Cue::LeastComponent => f64::from(
                components
                    .iter()
                    .map(|c| c.as_ref()[best.label])
                    .fold(f32::INFINITY, f32::min),
            ),
            Cue::ComponentsAgree => {
                let agree = components
                    .iter()
                    .filter(|c| top(c.as_ref()).label == best.label)
                    .count();
                agree as f64 / components.len().max(1) as f64
            }
            Cue::Reliability => reliability,
            Cue::Foreignness => f64::from(foreignness),
        }
    }));
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
    fn reliability_is_shrunk_to_the_overall_rate() {
        let r = Reliability::fit(
            2,
            [(0, true, 1.0), (0, false, 1.0), (1, true, 1.0)].into_iter(),
        );
        let overall = 2.0 / 3.0;
        assert!((r.of(0) - (1.0 + PRIOR * overall) / (2.0 + PRIOR)).abs() < 1e-12);
        assert!((r.of(1) - (1.0 + PRIOR * overall) / (1.0 + PRIOR)).abs() < 1e-12);
    }
}
