//! The short way for what most senders send: known fields of the usual types, each once.
//!
//! It goes straight from the bytes to the trace, without a tree of values between and
//! without copying texts, which is many times as fast. Whatever it does not understand at
//! once, errors included, is left to the long way: the two never differ in what they answer.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};

use super::scan::Cursor;
use crate::{draft::Draft, otlp::RESOURCE_SPANS};

/// More values make the vector grow by itself.
const USUAL_DIMENSION: usize = 384;

/// What a known name stands for.
enum Field {
    Id,
    Task,
    Input,
    Embedding,
    Embedder,
    /// With the name itself.
    Teacher(&'static str),
    GroundTruth,
    Timestamp,
    Metadata,
    Routing,
}

/// The field of a name, and a bit of the name's own.
fn field(name: &str) -> Option<(Field, u32)> {
    let (field, bit) = match name {
        "id" => (Field::Id, 0),
        "task" => (Field::Task, 1),
        "embedding" => (Field::Embedding, 2),
        "embedder" => (Field::Embedder, 3),
        "ground_truth" => (Field::GroundTruth, 4),
        "timestamp" => (Field::Timestamp, 5),
        "metadata" => (Field::Metadata, 6),
        "routing" => (Field::Routing, 7),
        "input" => (Field::Input, 8),
        "query" => (Field::Input, 9),
        "text" => (Field::Input, 10),
        "prompt" => (Field::Input, 11),
        "question" => (Field::Input, 12),
        "teacher" => (Field::Teacher("teacher"), 13),
        "teacher_output" => (Field::Teacher("teacher_output"), 14),
        "label" => (Field::Teacher("label"), 15),
        "intent" => (Field::Teacher("intent"), 16),
        "output" => (Field::Teacher("output"), 17),
        "answer" => (Field::Teacher("answer"), 18),
        _ => return None,
    };
    Some((field, 1 << bit))
}

/// Reads a trace; `None` leaves it to the long way.
pub(super) fn read(payload: &[u8]) -> Option<Draft<'_>> {
    // Before all of it is looked at, to see whether it is text.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut cursor = Cursor::of(payload)?;
    let mut draft = Draft::default();
    let mut seen = 0;
    entries(&mut cursor, |name, cursor| {
        let Some((field, bit)) = field(name) else {
            // By this name a record of spans is known.
            return (name != RESOURCE_SPANS).then(|| pass(cursor))?;
        };
        // Of several fields of one name the last counts, and it may be null.
        if seen & bit != 0 {
            return None;
        }
        seen |= bit;
        if cursor.is_null() {
            return Some(());
        }
        match field {
            Field::Id => once(&mut draft.id, scalar("id", cursor)?),
            Field::Task => once(&mut draft.task, cursor.text()?),
            Field::Input => once(&mut draft.input, cursor.text()?),
            Field::Embedding => once(&mut draft.embedding, floats(cursor)?),
            Field::Embedder => once(&mut draft.embedder, cursor.text()?),
            Field::Teacher(name) => once(&mut draft.teacher, (name, scalar(name, cursor)?)),
            Field::GroundTruth => once(&mut draft.ground_truth, scalar("ground_truth", cursor)?),
            Field::Timestamp => once(&mut draft.timestamp, timestamp(cursor)?),
            Field::Metadata => {
                draft.metadata = metadata(cursor)?;
                Some(())
            }
            Field::Routing => {
                let value = cursor.value()?;
                once(&mut draft.routing, super::routing("routing", &value).ok()?)
            }
        }
    })?;
    cursor.ended().then_some(draft)
}

/// A value for a field that must not have one yet, by this name or another.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// The entries of an object. `entry` takes a name, and the value from the cursor.
fn entries<'a>(
    cursor: &mut Cursor<'a>,
    mut entry: impl FnMut(&str, &mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    cursor.pass(b'{')?;
    if cursor.is(b'}') {
        return Some(());
    }
    loop {
        let name = cursor.text()?;
        cursor.pass(b':')?;
        entry(&name, cursor)?;
        if !cursor.is(b',') {
            return cursor.pass(b'}');
        }
    }
}

