//! The trace: one call of a teacher, as every part of Tracer sees it.
//!
//! Payloads enter through `decode`, which validates everything once, at the
//! edge, under [`Limits`]. Behind it a [`Trace`] can be trusted: its task name is
//! well formed, its label is not empty, its numbers are finite and its sizes
//! are bounded.

mod limits;
mod task;
mod types;

pub use limits::Limits;
pub use task::{InvalidTaskName, TaskName};
pub use types::{Decision, Routing, Trace};
