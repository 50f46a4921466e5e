//! The trace and the routing echo.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{TaskName, WithheldInput};

/// One teacher call: an input and the label the teacher gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Identifies the trace.
    pub id: String,
    /// The classifier it belongs to.
    pub task: TaskName,
    /// The classified text. Absent when there is an embedding alone, or when it may not
    /// be kept.
    pub input: Option<String>,
    /// What is kept of the text in its place, where the text itself may not be.
    pub withheld: Option<Box<WithheldInput>>,
    /// Dense embedding of the input: finite values, at least one.
    pub embedding: Option<Vec<f32>>,
    /// Identity of the model that made the embedding, where it is known.
    pub embedder: Option<String>,
    /// The teacher's label, trimmed, never empty.
    pub teacher: String,
    /// The true label, where somebody knows it.
    pub ground_truth: Option<String>,
    /// When the teacher was called.
    pub timestamp: Option<DateTime<Utc>>,
    /// Free-form attributes of the caller.
    pub metadata: BTreeMap<String, String>,
    /// What the router decided for this input, when it was asked.
    pub routing: Option<Routing>,
}

/// What the router decided for an input; echoed by the caller in its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// The version that decided; 0 when no pipeline was active.
    pub pipeline_version: u64,
    /// Handled or deferred.
    pub decision: Decision,
    /// The surrogate's label.
    pub label: Option<String>,
    /// The acceptor's score.
    pub score: Option<f32>,
    /// True for a handled request that was sent to the teacher as well.
    pub audit: bool,
    /// Probability that this input's teacher label was observed: 1 for a deferred
    /// input, the audit rate for a handled one. It is 0 for a handled input of a task
    /// without audits: no label was to be seen by design, and one that a caller sends
    /// all the same is no part of the sample that weights can undo.
    pub propensity: f64,
}

/// The decision of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The surrogate answers.
    Handled,
    /// The teacher must be asked.
    Deferred,
}
