//! From a payload to a validated trace.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoded, Decoder, Limits, OtlpConfig, Trace, json, protobuf};

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
    /// What the payload is by its content; [`Decoder`] has the rules.
    #[default]
    Auto,
    /// One JSON object.
    Json,
    /// A `tracer.v1.Trace`.
    Protobuf,
    /// Framed as Confluent's serializers do, and in the frame what [`Format::Auto`] takes.
    Confluent,
    /// OpenTelemetry's spans in OTLP's JSON.
    OtlpJson,
    /// OpenTelemetry's spans: an `ExportTraceServiceRequest`, or `TracesData`.
    OtlpProto,
}

/// Decodes and validates a payload that is one trace; spans are read by the defaults.
pub fn decode(
    payload: &[u8],
    origin: &Origin<'_>,
    format: Format,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    check_size(payload, limits)?;
    match format {
        Format::Json => return json::decode(payload, Some(origin), limits),
        Format::Protobuf => return protobuf::decode(payload, Some(origin), limits),
        _ => {}
    }
    let mut decoded = Decoded::default();
    let decoder = Decoder::new(limits.clone(), OtlpConfig::default());
    decoder.decode(payload, origin, format, &mut decoded)?;
    if let Some(rejected) = decoded.rejected.pop() {
        return Err(rejected.error);
    }
    match decoded.traces.pop() {
        Some(trace) if decoded.traces.is_empty() => Ok(trace),
        Some(_) => Err(DecodeError::NotOneTrace(decoded.traces.len() + 1)),
        None => Err(DecodeError::NotOneTrace(0)),
    }
}

pub(crate) fn check_size(payload: &[u8], limits: &Limits) -> Result<(), DecodeError> {
    if payload.len() > limits.max_payload_bytes {
        return Err(DecodeError::PayloadTooLarge {
            bytes: payload.len(),
            max: limits.max_payload_bytes,
        });
    }
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Err(DecodeError::EmptyPayload);
    }
    Ok(())
}
