//! What is fuzzed: everything that reads bytes which others wrote. Each target is a function
//! of a file's bytes. It must not panic, must not take more than [`MOST_BYTES`] of memory,
//! and where two ways lead to one answer, they must agree.
//!
//! `fuzz_targets/` gives them to libFuzzer; `tests/corpus.rs` replays the corpus through them
//! with every `cargo test`.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use serde_json::Value;
use tracer_learn::{Input, Pipeline, Scratch};
use tracer_store::{
    Active, Leases, LogEvent, PipelineVersion, Registry, ReportFormat, ShardLog, Store, Visitor,
};
use tracer_trace::{
    Decoded, Decoder, Format, Limits, Offset, Origin, OtlpConfig, PartitionId, Rows, StoredTrace,
    TaskName, Trace, TraceView, parquet_schema::Columns, to_json_line, to_protobuf,
};

/// What a target may have allocated at one time beyond what it began with. A payload is at
/// most 1 MiB; a JSON document of that size takes some hundred bytes for each of its own.
pub const MOST_BYTES: usize = 256 << 20;

/// What a target does with the bytes of a file.
pub type Target = fn(&[u8]);

/// A target's name, which is its folder in `corpus/`, and what it does.
pub const TARGETS: &[(&str, Target)] = &[
    ("trace_json", |data| record(data, Format::Json)),
    ("trace_protobuf", |data| record(data, Format::Protobuf)),
    ("trace_confluent", |data| record(data, Format::Confluent)),
    ("trace_auto", |data| record(data, Format::Auto)),
    ("otlp_json", |data| record(data, Format::OtlpJson)),
    ("otlp_proto", |data| record(data, Format::OtlpProto)),
    ("manifest", manifest),
    ("log_entry", log_entry),
    ("lease", lease),
    ("reset", reset),
    ("model", model),
    ("shard", shard),
];

const ORIGIN: Origin<'static> = Origin {
    topic: "traces",
    partition: 0,
    offset: 7,
    timestamp_ms: Some(1_700_000_000_000),
};

/// A record of a log, as the aggregator decodes it.
fn record(data: &[u8], format: Format) {
    let decoder = Decoder::new(Limits::default(), OtlpConfig::default());
    let mut decoded = Decoded::default();
    let read = decoder.decode(data, &ORIGIN, format, &mut decoded);
    if let Some(plain) = decoder.plain(data, &ORIGIN, format) {
        assert!(
            read.is_ok(),
            "the short way reads what the long one refuses"
        );
        assert_eq!(decoded.traces, [Trace::from(plain)]);
    }
    match read {
        Err(error) => _ = error.to_string(),
        Ok(()) => {
            for trace in &decoded.traces {
                written(trace);
            }
            for rejected in &decoded.rejected {
                rejected_again(&decoder, rejected, format);
            }
        }
    }
}

/// A trace that was taken is the same when it is written and read again, and fits a shard.
fn written(trace: &Trace) {
    // Metadata of spans may be longer in JSON than a payload may be.
    let limits = Limits {
        max_payload_bytes: usize::MAX,
        ..Limits::default()
    };
    for (bytes, format) in [
        (to_json_line(trace), Format::Json),
        (to_protobuf(trace), Format::Protobuf),
    ] {
        let again = tracer_trace::decode(&bytes, &ORIGIN, format, &limits);
        assert_eq!(again.as_ref(), Ok(trace), "as {format:?}");
    }
    let mut rows = Rows::new();
    rows.push(7, TraceView::from(trace));
    assert_eq!(rows.len(), 1);
}

/// The dead letter of some spans holds these spans alone.
fn rejected_again(decoder: &Decoder, rejected: &tracer_trace::Rejected, format: Format) {
    let mut again = Decoded::default();
    if decoder
        .decode(&rejected.payload, &ORIGIN, format, &mut again)
        .is_ok()
    {
        assert_eq!(again.traces, [], "a dead letter has traces");
        let count: u64 = again.rejected.iter().map(|one| one.count).sum();
        assert_eq!(count, rejected.count, "a dead letter has other spans");
    }
}

/// Runs on a store that has one object, whose content is the input.
fn with_object<F: Future>(path: &str, data: &[u8], work: impl FnOnce(Store) -> F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let payload = data.to_vec().into();
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            inner
                .put(&Path::from(path), payload)
                .await
                .expect("memory takes it");
            work(Store::from_object_store(inner)).await
        })
    })
}

fn task() -> TaskName {
    TaskName::new("support").expect("a name")
}

fn manifest(data: &[u8]) {
    with_object(
        "pipelines/support/v000001/manifest.json",
        data,
        async |store| {
            let registry = Registry::new(store);
            let version = PipelineVersion(1);
            if let Ok(manifest) = registry.manifest(&task(), version).await {
                assert_eq!((&manifest.task, manifest.version), (&task(), version));
                _ = registry.report(&task(), version, ReportFormat::Json).await;
            }
            _ = registry.load(&task(), version).await;
            _ = registry.adopt(&task(), "fuzz").await;
        },
    );
}

