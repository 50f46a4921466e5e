//! The shadow split as a pipeline sees it.

use rayon::prelude::*;

use super::{BudgetPoint, ShadowRow, TargetPoint, accept::FOREIGN, label_space::LabelSpace};
use crate::{
    dataset::Dataset,
    gate::{Curve, Gate, GateStats, Policy, Scored},
    ood::Guard,
    pipeline::{Decision, DeferReason, Pipeline, Scratch},
    sample::Sample,
};

/// Targets of the frontier.
const TARGETS: [f64; 7] = [0.80, 0.85, 0.90, 0.95, 0.97, 0.98, 0.99];

/// Every row of the shadow split with what the pipeline made of it.
pub(crate) struct Shadow {
    rows: Vec<ShadowRow>,
    weights: Vec<f64>,
    /// The guard's score by row; 0 without a guard.
    foreignness: Vec<f32>,
}

impl Shadow {
    /// Asks [`Pipeline::decide`], as a request would.
    pub(crate) fn score(
        pipeline: &Pipeline,
        data: &Dataset,
        shadow: &Sample,
        space: &LabelSpace,
    ) -> Self {
        let (rows, foreignness) = shadow
            .rows
            .par_iter()
            .map_init(Scratch::default, |scratch, &row| {
                let decision = pipeline
                    .decide_row(data, row, scratch)
                    .expect("the dataset's rows are of one shape");
                let (predicted, score, foreign) = match decision {
                    Decision::Handled { label, score } => (label, score, false),
                    Decision::Deferred {
                        label: Some(label),
                        score,
                        reason,
                    } => (label, score, reason == DeferReason::OutOfDistribution),
                    Decision::Deferred { label: None, .. } => {
                        unreachable!("rows in use have every feature in use")
                    }
                };
                let seen = ShadowRow {
                    row,
                    predicted,
                    agrees: space.class(data, row) == Some(predicted as u32),
                    score,
                    foreign,
                    handled: false,
                };
                (seen, scratch.foreignness)
            })
            .unzip();
        Self {
            rows,
            weights: shadow.weights.clone(),
            foreignness,
        }
    }

    /// For the gate. Foreign rows stay in, as never handled.
    pub(crate) fn scored(&self) -> Vec<Scored> {
        self.scored_where(|i| self.rows[i].foreign)
    }

    fn scored_where(&self, foreign: impl Fn(usize) -> bool) -> Vec<Scored> {
        let rows = self.rows.iter().zip(&self.weights).enumerate();
        rows.map(|(i, (row, &weight))| Scored {
            score: if foreign(i) { FOREIGN } else { row.score },
            agrees: row.agrees,
            weight,
        })
        .collect()
    }

    /// What the guard would do at other budgets, at the same threshold.
    pub(crate) fn budgets(&self, gate: &Gate, guard: &Guard, threshold: f32) -> Vec<BudgetPoint> {
        let total: f64 = self.weights.iter().sum();
        guard
            .sweep()
            .iter()
            .map(|point| {
                let foreign = |i: usize| point.excludes(self.foreignness[i]);
                let deferred: f64 = (0..self.rows.len())
                    .filter(|&i| foreign(i))
                    .map(|i| self.weights[i])
                    .sum();
                let curve = Curve::new(&self.scored_where(foreign), gate.weight_cap);
                BudgetPoint {
                    budget: point.budget,
                    foreign: deferred / total.max(f64::MIN_POSITIVE),
                    shadow: curve.stats(threshold, gate.delta),
                }
            })
            .collect()
    }

    pub(crate) fn rows_at(self, threshold: f32) -> Vec<ShadowRow> {
        let handled = |row: &ShadowRow| !row.foreign && row.score >= threshold;
        self.rows
            .into_iter()
            .map(|row| ShadowRow {
                handled: handled(&row),
                ..row
            })
            .collect()
    }
}

/// Shadow statistics over the whole range of thresholds.
pub(crate) fn frontier(gate: &Gate, shadow: &[Scored]) -> Vec<GateStats> {
    let curve = Curve::new(shadow, gate.weight_cap);
    curve
        .thresholds((shadow.len() / 50).max(1))
        .into_iter()
        .map(|t| curve.stats(t, gate.delta))
        .collect()
}

/// What the gate would say of this policy at other targets.
pub(crate) fn other_targets(
    gate: &Gate,
    out_of_fold: &[Scored],
    shadow: &[Scored],
) -> Vec<TargetPoint> {
    TARGETS
        .into_iter()
        .map(|target| {
            let choice = Gate { target, ..*gate }.choose(&[Policy {
                out_of_fold,
                shadow,
            }]);
            TargetPoint {
                target,
                passed: choice.verdict.is_ok(),
                shadow: choice.stats,
            }
        })
        .collect()
}
