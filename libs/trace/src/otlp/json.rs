//! Spans in OTLP's JSON: ids in hexadecimal, 64-bit numbers as strings, values that
//! name their type.

use serde_json::{Map, Value, json};

use super::{
    carrier::{Carrier, Place, too_many},
    config::OtlpConfig,
    span::{Attributes, DEEPEST, Event, Span, malformed, put, put_event},
};
use crate::{DecodeError, error::excerpt};

/// The key by which such a payload is known.
pub(crate) const RESOURCE_SPANS: &str = "resourceSpans";

/// The spans of a request, one element of `resourceSpans` after the other.
pub(super) struct Request<'a> {
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    resource: Option<&'a Value>,
    spans: Vec<&'a Value>,
}

impl<'a> Request<'a> {
    pub(super) fn read(payload: &'a Value, most: usize) -> Result<Self, DecodeError> {
        let Value::Object(payload) = payload else {
            return Err(malformed(&"it is not a JSON object"));
        };
        if !payload.contains_key(RESOURCE_SPANS) {
            return Err(malformed(&"it has no \"resourceSpans\""));
        }
        let mut groups = Vec::new();
        let mut count = 0;
        for resource_spans in list(payload, RESOURCE_SPANS)? {
            let resource_spans = object(RESOURCE_SPANS, resource_spans)?;
            let mut spans = Vec::new();
            for scope_spans in list(resource_spans, "scopeSpans")? {
                let found = list(object("scopeSpans", scope_spans)?, "spans")?;
                count += found.len();
                if count > most {
                    return Err(too_many(count, most));
                }
                spans.extend(found);
            }
            if !spans.is_empty() {
                let resource = resource_spans.get("resource");
                groups.push(Group { resource, spans });
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
        match self.groups[group].resource.filter(|value| !value.is_null()) {
            Some(resource) => attributes(object("resource", resource)?, |key| config.wants(key)),
            None => Ok(Attributes::new()),
        }
    }

    fn span(&self, at: Place, config: &OtlpConfig, span: &mut Span) -> Result<(), DecodeError> {
        let found = object("spans", self.groups[at.group].spans[at.span])?;
        span.trace_id = text(found, "traceId")?.to_ascii_lowercase();
        span.id = text(found, "spanId")?.to_ascii_lowercase();
        text(found, "name")?.clone_into(&mut span.name);
        span.start = match found.get("startTimeUnixNano") {
            None | Some(Value::Null) => 0,
            Some(value) => integer(value)
                .and_then(|time| u64::try_from(time).ok())
                .ok_or_else(|| wrong("startTimeUnixNano", value))?,
        };
        if let Some(Value::Object(status)) = found.get("status") {
            let code = status.get("code").unwrap_or(&Value::Null);
            span.failed = code == 2 || code == "STATUS_CODE_ERROR";
        }
        span.attributes = attributes(found, |key| config.wants(key))?;
        for event in list(found, "events")? {
            let event = object("events", event)?;
            let event = Event {
                name: text(event, "name")?.to_owned(),
                attributes: attributes(event, |key| super::is_content(key) || config.wants(key))?,
            };
            put_event(span, event)?;
        }
        Ok(())
    }

    fn only(&self, places: &[Place]) -> Vec<u8> {
        let groups: Vec<Value> = places
            .chunk_by(|a, b| a.group == b.group)
            .map(|run| {
                let group = &self.groups[run[0].group];
                let spans: Vec<&Value> = run.iter().map(|at| group.spans[at.span]).collect();
                json!({"resource": group.resource, "scopeSpans": [{"spans": spans}]})
            })
            .collect();
        json!({RESOURCE_SPANS: groups}).to_string().into_bytes()
    }
}

fn wrong(key: &str, got: &Value) -> DecodeError {
    malformed(&format!("{key:?} is {}", excerpt(got)))
}

fn object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, DecodeError> {
    value.as_object().ok_or_else(|| wrong(key, value))
}

/// An absent list is an empty one.
fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], DecodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(other) => Err(wrong(key, other)),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, DecodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong(key, other)),
    }
}

/// As a string, which is the rule for 64 bits, or as a number.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i128(),
        _ => None,
    }
}

fn attributes(
    holder: &Map<String, Value>,
    wants: impl Fn(&str) -> bool,
) -> Result<Attributes, DecodeError> {
    let mut attributes = Attributes::new();
    for attribute in list(holder, "attributes")? {
        let attribute = object("attributes", attribute)?;
        let key = text(attribute, "key")?;
        if wants(key) {
            let value = any(attribute.get("value").unwrap_or(&Value::Null), 0)?;
            put(&mut attributes, key, value)?;
        }
    }
    Ok(attributes)
}

/// An `AnyValue` as plain JSON.
fn any(value: &Value, depth: usize) -> Result<Value, DecodeError> {
    if depth > DEEPEST {
        return Err(malformed(&"a value is nested too deep"));
    }
    if value.is_null() {
        return Ok(Value::Null);
    }
    let typed = object("value", value)?;
    let Some((kind, held)) = typed.iter().find(|(_, held)| !held.is_null()) else {
        return Ok(Value::Null);
    };
    Ok(match kind.as_str() {
        // NaN and the infinities have no number in JSON.
        "doubleValue" if held.is_string() => Value::Null,
        "stringValue" | "bytesValue" | "boolValue" | "doubleValue" => {
            let right = match kind.as_str() {
                "boolValue" => held.is_boolean(),
                "doubleValue" => held.is_number(),
                _ => held.is_string(),
            };
            if !right {
                return Err(wrong(kind, held));
            }
            held.clone()
        }
        "intValue" => {
            let number = integer(held).and_then(|number| i64::try_from(number).ok());
            Value::from(number.ok_or_else(|| wrong("intValue", held))?)
        }
        "arrayValue" => list(object("arrayValue", held)?, "values")?
            .iter()
            .map(|value| any(value, depth + 1))
            .collect::<Result<_, _>>()?,
        "kvlistValue" => {
            let mut entries = Map::new();
            for entry in list(object("kvlistValue", held)?, "values")? {
                let entry = object("values", entry)?;
                let value = any(entry.get("value").unwrap_or(&Value::Null), depth + 1)?;
                entries.insert(text(entry, "key")?.to_owned(), value);
            }
            Value::Object(entries)
        }
        _ => Value::Null,
    })
}
