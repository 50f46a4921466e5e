//! What a scan found, for people: one document, a text for the terminal, a page.
//!
//! All three are made of one [`ScanReport`], so they tell the same story.

mod groups;
mod html;
mod text;
mod words;

use serde::Serialize;
use tracer_learn::{
    Contents, CurvePoint, Dataset, Learning, Scan, ScanTarget, clopper_pearson_interval,
};

pub use self::groups::{Confusion, Example, LabelGroup};
use self::{groups::label_groups, words::tidy};

/// The version of the layout of the document.
const SCHEMA_VERSION: u32 = 1;
/// Days of a month, in what it would save.
const MONTH: f64 = 30.0;
/// Longest example, in characters.
const LONGEST: usize = 120;

/// What was read, and what was passed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FileFacts {
    /// The file.
    pub file: String,
    /// The task the scan is of.
    pub task: String,
    /// Lines that are not blank.
    pub lines: usize,
    /// Lines that hold no usable trace.
    pub unusable: usize,
    /// The first few of them: line and reason.
    pub unusable_lines: Vec<(usize, String)>,
    /// Other tasks in the file and their traces, the largest first.
    pub other_tasks: Vec<(String, usize)>,
    /// Traces that came while a pipeline was serving: they are no even sample.
    pub routed: usize,
}

/// What calls cost, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// Calls a day.
    pub calls_per_day: Option<f64>,
    /// Dollars a call.
    pub call_dollars: Option<f64>,
    /// The share of handled calls that still go to the teacher, as audits.
    pub audit_rate: f64,
}

/// The whole of a scan: what `tracer scan --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanReport {
    /// Version of this layout.
    pub schema_version: u32,
    /// What was read.
    pub file: FileFacts,
    /// What is in it.
    pub contents: Contents,
    /// The contradictory inputs of most traces.
    pub contradictions: Vec<ContradictoryInput>,
    /// The promise may fail with this probability; intervals may, too.
    pub delta: f64,
    /// What can be expected of it.
    pub estimate: Option<Estimate>,
    /// Why there is no estimate.
    pub no_estimate: Option<String>,
    /// What it would save, by target.
    pub savings: Vec<Saving>,
}

/// An input with several labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContradictoryInput {
    /// The input, shortened; absent where it has no text.
    pub text: Option<String>,
    /// Traces with it.
    pub traces: usize,
    /// Its labels and their traces, the commonest first.
    pub labels: Vec<(String, usize)>,
}

/// What can be expected of a refit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Traces with every feature in use.
    pub usable: usize,
    /// Traces that were looked at: all usable ones, or an even sample.
    pub looked_at: usize,
    /// Features in use: `dense`, `lexical`.
    pub features: Vec<&'static str>,
    /// Surrogates and their macro-F1 out of fold, the best first.
    pub surrogates: Vec<(String, f64)>,
    /// Agreement with the teacher on all traces, out of fold.
    pub agreement: f64,
    /// Its two-sided exact interval.
    pub agreement_interval: [f64; 2],
    /// By target, ascending.
    pub targets: Vec<ScanTarget>,
    /// The learning curve.
    pub curve: Vec<CurvePoint>,
    /// The law it follows.
    pub learning: Learning,
    /// The target of what is said of labels.
    pub middle_target: f64,
    /// By label, those that disagree most first.
    pub labels: Vec<LabelGroup>,
    /// The pairs of labels that are confused most.
    pub confusions: Vec<Confusion>,
    /// Coverage and agreement over all thresholds, out of fold.
    pub frontier: Vec<[f64; 2]>,
}

/// What a target would save, audits already taken off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// The target.
    pub target: f64,
    /// Calls saved of a thousand.
    pub of_a_thousand: f64,
    /// Calls saved a day, where their number is known.
    pub calls_a_day: Option<f64>,
    /// Calls saved in 30 days.
    pub calls_a_month: Option<f64>,
    /// Dollars saved a day, where number and price are known.
    pub dollars_a_day: Option<f64>,
    /// Dollars saved in 30 days.
    pub dollars_a_month: Option<f64>,
    /// Dollars saved of a thousand calls, where the price is known.
    pub dollars_of_a_thousand: Option<f64>,
}

impl ScanReport {
    /// Puts together what was read, what is in it, and the scan, or why there is none.
    pub fn new(
        file: FileFacts,
        data: &Dataset,
        scan: Result<&Scan, String>,
        delta: f64,
        prices: Prices,
    ) -> Self {
        let contents = Contents::of(data);
        let contradictions = contents
            .contradictions
            .iter()
            .map(|c| ContradictoryInput {
                text: data.text(c.row).map(|text| tidy(text, LONGEST)),
                traces: c.traces,
                labels: c.labels.clone(),
            })
            .collect();
        let (estimate, no_estimate) = match scan {
            Ok(scan) => (Some(Estimate::of(data, scan, delta)), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            schema_version: SCHEMA_VERSION,
            file,
            contradictions,
            contents,
            delta,
            savings: estimate
                .iter()
                .flat_map(|e| savings(&e.targets, prices))
                .collect(),
            estimate,
            no_estimate,
        }
    }

    /// For a terminal of 100 columns.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// One page that needs no network.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

impl Estimate {
    fn of(data: &Dataset, scan: &Scan, delta: f64) -> Self {
        let (labels, confusions) = label_groups(data, scan, |right, n| {
            clopper_pearson_interval(right, n, delta)
        });
        Self {
            usable: scan.usable,
            looked_at: scan.looked_at,
            features: [(scan.dense, "dense"), (scan.lexical, "lexical")]
                .into_iter()
                .filter_map(|(used, name)| used.then_some(name))
                .collect(),
            surrogates: scan.surrogates.clone(),
            agreement: scan.agreement,
            agreement_interval: scan.agreement_interval.into(),
            targets: scan.targets.clone(),
            curve: scan.curve.clone(),
            learning: scan.learning,
            middle_target: scan.middle_target,
            labels,
            confusions,
            frontier: scan
                .frontier
                .iter()
                .map(|point| [point.coverage, point.agreement])
                .collect(),
        }
    }
}

fn savings(targets: &[ScanTarget], prices: Prices) -> impl Iterator<Item = Saving> {
    targets.iter().map(move |target| {
        let share = target.expected_coverage * (1.0 - prices.audit_rate);
        let calls = prices.calls_per_day.map(|calls| calls * share);
        let dollars = calls
            .zip(prices.call_dollars)
            .map(|(calls, each)| calls * each);
        Saving {
            target: target.target,
            of_a_thousand: 1000.0 * share,
            calls_a_day: calls,
            calls_a_month: calls.map(|calls| calls * MONTH),
            dollars_a_day: dollars,
            dollars_a_month: dollars.map(|dollars| dollars * MONTH),
            dollars_of_a_thousand: prices.call_dollars.map(|each| 1000.0 * share * each),
        }
    })
}

#[cfg(test)]
mod tests;
