//! Scored rows in order, to read any threshold off.

use super::{Gate, GateStats, Scored};
use crate::bounds::{
    betting_lower, betting_refutes, clopper_pearson_lower, clopper_pearson_reaches,
};

/// Sums over the rows of highest score.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Rows.
    pub(super) rows: u64,
    /// Of those, rows that agree.
    pub(super) right: u64,
    /// Σ w.
    pub(super) weight: f64,
    /// Σ w².
    pub(super) squares: f64,
    /// Σ w over rows that agree.
    pub(super) right_weight: f64,
}

impl Sums {
    /// Weighted share of the rows that agree; 0 without rows.
    pub(super) fn agreement(&self) -> f64 {
        if self.weight > 0.0 {
            self.right_weight / self.weight
        } else {
            0.0
        }
    }

    /// Kish's effective sample size.
    pub(super) fn effective(&self) -> f64 {
        if self.squares > 0.0 {
            self.weight * self.weight / self.squares
        } else {
            0.0
        }
    }
}

/// What the lower bound of the agreement is made of.
enum Bound {
    /// Equal weights: Clopper–Pearson.
    Exact,
    /// Betting, on the rows in an order of their own: (score, weight, agrees).
    Betting {
        cap: f64,
        shuffled: Vec<(f32, f64, bool)>,
    },
    /// Nothing can be certified.
    None(String),
}

/// Sorted scores with running sums, to read any threshold off.
pub(crate) struct Curve {
    /// Scores, descending.
    scores: Vec<f32>,
    /// `sums[i]`: of the `i` highest scores.
    sums: Vec<Sums>,
    bound: Bound,
}

impl Curve {
    /// `weight_cap` as in [`Gate::weight_cap`].
    pub(crate) fn new(rows: &[Scored], weight_cap: Option<f64>) -> Self {
        let mut sorted = rows.to_vec();
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut sums = Vec::with_capacity(sorted.len() + 1);
        let mut running = Sums::default();
        sums.push(running);
        for row in &sorted {
            running.rows += 1;
            running.weight += row.weight;
            running.squares += row.weight * row.weight;
            if row.agrees {
                running.right += 1;
                running.right_weight += row.weight;
            }
            sums.push(running);
        }
        Self {
            scores: sorted.iter().map(|r| r.score).collect(),
            sums,
            bound: Bound::of(rows, weight_cap),
        }
    }

    /// Sums over the handled rows at a threshold.
    pub(super) fn at(&self, threshold: f32) -> &Sums {
        &self.sums[self.scores.partition_point(|s| *s >= threshold)]
    }

    /// Sums over the `rows` rows of highest score.
    pub(super) fn top(&self, rows: u64) -> &Sums {
        &self.sums[(rows as usize).min(self.len())]
    }

    /// The lowest threshold at which the `rows` rows of highest score are handled and
    /// the next is not; `None` on weighted rows.
    pub(super) fn rank(&self, rows: u64) -> Option<f32> {
        if !self.is_unweighted() {
            return None;
        }
        match self.scores.get(rows as usize) {
            // Below 0 is nothing that any threshold accepts.
            Some(next) => Some(next.next_up().max(super::ACCEPT_ALL)),
            // There are no more: this is all that is handled.
            None => Some(super::ACCEPT_ALL),
        }
    }

    /// Whether all rows count the same.
    pub(super) fn is_unweighted(&self) -> bool {
        matches!(self.bound, Bound::Exact)
    }

    /// All rows.
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    /// Weighted share of the rows that are handled at a threshold.
    pub(super) fn coverage(&self, threshold: f32) -> f64 {
        let all = self.sums[self.len()].weight;
        if all > 0.0 {
            self.at(threshold).weight / all
        } else {
            0.0
        }
    }

    /// Why nothing can be certified on these rows, if so.
    pub(super) fn fault(&self) -> Option<&str> {
        match &self.bound {
            Bound::None(reason) => Some(reason),
            Bound::Exact | Bound::Betting { .. } => None,
        }
    }