fn log_entry(data: &[u8]) {
    let path = "pipelines/support/log/00000000000000000001.json";
    with_object(path, data, async |store| {
        let registry = Registry::new(store);
        if let Ok(entries) = registry.log(&task()).await {
            assert_eq!(Active::fold(&entries).seq, 1);
            let entry = registry.append(&task(), LogEvent::Resumed, "fuzz").await;
            assert_eq!(entry.expect("it can be appended to").seq, 2);
        }
        _ = registry.last_published(&task()).await;
        _ = registry.fence(&task(), 3, "fuzz").await;
    });
}

fn lease(data: &[u8]) {
    with_object(
        "leases/support/00000000000000000001.json",
        data,
        async |store| {
            let leases = Leases::new(store);
            _ = leases
                .look()
                .await
                .expect("an entry that is wrong is its task's trouble");
            if let Ok(standing) = leases.look_at(&task()).await {
                let (task, second) = (task(), Duration::from_secs(1));
                let claimed = leases
                    .claim(&task, &standing, "fuzz", second, Value::Null)
                    .await;
                if let Ok(Some(mut lease)) = claimed {
                    _ = lease.renew(Value::Null).await;
                }
            }
        },
    );
}

fn partition() -> PartitionId {
    PartitionId::new("traces".parse().expect("a name"), 0)
}

fn reset(data: &[u8]) {
    let path = "resets/traces/00000/00000000000000000000.json";
    with_object(path, data, async |store| {
        let log = ShardLog::new(store);
        if log.resume(&partition()).await.is_ok() {
            _ = log.reset(&partition(), Offset(5), "fuzz", "why").await;
            _ = log.resume(&partition()).await;
        }
    });
}

fn model(data: &[u8]) {
    let Ok(pipeline) = Pipeline::from_bytes(data) else {
        return;
    };
    let dimension = pipeline.card().embedding_dimension.unwrap_or(0);
    let embedding: Vec<f32> = (0..dimension.min(1 << 16))
        .map(|i| i as f32 / 64.0)
        .collect();
    let mut scratch = Scratch::default();
    for input in [
        Input {
            text: Some("where is my parcel?"),
            embedding: Some(&embedding),
        },
        Input {
            text: None,
            embedding: Some(&embedding),
        },
        Input {
            text: Some(""),
            embedding: None,
        },
    ] {
        _ = pipeline.decide(input, &mut scratch);
    }
    let bytes = pipeline.to_bytes();
    let again = Pipeline::from_bytes(&bytes).expect("what was read can be written and read");
    assert_eq!(again.to_bytes(), bytes);
}

/// Looks at nothing.
struct Passed;

impl Visitor for Passed {
    fn see(&mut self, _: Vec<StoredTrace>) {}
}

/// The reader of Parquet, or Arrow below it, panics on some damaged pages. What decodes pages runs on a thread
/// from which a panic comes back as an error of the shard, so these panics are let pass. They are told by the file
/// that they come from: a call of ours at which Parquet or Arrow panics is let pass as well.
fn let_parquet_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location();
            let theirs = ["/parquet-", "/arrow-"];
            let of = |place: &std::panic::Location<'_>| {
                theirs.iter().any(|name| place.file().contains(name))
            };
            if !place.is_some_and(of) {
                usual(info);
            }
        }));
    });
}

fn shard(data: &[u8]) {
    let_parquet_panic();
    // Where `corpus/shard` says that it stands.
    with_object(
        "traces/traces/00000/00000000000000000000.parquet",
        data,
        async |store| {
            let log = ShardLog::new(store.clone());
            if let Ok(shards) = log.shards(&partition()).await {
                let listed: u64 = shards.iter().map(tracer_store::ShardInfo::rows).sum();
                let all = log.read_all(&shards, None).await.ok();
                if let Some(rows) = &all {
                    assert_eq!(rows.len() as u64, listed);
                }
                // As small as it is, it would be fetched whole.
                let parts = ShardLog::new(store).with_fetched_whole(0);
                let one = parts.read_all(&shards, Some(&task())).await.ok();
                if let (Some(mut rows), Some(one)) = (all, one) {
                    rows.retain(|row| row.trace.task == task());
                    // By their text: what is not a number is not equal to itself.
                    assert_eq!(format!("{rows:?}"), format!("{one:?}"));
                }
                let task = task();
                let audits = parts.visit(&shards, Some(&task), Columns::Auditing, Passed);
                _ = audits.await;
                _ = log.resume(&partition()).await;
            }
            _ = log.verify(&partition()).await;
        },
    );
}
