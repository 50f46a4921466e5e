//! What a consumer does that does nothing.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
};
use tracer_source::{KafkaConfig, kafka_client};

/// How long the first record, and each after it, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Receives so many records and drops them. Answers records a second from the first on.
pub(super) async fn drain(
    kafka: &KafkaConfig,
    topic: &str,
    partitions: i32,
    records: usize,
) -> anyhow::Result<f64> {
    let group = format!("{}-bare", kafka.group);
    let properties = [
        ("group.id", group.as_str()),
        ("enable.auto.commit", "false"),
    ];
    let consumer: StreamConsumer = kafka_client(kafka, &properties)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut started = None;
    let mut bytes = 0;
    for received in 0..records {
        let message = if received % 1000 == 0 {
            let waited = tokio::time::timeout(PATIENCE, consumer.recv());
            waited.await.context("the bare consumer stands still")??
        } else {
            consumer.recv().await?
        };
        bytes += message.payload_len();
        started.get_or_insert_with(Instant::now);
    }
    let seconds = started.map_or(f64::INFINITY, |at| at.elapsed().as_secs_f64());
    tracing::debug!(bytes, seconds, "drained by a bare consumer");
    Ok(records as f64 / seconds)
}
