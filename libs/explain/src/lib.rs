//! What a refit found, for people: the verdict, the frontier, the slices.
//!
//! Everything here is computed on the shadow split, which nothing was trained
//! on: what a report says of a slice is what the slice can expect.

mod html;
mod report;
pub mod scan;
mod slices;

pub use report::{
    BudgetReport, CandidateReport, FamilyReport, Files, FrontierPoint, Report, ShadowReport,
    TargetReport, report,
};
pub use slices::{LabelSlice, label_slices};
