//! Every valid trace survives every encoding unchanged, and no bytes make a decoder panic.

use std::collections::BTreeMap;

use chrono::DateTime;
use proptest::{collection, option, prelude::*};
use tracer_trace::{
    Decision, Decoder, Format, Limits, Origin, OtlpConfig, Routing, Rows, StoredTrace, TaskName,
    Trace, TraceView, WithheldInput, decode,
    parquet_schema::{Embeddings, Layout, from_batch},
    to_json_line, to_protobuf,
};

const ORIGIN: Origin<'static> = Origin {
    topic: "traces",
    partition: 3,
    offset: 17,
    timestamp_ms: None,
};

fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        (-1.0f32..1.0),
        any::<f32>().prop_filter("finite", |value| value.is_finite())
    ]
}

fn word() -> impl Strategy<Value = String> {
    // Trimmed and not empty, as validation leaves it.
    "\\PC{1,20}"
        .prop_map(|text| text.trim().to_owned())
        .prop_filter("not blank", |text| !text.is_empty())
}

fn routing() -> impl Strategy<Value = Routing> {
    (
        any::<u64>(),
        any::<bool>(),
        option::of(".{0,10}"),
        option::of(finite()),
        any::<bool>(),
        (0.000_1f64..=1.0),
    )
        .prop_map(
            |(pipeline_version, handled, label, score, audit, propensity)| Routing {
                pipeline_version,
                decision: if handled {
                    Decision::Handled
                } else {
                    Decision::Deferred
                },
                label,
                score,
                audit,
                propensity,
            },
        )
}

prop_compose! {
    fn trace()(
        id in word(),
        task in "[a-z0-9][a-zA-Z0-9._-]{0,20}",
        input in option::of(word()),
        embedding in option::of(collection::vec(finite(), 1..8)),
        embedder in option::of(word()),
        teacher in word(),
        ground_truth in option::of(word()),
        // The years 1 to 9999.
        ms in option::of(-62_135_596_800_000i64..253_402_300_800_000),
        metadata in collection::btree_map(".{0,8}", ".{0,8}", 0..4),
        routing in option::of(routing()),
    ) -> Trace {
        let input = match &embedding {
            None => Some(input.unwrap_or_else(|| "text".to_owned())),
            Some(_) => input,
        };
        Trace {
            id,
            task: TaskName::new(&task).expect("the pattern yields task names"),
            input,
            withheld: None,
            embedding,
            embedder,
            teacher,
            ground_truth,
            timestamp: ms.and_then(DateTime::from_timestamp_millis),
            metadata,
            routing,
        }
    }
}

fn withheld() -> impl Strategy<Value = WithheldInput> {
    let counts = collection::vec((any::<u32>(), any::<u32>()), 0..8);
    ("[0-9a-f]{32}", ".{0,10}", counts).prop_map(|(hash, scheme, counts)| WithheldInput {
        hash,
        scheme,
        counts,
    })
}

fn in_order(rows: &Rows) -> Vec<u32> {
    (0..rows.len() as u32).collect()
}

