//! Aggregators of one consumer group on real Kafka.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _,
    consumer::{Consumer as _, StreamConsumer},
    message::Headers as _,
};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracer_aggregator::{AggregatorConfig, Error, run};
use tracer_source::{KafkaConfig, Message, SourceConfig, TopicName};
use tracer_store::{ShardLog, Store};
use tracer_telemetry::{Health, Metrics};
use tracer_trace::Limits;

const DEADLINE: Duration = Duration::from_mins(1);

struct Member {
    task: JoinHandle<Result<(), Error>>,
    shutdown: CancellationToken,
}

impl Member {
    async fn stop(self) {
        self.shutdown.cancel();
        let ended = timeout(DEADLINE, self.task).await;
        ended.expect("ends in time").unwrap().unwrap();
    }
}

fn brokers() -> String {
    std::env::var("TRACER_TEST_KAFKA").expect("TRACER_TEST_KAFKA is host:port of a Kafka broker")
}

fn source(name: &str) -> SourceConfig {
    SourceConfig::Kafka(KafkaConfig {
        brokers: brokers(),
        topics: vec![TopicName::new(name).unwrap()],
        group: name.to_owned(),
        properties: BTreeMap::new(),
    })
}

fn shards(directory: &TempDir) -> ShardLog {
    let url = format!("file://{}", directory.path().display());
    ShardLog::new(Store::open(&url, &BTreeMap::new()).unwrap())
}

fn start(source: &SourceConfig, shards: ShardLog, dead_letters: &str) -> Member {
    let config = AggregatorConfig {
        max_rows: 50,
        max_age_ms: 50,
        dead_letter_topic: Some(TopicName::new(dead_letters).unwrap()),
        ..AggregatorConfig::default()
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(
        config,
        source.open_source().unwrap(),
        Some(source.open_writer().unwrap()),
        shards,
        Limits::default(),
        Metrics::new(),
        Health::new(),
        shutdown.clone(),
    ));
    Member { task, shutdown }
}

async fn ids(shards: &ShardLog) -> Vec<String> {
    let mut ids = Vec::new();
    for partition in shards.partitions().await.unwrap() {
        for shard in shards.shards(&partition).await.unwrap() {
            let rows = shards.read(&shard, None).await.unwrap();
            ids.extend(rows.into_iter().map(|row| row.trace.id));
        }
    }
    ids
}

/// Members come and go while traces are written: partitions change hands all the
/// time, and every trace is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn members_of_a_kafka_group_come_and_go() {
    let name = format!("group-{}", std::process::id());
    let (directory, source) = (TempDir::new().unwrap(), source(&name));
    let (log, dead) = (shards(&directory), format!("{name}.dead"));
    let (writer, topic) = (source.open_writer().unwrap(), source.write_topic());
    let mut members = Vec::new();
    let mut count = 0;
    for round in 0..8 {
        // Two join and one leaves, then one joins and two leave.
        let (join, leave) = if round % 2 == 0 { (2, 1) } else { (1, 2) };
        for _ in 0..join {
            members.push(start(&source, log.clone(), &dead));
        }
        for _ in 0..20 {
            let messages = (count..count + 20).map(|n| {
                let payload =
                    format!(r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#);
                Message::new(payload).with_key(n.to_string())
            });
            writer
                .append_batch(&topic, messages.collect())
                .await
                .unwrap();
            count += 20;
            sleep(Duration::from_millis(40)).await;
        }
        for _ in 0..leave.min(members.len() - 1) {
            members.remove(0).stop().await;
        }
    }
    let end = Instant::now() + DEADLINE;
    while ids(&log).await.len() < count {
        assert!(Instant::now() < end, "{} of {count}", ids(&log).await.len());
        sleep(Duration::from_millis(100)).await;
    }
    for member in members {
        member.stop().await;
    }
    let stored = ids(&log).await;
    assert_eq!(stored.len(), count);
    let stored: BTreeSet<_> = stored.into_iter().collect();
    assert_eq!(stored, (0..count).map(|n| n.to_string()).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn dead_letters_on_kafka_carry_their_bytes_and_origin() {
    let name = format!("letters-{}", std::process::id());
    let (directory, source) = (TempDir::new().unwrap(), source(&name));
    let (log, dead) = (shards(&directory), format!("{name}.dead"));
    let payload: &[u8] = &[b'{', 0, 159, b'\n', 255];
    let (place, offset) = source
        .open_writer()
        .unwrap()
        .append(&source.write_topic(), Message::new(payload))
        .await
        .unwrap();
    let member = start(&source, log, &dead);

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", format!("{name}.reader"))
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()
        .unwrap();
    consumer.subscribe(&[&dead]).unwrap();
    let end = Instant::now() + DEADLINE;
    let letter = loop {
        // The topic does not exist at first.
        if let Ok(Ok(letter)) = tokio::time::timeout_at(end, consumer.recv()).await {
            break letter;
        }
        assert!(Instant::now() < end, "no dead letter");
    };
    assert_eq!(letter.payload(), Some(payload));
    let headers: BTreeMap<_, _> = letter
        .headers()
        .unwrap()
        .iter()
        .map(|header| {
            let value = std::str::from_utf8(header.value.unwrap()).unwrap();
            (header.key.to_owned(), value.to_owned())
        })
        .collect();
    assert_eq!(headers["tracer.topic"], name);
    assert_eq!(headers["tracer.partition"], place.partition.to_string());
    assert_eq!(headers["tracer.offset"], offset.to_string());
    assert_eq!(headers["tracer.reason"], "malformed_json");
    assert!(headers["tracer.error"].contains("malformed JSON"));
    member.stop().await;
}