/// Text, or what may stand for it in this field.
fn scalar<'a>(name: &str, cursor: &mut Cursor<'a>) -> Option<Cow<'a, str>> {
    if cursor.peek()? == b'"' {
        return cursor.text();
    }
    let value = cursor.value()?;
    let text = super::scalar(name, &value).ok()?;
    Some(Cow::Owned(text.into_owned()))
}

/// Passes the value of a field that is not known.
fn pass(cursor: &mut Cursor<'_>) -> Option<()> {
    match cursor.peek()? {
        b'"' => cursor.text().map(|_| ()),
        _ => cursor.value().map(|_| ()),
    }
}

/// Numbers, read as the long way reads them: by way of 64 bits.
fn floats(cursor: &mut Cursor<'_>) -> Option<Vec<f32>> {
    cursor.pass(b'[')?;
    if cursor.is(b']') {
        return Some(Vec::new());
    }
    let mut values = Vec::with_capacity(USUAL_DIMENSION);
    loop {
        values.push(cursor.float()? as f32);
        if !cursor.is(b',') {
            cursor.pass(b']')?;
            values.shrink_to_fit();
            return Some(values);
        }
    }
}

fn timestamp(cursor: &mut Cursor<'_>) -> Option<DateTime<Utc>> {
    if cursor.peek()? == b'"' {
        return super::rfc3339(&cursor.text()?);
    }
    if let Some(milliseconds) = cursor.whole() {
        return DateTime::from_timestamp_millis(milliseconds);
    }
    super::timestamp("timestamp", &cursor.value()?).ok()
}

