//! The one place where a trace is validated, whatever its encoding.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};

use crate::{
    Decision, DecodeError, Limits, Routing, TaskName, Trace, decode::Origin, view::TraceView,
};

/// A trace as a decoder found it: right types, nothing checked. Its texts may still be
/// where they were found.
#[derive(Debug, Default)]
pub(crate) struct Draft<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) task: Option<Cow<'a, str>>,
    pub(crate) input: Option<Cow<'a, str>>,
    pub(crate) embedding: Option<Vec<f32>>,
    pub(crate) embedder: Option<Cow<'a, str>>,
    /// The name of the field that the label stood in, and the label.
    pub(crate) teacher: Option<(&'static str, Cow<'a, str>)>,
    pub(crate) ground_truth: Option<Cow<'a, str>>,
    pub(crate) timestamp: Option<DateTime<Utc>>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) routing: Option<Routing>,
}

/// A [`Trace`] whose texts may still be in the payload it was decoded from: valid as one,
/// and without a copy of what only passes through.
#[derive(Debug)]
pub struct BorrowedTrace<'a> {
    id: Cow<'a, str>,
    task: Cow<'a, str>,
    input: Option<Cow<'a, str>>,
    embedding: Option<Vec<f32>>,
    embedder: Option<Cow<'a, str>>,
    teacher: Cow<'a, str>,
    ground_truth: Option<Cow<'a, str>>,
    timestamp: Option<DateTime<Utc>>,
    metadata: BTreeMap<String, String>,
    routing: Option<Routing>,
}

impl BorrowedTrace<'_> {
    /// All of it by reference.
    pub fn view(&self) -> TraceView<'_> {
        TraceView {
            id: &self.id,
            task: &self.task,
            input: self.input.as_deref(),
            withheld: None,
            embedding: self.embedding.as_deref(),
            embedder: self.embedder.as_deref(),
            teacher: &self.teacher,
            ground_truth: self.ground_truth.as_deref(),
            timestamp: self.timestamp,
            metadata: &self.metadata,
            routing: self.routing.as_ref(),
        }
    }
}

impl From<BorrowedTrace<'_>> for Trace {
    fn from(trace: BorrowedTrace<'_>) -> Self {
        Self {
            id: trace.id.into_owned(),
            task: TaskName::of_checked(&trace.task),
            input: trace.input.map(Cow::into_owned),
            withheld: None,
            embedding: trace.embedding,
            embedder: trace.embedder.map(Cow::into_owned),
            teacher: trace.teacher.into_owned(),
            ground_truth: trace.ground_truth.map(Cow::into_owned),
            timestamp: trace.timestamp,
            metadata: trace.metadata,
            routing: trace.routing,
        }
    }
}

impl<'a> Draft<'a> {
    /// Checks everything and fills what the origin knows. Without an origin a
    /// missing id stays empty.
    pub(crate) fn finish(
        self,
        origin: Option<&Origin<'_>>,
        limits: &Limits,
    ) -> Result<BorrowedTrace<'a>, DecodeError> {
        let task = match self.task.filter(|task| !task.is_empty()) {
            Some(task) => {
                TaskName::check(&task)?;
                task
            }
            None => Cow::Borrowed(TaskName::DEFAULT),
        };
        let teacher = label(self.teacher, limits)?;
        let input = self.input.filter(|input| !input.trim().is_empty());
        if let Some(input) = &input {
            bounded("input", input.len(), limits.max_input_bytes)?;
        }
        if let Some(embedding) = &self.embedding {
            check_embedding(embedding, limits)?;
        }
        if input.is_none() && self.embedding.is_none() {
            return Err(DecodeError::MissingInput);
        }
        let id = self.id.filter(|id| !id.is_empty());
        if let Some(id) = &id {
            bounded("id", id.len(), limits.max_id_bytes)?;
        }
        let ground_truth = trimmed(self.ground_truth);
        if let Some(label) = &ground_truth {
            bounded("ground_truth", label.len(), limits.max_label_bytes)?;
        }
        let embedder = trimmed(self.embedder);
        if let Some(embedder) = &embedder {
            bounded("embedder", embedder.len(), limits.max_id_bytes)?;
        }
        check_metadata(&self.metadata, limits)?;
        if let Some(routing) = &self.routing {
            check_routing(routing, limits)?;
        }
        let timestamp = match self.timestamp {
            Some(time) => Some(in_range(time)?),
            // The record's own time is the log's word, not the caller's: a
            // broker that stamps nonsense must not cost the trace.
            None => origin
                .and_then(|origin| origin.timestamp_ms)
                .and_then(DateTime::from_timestamp_millis)
                .and_then(|time| in_range(time).ok()),
        };
        Ok(BorrowedTrace {
            id: id
                .or_else(|| Some(Cow::Owned(origin?.derived_id())))
                .unwrap_or_default(),
            task,
            input,
            embedding: self.embedding,
            embedder,
            teacher,
            ground_truth,
            timestamp,
            metadata: self.metadata,
            routing: self.routing,
        })
    }
}

fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() < text.len() => Cow::Owned(text.trim().to_owned()),
        owned @ Cow::Owned(_) => owned,
    }
}

fn trimmed(text: Option<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    text.map(trim).filter(|text| !text.is_empty())
}

fn bounded(field: &'static str, size: usize, max: usize) -> Result<(), DecodeError> {
    if size <= max {
        return Ok(());
    }
    Err(DecodeError::TooLarge {
        field,
        size,
        max,
        unit: "bytes",
    })
}

fn label<'a>(
    found: Option<(&'static str, Cow<'a, str>)>,
    limits: &Limits,
) -> Result<Cow<'a, str>, DecodeError> {
    let (field, label) = found.ok_or(DecodeError::MissingLabel)?;
    let label = trim(label);
    if label.is_empty() {
        return Err(DecodeError::EmptyLabel {
            field: field.to_owned(),
        });
    }
    bounded("teacher", label.len(), limits.max_label_bytes)?;
    Ok(label)
}

fn check_embedding(embedding: &[f32], limits: &Limits) -> Result<(), DecodeError> {
    let max = limits.max_embedding_dimension;
    if embedding.is_empty() {
        return Err(DecodeError::BadEmbedding("has no values".to_owned()));
    }
    if embedding.len() > max {
        return Err(DecodeError::BadEmbedding(format!(
            "has {} values; at most {max} are allowed",
            embedding.len()
        )));
    }
    match embedding.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(DecodeError::BadEmbedding(format!(
            "has {} at index {index}; every value must be finite",
            embedding[index]
        ))),
        None => Ok(()),
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>, limits: &Limits) -> Result<(), DecodeError> {
    if metadata.len() > limits.max_metadata_entries {
        return Err(DecodeError::TooLarge {
            field: "metadata",
            size: metadata.len(),
            max: limits.max_metadata_entries,
            unit: "entries",
        });
    }
    let bytes = metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    bounded("metadata", bytes, limits.max_metadata_bytes)
}

fn check_routing(routing: &Routing, limits: &Limits) -> Result<(), DecodeError> {
    // The label of a deferred input is always asked for, and an audit is only ever
    // drawn where audits are: there 0 is nothing a router can have sent.
    let asked = routing.audit || routing.decision == Decision::Deferred;
    let least = if asked { f64::MIN_POSITIVE } else { 0.0 };
    if !(least..=1.0).contains(&routing.propensity) {
        return Err(DecodeError::BadRouting {
            field: "propensity",
            detail: format!(
                "must lie in {}, but is {}",
                if asked {
                    "(0, 1] for a deferred or audited input"
                } else {
                    "[0, 1]"
                },
                routing.propensity
            ),
        });
    }
    if let Some(score) = routing.score.filter(|score| !score.is_finite()) {
        return Err(DecodeError::BadRouting {
            field: "score",
            detail: format!("must be finite, but is {score}"),
        });
    }
    match &routing.label {
        Some(label) if label.len() > limits.max_label_bytes => Err(DecodeError::BadRouting {
            field: "label",
            detail: format!(
                "has {} bytes; at most {} are allowed",
                label.len(),
                limits.max_label_bytes
            ),
        }),
        _ => Ok(()),
    }
}

/// The first and the last millisecond of the years 1 to 9999; others have no RFC 3339 form.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Times are kept to the millisecond, as they are stored.
fn in_range(time: DateTime<Utc>) -> Result<DateTime<Utc>, DecodeError> {
    Some(time.timestamp_millis())
        .filter(|milliseconds| TIMES.contains(milliseconds))
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| DecodeError::BadTimestamp(time.to_string()))
}
