//! Replays the corpus of the fuzz targets (`fuzz/`): no file in it may make one panic, take
//! more memory than it may, or find two ways to one answer that disagree.
//!
//! The files named `seed-*` are what Tracer itself writes, and hand-made neighbours of that:
//! `cargo test -p tracer --test corpus -- --ignored` writes them anew. The others were found by
//! fuzzing (`tests/run fuzz`), and are kept because something went wrong with them once.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

#[path = "../fuzz/targets.rs"]
#[allow(clippy::pedantic, unreachable_pub)]
// shared with the fuzz crate, which has lints of its own
mod targets;

#[path = "corpus/shards.rs"]
mod shards;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use prost::Message as _;
use serde_json::json;
use targets::{MOST_BYTES, TARGETS};
use tracer_proto::v1;
use tracer_trace::{Format, Limits, Origin, decode};

/// An allocation beyond the limit fails, and that ends the test with its size.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn files(target: &str) -> Vec<PathBuf> {
    let folder = corpus().join(target);
    let listed = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = listed.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Panics that were caught somewhere on the way, on whatever thread.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn nothing_in_the_corpus_does_harm() {
    let usual = std::panic::take_hook();
    let said = Mutex::new(());
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        let _one = said.lock();
        usual(info);
    }));
    let mut bad = Vec::new();
    for (name, run) in TARGETS {
        let files = files(name);
        assert!(files.len() > 1, "{name} has no corpus");
        for file in files {
            let data = fs::read(&file).unwrap();
            let before = PANICS.load(Ordering::SeqCst);
            ALLOCATOR
                .set_limit(ALLOCATOR.allocated() + MOST_BYTES)
                .unwrap();
            let ended = catch_unwind(AssertUnwindSafe(|| run(&data)));
            ALLOCATOR.set_limit(usize::MAX).unwrap();
            if ended.is_err() || PANICS.load(Ordering::SeqCst) > before {
                bad.push(file);
            }
        }
    }
    assert!(bad.is_empty(), "these do harm: {bad:#?}");
}

#[test]
fn the_seeds_reach_what_they_are_for() {
    let origin = origin();
    for (target, format, one) in [
        ("trace_json", Format::Json, "seed-plain"),
        ("trace_protobuf", Format::Protobuf, "seed-whole"),
        ("trace_confluent", Format::Confluent, "seed-protobuf"),
        ("trace_auto", Format::Auto, "seed-json"),
    ] {
        let payload = fs::read(corpus().join(target).join(one)).unwrap();
        let read = decode(&payload, &origin, format, &Limits::default());
        assert!(read.is_ok(), "{target}/{one}: {read:?}");
    }
    let model = fs::read(corpus().join("model/seed-pipeline")).unwrap();
    assert!(tracer_learn::Pipeline::from_bytes(&model).is_ok());
}

fn origin() -> Origin<'static> {
    Origin {
        topic: "traces",
        partition: 0,
        offset: 3,
        timestamp_ms: None,
    }
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = corpus().join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
}

fn repository(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read(root.join(path)).unwrap()
}

