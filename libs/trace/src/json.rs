//! Traces as JSON objects.
//!
//! Field names have aliases, so that the logs people already have can be sent as
//! they are. When several names of one field are present, the first in the list
//! that is not null counts. Unknown fields are ignored.

mod number;
mod plain;
mod scan;

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use crate::{
    BorrowedTrace, Decision, DecodeError, Limits, Routing, Trace, decode::Origin, draft::Draft,
    error::excerpt,
};

const INPUT: &[&str] = &["input", "query", "text", "prompt", "question"];
const TEACHER: &[&str] = &[
    "teacher",
    "teacher_output",
    "label",
    "intent",
    "output",
    "answer",
];

pub(crate) fn decode(
    payload: &[u8],
    origin: Option<&Origin<'_>>,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    if let Some(read) = plain(payload, origin, limits) {
        return read.map(Trace::from);
    }
    // serde_json bounds the depth itself, and the payload bounds the rest.
    from_value(&parse(payload)?, origin, limits)
}

/// The short way, for what most senders send. `None` leaves it to the long way; otherwise
/// the answer is what the long way would say.
pub(crate) fn plain<'a>(
    payload: &'a [u8],
    origin: Option<&Origin<'_>>,
    limits: &Limits,
) -> Option<Result<BorrowedTrace<'a>, DecodeError>> {
    Some(plain::read(payload)?.finish(origin, limits))
}

pub(crate) fn parse(payload: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(payload).map_err(|error| DecodeError::MalformedJson(error.to_string()))
}

pub(crate) fn from_value(
    value: &Value,
    origin: Option<&Origin<'_>>,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    let Value::Object(object) = value else {
        return Err(DecodeError::MalformedJson(format!(
            "a trace is an object, not {}",
            excerpt(value)
        )));
    };
    let draft = Draft {
        id: optional(object, &["id"], scalar)?,
        task: optional(object, &["task"], text)?,
        input: optional(object, INPUT, text)?,
        embedding: optional(object, &["embedding"], embedding)?,
        embedder: optional(object, &["embedder"], text)?,
        teacher: optional(object, TEACHER, |name, value| {
            Ok((name, scalar(name, value)?))
        })?,
        ground_truth: optional(object, &["ground_truth"], scalar)?,
        timestamp: optional(object, &["timestamp"], timestamp)?,
        metadata: optional(object, &["metadata"], metadata)?.unwrap_or_default(),
        routing: optional(object, &["routing"], routing)?,
    };
    draft.finish(origin, limits).map(Trace::from)
}

fn optional<'a, T>(
    object: &'a Map<String, Value>,
    names: &[&'static str],
    read: impl Fn(&'static str, &'a Value) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    names
        .iter()
        .find_map(|name| Some((*name, object.get(*name).filter(|value| !value.is_null())?)))
        .map(|(name, value)| read(name, value))
        .transpose()
}

fn wrong_type(field: &str, expected: &'static str, got: &Value) -> DecodeError {
    DecodeError::WrongType {
        field: field.to_owned(),
        expected,
        got: excerpt(got),
    }
}

fn text<'a>(name: &str, value: &'a Value) -> Result<Cow<'a, str>, DecodeError> {
    match value {
        Value::String(text) => Ok(text.into()),
        other => Err(wrong_type(name, "text", other)),
    }
}

/// Ids and labels may be integers, labels booleans as well.
fn scalar<'a>(name: &str, value: &'a Value) -> Result<Cow<'a, str>, DecodeError> {
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Bool(flag) if name != "id" => Ok(flag.to_string().into()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string().into()),
        other => Err(wrong_type(name, "text or an integer", other)),
    }
}

fn embedding(name: &str, value: &Value) -> Result<Vec<f32>, DecodeError> {
    let expected = "an array of numbers";
    let Value::Array(values) = value else {
        return Err(wrong_type(name, expected, value));
    };
    let mut embedding = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let number = value.as_f64().ok_or_else(|| {
            DecodeError::BadEmbedding(format!(
                "has {} at index {index}; every value must be a finite number",
                excerpt(value)
            ))
        })?;
        embedding.push(number as f32);
    }
    Ok(embedding)
}

fn timestamp(_: &str, value: &Value) -> Result<DateTime<Utc>, DecodeError> {
    let time = match value {
        Value::String(text) => rfc3339(text),
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|ms| ms as i64))
            .and_then(DateTime::from_timestamp_millis),
        _ => None,
    };
    time.ok_or_else(|| DecodeError::BadTimestamp(excerpt(value)))
}

fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text.trim()).ok()?;
    Some(time.with_timezone(&Utc))
}

fn metadata(name: &str, value: &Value) -> Result<BTreeMap<String, String>, DecodeError> {
    let Value::Object(entries) = value else {
        return Err(wrong_type(name, "an object", value));
    };
    Ok(entries
        .iter()
        .map(|(key, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (key.clone(), text)
        })
        .collect())
}

