//! The short way for what most senders send: known fields of the usual types, each once.
//!
//! It goes straight from the bytes to the trace, without a tree of values between, which
//! for an embedding is several times as fast. Whatever it does not understand at once,
//! errors included, is left to the long way: the two never differ in what they answer.

use std::{borrow::Cow, fmt};

use chrono::DateTime;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::draft::Draft;

/// More values make the vector grow by itself.
const USUAL_DIMENSION: usize = 384;

/// Reads a trace; `None` leaves it to the long way.
pub(super) fn read(payload: &[u8]) -> Option<Draft> {
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let draft = deserializer.deserialize_map(Plain).ok()?;
    deserializer.end().ok()?;
    Some(draft)
}

/// Text as it stands in the payload, where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Plain;

/// A value for a field that must not have one yet.
fn once<T, E: serde::de::Error>(field: &mut Option<T>, value: T) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("there twice")),
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Draft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a trace")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Draft, A::Error> {
        let mut draft = Draft::default();
        let (mut metadata, mut number) = (None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "id" => once(&mut draft.id, map.next_value()?)?,
                "task" => once(&mut draft.task, map.next_value()?)?,
                "input" | "query" | "text" | "prompt" | "question" => {
                    once(&mut draft.input, map.next_value()?)?;
                }
                "teacher" | "teacher_output" | "label" | "intent" | "output" | "answer" => {
                    let label = map.next_value()?;
                    once(&mut draft.teacher, (key.into_owned(), label))?;
                }
                "ground_truth" => once(&mut draft.ground_truth, map.next_value()?)?,
                "embedder" => once(&mut draft.embedder, map.next_value()?)?,
                "embedding" => {
                    let Floats(values) = map.next_value()?;
                    once(&mut draft.embedding, values)?;
                }
                "timestamp" => once(&mut number, map.next_value::<Value>()?)?,
                "metadata" => {
                    let value: Value = map.next_value()?;
                    let entries = super::metadata("metadata", &value).map_err(A::Error::custom)?;
                    once(&mut metadata, entries)?;
                }
                "routing" => {
                    let value: Value = map.next_value()?;
                    let routing = super::routing("routing", &value).map_err(A::Error::custom)?;
                    once(&mut draft.routing, routing)?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(A::Error::custom("unknown"));
                }
            }
        }
        draft.metadata = metadata.unwrap_or_default();
        draft.timestamp = match number {
            None => None,
            Some(Value::Number(number)) => {
                let time = number.as_i64().and_then(DateTime::from_timestamp_millis);
                Some(time.ok_or_else(|| A::Error::custom("no time"))?)
            }
            Some(value) => Some(super::timestamp("timestamp", &value).map_err(A::Error::custom)?),
        };
        Ok(draft)
    }
}

/// Numbers, read as the long way reads them: by way of `f64`.
struct Floats(Vec<f32>);

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Floats;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Floats, A::Error> {
                let mut values = Vec::with_capacity(USUAL_DIMENSION);
                while let Some(value) = seq.next_element::<f64>()? {
                    values.push(value as f32);
                }
                values.shrink_to_fit();
                Ok(Floats(values))
            }
        }
        deserializer.deserialize_seq(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Origin};

    const SHORT: &[&str] = &[
        r#"{"input": "a", "teacher": "b"}"#,
        r#" {"query":"a \"b\" \u00e4","label":" c ","id":"7","task":"t","timestamp":1700000000123} "#,
        r#"{"text": "a", "intent": "b", "timestamp": "2026-01-02T03:04:05.678+01:00"}"#,
        r#"{"embedding": [0.1, -1e-3, 3, 1.00000001, 1e39], "answer": "b", "embedder": "m"}"#,
        r#"{"input": "a", "teacher": "b", "metadata": {"k": "v", "n": 3}, "ground_truth": "g"}"#,
        r#"{"input":"a","teacher":"b","routing":{"pipeline_version":3,"decision":"handled","label":"b","score":0.5,"audit":true,"propensity":0.02}}"#,
        r#"{"input": "", "teacher": ""}"#,
        "{}",
        r#"{"te\u0061cher": "b", "input": "a"}"#,
    ];

    const LONG: &[&str] = &[
        "",
        "{",
        "[]",
        r#"{"input": "a", "teacher": "b"} x"#,
        r#"{"input": "a", "teacher": "b", "input": "c"}"#,
        r#"{"input": "a", "query": "b", "teacher": "b"}"#,
        r#"{"input": null, "query": "b", "teacher": "b"}"#,
        r#"{"input": "a", "teacher": 7}"#,
        r#"{"input": "a", "teacher": true, "id": 12}"#,
        r#"{"input": "a", "teacher": "b", "other": {}}"#,
        r#"{"input": "a", "teacher": "b", "timestamp": 1.5}"#,
        r#"{"input": "a", "teacher": "b", "timestamp": null}"#,
        r#"{"input": "a", "teacher": "b", "embedding": [1, "2"]}"#,
        r#"{"input": "a", "teacher": "b", "embedding": [1e999]}"#,
        r#"{"input": "a", "teacher": "b", "embedding": null}"#,
        r#"{"input": "a", "teacher": "b", "routing": {}}"#,
        r#"{"input": "a", "teacher": "b", "metadata": []}"#,
    ];

    fn both_ways(json: &str) -> bool {
        let origin = Origin {
            topic: "t",
            partition: 1,
            offset: 2,
            timestamp_ms: Some(3),
        };
        let limits = Limits::default();
        let Some(draft) = read(json.as_bytes()) else {
            return false;
        };
        let value: Value = serde_json::from_str(json).unwrap();
        let short = draft.finish(Some(&origin), &limits);
        let long = super::super::from_value(&value, Some(&origin), &limits);
        match (short, long) {
            (Ok(short), Ok(long)) => assert_eq!(short, long, "{json}"),
            (Err(short), Err(long)) => assert_eq!(short.to_string(), long.to_string(), "{json}"),
            (short, long) => panic!("{json}: {short:?} and {long:?}"),
        }
        true
    }

    #[test]
    fn both_ways_say_the_same() {
        for json in SHORT {
            assert!(both_ways(json), "{json} goes the long way");
        }
        for json in LONG {
            assert!(!both_ways(json), "{json} goes the short way");
        }
    }

    /// Every pair of values in every pair of fields.
    #[test]
    fn both_ways_say_the_same_of_whatever_comes() {
        let fields = [
            "id",
            "task",
            "input",
            "query",
            "teacher",
            "label",
            "embedding",
            "embedder",
            "ground_truth",
            "timestamp",
            "metadata",
            "routing",
            "else",
        ];
        let values = [
            "null",
            "true",
            "0",
            "-3",
            "2.5",
            "1e400",
            "\"\"",
            "\" x \"",
            "\"2026-01-02T03:04:05Z\"",
            "[]",
            "[1, 2.5]",
            "[[1]]",
            "{}",
            r#"{"a": "b"}"#,
        ];
        let mut short = 0;
        for first in fields {
            for second in fields {
                for a in values {
                    for b in values {
                        let json = format!(
                            r#"{{"text": "t", "answer": "l", "{first}": {a}, "{second}": {b}}}"#
                        );
                        if serde_json::from_str::<Value>(&json).is_ok() {
                            short += usize::from(both_ways(&json));
                        } else {
                            assert!(read(json.as_bytes()).is_none(), "{json}");
                        }
                    }
                }
            }
        }
        assert!(short > 100, "{short}");
    }
}
