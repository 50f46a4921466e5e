//! The layout of `report.json`: what one refit found at one target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artifacts::{
    Changes, Cues, DisagreementGroup, Finding, LabelCards, LabelPairs, ReliabilityBin, Slice,
    WeakSlices,
};

/// The version of the layout of `report.json`.
pub const SCHEMA_VERSION: u32 = 3;

/// `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Why it was refused, by measured rules, the one to act on first; empty when it passed.
    #[serde(default)]
    pub diagnosis: Vec<Finding>,
    /// `global`, `l2d` or `rsb`; absent where the refit came to no surrogate.
    pub family: Option<String>,
    /// The selected candidate, or those of a blend joined by `+`.
    pub surrogate: Option<String>,
    /// The threshold on the acceptor's score: chosen, or after a refusal first tried.
    pub threshold: Option<f64>,
    /// Rows trained on.
    pub training_traces: usize,
    /// Rows left out: for want of a feature, or for an embedding out of all proportion.
    pub left_out: usize,
    /// Rows beyond the cap on the traces of a fit.
    pub not_sampled: usize,
    /// Whether rows stand for more or less than themselves.
    pub weighted: bool,
    /// Whether examples show their texts.
    #[serde(default)]
    pub inputs: InputsShown,
    /// The certificate; after a refusal what the first threshold that was tried would do.
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
    /// Artifact A: what is handled of each label of the teacher, the most deferred first.
    pub labels: Vec<Slice>,
    /// Artifact A: the same by the length of the text, the shortest first.
    #[serde(default)]
    pub lengths: Vec<Slice>,
    /// Handled parts of the traffic that agree less often than the target.
    #[serde(default)]
    pub weak_slices: WeakSlices,
    /// Artifact B: of each label the typical handled and the typical deferred trace.
    #[serde(default)]
    pub cards: Vec<LabelCards>,
    /// Artifact C: nearest pairs of one label and opposite decisions.
    #[serde(default)]
    pub pairs: Vec<LabelPairs>,
    /// Artifact D: what changed since the previous version.
    #[serde(default)]
    pub changes: Option<Changes>,
    /// Artifact E: where surrogate and teacher part, by what the surrogate said.
    #[serde(default)]
    pub disagreements: Vec<DisagreementGroup>,
    /// Whether the acceptor's score means what it says, the lowest scores first.
    #[serde(default)]
    pub reliability: Vec<ReliabilityBin>,
    /// The words that the surrogate goes by.
    #[serde(default)]
    pub cues: Option<Cues>,
    /// The versions before this one, the oldest first.
    #[serde(default)]
    pub flywheel: Vec<VersionPoint>,
    /// What it saves; absent where the task has no prices.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// What has nothing to show, by its name in this document, and why.
    #[serde(default)]
    pub absent: BTreeMap<String, String>,
}

impl Report {
    /// The page that shows it: `report.html`. It needs no network.
    pub fn html(&self) -> String {
        crate::html::page(self)
    }
}

/// The shadow split at the reported threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FrontierPoint {
    /// Share handled.
    pub coverage: f64,
    /// Agreement on it.
    pub agreement: f64,
    /// Lower bound of that.
    pub agreement_lower: f64,
}

/// Whether examples show their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InputsShown {
    /// Those that have one do.
    #[default]
    Text,
    /// Texts are withheld, or there are none: examples are ids alone.
    Ids,
}

/// A version of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VersionPoint {
    /// Its number.
    pub version: u64,
    /// When it was published, RFC 3339.
    pub created_at: String,
    /// The target it was certified at.
    pub target_agreement: f64,
    /// Traces trained on.
    pub training_traces: u64,
    /// Coverage of its own shadow split.
    pub coverage: f64,
    /// Agreement there.
    pub agreement: f64,
    /// Lower bound of that.
    pub agreement_lower: f64,
}

/// What a version saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cost {
    /// Dollars that one call of the teacher costs, on average.
    pub call_dollars: f64,
    /// The share of the calls that is saved: the coverage, audits taken off.
    pub saved_share: f64,
    /// What is to be expected.
    pub projected: Option<ProjectedCost>,
    /// What was counted.
    pub actual: Option<ActualCost>,
}

/// What is to be expected of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProjectedCost {
    /// Calls a day, as the traces of late came.
    pub calls_per_day: f64,
    /// Dollars a day without a surrogate.
    pub dollars_per_day: f64,
    /// Dollars a day that it saves.
    pub saved_dollars_per_day: f64,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ActualCost {
    /// From when on, RFC 3339.
    pub since: String,
    /// Requests that the surrogate answered and nobody else was asked.
    pub calls_saved: u64,
    /// Requests that went to the teacher.
    pub calls_made: u64,
    /// Dollars saved.
    pub saved_dollars: f64,
}