proptest! {
    #[test]
    fn json_keeps_a_trace(trace in trace()) {
        let payload = to_json_line(&trace);
        prop_assert!(!payload.contains(&b'\n'));
        for format in [Format::Auto, Format::Json] {
            let decoded = decode(&payload, &ORIGIN, format, &Limits::default()).unwrap();
            prop_assert_eq!(&decoded, &trace);
        }
    }

    #[test]
    fn protobuf_keeps_a_trace(trace in trace()) {
        let payload = to_protobuf(&trace);
        for format in [Format::Auto, Format::Protobuf] {
            let decoded = decode(&payload, &ORIGIN, format, &Limits::default()).unwrap();
            prop_assert_eq!(&decoded, &trace);
        }
    }

    #[test]
    fn a_batch_keeps_traces(
        traces in collection::vec((any::<u64>(), trace(), option::of(withheld())), 0..20),
    ) {
        let rows: Vec<_> = traces
            .into_iter()
            .map(|(offset, trace, withheld)| StoredTrace {
                offset,
                trace: Trace { withheld: withheld.map(Box::new), ..trace },
            })
            .collect();
        let packed: Rows = rows.iter().collect();
        let layout = Layout::of(&packed, Embeddings::F32);
        // As shards are written: several batches of one layout.
        let mut read = Vec::new();
        for part in in_order(&packed).chunks(7) {
            read.extend(from_batch(&layout.to_batch(&packed, part).unwrap()).unwrap());
        }
        prop_assert_eq!(read, rows);
    }

    /// A trace that is stored from where it stood in its payload, and one of its own.
    #[test]
    fn what_is_borrowed_is_stored_as_what_is_owned(traces in collection::vec(trace(), 0..20)) {
        let decoder = Decoder::new(Limits::default(), OtlpConfig::default());
        let (mut borrowed, mut owned) = (Rows::new(), Rows::new());
        let mut rows = Vec::new();
        for (offset, trace) in (0..).zip(traces) {
            let payload = to_json_line(&trace);
            let plain = decoder.plain(&payload, &ORIGIN, Format::Auto).unwrap();
            let (one, other) = (
                borrowed.push(offset, plain.view()),
                owned.push(offset, TraceView::from(&trace)),
            );
            prop_assert_eq!(one, other);
            prop_assert_eq!(Trace::from(plain), trace.clone());
            rows.push(StoredTrace { offset, trace });
        }
        let layout = Layout::of(&borrowed, Embeddings::F32);
        let order = in_order(&borrowed);
        let batch = layout.to_batch(&borrowed, &order).unwrap();
        prop_assert_eq!(&batch, &layout.to_batch(&owned, &order).unwrap());
        prop_assert_eq!(from_batch(&batch).unwrap(), rows);
    }

    /// Half the bits: what comes back is near, and nothing becomes infinite.
    #[test]
    fn a_batch_of_halves_keeps_traces_nearly(traces in collection::vec((any::<u64>(), trace()), 0..20)) {
        let mut rows: Vec<_> = traces
            .into_iter()
            .map(|(offset, trace)| StoredTrace { offset, trace })
            .collect();
        let packed: Rows = rows.iter().collect();
        let layout = Layout::of(&packed, Embeddings::F16);
        let batch = layout.to_batch(&packed, &in_order(&packed)).unwrap();
        let mut read = from_batch(&batch).unwrap();
        for (read, row) in read.iter_mut().zip(&mut rows) {
            let (read, kept) = (read.trace.embedding.take(), row.trace.embedding.take());
            let (read, kept) = (read.unwrap_or_default(), kept.unwrap_or_default());
            prop_assert_eq!(read.len(), kept.len());
            for (read, kept) in read.iter().zip(&kept) {
                // 11 bits of precision; below 2^-14 they become fewer.
                let error = (read - kept).abs();
                prop_assert!(error <= kept.abs() / 2048.0 + f32::powi(2.0, -25), "{read} for {kept}");
            }
        }
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn random_bytes_are_decoded_or_refused(payload in collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Auto, Format::Json, Format::Protobuf] {
            let _ = decode(&payload, &ORIGIN, format, &Limits::default());
        }
    }

    #[test]
    fn damaged_traces_are_decoded_or_refused(
        trace in trace(),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bits in any::<u8>(),
    ) {
        for mut payload in [to_json_line(&trace), to_protobuf(&trace)] {
            let at = flip.index(payload.len());
            payload[at] ^= bits;
            payload.truncate(cut.index(payload.len() + 1));
            for format in [Format::Auto, Format::Json, Format::Protobuf] {
                let _ = decode(&payload, &ORIGIN, format, &Limits::default());
            }
        }
    }
}

/// Shards that were written before inputs could be withheld.
#[test]
fn a_batch_without_the_columns_of_withheld_inputs_is_read() {
    let payload = br#"{"input": "a", "teacher": "b"}"#;
    let trace = decode(payload, &ORIGIN, Format::Json, &Limits::default()).unwrap();
    let rows = [StoredTrace { offset: 17, trace }];
    let packed: Rows = rows.iter().collect();
    let layout = Layout::of(&packed, Embeddings::F32);
    let batch = layout.to_batch(&packed, &in_order(&packed)).unwrap();
    let schema = batch.schema();
    let before: Vec<_> = (0..schema.fields().len())
        .filter(|&i| !schema.field(i).name().starts_with("input_"))
        .collect();
    assert_eq!(before.len() + 4, schema.fields().len());
    let batch = batch.project(&before).unwrap();
    assert_eq!(from_batch(&batch).unwrap(), rows);
}

#[test]
fn protobuf_with_an_id_as_long_as_a_brace_is_not_taken_for_json() {
    let trace = Trace {
        id: "x".repeat(usize::from(b'{')),
        task: TaskName::default(),
        input: Some("where is my card".to_owned()),
        withheld: None,
        embedding: None,
        embedder: None,
        teacher: "card_arrival".to_owned(),
        ground_truth: None,
        timestamp: None,
        metadata: BTreeMap::new(),
        routing: None,
    };
    let payload = to_protobuf(&trace);
    assert_eq!(&payload[..2], b"\n{");
    let decoded = decode(&payload, &ORIGIN, Format::Auto, &Limits::default()).unwrap();
    assert_eq!(decoded, trace);
}
