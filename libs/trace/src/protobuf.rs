//! Traces as `tracer.v1.Trace`.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use prost::Message as _;
use tracer_proto::v1;

use crate::{Decision, DecodeError, Limits, Routing, Trace, decode::Origin, draft::Draft};

pub(crate) fn decode(
    payload: &[u8],
    origin: Option<&Origin<'_>>,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    let message = v1::Trace::decode(payload)
        .map_err(|error| DecodeError::MalformedProtobuf(error.to_string()))?;
    from_proto(message, origin, limits)
}

/// Validates a protobuf trace. Without an origin a missing id stays empty and a
/// missing time stays missing.
pub fn from_proto(
    message: v1::Trace,
    origin: Option<&Origin<'_>>,
    limits: &Limits,
) -> Result<Trace, DecodeError> {
    let draft = Draft {
        id: Some(message.id.into()),
        task: Some(message.task.into()),
        input: Some(message.input.into()),
        embedding: Some(message.embedding).filter(|values| !values.is_empty()),
        embedder: Some(message.embedder.into()),
        // An absent text is the empty text in proto3.
        teacher: Some(("teacher", message.teacher.into())),
        ground_truth: message.ground_truth.map(Cow::Owned),
        timestamp: message.timestamp.map(timestamp).transpose()?,
        metadata: message.metadata.into_iter().collect(),
        routing: message.routing.map(Routing::try_from).transpose()?,
    };
    draft.finish(origin, limits).map(Trace::from)
}

fn timestamp(time: prost_types::Timestamp) -> Result<DateTime<Utc>, DecodeError> {
    u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos))
        .ok_or_else(|| {
            DecodeError::BadTimestamp(format!("{} s and {} ns", time.seconds, time.nanos))
        })
}

impl TryFrom<v1::Trace> for Trace {
    type Error = DecodeError;

    /// Validates under the default limits, without an origin.
    fn try_from(message: v1::Trace) -> Result<Self, Self::Error> {
        from_proto(message, None, &Limits::default())
    }
}

impl TryFrom<v1::Routing> for Routing {
    type Error = DecodeError;

    /// Checks the decision only; the rest is validated with the trace.
    fn try_from(message: v1::Routing) -> Result<Self, Self::Error> {
        let decision = match v1::Decision::try_from(message.decision) {
            Ok(v1::Decision::Handled) => Decision::Handled,
            Ok(v1::Decision::Deferred) => Decision::Deferred,
            _ => {
                return Err(DecodeError::BadRouting {
                    field: "decision",
                    detail: format!("must be handled or deferred, but is {}", message.decision),
                });
            }
        };
        Ok(Self {
            pipeline_version: message.pipeline_version,
            decision,
            label: message.label,
            score: message.score,
            audit: message.audit,
            propensity: message.propensity,
        })
    }
}

impl From<&Routing> for v1::Routing {
    fn from(routing: &Routing) -> Self {
        Self {
            pipeline_version: routing.pipeline_version,
            decision: v1::Decision::from(routing.decision).into(),
            label: routing.label.clone(),
            score: routing.score,
            audit: routing.audit,
            propensity: routing.propensity,
        }
    }
}

impl From<Decision> for v1::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Handled => Self::Handled,
            Decision::Deferred => Self::Deferred,
        }
    }
}

impl From<&Trace> for v1::Trace {
    fn from(trace: &Trace) -> Self {
        Self {
            id: trace.id.clone(),
            task: trace.task.as_str().to_owned(),
            input: trace.input.clone().unwrap_or_default(),
            embedding: trace.embedding.clone().unwrap_or_default(),
            teacher: trace.teacher.clone(),
            ground_truth: trace.ground_truth.clone(),
            timestamp: trace.timestamp.map(|time| prost_types::Timestamp {
                seconds: time.timestamp(),
                nanos: time.timestamp_subsec_nanos() as i32,
            }),
            metadata: trace.metadata.clone().into_iter().collect(),
            routing: trace.routing.as_ref().map(v1::Routing::from),
            embedder: trace.embedder.clone().unwrap_or_default(),
        }
    }
}

/// A trace as the protobuf payload that [`crate::decode`] reads back unchanged.
pub fn to_protobuf(trace: &Trace) -> Vec<u8> {
    v1::Trace::from(trace).encode_to_vec()
}
