//! A span as either encoding has it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::DecodeError;

/// Attributes by their keys: those that can matter.
pub(super) type Attributes = BTreeMap<String, Value>;

/// Attributes of a span, an event or a resource that are looked at. SDKs stop at 128
/// unless told otherwise; long chats that are flattened have more.
pub(super) const MOST_ATTRIBUTES: usize = 4096;

/// Events of a span that are looked at.
pub(super) const MOST_EVENTS: usize = 1024;

/// A value nested deeper is malformed.
pub(super) const DEEPEST: usize = 32;

/// What matters of a span. The ids are in lower-case hexadecimal, and empty as long as
/// they are not known.
#[derive(Debug, Default)]
pub(super) struct Span {
    pub(super) trace_id: String,
    pub(super) id: String,
    pub(super) name: String,
    /// Nanoseconds since the epoch; 0 when it does not say.
    pub(super) start: u64,
    /// Its status is an error.
    pub(super) failed: bool,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<Event>,
}

/// Something that happened within a span.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) attributes: Attributes,
}

impl Span {
    /// Every span has both ids, and neither is zero.
    pub(super) fn check_ids(&self) -> Result<(), DecodeError> {
        for (what, id, length) in [("trace", &self.trace_id, 32), ("span", &self.id, 16)] {
            let hexadecimal = id.len() == length && id.bytes().all(|b| b.is_ascii_hexdigit());
            if !hexadecimal || id.bytes().all(|b| b == b'0') {
                let shown: String = id.chars().take(40).collect();
                return Err(malformed(&format!(
                    "its {what} id is {shown:?}, not {length} hexadecimal digits"
                )));
            }
        }
        Ok(())
    }
}

pub(super) fn malformed(detail: &impl ToString) -> DecodeError {
    DecodeError::MalformedOtlp(detail.to_string())
}

/// Puts an attribute in, within bounds. Of several of one key the last counts.
pub(super) fn put(attributes: &mut Attributes, key: &str, value: Value) -> Result<(), DecodeError> {
    if attributes.len() >= MOST_ATTRIBUTES && !attributes.contains_key(key) {
        return Err(DecodeError::TooLarge {
            field: "attributes",
            size: attributes.len() + 1,
            max: MOST_ATTRIBUTES,
            unit: "entries",
        });
    }
    attributes.insert(key.to_owned(), value);
    Ok(())
}

/// The number of events is bounded as well.
pub(super) fn put_event(span: &mut Span, event: Event) -> Result<(), DecodeError> {
    if span.events.len() >= MOST_EVENTS {
        return Err(DecodeError::TooLarge {
            field: "attributes",
            size: span.events.len() + 1,
            max: MOST_EVENTS,
            unit: "events",
        });
    }
    span.events.push(event);
    Ok(())
}
