//! The report of one refit at one target: `report.json` and `report.html`.

use serde::{Deserialize, Serialize};
use tracer_learn::{Dataset, GateStats, Outcome, Verdict};

use crate::{
    html,
    slices::{LabelSlice, label_slices},
};

/// The version of the layout of `report.json`.
pub(crate) const SCHEMA_VERSION: u32 = 2;

/// `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout.
    pub schema_version: u32,
    /// The task.
    pub task: String,
    /// `passed` or `refused`.
    pub verdict: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The target agreement α.
    pub target_agreement: f64,
    /// The promise may fail with this probability.
    pub delta: f64,
    /// `global`, `l2d` or `rsb`.
    pub family: String,
    /// The selected candidate.
    pub surrogate: String,
    /// The threshold on the acceptor's score.
    pub threshold: f32,
    /// Rows trained on.
    pub training_traces: usize,
    /// Rows left out: for want of a feature, or for an embedding out of all proportion.
    pub left_out: usize,
    /// Rows beyond the cap on the traces of a fit.
    pub not_sampled: usize,
    /// Whether rows stand for more or less than themselves.
    pub weighted: bool,
    /// The certificate.
    pub shadow: ShadowReport,
    /// Candidates and blends, the best first; then those that dropped out.
    pub candidates: Vec<CandidateReport>,
    /// The families that competed at the target, the most expected coverage first.
    pub families: Vec<FamilyReport>,
    /// Shadow coverage against agreement, over all thresholds.
    pub frontier: Vec<FrontierPoint>,
    /// What the gate says of the policy at other targets.
    pub targets: Vec<TargetReport>,
    /// What the out-of-distribution guard would defer at other budgets; empty without one.
    pub budgets: Vec<BudgetReport>,
    /// What is handled of each label.
    pub labels: Vec<LabelSlice>,
}

/// The shadow split at the reported threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Share handled.
    pub coverage: f64,
    /// Share of the handled on which surrogate and teacher agree.
    pub agreement: f64,
    /// Exact lower bound of that.
    pub agreement_lower: f64,
    /// Rows.
    pub n: usize,
    /// How many rows of equal weight the handled ones are worth.
    pub n_effective: f64,
}

/// A candidate's standing in the selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The candidate, or those of a blend joined by `+`.
    pub name: String,
    /// Macro-F1 against the teacher, out of fold; absent where it could not be fitted.
    pub macro_f1: Option<f64>,
    /// Why it dropped out; absent where it did not.
    pub dropped: Option<String>,
}

/// A family's standing at the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamilyReport {
    /// `global`, `l2d` or `rsb`.
    pub family: String,
    /// Its surrogate, or its first one.
    pub surrogate: String,
    /// The coverage that out-of-fold predictions let one expect to certify.
    pub expected_coverage: f64,
}

/// The gate's verdict at another target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The other target agreement.
    pub target_agreement: f64,
    /// Whether the policy would pass.
    pub passed: bool,
    /// What it would handle.
    pub shadow: ShadowReport,
}

/// The guard at another budget, at this report's threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetReport {
    /// Share of traffic like the training traces that the guard may defer.
    pub budget: f64,
    /// Share of the shadow split that it defers.
    pub foreign: f64,
    /// What is handled then.
    pub shadow: ShadowReport,
}

/// One point of the frontier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// Share handled.
    pub coverage: f64,
    /// Agreement on it.
    pub agreement: f64,
    /// Lower bound of that.
    pub agreement_lower: f64,
}

/// A report as it is published.
#[derive(Clone, Debug)]
pub struct Files {
    /// `report.json`.
    pub json: Vec<u8>,
    /// `report.html`: one page that needs no network.
    pub html: Vec<u8>,
}

/// Writes up an outcome of a refit of `data`.
pub fn report(task: &str, data: &Dataset, outcome: &Outcome, delta: f64) -> Files {
    let (verdict, reason) = match &outcome.verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Refused { reason } => ("refused", Some(reason.clone())),
    };
    let report = Report {
        schema_version: SCHEMA_VERSION,
        task: task.to_owned(),
        verdict: verdict.to_owned(),
        reason,
        target_agreement: outcome.target,
        delta,
        family: outcome.family.to_string(),
        surrogate: outcome.surrogate.clone(),
        threshold: outcome.threshold,
        training_traces: outcome.training_traces,
        left_out: outcome.left_out,
        not_sampled: outcome.not_sampled,
        weighted: data.is_weighted(),
        shadow: shadow(&outcome.shadow),
        candidates: outcome
            .candidates
            .iter()
            .map(|c| CandidateReport {
                name: c.name.clone(),
                macro_f1: c.macro_f1,
                dropped: c.dropped.clone(),
            })
            .collect(),
        families: outcome
            .families
            .iter()
            .map(|f| FamilyReport {
                family: f.family.to_string(),
                surrogate: f.surrogate.clone(),
                expected_coverage: f.expected_coverage,
            })
            .collect(),
        frontier: outcome
            .frontier
            .iter()
            .map(|s| FrontierPoint {
                coverage: s.coverage,
                agreement: s.agreement,
                agreement_lower: s.agreement_lower,
            })
            .collect(),
        targets: outcome
            .targets
            .iter()
            .map(|point| TargetReport {
                target_agreement: point.target,
                passed: point.passed,
                shadow: shadow(&point.shadow),
            })
            .collect(),
        budgets: outcome
            .budgets
            .iter()
            .map(|point| BudgetReport {
                budget: point.budget,
                foreign: point.foreign + 0.0, // an empty sum is -0
                shadow: shadow(&point.shadow),
            })
            .collect(),
        labels: label_slices(data, &outcome.shadow_rows, delta),
    };
    Files {
        json: serde_json::to_vec_pretty(&report).expect("a report of plain values"),
        html: html::page(&report).into_bytes(),
    }
}