fn metadata(cursor: &mut Cursor<'_>) -> Option<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::new();
    entries(cursor, |name, cursor| {
        let value = match cursor.peek()? {
            b'"' => cursor.text()?.into_owned(),
            _ => cursor.value()?.to_string(),
        };
        metadata.insert(name.to_owned(), value);
        Some(())
    })?;
    Some(metadata)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample::select, strategy::ValueTree as _};

    use super::{
        super::{INPUT, TEACHER},
        *,
    };
    use crate::{DecodeError, Limits, Origin, Trace};

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
        r#"{"input": null, "query": "b", "teacher": "b", "embedding": null, "timestamp": null}"#,
        r#"{"input": "a", "teacher": "b", "other": {"a": [1, "]"]}, "else": "c", "n": -1.5e3}"#,
        r#"{"input": "a", "teacher": "b", "timestamp": 1.5}"#,
        r#"{"input": "a", "teacher": "b", "timestamp": -5}"#,
        r#"{"input": "a", "teacher": 7, "ground_truth": -5}"#,
        r#"{"input": "a", "teacher": true, "id": 12}"#,
        r#"{"input": "\ud83d\ude00 \u0000", "teacher": "\\\"\n"}"#,
        r#"{"input": "a", "teacher": "b", "metadata": {"a": 1.0, "b": [null], "a": "c", "\u0062": {}}}"#,
    ];

    const LONG: &[&str] = &[
        "",
        "{",
        "[]",
        r#"{"input": "a", "teacher": "b"} x"#,
        r#"{"input": "a", "teacher": "b", "input": "c"}"#,
        r#"{"input": "a", "query": "b", "teacher": "b"}"#,
        r#"{"input": "a", "teacher": "b", "embedding": [1, "2"]}"#,
        r#"{"input": "a", "teacher": "b", "embedding": [1e999]}"#,
        r#"{"input": "a", "teacher": "b", "routing": {}}"#,
        r#"{"input": "a", "teacher": "b", "metadata": []}"#,
        r#"{"input": "a", "teacher": "b", "id": true}"#,
        r#"{"input": "a", "teacher": 1.5}"#,
        r#"{"input": "a", "input": null, "query": "c", "teacher": "b"}"#,
        r#"{"input": "a", "inp\u0075t": "c", "teacher": "b"}"#,
        r#"{"input": "a", "teacher": "b", "resourceSpans": []}"#,
        r#"{"input": "a", "teacher": "b", "resource\u0053pans": []}"#,
        r#"{"input": "a", "teacher": "b", "other": "\ud800"}"#,
        r#"{"input": "a", "teacher": "b", "other": 1e999}"#,
        r#"{"input": "a", "teacher": "b", "timestamp": 01}"#,
        r#"{"input": "a", "teacher": "b",}"#,
        r#"{"input": "a" "teacher": "b"}"#,
        r#"{"input": "a", "teacher": "b""#,
        "{\"input\": \"a\nb\", \"teacher\": \"b\"}",
        "\u{feff}{\"input\": \"a\", \"teacher\": \"b\"}",
        "\u{c}{\"input\": \"a\", \"teacher\": \"b\"}",
    ];

    const ORIGIN: Origin<'static> = Origin {
        topic: "t",
        partition: 1,
        offset: 2,
        timestamp_ms: Some(3),
    };

    fn long_way(payload: &[u8], limits: &Limits) -> Result<Trace, DecodeError> {
        super::super::from_value(&super::super::parse(payload)?, Some(&ORIGIN), limits)
    }

    /// Whether the short way has an answer; it must be that of the long way.
    fn both_ways_under(payload: &[u8], limits: &Limits) -> bool {
        let Some(draft) = read(payload) else {
            return false;
        };
        let shown = String::from_utf8_lossy(payload);
        let short = draft.finish(Some(&ORIGIN), limits).map(Trace::from);
        // Bit by bit: zero has two signs.
        let bits = |trace: &Trace| -> Vec<u32> {
            let embedding = trace.embedding.iter().flatten();
            embedding.map(|value| value.to_bits()).collect()
        };
        match (short, long_way(payload, limits)) {
            (Ok(short), Ok(long)) => {
                assert_eq!(bits(&short), bits(&long), "{shown}");
                assert_eq!(short, long, "{shown}");
            }
            (Err(short), Err(long)) => assert_eq!(short.to_string(), long.to_string(), "{shown}"),
            (short, long) => panic!("{shown}: {short:?} and {long:?}"),
        }
        true
    }

    fn both_ways(json: &str) -> bool {
        both_ways_under(json.as_bytes(), &Limits::default())
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
                        short += usize::from(both_ways(&json));
                    }
                }
            }
        }
        assert!(short > 100, "{short}");
    }

    #[test]
    fn every_name_has_a_bit_of_its_own() {
        let others = [
            "id",
            "task",
            "embedding",
            "embedder",
            "ground_truth",
            "timestamp",
            "metadata",
            "routing",
        ];
        let mut bits = 0;
        for name in INPUT.iter().chain(TEACHER).chain(&others) {
            let (_, bit) = field(name).unwrap();
            assert_eq!(bits & bit, 0, "{name}");
            bits |= bit;
        }
        assert_eq!(bits.count_ones(), 19);
    }

    #[test]
    fn what_is_nested_without_end_goes_the_long_way() {
        for depth in [10, 60, 63, 64, 65, 126, 127, 128, 129, 100_000] {
            for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
                let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                for name in ["else", "metadata", "routing", "timestamp"] {
                    let json = format!(r#"{{"input":"a","teacher":"b","{name}":{nested}}}"#);
                    let short = both_ways(&json);
                    assert!(!short || depth < 128, "{depth}");
                }
                let json = format!(r#"{{"input":"a","teacher":"b","metadata":{{"k":{nested}}}}}"#);
                assert_eq!(both_ways(&json), depth <= 64, "{depth}");
            }
        }
    }

    /// A text between quotation marks, or nearly.
    fn quoted() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            6 => "[ -~]{0,6}",
            2 => "\\PC{0,4}",
            2 => select(vec![
                "\\n", "\\\"", "\\\\", "\\/", "\\u0041", "\\ud83d\\ude00", "\\ud800", "\\udc00\\ud800",
                "\\u12", "\\x", "\\", "\"", "\u{0}", "\n", "\u{7f}", "\u{2028}", "\\u0000",
            ])
            .prop_map(str::to_owned),
        ];
        collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => quoted(),
            2 => "-?[0-9]{1,22}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
            1 => any::<f64>().prop_map(|value| value.to_string()),
            1 => any::<i64>().prop_map(|value| value.to_string()),
            1 => select(vec![
                "null", "true", "false", "nul", "-", "1.", "01", "1e", "NaN", "+1", "",
                "\"2026-01-02T03:04:05.678+01:00\"", "\"2026-01-02T03:04:05Z \"",
                "\"2026-13-02T03:04:05Z\"", "253402300800000", "-62135596800001",
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        scalar().prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                collection::vec((quoted(), inner), 0..4).prop_map(|entries| {
                    let entries: Vec<_> =
                        entries.iter().map(|(k, v)| format!("{k} :{v}")).collect();
                    format!("{{{}}}", entries.join(","))
                }),
            ]
        })
    }

    /// A value such as the field asks for, mostly.
    fn fitting(name: &'static str) -> BoxedStrategy<String> {
        let usual = match name {
            "embedding" => collection::vec("-?[0-9](\\.[0-9]{1,17})?(e-?[0-9]{1,2})?", 0..6)
                .prop_map(|values| format!("[ {}]", values.join(" ,")))
                .boxed(),
            "timestamp" => "[0-9]{1,19}".boxed(),
            "metadata" => collection::vec((quoted(), scalar()), 0..4)
                .prop_map(|entries| {
                    let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                    format!("{{{}}}", entries.join(","))
                })
                .boxed(),
            "routing" => ("[0-3]", quoted(), scalar(), scalar())
                .prop_map(|(decision, label, score, propensity)| {
                    format!(
                        r#"{{"decision":{decision},"label":{label},"score":{score},"propensity":{propensity}}}"#
                    )
                })
                .boxed(),
            _ => quoted().boxed(),
        };
        prop_oneof![8 => usual, 1 => Just("null".to_owned()), 1 => value()].boxed()
    }

    /// An object with fields of a trace, and others.
    fn document() -> impl Strategy<Value = String> {
        let names = vec![
            "id",
            "task",
            "input",
            "query",
            "text",
            "teacher",
            "label",
            "answer",
            "embedding",
            "embedder",
            "ground_truth",
            "timestamp",
            "metadata",
            "routing",
            "else",
            "resourceSpans",
            "te\\u0061cher",
            "a\\\"b",
        ];
        let entry = select(names).prop_flat_map(|name| {
            fitting(name).prop_map(move |value| format!("\"{name}\": {value}"))
        });
        let space = "[ \t\r\n]{0,2}";
        (
            select(vec![
                r#""input":"a","teacher":"b""#,
                r#""text":"a""#,
                r#""intent":"b""#,
            ]),
            collection::vec(entry, 0..5),
            (space, space, space),
            select(vec!["", "", "", "", "", "", ",", "}", "x", "\u{0}"]),
        )
            .prop_map(|(first, entries, (a, b, c), after)| {
                let entries = [vec![first.to_owned()], entries].concat();
                let entries = entries.join(&format!("{b},"));
                format!("{a}{{{entries}{b}}}{c}{after}")
            })
    }

    #[test]
    fn many_random_documents_go_the_short_way() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let short = (0..500).filter(|_| {
            let json = document().new_tree(&mut runner).unwrap().current();
            both_ways(&json)
        });
        let short = short.count();
        assert!((100..400).contains(&short), "{short} of 500");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_ways_say_the_same_of_random_documents(json in document()) {
            both_ways(&json);
        }

        #[test]
        fn both_ways_say_the_same_under_narrow_limits(json in document()) {
            let limits = Limits {
                max_input_bytes: 3,
                max_label_bytes: 3,
                max_id_bytes: 3,
                max_embedding_dimension: 3,
                max_metadata_entries: 2,
                max_metadata_bytes: 6,
                ..Limits::default()
            };
            both_ways_under(json.as_bytes(), &limits);
        }

        #[test]
        fn both_ways_say_the_same_of_damaged_documents(
            json in document(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut payload = json.into_bytes();
            let at = at.index(payload.len());
            for damaged in [byte, b'"', b'\\', b'}', b',', 0xff] {
                payload[at] = damaged;
                both_ways_under(&payload, &Limits::default());
            }
            payload.truncate(cut.index(payload.len() + 1));
            both_ways_under(&payload, &Limits::default());
        }
    }
}