/// Takes the echo as this crate writes it, and as protobuf's JSON mapping does:
/// `pipelineVersion` as a string, `DECISION_HANDLED`, zero values left out.
pub(crate) fn routing(name: &str, value: &Value) -> Result<Routing, DecodeError> {
    let Value::Object(object) = value else {
        return Err(wrong_type(name, "an object", value));
    };
    let bad = |field: &'static str, expected: &'static str| {
        move |got: &Value| DecodeError::BadRouting {
            field,
            detail: format!("must be {expected}, but is {}", excerpt(got)),
        }
    };
    let version = optional(
        object,
        &["pipeline_version", "pipelineVersion"],
        |_, value| {
            value
                .as_u64()
                .or_else(|| value.as_str()?.parse().ok())
                .ok_or_else(|| bad("pipeline_version", "a whole number")(value))
        },
    )?;
    let decision = optional(object, &["decision"], |_, value| {
        match (value.as_str(), value.as_u64()) {
            (Some("handled" | "DECISION_HANDLED"), _) | (_, Some(1)) => Ok(Decision::Handled),
            (Some("deferred" | "DECISION_DEFERRED"), _) | (_, Some(2)) => Ok(Decision::Deferred),
            _ => Err(bad("decision", "\"handled\" or \"deferred\"")(value)),
        }
    })?;
    let label = optional(object, &["label"], |_, value| {
        let label = value.as_str().map(ToOwned::to_owned);
        label.ok_or_else(|| bad("label", "text")(value))
    })?;
    let score = optional(object, &["score"], |_, value| {
        let score = value.as_f64().map(|score| score as f32);
        score.ok_or_else(|| bad("score", "a number")(value))
    })?;
    let audit = optional(object, &["audit"], |_, value| {
        value
            .as_bool()
            .ok_or_else(|| bad("audit", "true or false")(value))
    })?;
    let propensity = optional(object, &["propensity"], |_, value| {
        value
            .as_f64()
            .ok_or_else(|| bad("propensity", "a number")(value))
    })?;
    let decision = decision.ok_or_else(|| DecodeError::BadRouting {
        field: "decision",
        detail: "is missing".to_owned(),
    })?;
    Ok(Routing {
        pipeline_version: version.unwrap_or(0),
        decision,
        label,
        score,
        audit: audit.unwrap_or(false),
        propensity: propensity.unwrap_or(0.0),
    })
}

/// A trace as the JSON object that [`crate::decode`] reads back unchanged.
/// Absent fields, and an id that is empty, are left out.
pub fn to_json(trace: &Trace) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    if !trace.id.is_empty() {
        put("id", trace.id.as_str().into());
    }
    put("task", trace.task.as_str().into());
    if let Some(input) = &trace.input {
        put("input", input.as_str().into());
    }
    if let Some(embedding) = &trace.embedding {
        put(
            "embedding",
            embedding.iter().map(|value| number(*value)).collect(),
        );
    }
    if let Some(embedder) = &trace.embedder {
        put("embedder", embedder.as_str().into());
    }
    put("teacher", trace.teacher.as_str().into());
    if let Some(label) = &trace.ground_truth {
        put("ground_truth", label.as_str().into());
    }
    if let Some(time) = &trace.timestamp {
        put(
            "timestamp",
            time.to_rfc3339_opts(SecondsFormat::Millis, true).into(),
        );
    }
    if !trace.metadata.is_empty() {
        let entries = trace
            .metadata
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
        put("metadata", Value::Object(entries.collect()));
    }
    if let Some(routing) = &trace.routing {
        put("routing", routing_to_json(routing));
    }
    Value::Object(object)
}

/// [`to_json`] as the bytes of one line, without the newline.
pub fn to_json_line(trace: &Trace) -> Vec<u8> {
    to_json(trace).to_string().into_bytes()
}

fn routing_to_json(routing: &Routing) -> Value {
    let mut object = Map::new();
    let decision = match routing.decision {
        Decision::Handled => "handled",
        Decision::Deferred => "deferred",
    };
    object.insert(
        "pipeline_version".to_owned(),
        routing.pipeline_version.into(),
    );
    object.insert("decision".to_owned(), decision.into());
    if let Some(label) = &routing.label {
        object.insert("label".to_owned(), label.as_str().into());
    }
    if let Some(score) = routing.score {
        object.insert("score".to_owned(), number(score));
    }
    object.insert("audit".to_owned(), routing.audit.into());
    object.insert("propensity".to_owned(), routing.propensity.into());
    Value::Object(object)
}

/// The shortest decimal of a single-precision number: 0.1, not
/// 0.10000000149011612, provided that it reads back as the same number.
fn number(value: f32) -> Value {
    match value.to_string().parse::<f64>() {
        Ok(short) if short as f32 == value => short.into(),
        _ => f64::from(value).into(),
    }
}
