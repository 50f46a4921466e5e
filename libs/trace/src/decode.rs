//! From a payload to a validated trace.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Limits, Trace, json, protobuf};

/// Where a payload stood in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset of the record.
    pub offset: u64,
    /// The record's own time in epoch milliseconds, used when the trace has none.
    pub timestamp_ms: Option<i64>,
}

impl Origin<'_> {
    /// The id of a trace that came without one. The same payload read again
    /// from the same place gets the same id.
    pub fn derived_id(&self) -> String {
        format!("{}-{}-{}", self.topic, self.partition, self.offset)
    }
}

/// The encoding of payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON when the first byte that is not white space is `{`, protobuf otherwise.
    #[default]
    Auto,
    /// One JSON object.
    Json,
    /// A `tracer.v1.Trace`.
    Protobuf,
}

/// Decodes and validates one payload.
pub fn decode(
    payload: &[u8],
    origin: &Origin<'_>,
    format: Format,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    if payload.len() > limits.max_payload_bytes {
        return Err(DecodeError::PayloadTooLarge {
            bytes: payload.len(),
            max: limits.max_payload_bytes,
        });
    }
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Err(DecodeError::EmptyPayload);
    }
    match format {
        Format::Json => json::decode(payload, Some(origin), limits),
        Format::Protobuf => protobuf::decode(payload, Some(origin), limits),
        Format::Auto => decode_auto(payload, origin, limits),
    }
}

fn decode_auto(payload: &[u8], origin: &Origin<'_>, limits: &Limits) -> Result<Trace, DecodeError> {
    let first = payload.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'{') {
        return match json::decode(payload, Some(origin), limits) {
            // A protobuf trace with an id starts with the byte of '\n', and the
            // length of the id may be the byte of '{'.
            Err(error @ DecodeError::MalformedJson(_)) if payload[0] != b'{' => {
                protobuf::decode(payload, Some(origin), limits).map_err(|_| error)
            }
            decoded => decoded,
        };
    }
    protobuf::decode(payload, Some(origin), limits).map_err(|error| match error {
        // Whoever sent text meant JSON.
        DecodeError::MalformedProtobuf(_) if is_text(payload) => {
            DecodeError::MalformedJson("the payload is text, but not a JSON object".to_owned())
        }
        error => error,
    })
}

fn is_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()))
}
