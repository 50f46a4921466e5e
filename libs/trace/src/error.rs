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
    /// Not framed as Confluent's serializers do.
    #[error("malformed frame: {0}")]
    MalformedFrame(String),
    /// Not OpenTelemetry's spans, or a span that is not one.
    #[error("malformed OTLP: {0}")]
    MalformedOtlp(String),
    /// A record of other than one trace, where one was asked for.
    #[error("the record has {0} traces, not one")]
    NotOneTrace(usize),
    /// Spans of a record that are no traces for one kind of reason.
    #[error("{0}")]
    Spans(BadSpans),
    /// An answer of a model in which no label was found.
    #[error("no label: {0}")]
    BadLabel(String),
    /// What is wrong, of a payload about which nothing more may be said.
    #[error("{0}; the details are withheld, as store_input asks")]
    Withheld(&'static str),
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
        "bad_label",
        "bad_routing",
        "bad_timestamp",
        "empty_label",
        "empty_payload",
        "id_too_large",
        "input_too_large",
        "invalid_task",
        "label_too_large",
        "malformed_frame",
        "malformed_json",
        "malformed_otlp",
        "malformed_protobuf",
        "metadata_too_large",
        "missing_input",
        "missing_label",
        "not_one_trace",
        "payload_too_large",
        "span_too_large",
        "too_many_spans",
        "wrong_type",
    ];

    /// A short name of the kind of error, from a bounded set: a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::EmptyPayload => "empty_payload",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::MalformedJson(_) => "malformed_json",
            Self::MalformedProtobuf(_) => "malformed_protobuf",
            Self::MalformedFrame(_) => "malformed_frame",
            Self::MalformedOtlp(_) => "malformed_otlp",
            Self::NotOneTrace(_) => "not_one_trace",
            Self::Spans(bad) => match bad.named.first() {
                Some((_, error)) => error.reason(),
                None => "malformed_otlp",
            },
            Self::BadLabel(_) => "bad_label",
            Self::Withheld(reason) => reason,
            Self::WrongType { .. } => "wrong_type",
            Self::MissingInput => "missing_input",
            Self::MissingLabel => "missing_label",
            Self::EmptyLabel { .. } => "empty_label",
            Self::InvalidTask(_) => "invalid_task",
            Self::TooLarge { field, .. } => match *field {
                "input" => "input_too_large",
                "id" => "id_too_large",
                "teacher" | "ground_truth" => "label_too_large",
                "attributes" => "span_too_large",
                "spans" => "too_many_spans",
                _ => "metadata_too_large",
            },
            Self::BadEmbedding(_) => "bad_embedding",
            Self::BadTimestamp(_) => "bad_timestamp",
            Self::BadRouting { .. } => "bad_routing",
        }
    }
}

/// Spans that are no traces.
#[derive(Clone, Debug, PartialEq)]
pub struct BadSpans {
    /// How many.
    pub count: usize,
    /// The first of them: the span's id, and what is wrong with it.
    pub named: Vec<(String, DecodeError)>,
}

impl std::fmt::Display for BadSpans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (id, error)) in self.named.iter().enumerate() {
            let between = if index > 0 { "; " } else { "" };
            write!(f, "{between}span {id}: {error}")?;
        }
        match self.count.saturating_sub(self.named.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more spans"),
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
