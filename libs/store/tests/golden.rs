//! The JSON of the registry, pinned: other releases and other programs read it.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use tracer_store::{
    FileEntry, LogEntry, LogEvent, Manifest, PipelineVersion, REGISTRY_SCHEMA_VERSION, Shadow,
    ShardSpan,
};
use tracer_trace::Offset;

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

#[test]
fn manifest_v1() {
    let file = |bytes: u64, digit: &str| FileEntry {
        bytes,
        sha256: digit.repeat(64),
    };
    let manifest = Manifest {
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
    };
    pinned("manifest-v1.json", &manifest);
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
        })
        .collect();
    pinned("log-v1.json", &entries);
    assert_eq!(REGISTRY_SCHEMA_VERSION, 1);
}
