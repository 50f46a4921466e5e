//! What a refit found, for people: the verdict, the frontier, the slices.
//!
//! Everything here is computed on the shadow split, which nothing was trained
//! on: what a report says of a slice is what the slice can expect.

mod html;
mod report;
mod slices;

pub use report::{report, Files, FrontierPoint, Report, ShadowReport};
pub use slices::{label_slices, LabelSlice};