    /// Whether the lower bound of the agreement is at least `target`.
    pub(super) fn reaches(&self, threshold: f32, delta: f64, target: f64) -> bool {
        let sums = self.at(threshold);
        match &self.bound {
            Bound::Exact => clopper_pearson_reaches(sums.right, sums.rows, delta, target),
            Bound::Betting { cap, shuffled } => {
                betting_refutes(&handled(shuffled, threshold), *cap, target, delta)
            }
            Bound::None(_) => false,
        }
    }

    pub(crate) fn stats(&self, threshold: f32, delta: f64) -> GateStats {
        let sums = self.at(threshold);
        let lower = match &self.bound {
            Bound::Exact => clopper_pearson_lower(sums.right, sums.rows, delta),
            Bound::Betting { cap, shuffled } => {
                betting_lower(&handled(shuffled, threshold), *cap, delta)
            }
            Bound::None(_) => 0.0,
        };
        GateStats {
            coverage: self.coverage(threshold),
            agreement: sums.agreement(),
            agreement_lower: lower,
            n: self.len(),
            n_effective: sums.effective(),
        }
    }

    /// A threshold for every `step`-th row in order of score, ascending in coverage:
    /// half way to the next lower score, so that where scores are tied it does not
    /// hang on their last bit whether anything is handled. Rows that no threshold
    /// accepts, with scores below 0, have none.
    pub(crate) fn thresholds(&self, step: usize) -> Vec<f32> {
        let mut out: Vec<f32> = self
            .scores
            .iter()
            .skip(step.max(1) - 1)
            .step_by(step.max(1))
            .copied()
            .take_while(|score| *score >= super::ACCEPT_ALL)
            .map(|score| self.below(score))
            .collect();
        out.dedup();
        out
    }

    /// Half way from a score to the next lower one; the score itself where nothing
    /// lies between.
    fn below(&self, score: f32) -> f32 {
        let next = self
            .scores
            .get(self.scores.partition_point(|s| *s >= score));
        let next = next.map_or(super::ACCEPT_ALL, |s| s.max(super::ACCEPT_ALL));
        let middle = score.midpoint(next);
        if middle > next { middle } else { score }
    }
}

impl Bound {
    fn of(rows: &[Scored], weight_cap: Option<f64>) -> Self {
        if let Some(row) = rows
            .iter()
            .find(|r| !(r.weight.is_finite() && r.weight >= 0.0))
        {
            return Self::None(format!("a row has the weight {}", row.weight));
        }
        let equal_to = |weight: f64| {
            rows.iter()
                .all(|r| (r.weight - weight).abs() <= 1e-9 * weight)
        };
        match weight_cap {
            None if equal_to(rows.first().map_or(1.0, |r| r.weight)) => Self::Exact,
            None => Self::None("the rows are weighted and no cap on their weights is set".into()),
            Some(cap) if !(cap.is_finite() && cap > 0.0) => {
                Self::None(format!("the cap on the weights is {cap}"))
            }
            // Every weight is the largest there can be: nothing heavier may hide.
            Some(cap) if equal_to(cap) => Self::Exact,
            Some(cap) => {
                let mut shuffled: Vec<_> =
                    rows.iter().map(|r| (r.score, r.weight, r.agrees)).collect();
                shuffle(&mut shuffled);
                Self::Betting { cap, shuffled }
            }
        }
    }
}

/// The handled rows, in the order of betting.
fn handled(shuffled: &[(f32, f64, bool)], threshold: f32) -> Vec<(f64, bool)> {
    shuffled
        .iter()
        .filter(|(score, ..)| *score >= threshold)
        .map(|&(_, weight, agrees)| (weight, agrees))
        .collect()
}

/// Fisher–Yates by `SplitMix64` from a fixed seed: the order of betting must not
/// depend on the outcomes, and should not follow the order of time.
fn shuffle<T>(rows: &mut [T]) {
    let mut state = 0x5eed_u64;
    for i in (1..rows.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        rows.swap(i, (z % (i as u64 + 1)) as usize);
    }
}

impl Gate {
    /// The rows as this gate reads them.
    pub(super) fn curve(&self, rows: &[Scored]) -> Curve {
        Curve::new(rows, self.weight_cap)
    }
}
