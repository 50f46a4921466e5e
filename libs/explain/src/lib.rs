//! What a refit found, for people: the verdict, the frontier, the slices.
//!
//! Everything here is computed on the shadow split, which nothing was trained
//! on: what a report says of a slice is what the slice can expect.
//!
//! [`Reporter`] makes the two files of a report: `report.json`, whose layout
//! `docs/report.schema.json` publishes, and `report.html`, one page that needs no network.

mod artifacts;
mod html;
mod page;
mod plot;
mod report;
mod reporter;
pub mod scan;
#[cfg(test)]
mod tests;
mod words;

pub use artifacts::{
    Card, Cause, Changes, Cues, DeferredBy, DisagreementGroup, Evidence, Example, Finding,
    LabelCards, LabelChange, LabelCount, LabelCues, LabelPairs, NGramCue, Pair, Previous,
    ReliabilityBin, Slice, SliceKind, Standing, TraceRef, WeakSlice, WeakSlices,
};
pub use report::{
    ActualCost, BudgetReport, CandidateReport, Cost, FamilyReport, FrontierPoint, InputsShown,
    ProjectedCost, Report, SCHEMA_VERSION, ShadowReport, TargetReport, VersionPoint,
};
pub use reporter::{Files, Reporter};