fn shadow(stats: &GateStats) -> ShadowReport {
    ShadowReport {
        coverage: stats.coverage,
        agreement: stats.agreement,
        agreement_lower: stats.agreement_lower,
        n: stats.n,
        n_effective: stats.n_effective,
    }
}

#[cfg(test)]
mod tests {
    use tracer_learn::{FitConfig, Row, refit};

    use super::*;

    /// Two topics that are easy to tell apart, and texts on which the teacher says either.
    fn desk(weight: f64) -> Dataset {
        let mut data = Dataset::new();
        for i in 0..500 {
            let (text, label) = match i % 5 {
                0 | 1 => (format!("card lost {i}"), "<card>"),
                2 | 3 => (format!("refund me {i}"), "refund"),
                _ if i * i % 7 < 3 => (format!("help {i}"), "<card>"),
                _ => (format!("help {i}"), "refund"),
            };
            let row = Row {
                text: Some(&text),
                embedding: None,
                label,
            };
            data.push_weighted(row, if i % 2 == 0 { 1.0 } else { weight })
                .unwrap();
        }
        data
    }

    fn written(data: &Dataset, config: &FitConfig) -> (Outcome, Report, String) {
        let outcome = refit("desk", data, config, &mut |_| {}).unwrap().remove(0);
        let files = report("desk", data, &outcome, config.delta);
        let report = serde_json::from_slice(&files.json).unwrap();
        (outcome, report, String::from_utf8(files.html).unwrap())
    }

    fn config() -> FitConfig {
        FitConfig {
            targets: vec![0.9],
            ..FitConfig::default()
        }
    }

    #[test]
    fn the_page_and_the_json_tell_the_same_story_and_escape_what_they_show() {
        let (outcome, report, html) = written(&desk(1.0), &config());
        assert_eq!(report.verdict, "passed");
        assert_eq!(
            report.labels.iter().map(|l| l.n).sum::<usize>(),
            report.shadow.n
        );
        assert_eq!(html.matches("(this pipeline)").count(), 1);
        assert!(html.contains("&lt;card&gt;") && !html.contains("<card>"));
        assert!(!html.contains("http://") && !html.contains("https://"));
        // Every candidate, with its score or the reason why it has none.
        assert_eq!(report.candidates.len(), outcome.candidates.len());
        for candidate in &report.candidates {
            assert!(
                html.contains(&html::broken(&candidate.name)),
                "{candidate:?}"
            );
            if let Some(why) = &candidate.dropped {
                assert!(html.contains(why), "{why}");
            }
        }
        assert!(report.candidates.iter().any(|c| c.dropped.is_some()));
        assert_eq!(report.families.len(), outcome.families.len());
        assert_eq!(report.targets.len(), outcome.targets.len());
        let refused = report.targets.iter().filter(|t| !t.passed).count();
        assert!(refused > 0 && refused < report.targets.len());
        assert_eq!(html.matches(">refused</td>").count(), refused);
        assert_eq!(report.budgets.len(), outcome.budgets.len());
        assert!(!report.budgets.is_empty() && html.contains("Out-of-distribution guard"));
        // Rows of equal weight are worth their number: nothing is said of it.
        assert!(!report.weighted && !html.contains("worth"));
    }

    #[test]
    fn without_a_guard_there_is_no_table_of_budgets() {
        let off = FitConfig {
            ood_budget: 0.0,
            ..config()
        };
        let (_, report, html) = written(&desk(1.0), &off);
        assert!(report.budgets.is_empty() && !html.contains("Out-of-distribution guard"));
    }

    #[test]
    fn weighted_rows_count_as_what_they_stand_for() {
        let data = desk(3.0);
        let weighted = FitConfig {
            weight_cap: Some(3.0),
            ..config()
        };
        let (outcome, report, html) = written(&data, &weighted);
        assert!(report.weighted && html.contains("worth"));
        assert_eq!(report.shadow.n_effective, outcome.shadow.n_effective);
        let share: f64 = report
            .labels
            .iter()
            .map(|l| l.handled_share * l.weight)
            .sum();
        let all: f64 = report.labels.iter().map(|l| l.weight).sum();
        assert!((share / all - report.shadow.coverage).abs() < 1e-9);
        // The exact bound is one of rows that all count the same.
        assert!(report.labels.iter().all(|l| l.agreement_lower.is_none()));
    }
}
