//! What is refused, before anything is decided.

use tonic::Status;
use tracer_learn::first_not_finite;
use tracer_proto::v1;
use tracer_trace::{InvalidTaskName, Limits, TaskName};

use crate::{metrics::Rejection, status};

/// Why a request is refused. Every message names the field, and the value and
/// the limit where there is one.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("task: {0}")]
    Task(#[from] InvalidTaskName),
    #[error("{field}: neither text nor an embedding was sent")]
    MissingInput { field: String },
    #[error("{field}.text has {bytes} bytes; at most {max} are allowed")]
    TextTooLarge {
        field: String,
        bytes: usize,
        max: usize,
    },
    #[error("request_id has {bytes} bytes; at most {max} are allowed")]
    RequestIdTooLarge { bytes: usize, max: usize },
    #[error("{field}.embedding has {len} values; at most {max} are allowed")]
    EmbeddingTooLong {
        field: String,
        len: usize,
        max: usize,
    },
    #[error("{field}.embedding has {value} at index {index}; every value must be finite")]
    NotFinite {
        field: String,
        index: usize,
        value: f32,
    },
    #[error(
        "{field}.embedding has {got} values; version {version} of task {task} takes {expected}"
    )]
    WrongDimension {
        field: String,
        task: TaskName,
        version: u64,
        got: usize,
        expected: usize,
    },
    #[error("inputs has {len} entries; at most {max} are allowed")]
    BatchTooLarge { len: usize, max: usize },
    #[error("top_k is {top_k}; at most {MAX_TOP_K} are allowed")]
    BadTopK { top_k: u32 },
}

/// Labels that one answer may list. An answer must stay small beside its question.
pub(crate) const MAX_TOP_K: u32 = 100;

impl Invalid {
    /// The word under which it is counted.
    pub(crate) fn rejection(&self) -> Rejection {
        match self {
            Self::Task(_) => Rejection::InvalidTask,
            Self::MissingInput { .. } => Rejection::MissingInput,
            Self::TextTooLarge { .. } => Rejection::InputTooLarge,
            Self::RequestIdTooLarge { .. } => Rejection::RequestIdTooLarge,
            Self::EmbeddingTooLong { .. } | Self::NotFinite { .. } => Rejection::BadEmbedding,
            Self::WrongDimension { .. } => Rejection::WrongDimension,
            Self::BatchTooLarge { .. } => Rejection::BatchTooLarge,
            Self::BadTopK { .. } => Rejection::BadTopK,
        }
    }

    /// The path of the field in the request.
    fn field(&self) -> String {
        match self {
            Self::Task(_) => "task".to_owned(),
            Self::MissingInput { field } => field.clone(),
            Self::TextTooLarge { field, .. } => format!("{field}.text"),
            Self::RequestIdTooLarge { .. } => "request_id".to_owned(),
            Self::EmbeddingTooLong { field, .. }
            | Self::NotFinite { field, .. }
            | Self::WrongDimension { field, .. } => format!("{field}.embedding"),
            Self::BatchTooLarge { .. } => "inputs".to_owned(),
            Self::BadTopK { .. } => "top_k".to_owned(),
        }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        status::bad_field(invalid.rejection(), invalid.field(), invalid.to_string())
    }
}

/// Where an input stands in its request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Single,
    Batch(usize),
}

impl Place {
    /// The path of the input's field, made only for an error.
    pub(crate) fn field(self) -> String {
        match self {
            Self::Single => "input".to_owned(),
            Self::Batch(index) => format!("inputs[{index}]"),
        }
    }
}

/// The task's name as it is answered.
pub(crate) fn task_name(name: &str) -> Result<TaskName, Invalid> {
    if name.is_empty() {
        Ok(TaskName::default())
    } else {
        Ok(TaskName::new(name)?)
    }
}

/// Checks what can be checked without a pipeline. Text of white space only is
/// no text.
pub(crate) fn input(input: &v1::Input, place: Place, limits: &Limits) -> Result<(), Invalid> {
    if input.embedding.is_empty() && input.text.trim().is_empty() {
        return Err(Invalid::MissingInput {
            field: place.field(),
        });
    }
    if input.text.len() > limits.max_input_bytes {
        return Err(Invalid::TextTooLarge {
            field: place.field(),
            bytes: input.text.len(),
            max: limits.max_input_bytes,
        });
    }
    if input.embedding.len() > limits.max_embedding_dimension {
        return Err(Invalid::EmbeddingTooLong {
            field: place.field(),
            len: input.embedding.len(),
            max: limits.max_embedding_dimension,
        });
    }
    match first_not_finite(&input.embedding) {
        Some(index) => Err(Invalid::NotFinite {
            field: place.field(),
            index,
            value: input.embedding[index],
        }),
        None => Ok(()),
    }
}

/// Checks how many labels are asked for.
pub(crate) fn top_k(top_k: u32) -> Result<usize, Invalid> {
    if top_k > MAX_TOP_K {
        return Err(Invalid::BadTopK { top_k });
    }
    Ok(top_k as usize)
}

/// Checks the caller's identifier of the request.
pub(crate) fn request_id(id: &str, limits: &Limits) -> Result<(), Invalid> {
    if id.len() > limits.max_id_bytes {
        return Err(Invalid::RequestIdTooLarge {
            bytes: id.len(),
            max: limits.max_id_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, embedding: &[f32], place: Place) -> String {
        let message = v1::Input {
            text: text.to_owned(),
            embedding: embedding.to_vec(),
            embedder: String::new(),
        };
        let limits = Limits {
            max_input_bytes: 8,
            max_embedding_dimension: 3,
            ..Limits::default()
        };
        match input(&message, place, &limits) {
            Ok(()) => String::new(),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn names_the_field_the_value_and_the_limit() {
        let single = Place::Single;
        assert_eq!(refused("hello", &[], single), "");
        assert_eq!(refused("", &[1.0, 2.0], single), "");
        assert_eq!(
            refused(" \n", &[], single),
            "input: neither text nor an embedding was sent"
        );
        assert_eq!(
            refused("far too long", &[], Place::Batch(3)),
            "inputs[3].text has 12 bytes; at most 8 are allowed"
        );
        assert_eq!(
            refused("", &[0.0; 4], single),
            "input.embedding has 4 values; at most 3 are allowed"
        );
        assert_eq!(
            refused("hello", &[0.0, f32::NAN], single),
            "input.embedding has NaN at index 1; every value must be finite"
        );
        assert_eq!(
            refused("hello", &[f32::NEG_INFINITY], Place::Batch(0)),
            "inputs[0].embedding has -inf at index 0; every value must be finite"
        );
    }

    #[test]
    fn the_empty_task_is_the_default_one() {
        assert_eq!(task_name("").unwrap(), TaskName::default());
        let error = task_name("a/b").unwrap_err().to_string();
        assert!(
            error.starts_with(r#"task: invalid task name "a/b""#),
            "{error}"
        );
    }
}
