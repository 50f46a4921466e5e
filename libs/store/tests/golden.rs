//! The JSON of the registry, pinned: other releases and other programs read it.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use tracer_store::{
    CostFacts, FileEntry, Imported, LastRecord, LogEntry, LogEvent, Manifest, PipelineVersion,
    Provenance, REGISTRY_SCHEMA_VERSION, Shadow, ShardKind, ShardLog, ShardSpan, Store,
};
use tracer_trace::{
    Decision, Offset, OffsetRange, PartitionId, Routing, StoredTrace, TokenUsage, Trace,
    parquet_schema::SCHEMA_VERSION,
};

/// What is written now equals the file, and the file reads back as the value.
/// A change of the format adds a golden file; it never edits one.
fn pinned<T>(name: &str, value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let json = serde_json::to_string_pretty(value).unwrap() + "\n";
    assert_eq!(json, golden, "{name} is not what this release writes");
    assert_eq!(serde_json::from_str::<T>(&golden).unwrap(), *value);
}

fn manifest() -> Manifest {
    let file = |bytes: u64, digit: &str| FileEntry {
        bytes,
        sha256: digit.repeat(64),
    };
    Manifest {
        schema_version: 1,
        task: "support".parse().unwrap(),
        version: PipelineVersion(12),
        created_at: "2026-03-04T05:06:07.123456Z".parse().unwrap(),
        author: "trainer".into(),
        family: "l2d".into(),
        surrogate: "blend(dense, lexical)".into(),
        target_agreement: 0.95,
        delta: 0.05,
        threshold: 0.625,
        shadow: Shadow {
            coverage: 0.875,
            agreement: 0.975,
            agreement_lower: 0.9625,
            n: 1600,
        },
        training_traces: 6400,
        labels: 77,
        embedding_dimension: Some(384),
        embedder: Some("all-MiniLM-L6-v2".into()),
        shards: vec![ShardSpan {
            topic: "traces".parse().unwrap(),
            partition: 0,
            start: Offset(0),
            end: Offset(8000),
        }],
        files: BTreeMap::from([
            ("model.safetensors".to_owned(), file(123_456, "a")),
            ("report.html".to_owned(), file(2048, "b")),
            ("report.json".to_owned(), file(1024, "c")),
        ]),
        code_version: "0.1.0".into(),
        config: serde_json::json!({"folds": 5}),
        seed: 42,
        ..Manifest::default()
    }
}

#[test]
fn manifest_v1() {
    pinned("manifest-v1.json", &manifest());
}

/// With what a version was made of, what it saves, and where it came from.
#[test]
fn manifest_v1_lifecycle() {
    let manifest = Manifest {
        provenance: Some(Provenance {
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            lock_sha256: "d".repeat(64),
            libraries: BTreeMap::from([("ndarray".into(), "0.16.1".into())]),
            instructions: "x86_64-v3".into(),
            traces: 8100,
            dedup_window_ms: 5000,
            sampled: true,
            rows: 8000,
            rows_sha256: "e".repeat(64),
            embedder: Some("static:0123456789abcdef:384:unit".into()),
            base: Some(PipelineVersion(11)),
            base_sha256: Some("f".repeat(64)),
        }),
        cost: Some(CostFacts {
            call_dollars: 0.002,
            usage: Some(TokenUsage {
                traces: 8000,
                input_tokens: 200.5,
                output_tokens: 10.25,
                ..TokenUsage::default()
            }),
            saved_share: 0.8575,
            calls_per_day: Some(5000.0),
            calls_saved: 1250.0,
            since: Some("2026-03-03T05:06:07Z".parse().unwrap()),
        }),
        imported: Some(Imported {
            version: PipelineVersion(7),
            created_at: "2026-03-02T05:06:07.123456Z".parse().unwrap(),
            author: "trainer".into(),
            manifest_sha256: "0".repeat(64),
        }),
        epoch: Some(3),
        ..manifest()
    };
    pinned("manifest-v1-lifecycle.json", &manifest);
}

/// What people do to versions.
#[test]
fn log_v1_lifecycle() {
    let entries = [
        (
            LogEvent::RolledBack {
                to_version: PipelineVersion(2),
            },
            Some("too many complaints"),
        ),
        (LogEvent::Resumed, Some("the incident is over")),
        (
            LogEvent::Retired {
                versions: vec![PipelineVersion(1), PipelineVersion(3)],
            },
            None,
        ),
        (LogEvent::Fenced { epoch: 3 }, None),
    ];
    let entries: Vec<LogEntry> = (1..)
        .zip(entries)
        .map(|(seq, (event, reason))| LogEntry {
            schema_version: 1,
            seq,
            at: "2026-03-04T05:06:07.123456Z".parse().unwrap(),
            author: "operator".into(),
            nonce: format!("{seq:016x}"),
            event,
            reason: reason.map(Into::into),
        })
        .collect();
    pinned("log-v1-lifecycle.json", &entries);
}

