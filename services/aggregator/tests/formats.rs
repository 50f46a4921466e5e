//! Records of several formats, one of them with many traces, through a real spool into
//! real shards.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{collections::BTreeMap, fs, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracer_aggregator::{AggregatorConfig, InputPolicies, StoreInput, run};
use tracer_features::{InputKey, LexiconConfig, Withholder};
use tracer_source::{Message, SourceConfig, SpoolConfig, TopicName};
use tracer_store::{ShardLog, Store};
use tracer_telemetry::{Health, Metrics};
use tracer_trace::{Format, Limits, StoredTrace};

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    directory: TempDir,
    source: SourceConfig,
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

impl World {
    fn new(topics: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let source = SourceConfig::Spool(SpoolConfig {
            path: directory.path().join("spool"),
            topics: topics.iter().map(|name| topic(name)).collect(),
            partitions: 1,
        });
        Self { directory, source }
    }

    fn shards(&self) -> ShardLog {
        let url = format!("file://{}", self.directory.path().join("store").display());
        ShardLog::new(Store::open(&url, &BTreeMap::new()).unwrap())
    }

    async fn write(&self, to: &str, payload: impl Into<bytes::Bytes>) {
        let writer = self.source.open_writer().unwrap();
        writer
            .append(&topic(to), Message::new(payload))
            .await
            .unwrap();
    }

