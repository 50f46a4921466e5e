//! The parity gate: which threshold may serve, if any.
//!
//! Thresholds come in an order fixed before the shadow split is looked at, from
//! the one surest to pass on towards more coverage, with "accept everything"
//! (the family `global`) at the end. Each is tested in turn at level δ, and the
//! walk stops at the first that fails. Because the order is fixed beforehand,
//! δ holds for the whole walk, however many thresholds it tries: fixed-sequence
//! testing, as in Learn-then-Test (Angelopoulos et al., 2021).

use crate::{bounds::clopper_pearson_lower, config::GateMode};

/// One prediction with its outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The acceptor's score.
    pub score: f32,
    /// Whether the surrogate agreed with the teacher.
    pub agrees: bool,
}

/// What a threshold does on a set of rows.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GateStats {
    /// Share of the rows that are handled.
    pub coverage: f64,
    /// Share of the handled rows on which surrogate and teacher agree; 0 when none is handled.
    pub agreement: f64,
    /// Exact lower bound of the agreement at confidence 1 − δ.
    pub agreement_lower: f64,
    /// All rows, handled or not.
    pub n: usize,
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
}

/// The outcome of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// The threshold to serve, or why there is none.
    pub verdict: Result<f32, String>,
    /// The statistics of the chosen threshold; of the first one tried after a refusal.
    pub stats: GateStats,
}

/// Sorted scores with running agreement, to read any threshold off in O(log n).
pub(crate) struct Curve {
    /// Scores, descending.
    scores: Vec<f32>,
    /// `right[i]`: agreements among the `i` highest scores.
    right: Vec<u64>,
}

impl Curve {
    pub(crate) fn new(rows: &[Scored]) -> Self {
        let mut sorted = rows.to_vec();
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut right = Vec::with_capacity(sorted.len() + 1);
        right.push(0);
        for row in &sorted {
            right.push(right[right.len() - 1] + u64::from(row.agrees));
        }
        Self {
            scores: sorted.iter().map(|r| r.score).collect(),
            right,
        }
    }

    /// (handled, agreements) at a threshold.
    pub(crate) fn at(&self, threshold: f32) -> (u64, u64) {
        let handled = self.scores.partition_point(|s| *s >= threshold);
        (handled as u64, self.right[handled])
    }

    pub(crate) fn stats(&self, threshold: f32, delta: f64) -> GateStats {
        let (handled, right) = self.at(threshold);
        let n = self.scores.len();
        GateStats {
            coverage: handled as f64 / n.max(1) as f64,
            agreement: right as f64 / handled.max(1) as f64,
            agreement_lower: clopper_pearson_lower(right, handled, delta),
            n,
        }
    }

    /// A threshold for every `step`-th row in order of score, ascending in coverage.
    pub(crate) fn thresholds(&self, step: usize) -> Vec<f32> {
        let mut out: Vec<f32> = self
            .scores
            .iter()
            .skip(step.max(1) - 1)
            .step_by(step.max(1))
            .copied()
            .collect();
        out.dedup();
        out
    }
}

/// Everything is handled at this threshold.
pub const ACCEPT_ALL: f32 = 0.0;

