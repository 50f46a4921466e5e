//! Payloads that are not traces, with where they came from and what is wrong.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use tracer_source::{Message, Record};
use tracer_trace::DecodeError;

/// Bytes of a payload that fit into a message of the default size limit of
/// Kafka's clients, with headers. A payload can only be longer where the limits
/// of the topics differ; its beginning is kept then.
const MAX_BYTES: usize = 960_000;

/// A line of the spool has no headers: everything is in the object.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: u64,
    timestamp_ms: Option<i64>,
    reason: &'static str,
    error: String,
    payload_bytes: usize,
    payload_base64: String,
}

/// The message for a rejected record: the payload itself with headers, or where
/// the log keeps lines one JSON object with the payload in base64.
pub(crate) fn message(record: &Record, error: &DecodeError, as_line: bool) -> Message {
    let topic = record.partition.topic.as_str();
    let partition = record.partition.partition;
    let key = Bytes::from(record.partition.to_string());
    if as_line {
        let line = Line {
            topic,
            partition,
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
            reason: error.reason(),
            error: error.to_string(),
            payload_bytes: record.payload.len(),
            payload_base64: BASE64_STANDARD.encode(&record.payload),
        };
        // Numbers and text always become JSON.
        let line = serde_json::to_vec(&line).unwrap_or_default();
        return Message::new(line).with_key(key);
    }
    let kept = record.payload.len().min(MAX_BYTES);
    let headers = [
        ("tracer.topic", topic.to_owned()),
        ("tracer.partition", partition.to_string()),
        ("tracer.offset", record.offset.to_string()),
        ("tracer.reason", error.reason().to_owned()),
        ("tracer.error", error.to_string()),
        ("tracer.payload_bytes", record.payload.len().to_string()),
    ];
    Message {
        key: Some(key),
        // A copy: the record's bytes may share a large allocation with others.
        payload: Bytes::copy_from_slice(&record.payload[..kept]),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Bytes::from(value)))
            .collect(),
    }
}
