//! What can be wrong with a payload.

use crate::InvalidTaskName;

/// Why a payload is not a valid trace. Every message names the field, and the
/// value where it helps; long values are cut.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The payload has no bytes but white space.
    #[error("the payload is empty")]
    EmptyPayload,
    /// The payload is longer than allowed; it was not decoded.
    #[error("the payload has {bytes} bytes; at most {max} are allowed")]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not a JSON object.
    #[error("malformed JSON: {0}")]
    MalformedJson(String),
    /// Not a `tracer.v1.Trace`.
    #[error("malformed protobuf: {0}")]
    MalformedProtobuf(String),
    /// A field of another type than it must have.
    #[error("field {field:?} must be {expected}, but is {got}")]
    WrongType {
        /// The field, as it is called in the payload.
        field: String,
        /// What it must be.
        expected: &'static str,
        /// The beginning of what it is.
        got: String,
    },
    /// Neither text nor an embedding.
    #[error("field \"input\" is missing or blank, and there is no embedding")]
    MissingInput,
    /// No label.
    #[error("field \"teacher\" is missing")]
    MissingLabel,
    /// A label of white space.
    #[error("field {field:?} is blank: a label must not be empty")]
    EmptyLabel {
        /// The field, as it is called in the payload.
        field: String,
    },
    /// A task name that is not allowed.
    #[error("field \"task\": {0}")]
    InvalidTask(#[from] InvalidTaskName),
    /// A field that is longer than allowed.
    #[error("field {field:?} has {size} {unit}; at most {max} are allowed")]
    TooLarge {
        /// The canonical field name.
        field: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// An embedding that is empty, too long or not finite.
    #[error("field \"embedding\" {0}")]
    BadEmbedding(String),
    /// A time that is neither RFC 3339 nor epoch milliseconds of the years 1 to 9999.
    #[error(
        "field \"timestamp\" must be RFC 3339 or epoch milliseconds in the years 1 to 9999, but is {0}"
    )]
    BadTimestamp(String),
    /// A routing echo that no router can have sent.
    #[error("field \"routing.{field}\" {detail}")]
    BadRouting {
        /// The field within the echo.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl DecodeError {
    /// Every value [`DecodeError::reason`] can have.
    pub const REASONS: &'static [&'static str] = &[
        "bad_embedding",
        "bad_routing",
        "bad_timestamp",
        "empty_label",
        "empty_payload",
        "id_too_large",
        "input_too_large",
        "invalid_task",
        "label_too_large",
        "malformed_json",
        "malformed_protobuf",
        "metadata_too_large",
        "missing_input",
        "missing_label",
        "payload_too_large",
        "wrong_type",
    ];

    /// A short name of the kind of error, from a bounded set: a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::EmptyPayload => "empty_payload",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::MalformedJson(_) => "malformed_json",
            Self::MalformedProtobuf(_) => "malformed_protobuf",
            Self::WrongType { .. } => "wrong_type",
            Self::MissingInput => "missing_input",
            Self::MissingLabel => "missing_label",
            Self::EmptyLabel { .. } => "empty_label",
            Self::InvalidTask(_) => "invalid_task",
            Self::TooLarge { field, .. } => match *field {
                "input" => "input_too_large",
                "id" => "id_too_large",
                "teacher" | "ground_truth" => "label_too_large",
                _ => "metadata_too_large",
            },
            Self::BadEmbedding(_) => "bad_embedding",
            Self::BadTimestamp(_) => "bad_timestamp",
            Self::BadRouting { .. } => "bad_routing",
        }
    }
}

/// The beginning of a value, for an error message.
pub(crate) fn excerpt(value: &impl ToString) -> String {
    const MAX_CHARS: usize = 64;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
