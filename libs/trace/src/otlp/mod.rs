//! OpenTelemetry spans of calls to a language model, as traces.
//!
//! One record of the Collector's Kafka exporter carries many spans. One that is no call
//! of a classifier is passed over and counted; one that should be a trace and is none
//! is rejected with its id, and the others of its record are not affected. Both
//! encodings end in one [`span::Span`], and the conventions of the attributes are in
//! [`gen_ai`].

mod carrier;
mod config;
mod gen_ai;
mod json;
mod label;
mod proto;
mod read;
mod span;

use serde_json::Value;

pub(crate) use self::json::RESOURCE_SPANS;
pub use self::{
    carrier::SkipReason,
    config::{InvalidOtlpConfig, OtlpConfig, TaskFallback},
};
use crate::{DecodeError, Decoded, Limits, Origin};

const SERVICE_NAME: &str = "service.name";

/// What a record is read under.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a OtlpConfig,
    pub(crate) limits: &'a Limits,
    pub(crate) origin: &'a Origin<'a>,
    /// What stands before the payload in its record: a frame.
    pub(crate) head: &'a [u8],
}

/// Reads an `ExportTraceServiceRequest`.
pub(crate) fn from_proto(
    payload: &[u8],
    context: &Context<'_>,
    out: &mut Decoded,
) -> Result<(), DecodeError> {
    let request = proto::Request::read(payload, context.config.max_spans_per_record)?;
    carrier::read(&request, context, out);
    Ok(())
}

/// Reads the same in OTLP's JSON.
pub(crate) fn from_json(
    payload: &Value,
    context: &Context<'_>,
    out: &mut Decoded,
) -> Result<(), DecodeError> {
    let request = json::Request::read(payload, context.config.max_spans_per_record)?;
    carrier::read(&request, context, out);
    Ok(())
}

/// The short names by which events call what they hold.
fn is_content(key: &str) -> bool {
    matches!(key, "content" | "role" | "message")
}