#[test]
fn log_v1() {
    let events = [
        LogEvent::Published {
            version: PipelineVersion(1),
        },
        LogEvent::Suspended {
            reason: "live agreement fell below 0.95".into(),
        },
        LogEvent::Resumed,
        LogEvent::RolledBack {
            to_version: PipelineVersion(1),
        },
    ];
    let entries: Vec<LogEntry> = (1..)
        .zip(events)
        .map(|(seq, event)| LogEntry {
            schema_version: 1,
            seq,
            at: "2026-03-04T05:06:07.123456Z".parse().unwrap(),
            author: "operator".into(),
            nonce: format!("{seq:016x}"),
            event,
            reason: None,
        })
        .collect();
    pinned("log-v1.json", &entries);
    assert_eq!(REGISTRY_SCHEMA_VERSION, 1);
}

/// A shard that the first release wrote is read as it was meant.
#[tokio::test]
async fn shard_v1() {
    let directory = tempfile::tempdir().unwrap();
    let path = "traces/golden/00007/00000000000000000100.parquet";
    let to = directory.path().join(path);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shard-v1.parquet");
    fs::copy(golden, to).unwrap();
    let log =
        ShardLog::new(Store::open(directory.path().to_str().unwrap(), &BTreeMap::new()).unwrap());
    let partition = PartitionId::new("golden".parse().unwrap(), 7);
    let shards = log.shards(&partition).await.unwrap();
    assert_eq!(shards.len(), 1);
    assert_eq!(shards[0].kind, ShardKind::Written);
    assert_eq!(
        Some(shards[0].range),
        OffsetRange::new(Offset(100), Offset(150))
    );
    assert_eq!(
        shards[0].last_record,
        Some(LastRecord::of(
            Offset(149),
            Some(1_800_000_049_000),
            b"not a trace"
        ))
    );
    let mut expected: Vec<_> = (0..40).map(row_v1).collect();
    expected.sort_by_key(|row| (row.trace.task.clone(), row.offset));
    assert_eq!(log.read(&shards[0], None).await.unwrap(), expected);
    for name in ["mail", "support"] {
        let task = name.parse().unwrap();
        let expected: Vec<_> = expected
            .iter()
            .filter(|row| row.trace.task == task)
            .cloned()
            .collect();
        assert_eq!(log.read(&shards[0], Some(&task)).await.unwrap(), expected);
    }
    assert!(log.verify(&partition).await.unwrap().is_whole());
    assert_eq!(
        SCHEMA_VERSION, 2,
        "a version that is added adds a golden file"
    );
}

/// The rows of `shard-v1.parquet`.
fn row_v1(n: u64) -> StoredTrace {
    StoredTrace {
        offset: 100 + n,
        trace: Trace {
            id: format!("id-{n}"),
            task: if n.is_multiple_of(4) {
                "mail"
            } else {
                "support"
            }
            .parse()
            .unwrap(),
            input: (!n.is_multiple_of(5)).then(|| format!("where is my parcel number {n}?")),
            withheld: None,
            embedding: match n % 5 {
                0 => Some(vec![n as f32, 0.25, -1.5]),
                1 => Some(vec![n as f32, 0.5]),
                2 => Some(vec![0.125; 3]),
                _ => None,
            },
            embedder: (n % 5 < 3).then(|| "small".to_owned()),
            teacher: format!("label-{}", n % 3),
            ground_truth: (n.is_multiple_of(7)).then(|| "label-0".to_owned()),
            timestamp: (n.is_multiple_of(2))
                .then(|| chrono::DateTime::from_timestamp(1_800_000_000 + n as i64, 0).unwrap()),
            metadata: if n.is_multiple_of(3) {
                BTreeMap::from([("channel".to_owned(), format!("web-{n}"))])
            } else {
                BTreeMap::new()
            },
            routing: (n.is_multiple_of(6)).then(|| Routing {
                pipeline_version: n,
                decision: if n.is_multiple_of(12) {
                    Decision::Handled
                } else {
                    Decision::Deferred
                },
                label: (n.is_multiple_of(12)).then(|| "label-1".to_owned()),
                score: (n.is_multiple_of(12)).then_some(0.75),
                audit: n.is_multiple_of(12),
                propensity: if n.is_multiple_of(12) { 0.02 } else { 1.0 },
            }),
        },
    }
}
