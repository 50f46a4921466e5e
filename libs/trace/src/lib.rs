//! The trace: one call of a teacher, as every part of Tracer sees it.
//!
//! Payloads enter through a [`Decoder`], or through [`decode()`] where one is one trace,
//! which validates everything once, at the
//! edge, under [`Limits`]. Behind it a [`Trace`] can be trusted: its task name is
//! well formed, its label is not empty, its numbers are finite and its sizes
//! are bounded.

mod confluent;
mod cost;
mod decode;
mod decoder;
mod draft;
mod error;
mod json;
mod limits;
mod name;
mod otlp;
pub mod parquet_schema;
pub mod position;
mod protobuf;
mod rows;
mod task;
mod types;
mod view;
mod wire;
mod withheld;

pub use cost::{TeacherPrice, TokenUsage};
pub use decode::{Format, Origin, decode};
pub use decoder::{Decoded, Decoder, Rejected};
pub use draft::BorrowedTrace;
pub use error::{BadSpans, DecodeError};
pub use json::{to_json, to_json_line};
pub use limits::Limits;
pub use otlp::{InvalidOtlpConfig, OtlpConfig, SkipReason, TaskFallback};
pub use parquet_schema::StoredTrace;
pub use position::{InvalidTopicName, Offset, OffsetRange, PartitionId, TopicName};
pub use protobuf::{from_proto, to_protobuf};
pub use rows::Rows;
pub use task::{InvalidTaskName, TaskName};
pub use types::{Decision, Routing, Trace};
pub use view::TraceView;
pub use withheld::WithheldInput;
