//! The aggregator on a real spool and a real store in a directory.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracer_aggregator::{AggregatorConfig, Error, OnLostPosition, run};
use tracer_source::{
    LogWriter, Message, Offset, PartitionId, SourceConfig, SourceError, SpoolConfig, TopicName,
};
use tracer_store::{ShardLog, Store};
use tracer_telemetry::{Health, Metrics};
use tracer_trace::{Limits, StoredTrace};

const PARTITIONS: i32 = 3;
const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    directory: TempDir,
    source: SourceConfig,
    topic: TopicName,
}

struct Running {
    task: JoinHandle<Result<(), Error>>,
    shutdown: CancellationToken,
    metrics: Metrics,
    health: Health,
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let topic = TopicName::default();
        let source = SourceConfig::Spool(SpoolConfig {
            path: directory.path().join("spool"),
            topics: vec![topic.clone()],
            partitions: PARTITIONS,
        });
        Self {
            directory,
            source,
            topic,
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn shards(&self) -> ShardLog {
        let url = format!("file://{}", self.store().display());
        ShardLog::new(Store::open(&url, &BTreeMap::new()).unwrap())
    }

    fn writer(&self) -> Arc<dyn LogWriter> {
        self.source.open_writer().unwrap()
    }

    async fn fill(&self, numbers: std::ops::Range<usize>) {
        let messages = numbers
            .map(|n| {
                Message::new(format!(
                    r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#
                ))
            })
            .collect();
        self.writer()
            .append_batch(&self.topic, messages)
            .await
            .unwrap();
    }

    fn start(&self, config: AggregatorConfig) -> Running {
        self.start_with(config, self.writer())
    }

    fn start_with(&self, config: AggregatorConfig, letters: Arc<dyn LogWriter>) -> Running {
        let (shutdown, metrics, health) = (CancellationToken::new(), Metrics::new(), Health::new());
        let task = tokio::spawn(run(
            config,
            self.source.open_source().unwrap(),
            Some(letters),
            self.shards(),
            Limits::default(),
            metrics.clone(),
            health.clone(),
            shutdown.clone(),
        ));
        Running {
            task,
            shutdown,
            metrics,
            health,
        }
    }

    /// Every row of every shard that counts.
    async fn rows(&self) -> Vec<StoredTrace> {
        let shards = self.shards();
        let mut rows = Vec::new();
        for partition in shards.partitions().await.unwrap() {
            for shard in shards.shards(&partition).await.unwrap() {
                rows.extend(shards.read(&shard, None).await.unwrap());
            }
        }
        rows
    }

    async fn settled(&self, count: usize) {
        let end = Instant::now() + DEADLINE;
        loop {
            let rows = self.rows().await.len();
            if rows >= count {
                return;
            }
            assert!(Instant::now() < end, "{rows} of {count} rows");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn exactly(&self, count: usize) {
        let rows = self.rows().await;
        let ids: BTreeSet<_> = rows.iter().map(|row| row.trace.id.clone()).collect();
        assert_eq!(rows.len(), count, "rows");
        let expected: BTreeSet<_> = (0..count).map(|n| n.to_string()).collect();
        assert_eq!(ids, expected);
    }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task).await;
        ended.expect("ends in time").unwrap().unwrap();
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        // Nothing is registered before the aggregator's first step.
        value.map_or(f64::NAN, |value| value.trim().parse().unwrap())
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.health.ready());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn quick() -> AggregatorConfig {
    AggregatorConfig {
        max_rows: 100,
        max_age_ms: 200,
        ..AggregatorConfig::default()
    }
}

fn slow() -> AggregatorConfig {
    AggregatorConfig {
        max_age_ms: 3_600_000,
        ..AggregatorConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_become_shards_and_a_restart_goes_on() {
    let world = World::new();
    world.fill(0..1000).await;
    let running = world.start(quick());
    world.settled(1000).await;
    running
        .until("ready", |running| running.health.ready().is_ok())
        .await;
    assert_eq!(running.metric("tracer_traces_consumed_total"), 1000.0);
    assert!(running.metric("tracer_shards_written_total") >= 3.0);
    for partition in 0..PARTITIONS {
        let series = format!(r#"tracer_consumer_lag{{topic="traces",partition="{partition}"}}"#);
        running.until("no lag", |r| r.metric(&series) == 0.0).await;
    }
    running.stop().await;
    world.exactly(1000).await;

    world.fill(1000..1500).await;
    let running = world.start(quick());
    world.settled(1500).await;
    assert_eq!(running.metric("tracer_traces_consumed_total"), 500.0);
    running.stop().await;
    world.exactly(1500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_flushes() {
    let world = World::new();
    world.fill(0..100).await;
    let running = world.start(slow());
    running
        .until("read", |r| {
            r.metric("tracer_traces_consumed_total") == 100.0
        })
        .await;
    assert!(world.rows().await.is_empty());
    running.stop().await;
    world.exactly(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_trace_goes_to_the_dead_letters_once_and_stops_nothing() {
    let world = World::new();
    let bad = [
        "not json",
        r#"{"input": "a"}"#,
        "",
        r#"{"input": "a", "teacher": " "}"#,
    ];
    let writer = world.writer();
    for payload in bad {
        let message = Message::new(payload).with_key("one");
        writer.append(&world.topic, message).await.unwrap();
    }
    world.fill(0..50).await;
    let running = world.start(quick());
    world.settled(50).await;
    for reason in [
        "malformed_json",
        "missing_label",
        "empty_payload",
        "empty_label",
    ] {
        let series = format!(r#"tracer_traces_rejected_total{{reason="{reason}"}}"#);
        running.until(reason, |r| r.metric(&series) == 1.0).await;
    }
    let series = r#"tracer_traces_rejected_total{reason="bad_embedding"}"#;
    assert_eq!(running.metric(series), 0.0);
    running.stop().await;
    // A restart reads none of them again: their range is covered.
    world.start(quick()).stop().await;
    world.exactly(50).await;

    let letters = dead_letters(&world.directory.path().join("spool/traces.dead-letters"));
    assert_eq!(letters.len(), bad.len());
    assert_eq!(letters[0]["reason"], "malformed_json");
    assert_eq!(letters[0]["payload_base64"], "bm90IGpzb24=");
    assert_eq!(letters[0]["topic"], "traces");
    assert_eq!(letters[1]["offset"], 9);
    assert!(
        letters[1]["error"]
            .as_str()
            .unwrap()
            .contains("\"teacher\"")
    );
}

fn dead_letters(directory: &Path) -> Vec<serde_json::Value> {
    let mut letters = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        letters.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
    }
    letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_waited_for_with_bounded_memory() {
    let world = World::new();
    world.fill(0..5000).await;
    // A file where a directory must be: nothing can be written.
    let config = AggregatorConfig {
        max_rows: 200,
        ..quick()
    };
    fs::create_dir_all(world.store()).unwrap();
    let running = world.start(config);
    running
        .until("ready", |running| running.health.ready().is_ok())
        .await;
    running.stop().await;
    fs::remove_dir_all(world.store()).unwrap();
    fs::create_dir_all(world.store().join("traces")).unwrap();
    // Positions can be read, shards cannot be written.
    fs::write(world.store().join("traces/traces"), "in the way").unwrap();

    let running = world.start(AggregatorConfig {
        max_rows: 200,
        max_buffered_bytes: 100_000,
        ..quick()
    });
    running
        .until("unready", |r| {
            r.health
                .ready()
                .is_err_and(|details| details[0].contains("traces-"))
        })
        .await;
    let consumed = running.metric("tracer_traces_consumed_total");
    fs::remove_file(world.store().join("traces/traces")).unwrap();
    world.settled(5000).await;
    running
        .until("ready again", |r| r.health.ready().is_ok())
        .await;
    assert!(consumed < 5000.0, "{consumed} were read ahead");
    running.stop().await;
    world.exactly(5000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rivals_on_one_log_write_everything_once() {
    let world = World::new();
    world.fill(0..200).await;
    let rivals: Vec<_> = (0..3)
        .map(|n| {
            world.start(AggregatorConfig {
                max_rows: 37 + n * 20,
                max_age_ms: 20 + 30 * n as u64,
                ..AggregatorConfig::default()
            })
        })
        .collect();
    for batch in 1..20 {
        world.fill(batch * 200..(batch + 1) * 200).await;
    }
    world.settled(4000).await;
    for rival in rivals {
        rival.stop().await;
    }
    world.exactly(4000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_created_anew_is_a_clear_state() {
    let world = World::new();
    world.fill(0..100).await;
    let running = world.start(quick());
    world.settled(100).await;
    running.stop().await;
    fs::remove_dir_all(world.directory.path().join("spool")).unwrap();
    world.fill(0..6).await;
    for on_lost_position in [OnLostPosition::Halt, OnLostPosition::Skip] {
        let running = world.start(AggregatorConfig {
            on_lost_position,
            ..quick()
        });
        running
            .until("unready", |r| {
                r.health
                    .ready()
                    .is_err_and(|details| details[0].contains("created anew"))
            })
            .await;
        for partition in 0..PARTITIONS {
            let series = format!(
                r#"tracer_consumer_position_lost{{topic="traces",partition="{partition}"}}"#
            );
            running.until("lost", |r| r.metric(&series) == 1.0).await;
        }
        running.stop().await;
    }
    world.exactly(100).await;
}

/// As long as before or longer, so that the position exists in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_log_created_anew_is_told_from_the_one_that_was_read() {
    let world = World::new();
    world.fill(0..100).await;
    let running = world.start(quick());
    world.settled(100).await;
    running.stop().await;
    fs::remove_dir_all(world.directory.path().join("spool")).unwrap();
    // The same lengths: every old position is the start of a line.
    let messages = (0..200).map(|n| {
        let n = n % 100;
        Message::new(format!(
            r#"{{"id": "{n}", "input": "text {n}", "teacher": "lebal"}}"#
        ))
    });
    world
        .writer()
        .append_batch(&world.topic, messages.collect())
        .await
        .unwrap();
    let running = world.start(AggregatorConfig {
        on_lost_position: OnLostPosition::Skip,
        ..quick()
    });
    for partition in 0..PARTITIONS {
        let series =
            format!(r#"tracer_consumer_position_lost{{topic="traces",partition="{partition}"}}"#);
        running.until("lost", |r| r.metric(&series) == 1.0).await;
    }
    let details = running.health.ready().unwrap_err();
    assert!(details[0].contains("created anew"), "{details:?}");
    assert_eq!(running.metric("tracer_traces_consumed_total"), 0.0);
    running.stop().await;
    world.exactly(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_shard_stops_its_own_partition_only() {
    let world = World::new();
    world.fill(0..90).await;
    let running = world.start(quick());
    world.settled(90).await;
    running.stop().await;
    let victim = PartitionId::new(world.topic.clone(), 0);
    let last = world.shards().resume(&victim).await.unwrap().last.unwrap();
    let shard = world.store().join(&last.path);
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, "damaged").unwrap();

    world.fill(90..180).await;
    let running = world.start(quick());
    running
        .until("the others are read", |r| {
            r.metric("tracer_traces_consumed_total") == 60.0
        })
        .await;
    running
        .until("unready", |r| {
            r.health
                .ready()
                .is_err_and(|details| details[0].contains("damaged"))
        })
        .await;
    fs::write(&shard, whole).unwrap();
    world.settled(180).await;
    running.until("ready", |r| r.health.ready().is_ok()).await;
    running.stop().await;
    world.exactly(180).await;
}

/// Refuses what is longer than `most`, and every first attempt.
struct Fussy {
    most: usize,
    refused: Mutex<BTreeSet<Bytes>>,
    written: Mutex<Vec<Message>>,
}

#[async_trait::async_trait]
impl LogWriter for Fussy {
    async fn append(
        &self,
        topic: &TopicName,
        message: Message,
    ) -> Result<(PartitionId, Offset), SourceError> {
        let refuse = |code| SourceError::Kafka {
            action: "write a record",
            source: KafkaError::MessageProduction(code),
        };
        if message.payload.len() > self.most {
            return Err(refuse(RDKafkaErrorCode::MessageSizeTooLarge));
        }
        if self.refused.lock().unwrap().insert(message.payload.clone()) {
            return Err(refuse(RDKafkaErrorCode::NotEnoughReplicas));
        }
        self.written.lock().unwrap().push(message);
        // What the broker answers when it had the record already.
        let topic = topic.clone();
        Err(SourceError::UnknownOffset { topic })
    }

    async fn append_batch(
        &self,
        _: &TopicName,
        _: Vec<Message>,
    ) -> Result<Vec<(PartitionId, Offset)>, SourceError> {
        unimplemented!("letters are written one by one: those that are written stay so")
    }

    async fn flush(&self) -> Result<(), SourceError> {
        Ok(())
    }

    fn keeps_lines(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_refused_neither_stops_a_partition_nor_repeats_the_others() {
    let world = World::new();
    let writer = world.writer();
    let bad = ["not one".to_owned(), "x".repeat(1000), "nor two".to_owned()];
    for payload in &bad {
        let message = Message::new(payload.clone()).with_key("one");
        writer.append(&world.topic, message).await.unwrap();
    }
    world.fill(0..30).await;
    let letters = Arc::new(Fussy {
        most: 300,
        refused: Mutex::default(),
        written: Mutex::default(),
    });
    let running = world.start_with(quick(), letters.clone());
    world.settled(30).await;
    running.stop().await;
    let mut written: Vec<_> = letters
        .written
        .lock()
        .unwrap()
        .iter()
        .map(|letter| letter.payload.clone())
        .collect();
    written.sort();
    let cut = "x".repeat(250);
    assert_eq!(written, [bad[2].clone(), bad[0].clone(), cut]);
}