#[tokio::test]
#[ignore = "writes the seeds that the other tests read"]
async fn write_the_seeds() {
    let plain = br#"{"task":"support","input":"where is my parcel?","teacher":"delivery"}"#;
    let whole = json!({
        "id": "a-1", "task": "support", "input": "caf\u{e9} \"closed\"?\n", "teacher": "hours",
        "embedding": [0.5, -1.25e-3, 3], "embedder": "model", "ground_truth": "hours",
        "timestamp": "2026-03-04T05:06:07.089Z", "metadata": {"model": "m", "cost_dollars": "0.01"},
        "routing": {"pipeline_version": 3, "decision": "handled", "label": "hours", "score": 0.75,
                    "audit": true, "propensity": 0.02},
    });
    for target in ["trace_json", "trace_auto"] {
        put(
            target,
            if target == "trace_json" {
                "plain"
            } else {
                "json"
            },
            plain,
        );
        put(target, "whole", whole.to_string());
    }
    put(
        "trace_json",
        "aliases",
        r#" {"prompt": "a\ud83d\ude00\u0000", "answer": "x", "timestamp": 1700000000000, "id": 7} "#,
    );
    put(
        "trace_json",
        "twice",
        r#"{"input":"a","query":"b","teacher":"x","teacher":"y","embedding":[1e39]}"#,
    );
    put(
        "trace_json",
        "deep",
        format!(
            "{{\"input\":\"a\",\"teacher\":\"x\",\"metadata\":{}1{}}}",
            "[".repeat(200),
            "]".repeat(200)
        ),
    );
    put(
        "trace_json",
        "numbers",
        r#"{"input":"a","teacher":"x","embedding":[0,-0.0,1e-45,123456789012345678901234567890,1E+2,0.1e1]}"#,
    );

    let trace = decode(
        whole.to_string().as_bytes(),
        &origin(),
        Format::Json,
        &Limits::default(),
    )
    .unwrap();
    let protobuf = tracer_trace::to_protobuf(&trace);
    for target in ["trace_protobuf", "trace_auto"] {
        put(
            target,
            if target == "trace_auto" {
                "protobuf"
            } else {
                "whole"
            },
            &protobuf,
        );
    }
    put("trace_protobuf", "cut", &protobuf[..protobuf.len() - 3]);
    put(
        "trace_protobuf",
        "text",
        v1::Trace {
            input: "a".into(),
            teacher: "x".into(),
            ..v1::Trace::default()
        }
        .encode_to_vec(),
    );
    // The packed floats of a message as single ones, and a field that nobody knows.
    put(
        "trace_protobuf",
        "unpacked",
        [
            &[0x25, 0, 0, 0x80, 0x3f, 0x2a, 1, b'x', 0x1a, 1, b'a'][..],
            &[0xfa, 7, 2, 0, 0],
        ]
        .concat(),
    );
    put(
        "trace_confluent",
        "json",
        [&[0, 0, 0, 0, 9][..], plain].concat(),
    );
    put(
        "trace_confluent",
        "protobuf",
        [&[0, 0, 0, 0, 9, 0][..], &protobuf].concat(),
    );
    put(
        "trace_confluent",
        "path",
        [&[0, 0, 0, 0, 9, 4, 2, 0][..], &protobuf].concat(),
    );
    put(
        "trace_auto",
        "frame",
        [&[0, 0, 0, 0, 9, 0][..], &protobuf].concat(),
    );

    let spans = repository("libs/trace/tests/golden/spans.json");
    put("otlp_json", "spans", &spans);
    put(
        "otlp_json",
        "little",
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"triage"}}]},"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"chat","startTimeUnixNano":"1544712660000000000","status":{"code":1},"attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.input.messages","value":{"stringValue":"[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hi\"}]}]"}},{"key":"gen_ai.output.messages","value":{"arrayValue":{"values":[{"kvlistValue":{"values":[{"key":"role","value":{"stringValue":"assistant"}},{"key":"parts","value":{"stringValue":"x"}}]}}]}}}]}]}]}]}"#,
    );
    put(
        "otlp_json",
        "no_label",
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":"01","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.prompt","value":{"stringValue":"hi"}},{"key":"gen_ai.completion","value":{"stringValue":"```json\n{\"label\":[1]}\n```"}}]}]}]}]}"#,
    );
    let spans = repository("libs/trace/tests/golden/spans.binpb");
    put("otlp_proto", "spans", &spans);
    put("otlp_proto", "cut", &spans[..spans.len() / 2]);
    put("trace_auto", "spans", &spans);

    let manifest =
        String::from_utf8(repository("libs/store/tests/golden/manifest-v1.json")).unwrap();
    put("manifest", "version_12", &manifest);
    put(
        "manifest",
        "version_1",
        manifest.replace("\"version\": 12", "\"version\": 1"),
    );
    put("manifest", "newer", r#"{"schema_version": 4294967295}"#);
    let entries: Vec<serde_json::Value> =
        serde_json::from_slice(&repository("libs/store/tests/golden/log-v1.json")).unwrap();
    for (i, mut entry) in entries.into_iter().enumerate() {
        entry["seq"] = 1.into();
        put("log_entry", &format!("{i}"), entry.to_string());
    }
    let lease = json!({"schema_version": 1, "seq": 1, "epoch": 1, "holder": "a-1", "at": "2026-03-04T05:06:07Z",
                       "held": false, "expires_after_ms": 1, "body": {"stage": "fitting"}});
    put("lease", "free", lease.to_string());
    put("lease", "held", lease.to_string().replace("false", "true"));
    let reset = json!({"schema_version": 1, "position": 0, "next": 8, "offset": 2, "author": "a", "reason": "why",
                       "at": "2026-03-04T05:06:07Z"});
    put("reset", "ahead", reset.to_string());
    put(
        "reset",
        "far",
        reset.to_string().replace('8', "18446744073709551615"),
    );

    put(
        "model",
        "pipeline",
        repository("libs/learn/tests/golden/pipeline.safetensors"),
    );
    put("model", "empty", [2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);

    for (name, bytes) in shards::all(plain, whole).await {
        put("shard", &name, bytes);
    }
}
