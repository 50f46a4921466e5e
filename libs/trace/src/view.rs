//! A trace by reference.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{Routing, Trace, WithheldInput};

/// A valid trace by reference, wherever its parts are: of a [`Trace`] or of a
/// [`crate::BorrowedTrace`].
#[derive(Clone, Copy, Debug)]
pub struct TraceView<'a> {
    pub(crate) id: &'a str,
    /// The name of a task.
    pub(crate) task: &'a str,
    pub(crate) input: Option<&'a str>,
    pub(crate) withheld: Option<&'a WithheldInput>,
    pub(crate) embedding: Option<&'a [f32]>,
    pub(crate) embedder: Option<&'a str>,
    pub(crate) teacher: &'a str,
    pub(crate) ground_truth: Option<&'a str>,
    pub(crate) timestamp: Option<DateTime<Utc>>,
    pub(crate) metadata: &'a BTreeMap<String, String>,
    pub(crate) routing: Option<&'a Routing>,
}

impl<'a> From<&'a Trace> for TraceView<'a> {
    fn from(trace: &'a Trace) -> Self {
        Self {
            id: &trace.id,
            task: trace.task.as_str(),
            input: trace.input.as_deref(),
            withheld: trace.withheld.as_deref(),
            embedding: trace.embedding.as_deref(),
            embedder: trace.embedder.as_deref(),
            teacher: &trace.teacher,
            ground_truth: trace.ground_truth.as_deref(),
            timestamp: trace.timestamp,
            metadata: &trace.metadata,
            routing: trace.routing.as_ref(),
        }
    }
}
