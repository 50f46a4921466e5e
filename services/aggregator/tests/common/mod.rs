//! Aggregators on real Kafka, for tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a panic is a failed test"
)]

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
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

pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Member {
    pub(crate) task: JoinHandle<Result<(), Error>>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
}

impl Member {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let ended = timeout(DEADLINE, self.task).await;
        ended.expect("ends in time").unwrap().unwrap();
    }
}

pub(crate) fn brokers() -> String {
    std::env::var("TRACER_TEST_KAFKA").expect("TRACER_TEST_KAFKA is host:port of a Kafka broker")
}

/// What a test has for itself.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) directory: TempDir,
    pub(crate) source: SourceConfig,
    pub(crate) log: ShardLog,
    /// The topic of dead letters.
    pub(crate) dead: String,
}

impl World {
    pub(crate) fn new(of: &str) -> Self {
        let name = format!("{of}-{}", std::process::id());
        let directory = TempDir::new().unwrap();
        Self {
            source: source(&name),
            log: shards(&directory),
            dead: format!("{name}.dead"),
            directory,
            name,
        }
    }
}

pub(crate) fn source(name: &str) -> SourceConfig {
    SourceConfig::Kafka(KafkaConfig {
        brokers: brokers(),
        topics: vec![TopicName::new(name).unwrap()],
        group: name.to_owned(),
        ..KafkaConfig::default()
    })
}

pub(crate) fn shards(directory: &TempDir) -> ShardLog {
    let url = format!("file://{}", directory.path().display());
    ShardLog::new(Store::open(&url, &BTreeMap::new()).unwrap())
}

pub(crate) fn start(source: &SourceConfig, shards: ShardLog, dead_letters: &str) -> Member {
    start_with(
        source,
        shards,
        AggregatorConfig {
            max_rows: 50,
            max_age_ms: 50,
            dead_letter_topic: Some(TopicName::new(dead_letters).unwrap()),
            ..AggregatorConfig::default()
        },
    )
}

pub(crate) fn start_with(
    source: &SourceConfig,
    shards: ShardLog,
    config: AggregatorConfig,
) -> Member {
    let (shutdown, metrics, health) = (CancellationToken::new(), Metrics::new(), Health::new());
    let task = tokio::spawn(run(
        config,
        source.open_source().unwrap(),
        Some(source.open_writer().unwrap()),
        shards,
        Limits::default(),
        metrics.clone(),
        health.clone(),
        shutdown.clone(),
    ));
    Member {
        task,
        metrics,
        health,
        shutdown,
    }
}

pub(crate) async fn ids(shards: &ShardLog) -> Vec<String> {
    let mut ids = Vec::new();
    for partition in shards.partitions().await.unwrap() {
        for shard in shards.shards(&partition).await.unwrap() {
            let rows = shards.read(&shard, None).await.unwrap();
            ids.extend(rows.into_iter().map(|row| row.trace.id));
        }
    }
    ids
}

pub(crate) async fn create(name: &str, partitions: i32, config: &[(&str, &str)]) {
    let topic = config.iter().fold(
        NewTopic::new(name, partitions, TopicReplication::Fixed(1)),
        |topic, (key, value)| topic.set(key, value),
    );
    let created = admin().create_topics([&topic], &AdminOptions::new()).await;
    created.unwrap()[0].clone().unwrap();
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap()
}

pub(crate) async fn fill(source: &SourceConfig, ids: std::ops::Range<usize>) {
    let messages = ids.map(|n| {
        let payload = format!(r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#);
        Message::new(payload).with_key(n.to_string())
    });
    source
        .open_writer()
        .unwrap()
        .append_batch(&source.write_topic(), messages.collect())
        .await
        .unwrap();
}

/// Retention removes what stands before an offset of a topic's only partition.
pub(crate) async fn remove_before(topic: &str, offset: i64) {
    let mut removed = TopicPartitionList::new();
    removed
        .add_partition_offset(topic, 0, rdkafka::Offset::Offset(offset))
        .unwrap();
    admin()
        .delete_records(&removed, &AdminOptions::new())
        .await
        .unwrap();
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes a topic and creates it anew.
pub(crate) async fn recreate(name: &str) {
    let deleted = admin().delete_topics(&[name], &AdminOptions::new()).await;
    deleted.unwrap()[0].clone().unwrap();
    // The broker deletes in the background.
    until("it is created anew", async || {
        let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1));
        let created = admin().create_topics([&topic], &AdminOptions::new()).await;
        created.unwrap()[0].is_ok()
    })
    .await;
}

pub(crate) async fn all_lost(member: &Member, name: &str) {
    for partition in 0..3 {
        let series =
            format!(r#"tracer_consumer_position_lost{{topic="{name}",partition="{partition}"}} 1"#);
        until("lost", async || member.metrics.render().contains(&series)).await;
    }
}
