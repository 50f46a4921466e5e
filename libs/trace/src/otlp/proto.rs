//! Spans as protobuf: `ExportTraceServiceRequest`, which `TracesData` equals.
//!
//! Field numbers are those of opentelemetry-proto 1.x, `trace/v1/trace.proto` and
//! `common/v1/common.proto`. Only what matters is read, and without generated types:
//! see [`crate::wire`].

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{
    carrier::{Carrier, Place, too_many},
    config::OtlpConfig,
    span::{Attributes, DEEPEST, Event, Span, malformed, put, put_event},
};
use crate::{
    DecodeError,
    wire::{Field, Fields, Malformed, put_bytes},
};

const STATUS_ERROR: u64 = 2;

impl From<Malformed> for DecodeError {
    fn from(error: Malformed) -> Self {
        malformed(&error)
    }
}

/// The spans of a request, one `ResourceSpans` after the other, still as bytes.
pub(super) struct Request<'a> {
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    resource: &'a [u8],
    spans: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(super) fn read(payload: &'a [u8], most: usize) -> Result<Self, DecodeError> {
        let mut groups = Vec::new();
        let mut count = 0;
        for field in Fields::of(payload) {
            let (1, resource_spans) = field? else {
                continue;
            };
            let mut group = Group {
                resource: &[],
                spans: Vec::new(),
            };
            for field in Fields::of(resource_spans.bytes()?) {
                match field? {
                    (1, resource) => group.resource = resource.bytes()?,
                    (2, scope_spans) => {
                        for field in Fields::of(scope_spans.bytes()?) {
                            if let (2, span) = field? {
                                count += 1;
                                if count > most {
                                    return Err(too_many(count, most));
                                }
                                group.spans.push(span.bytes()?);
                            }
                        }
                    }
                    _ => {}
                }
            }
            // Empty ones are free on the wire: they must be free here.
            if !group.spans.is_empty() {
                groups.push(group);
            }
        }
        Ok(Self { groups })
    }
}

impl Carrier for Request<'_> {
    fn sizes(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.spans.len()).collect()
    }

    fn resource(&self, group: usize, config: &OtlpConfig) -> Result<Attributes, DecodeError> {
        let mut attributes = Attributes::new();
        for field in Fields::of(self.groups[group].resource) {
            if let (1, attribute) = field? {
                key_value(attribute.bytes()?, config, &mut attributes)?;
            }
        }
        Ok(attributes)
    }

    fn span(&self, at: Place, config: &OtlpConfig, span: &mut Span) -> Result<(), DecodeError> {
        for field in Fields::of(self.groups[at.group].spans[at.span]) {
            match field? {
                (1, id) => span.trace_id = hexadecimal(id.bytes()?),
                (2, id) => span.id = hexadecimal(id.bytes()?),
                (5, name) => name.text()?.clone_into(&mut span.name),
                (7, Field::Fixed64(time)) => span.start = time,
                (9, attribute) => key_value(attribute.bytes()?, config, &mut span.attributes)?,
                (11, bytes) => {
                    let event = event(bytes.bytes()?, config)?;
                    put_event(span, event)?;
                }
                (15, status) => {
                    for field in Fields::of(status.bytes()?) {
                        if let (3, Field::Varint(code)) = field? {
                            span.failed = code == STATUS_ERROR;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn only(&self, places: &[Place]) -> Vec<u8> {
        let mut request = Vec::new();
        for run in places.chunk_by(|a, b| a.group == b.group) {
            let group = &self.groups[run[0].group];
            let mut scope_spans = Vec::new();
            for place in run {
                put_bytes(&mut scope_spans, 2, group.spans[place.span]);
            }
            let mut resource_spans = Vec::new();
            put_bytes(&mut resource_spans, 1, group.resource);
            put_bytes(&mut resource_spans, 2, &scope_spans);
            put_bytes(&mut request, 1, &resource_spans);
        }
        request
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    // An id is 16 bytes; more of a wrong one need not be shown.
    let bytes = bytes.iter().take(17);
    bytes.fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn event(message: &[u8], config: &OtlpConfig) -> Result<Event, DecodeError> {
    let mut event = Event::default();
    for field in Fields::of(message) {
        match field? {
            (2, name) => name.text()?.clone_into(&mut event.name),
            (3, attribute) => {
                let attribute = attribute.bytes()?;
                // Events call their content by short names.
                let (key, value) = split(attribute)?;
                if super::is_content(key) || config.wants(key) {
                    put(&mut event.attributes, key, any(value, 0)?)?;
                }
            }
            _ => {}
        }
    }
    Ok(event)
}

fn key_value(
    message: &[u8],
    config: &OtlpConfig,
    attributes: &mut Attributes,
) -> Result<(), DecodeError> {
    let (key, value) = split(message)?;
    if config.wants(key) {
        put(attributes, key, any(value, 0)?)?;
    }
    Ok(())
}

/// Key and value of a `KeyValue`.
fn split(message: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let (mut key, mut value) = ("", &[][..]);
    for field in Fields::of(message) {
        match field? {
            (1, text) => key = text.text()?,
            (2, any) => value = any.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// An `AnyValue` as JSON: what it holds, without saying of which type.
fn any(message: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if depth > DEEPEST {
        return Err(malformed(&"a value is nested too deep"));
    }
    let mut found = Value::Null;
    for field in Fields::of(message) {
        found = match field? {
            (1, text) => Value::from(text.text()?),
            (2, Field::Varint(flag)) => Value::from(flag != 0),
            (3, Field::Varint(number)) => Value::from(number as i64),
            (4, Field::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
            (5, array) => {
                let mut values = Vec::new();
                for field in Fields::of(array.bytes()?) {
                    if let (1, value) = field? {
                        values.push(any(value.bytes()?, depth + 1)?);
                    }
                }
                Value::Array(values)
            }
            (6, list) => {
                let mut entries = Map::new();
                for field in Fields::of(list.bytes()?) {
                    if let (1, entry) = field? {
                        let (key, value) = split(entry.bytes()?)?;
                        entries.insert(key.to_owned(), any(value, depth + 1)?);
                    }
                }
                Value::Object(entries)
            }
            (7, bytes) => Value::from(BASE64_STANDARD.encode(bytes.bytes()?)),
            _ => continue,
        };
    }
    Ok(found)
}
