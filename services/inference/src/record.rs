//! `Record`: publishes a trace for callers without a client of the log.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use tonic::{Code, Status};
use tracer_proto::v1;
use tracer_source::{LogWriter, Message};
use tracer_telemetry::TraceContext;
use tracer_trace::{DecodeError, Limits, Origin, TopicName, from_proto, to_json_line};

use crate::{metrics::Rejection, status};

/// The log that recorded traces go to.
#[derive(Clone)]
pub struct Recorder {
    /// Its writer.
    pub writer: Arc<dyn LogWriter>,
    /// The topic of traces.
    pub topic: TopicName,
}

/// Why a trace was not recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("trace is missing")]
    NoTrace,
    #[error("trace: {0}")]
    Invalid(#[from] DecodeError),
    #[error("no source is configured that traces could be recorded to")]
    NoWriter,
    #[error("the trace was not recorded: {0}")]
    Log(String),
}

impl RecordError {
    /// The word under which it is counted.
    pub(crate) fn rejection(&self) -> Rejection {
        match self {
            Self::NoTrace | Self::Invalid(_) => Rejection::InvalidTrace,
            Self::NoWriter => Rejection::NoWriter,
            Self::Log(_) => Rejection::LogUnavailable,
        }
    }
}

impl RecordError {
    /// The path of the field in the request.
    fn field(&self) -> String {
        let field = match self {
            Self::Invalid(error) => match error {
                DecodeError::WrongType { field, .. } | DecodeError::EmptyLabel { field } => {
                    field.as_str()
                }
                DecodeError::TooLarge { field, .. } => field,
                DecodeError::MissingInput => "input",
                DecodeError::MissingLabel => "teacher",
                DecodeError::InvalidTask(_) => "task",
                DecodeError::BadEmbedding(_) => "embedding",
                _ => "",
            },
            _ => "",
        };
        if field.is_empty() {
            "trace".to_owned()
        } else {
            format!("trace.{field}")
        }
    }
}

impl From<RecordError> for Status {
    fn from(error: RecordError) -> Self {
        let (rejection, message) = (error.rejection(), error.to_string());
        let code = match &error {
            RecordError::NoTrace | RecordError::Invalid(_) => {
                return status::bad_field(rejection, error.field(), message);
            }
            RecordError::NoWriter => Code::FailedPrecondition,
            RecordError::Log(_) => Code::Unavailable,
        };
        status::refusal(code, rejection, message)
    }
}

/// Validates a trace exactly as the aggregator will, appends it, and answers
/// once it is durable.
///
/// A trace without a time gets this one's: not every log stamps its records. One that
/// comes within a caller's span gets that one's ids as metadata, by the names that
/// OpenTelemetry has for logs outside OTLP, unless the caller sends these itself.
pub(crate) async fn record(
    recorder: Option<&Recorder>,
    request: v1::RecordRequest,
    context: Option<&TraceContext>,
    limits: &Limits,
) -> Result<v1::RecordResponse, RecordError> {
    let mut trace = from_proto(request.trace.ok_or(RecordError::NoTrace)?, None, limits)?;
    let recorder = recorder.ok_or(RecordError::NoWriter)?;
    trace.timestamp.get_or_insert_with(now);
    if let Some(context) = context {
        put_context(&mut trace.metadata, context, limits);
    }
    let payload = to_json_line(&trace);
    if payload.len() > limits.max_payload_bytes {
        return Err(RecordError::Invalid(DecodeError::PayloadTooLarge {
            bytes: payload.len(),
            max: limits.max_payload_bytes,
        }));
    }
    let (partition, offset) = recorder
        .writer
        .append(&recorder.topic, Message::new(payload))
        .await
        .map_err(|error| RecordError::Log(error.to_string()))?;
    let origin = Origin {
        topic: partition.topic.as_str(),
        partition: partition.partition,
        offset: offset.get(),
        timestamp_ms: None,
    };
    let id = if trace.id.is_empty() {
        origin.derived_id()
    } else {
        trace.id
    };
    Ok(v1::RecordResponse {
        id,
        topic: partition.topic.as_str().to_owned(),
        partition: partition.partition,
        offset: offset.get(),
    })
}

/// Says in a trace's metadata which span of the caller's it comes from, as far as there is
/// room: the trace goes through the same bounds once more when it is read.
fn put_context(metadata: &mut BTreeMap<String, String>, context: &TraceContext, limits: &Limits) {
    // A span without its trace is none.
    if ["trace_id", "span_id"]
        .iter()
        .any(|key| metadata.contains_key(*key))
    {
        return;
    }
    let ids = [
        ("trace_id", format!("{:032x}", context.trace_id())),
        ("span_id", format!("{:016x}", context.span_id())),
        ("trace_flags", format!("{:02x}", context.flags())),
    ];
    let state = context
        .state()
        .map(|state| ("trace_state", state.to_owned()));
    for group in [ids.to_vec(), state.into_iter().collect()] {
        let bytes = |(key, value): (&str, &str)| key.len() + value.len();
        let held = metadata.iter().map(|(key, value)| bytes((key, value)));
        let more = group.iter().map(|(key, value)| bytes((key, value)));
        let fits = metadata.len() + group.len() <= limits.max_metadata_entries
            && held.chain(more).sum::<usize>() <= limits.max_metadata_bytes;
        if !fits {
            return;
        }
        for (key, value) in group {
            metadata.entry(key.to_owned()).or_insert(value);
        }
    }
}

/// To the millisecond, as times are stored.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap_or_default()
}