impl Gate {
    /// The sequence of thresholds to try, from out-of-fold predictions alone:
    /// it begins where a shadow split of `shadow` rows most surely passes.
    pub fn sequence(&self, out_of_fold: &[Scored], shadow: usize) -> Vec<f32> {
        let curve = Curve::new(out_of_fold);
        let mut thresholds = curve.thresholds((out_of_fold.len() / 400).max(1));
        if thresholds.last().is_none_or(|t| *t > ACCEPT_ALL) {
            thresholds.push(ACCEPT_ALL);
        }
        let n = out_of_fold.len().max(1) as f64;
        let surest = thresholds
            .iter()
            .enumerate()
            .map(|(i, &t)| {
                let (handled, right) = curve.at(t);
                // Half an error more than seen, so that a short flawless head does not look sure.
                let agreement = (right as f64 - 0.5).max(0.0) / handled.max(1) as f64;
                let expected = shadow as f64 * handled as f64 / n;
                let deviation = (self.target * (1.0 - self.target)).sqrt();
                let slack = (agreement - self.target) * expected.sqrt() / deviation;
                let eligible = handled as f64 / n >= self.coverage_floor;
                (i, if eligible { slack } else { f64::NEG_INFINITY })
            })
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(i, _)| i);
        thresholds.split_off(surest)
    }

    /// Decides on the shadow split which threshold of `sequence` may serve.
    pub fn walk(&self, sequence: &[f32], shadow: &[Scored]) -> Walk {
        let curve = Curve::new(shadow);
        let mut chosen = None;
        let mut first = None;
        for &threshold in sequence {
            let stats = curve.stats(threshold, self.delta);
            first.get_or_insert(stats);
            let passes = match self.mode {
                GateMode::Bound => stats.agreement_lower >= self.target,
                GateMode::Point => stats.coverage > 0.0 && stats.agreement >= self.target,
            };
            if !passes {
                break;
            }
            chosen = Some((threshold, stats));
        }
        let nothing = GateStats {
            coverage: 0.0,
            agreement: 0.0,
            agreement_lower: 0.0,
            n: shadow.len(),
        };
        match chosen {
            Some((threshold, stats)) if stats.coverage >= self.coverage_floor => Walk {
                verdict: Ok(threshold),
                stats,
            },
            Some((_, stats)) => Walk {
                verdict: Err(format!(
                    "coverage {:.3} on the shadow split is below the floor {:.3}",
                    stats.coverage, self.coverage_floor
                )),
                stats,
            },
            None => {
                let stats = first.unwrap_or(nothing);
                Walk {
                    verdict: Err(self.refusal(&stats)),
                    stats,
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Small, seeded, good enough for simulation (`SplitMix64`).
    struct Random(u64);
    impl Random {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn gate(target: f64, delta: f64) -> Gate {
        Gate {
            target,
            delta,
            coverage_floor: 0.05,
            mode: GateMode::Bound,
        }
    }

    /// The promise itself: over many repetitions, the share of published
    /// thresholds whose true agreement is below α is at most δ.
    #[test]
    fn the_promise_is_broken_at_most_delta_of_the_time() {
        // A row of score s agrees with probability 0.8 + 0.2 s; at threshold t the
        // true agreement is the mean of that over [t, 1].
        let truth = |t: f64| 0.8 + 0.2 * (1.0 + t) / 2.0;
        let mut random = Random(7);
        for (alpha, delta, n) in [(0.9, 0.05, 300), (0.95, 0.1, 600), (0.95, 0.05, 2000)] {
            let gate = gate(alpha, delta);
            let repetitions = 2000;
            let mut broken = 0;
            let mut published = 0;
            for _ in 0..repetitions {
                let mut sample = |n: usize| -> Vec<Scored> {
                    (0..n)
                        .map(|_| {
                            let s = random.uniform();
                            Scored {
                                score: s as f32,
                                agrees: random.uniform() < 0.8 + 0.2 * s,
                            }
                        })
                        .collect()
                };
                let sequence = gate.sequence(&sample(4 * n), n);
                if let Ok(threshold) = gate.walk(&sequence, &sample(n)).verdict {
                    published += 1;
                    broken += usize::from(truth(f64::from(threshold)) < alpha);
                }
            }
            assert!(
                published > repetitions / 20,
                "α {alpha} δ {delta} n {n}: published {published}"
            );
            // Three standard deviations of the count above its expectation.
            let allowed = delta * f64::from(repetitions as u32);
            let slack = 3.0 * (allowed * (1.0 - delta)).sqrt();
            assert!(
                (broken as f64) <= allowed + slack,
                "α {alpha} δ {delta} n {n}: {broken} of {repetitions}"
            );
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        let rows = |n: usize, agrees: bool| vec![Scored { score: 0.5, agrees }; n];
        let gate = gate(0.95, 0.05);
        assert!(
            gate.walk(&[0.0], &[])
                .verdict
                .unwrap_err()
                .contains("empty")
        );
        assert!(
            gate.walk(&[0.9], &rows(50, true))
                .verdict
                .unwrap_err()
                .contains("nothing is accepted")
        );
        // 40 of 40 agree, but so few rows certify no 0.95.
        let walk = gate.walk(&[0.0], &rows(40, true));
        assert!(walk.verdict.unwrap_err().contains("lower bound"));
        assert_eq!(gate.walk(&[0.0], &rows(200, true)).verdict, Ok(0.0));

        let floor = Gate {
            coverage_floor: 0.5,
            ..gate
        };
        let mut mixed = rows(100, true);
        mixed.extend(vec![
            Scored {
                score: 0.1,
                agrees: false
            };
            400
        ]);
        assert!(
            floor
                .walk(&[0.3], &mixed)
                .verdict
                .unwrap_err()
                .contains("floor")
        );
    }

    #[test]
    fn the_walk_ends_in_global_when_everything_agrees() {
        let rows: Vec<Scored> = (0..1000)
            .map(|i| Scored {
                score: i as f32 / 1000.0,
                agrees: true,
            })
            .collect();
        let gate = gate(0.95, 0.05);
        let sequence = gate.sequence(&rows, 1000);
        assert_eq!(gate.walk(&sequence, &rows).verdict, Ok(ACCEPT_ALL));
    }
}