    /// Runs an aggregator until the metrics say what is waited for.
    async fn run_until(&self, config: AggregatorConfig, holds: impl Fn(&str) -> bool) -> String {
        let (shutdown, metrics) = (CancellationToken::new(), Metrics::new());
        let task = tokio::spawn(run(
            config,
            self.source.open_source().unwrap(),
            Some(self.source.open_writer().unwrap()),
            self.shards(),
            Limits::default(),
            metrics.clone(),
            Health::new(),
            shutdown.clone(),
        ));
        let end = Instant::now() + DEADLINE;
        while !holds(&metrics.render()) {
            assert!(Instant::now() < end, "{}", metrics.render());
            sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
        task.await.unwrap().unwrap();
        metrics.render()
    }

    /// The rows of every shard, a shard each.
    async fn rows(&self) -> Vec<Vec<StoredTrace>> {
        let shards = self.shards();
        let mut rows = Vec::new();
        for partition in shards.partitions().await.unwrap() {
            for shard in shards.shards(&partition).await.unwrap() {
                rows.push(shards.read(&shard, None).await.unwrap());
            }
        }
        rows
    }

    fn dead_letters(&self) -> Vec<Value> {
        let directory = self.directory.path().join("spool/traces.dead-letters");
        let files = fs::read_dir(directory).into_iter().flatten();
        let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let lines: Vec<String> = texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A span of a chat completion.
fn span(number: usize, answer: &str) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({
        "traceId": format!("{:032x}", number / 10 + 1),
        "spanId": format!("{:016x}", number + 1),
        "name": "chat",
        "startTimeUnixNano": "1762000000000000000",
        "attributes": [
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.prompt", &format!("question {number}")),
            text("gen_ai.completion", answer),
        ],
    })
}

fn record(spans: &[Value]) -> String {
    let service =
        json!({"attributes": [{"key": "service.name", "value": {"stringValue": "triage"}}]});
    json!({"resourceSpans": [{"resource": service, "scopeSpans": [{"spans": spans}]}]}).to_string()
}

fn has(metrics: &str, series: &str, value: u64) -> bool {
    metrics
        .lines()
        .any(|line| line == format!("{series} {value}"))
}

fn quick(formats: &[(&str, Format)]) -> AggregatorConfig {
    AggregatorConfig {
        // Fewer than a record's spans: a shard is full in the midst of a record.
        max_rows: 7,
        max_age_ms: 100,
        formats: formats
            .iter()
            .map(|(name, format)| (topic(name), *format))
            .collect(),
        ..AggregatorConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_many_traces_is_stored_once_and_in_one_shard() {
    let world = World::new(&["spans"]);
    let (rounds, records, each) = (4, 20, 10);
    let good = (records / rounds * (each - 1)) as u64;
    for round in 0..rounds {
        for number in (round * records / rounds)..((round + 1) * records / rounds) {
            let mut spans: Vec<Value> = (0..each)
                .map(|n| span(number * each + n, r#"{"label": "a"}"#))
                .collect();
            spans[3]["attributes"][2]["value"]["stringValue"] = json!("{}");
            spans.push(json!({"traceId": "0f", "name": "GET /"}));
            world.write("spans", record(&spans)).await;
        }
        let all_read = |metrics: &str| has(metrics, "tracer_traces_consumed_total", good);
        let metrics = world.run_until(quick(&[]), all_read).await;
        let (bad, skipped, no_content) = (
            r#"tracer_traces_rejected_total{reason="bad_label"}"#,
            r#"tracer_spans_skipped_total{reason="not_a_call"}"#,
            r#"tracer_spans_skipped_total{reason="no_content"}"#,
        );
        assert!(has(&metrics, bad, (records / rounds) as u64), "{metrics}");
        assert!(
            has(&metrics, skipped, (records / rounds) as u64),
            "{metrics}"
        );
        assert!(has(&metrics, no_content, 0), "{metrics}");
    }

    // A restart reads nothing again, and finds its place after the last record.
    world.write("spans", record(&[span(1000, "b")])).await;
    let one_more = |metrics: &str| has(metrics, "tracer_traces_consumed_total", 1);
    world.run_until(quick(&[]), one_more).await;

    let shards = world.rows().await;
    assert!(shards.len() > rounds, "{} shards", shards.len());
    let good = good * rounds as u64;
    let mut shard_of = BTreeMap::<u64, usize>::new();
    let mut ids = Vec::new();
    for (shard, row) in shards
        .iter()
        .enumerate()
        .flat_map(|(n, rows)| rows.iter().map(move |row| (n, row)))
    {
        assert_eq!(
            *shard_of.entry(row.offset).or_insert(shard),
            shard,
            "one record, one shard"
        );
        ids.push(row.trace.id.clone());
    }
    assert_eq!((shard_of.len(), ids.len() as u64), (records + 1, good + 1));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, good + 1);
    // The spans of a record keep their order.
    let first: Vec<_> = shards[0]
        .iter()
        .take(each - 1)
        .map(|row| row.trace.input.clone().unwrap())
        .collect();
    let expected: Vec<_> = (0..each)
        .filter(|n| *n != 3)
        .map(|n| format!("question {n}"))
        .collect();
    assert_eq!(first, expected);
    assert_eq!(shards[0][0].trace.task.as_str(), "triage");

    let letters = world.dead_letters();
    assert_eq!(letters.len(), records);
    let letter = &letters[0];
    assert_eq!(letter["reason"], "bad_label");
    assert_eq!(letter["topic"], "spans");
    assert!(
        letter["error"]
            .as_str()
            .unwrap()
            .starts_with("span 0000000000000004: "),
        "{letter}"
    );
    let payload = BASE64_STANDARD
        .decode(letter["payload_base64"].as_str().unwrap())
        .unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let spans = payload["resourceSpans"][0]["scopeSpans"][0]["spans"]
        .as_array()
        .unwrap();
    assert_eq!(spans.len(), 1, "the bad span alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_topic_has_its_format() {
    let world = World::new(&["traces", "spans", "framed"]);
    let trace = r#"{"input": "a", "teacher": "b"}"#;
    world.write("traces", trace).await;
    world.write("spans", record(&[span(1, "c")])).await;
    world
        .write("framed", [b"\0\0\0\0\x07", trace.as_bytes()].concat())
        .await;
    // The right thing in the wrong place.
    world.write("spans", trace).await;
    world.write("framed", trace).await;
    world.write("traces", record(&[span(2, "d")])).await;
    let config = quick(&[
        ("traces", Format::Json),
        ("spans", Format::OtlpJson),
        ("framed", Format::Confluent),
    ]);
    let rejected = [
        ("malformed_otlp", 1),
        ("malformed_frame", 1),
        ("missing_label", 1),
    ];
    let metrics = world
        .run_until(config, |metrics| {
            has(metrics, "tracer_traces_consumed_total", 3)
                && rejected.iter().all(|(reason, count)| {
                    let series = format!(r#"tracer_traces_rejected_total{{reason="{reason}"}}"#);
                    has(metrics, &series, *count)
                })
        })
        .await;
    assert!(has(
        &metrics,
        r#"tracer_spans_skipped_total{reason="not_a_call"}"#,
        0
    ));
    let mut labels: Vec<String> = world
        .rows()
        .await
        .into_iter()
        .flatten()
        .map(|row| row.trace.teacher)
        .collect();
    labels.sort();
    assert_eq!(labels, ["b", "b", "c"]);
    assert_eq!(world.dead_letters().len(), 3);
}

/// Files below a directory that hold a text.
fn holding(directory: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_withholds_its_inputs_leaves_no_text() {
    let world = World::new(&["traces"]);
    let text = "swordfish is the password";
    for (task, bad) in [
        ("open", false),
        ("hashed", false),
        ("gone", false),
        ("hashed", true),
    ] {
        let mut trace =
            json!({"task": task, "input": text, "teacher": "x", "embedding": [1.0, 2.0]});
        if bad {
            trace["embedding"] = json!(text);
        }
        world.write("traces", trace.to_string()).await;
    }
    let key = InputKey::new("secret");
    let config = AggregatorConfig {
        inputs: InputPolicies {
            default: StoreInput::Full,
            tasks: [("hashed", StoreInput::Hash), ("gone", StoreInput::None)]
                .map(|(name, policy)| (name.parse().unwrap(), policy))
                .into(),
            key: key.clone(),
        },
        ..quick(&[])
    };
    world
        .run_until(config, |metrics| {
            has(metrics, "tracer_traces_consumed_total", 3)
                && has(
                    metrics,
                    r#"tracer_traces_rejected_total{reason="wrong_type"}"#,
                    1,
                )
        })
        .await;

    let rows: BTreeMap<String, _> = world
        .rows()
        .await
        .into_iter()
        .flatten()
        .map(|row| (row.trace.task.to_string(), row.trace))
        .collect();
    assert_eq!(rows["open"].input.as_deref(), Some(text));
    assert!(rows["open"].withheld.is_none());
    assert!(rows["gone"].input.is_none() && rows["gone"].withheld.is_none());
    assert_eq!(rows["gone"].embedding.as_deref(), Some(&[1.0, 2.0][..]));
    let kept = rows["hashed"].withheld.as_ref().unwrap();
    assert!(rows["hashed"].input.is_none());
    let withholder = Withholder::new(&key, &LexiconConfig::default());
    let expected = withholder.withhold(text);
    assert_eq!(kept.hash, expected.hash);
    assert_eq!(kept.counts, expected.hashed.counts());
    assert_eq!(kept.scheme, withholder.scheme());

    // Nor do the dead letters have it, in base64 or in the error that quotes it.
    let letters = world.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["payload_base64"], "");
    let error = letters[0]["error"].as_str().unwrap();
    assert!(
        error.starts_with("wrong_type; the details are withheld"),
        "{error}"
    );
    let letters = world.directory.path().join("spool/traces.dead-letters");
    assert_eq!(
        holding(&letters, "swordfish"),
        Vec::<std::path::PathBuf>::new()
    );
}

/// Without the open task's, no shard's rows have the text, whatever the column.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_column_of_a_shard_has_a_withheld_text() {
    let world = World::new(&["traces"]);
    let spans = record(&[span(1, "swordfish label")]).replace("question 1", "the input text");
    world.write("traces", spans).await;
    let config = AggregatorConfig {
        inputs: InputPolicies {
            default: StoreInput::Hash,
            ..InputPolicies::default()
        },
        ..quick(&[])
    };
    let consumed = |metrics: &str| has(metrics, "tracer_traces_consumed_total", 1);
    world.run_until(config, consumed).await;
    let shown = format!("{:?}", world.rows().await);
    assert!(
        shown.contains("swordfish label"),
        "labels are stored: {shown}"
    );
    assert!(!shown.contains("the input text"), "{shown}");
}
