//! The report of one refit at one target: `report.json` and `report.html`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_learn::{Dataset, GateStats, Outcome, Verdict};

use crate::{
    html,
    slices::{LabelSlice, label_slices},
};

/// The version of the layout of `report.json`.
pub(crate) const SCHEMA_VERSION: u32 = 1;

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
    /// `global` or `l2d`.
    pub family: String,
    /// The selected candidate.
    pub surrogate: String,
    /// The threshold on the acceptor's score.
    pub threshold: f32,
    /// Rows trained on.
    pub training_traces: usize,
    /// Rows left out for want of a feature.
    pub left_out: usize,
    /// The certificate.
    pub shadow: ShadowReport,
    /// Macro-F1 of each candidate, out of fold.
    pub candidates: BTreeMap<String, f64>,
    /// Shadow coverage against agreement, over all thresholds.
    pub frontier: Vec<FrontierPoint>,
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
        shadow: shadow(&outcome.shadow),
        candidates: outcome
            .candidates
            .iter()
            .filter_map(|c| Some((c.name.clone(), c.macro_f1?)))
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
    }
}

#[cfg(test)]
mod tests {
    use tracer_learn::{FitConfig, Row, refit};

    use super::*;

    #[test]
    fn the_page_and_the_json_tell_the_same_story_and_escape_what_they_show() {
        let mut data = Dataset::new();
        for i in 0..300 {
            let (text, label) = if i % 2 == 0 {
                (format!("card lost {i}"), "<card>")
            } else {
                (format!("refund me {i}"), "refund")
            };
            data.push(Row {
                text: Some(&text),
                embedding: None,
                label,
            })
            .unwrap();
        }
        let config = FitConfig {
            targets: vec![0.9],
            ..FitConfig::default()
        };
        let outcome = refit("desk", &data, &config, &mut |_| {})
            .unwrap()
            .remove(0);
        let files = report("desk", &data, &outcome, config.delta);
        let parsed: Report = serde_json::from_slice(&files.json).unwrap();
        assert_eq!(parsed.verdict, "passed");
        assert_eq!(
            parsed.labels.iter().map(|l| l.n).sum::<usize>(),
            parsed.shadow.n
        );
        let html = String::from_utf8(files.html).unwrap();
        assert_eq!(html.matches("(this pipeline)").count(), 1);
        assert!(html.contains("&lt;card&gt;") && !html.contains("<card>"));
        assert!(!html.contains("http://") && !html.contains("https://"));
    }
}
