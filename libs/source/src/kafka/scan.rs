//! Reading a topic of Kafka once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    metadata::MetadataPartition,
};

use super::{context::Plain, oauth::TokenFile, properties};
use crate::{
    KafkaConfig, Offset, PartitionId, SourceError, TopicName,
    scan::{Scanned, Sink},
};

/// How long one request to the broker may take.
const REQUEST: Duration = Duration::from_secs(30);

/// How long the brokers may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Blocking.
pub(crate) fn scan(
    config: &KafkaConfig,
    topic: &TopicName,
    sink: &mut Sink<'_>,
) -> Result<(), SourceError> {
    let mut client = properties::consumer(config)?;
    client.set("enable.partition.eof", "true");
    let context = Plain {
        token: TokenFile::of(config),
    };
    let consumer: BaseConsumer<Plain> = client
        .create_with_context(context)
        .map_err(properties::refused("create a consumer"))?;
    // Partitions that have not been read to the end, with where that is.
    let mut left = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        let (low, high) = consumer
            .fetch_watermarks(topic.as_str(), partition, REQUEST)
            .map_err(SourceError::kafka("read the watermarks"))?;
        if low < high {
            list.add_partition_offset(topic.as_str(), partition, rdkafka::Offset::Offset(low))
                .map_err(SourceError::kafka("set a position"))?;
            left.insert(partition, high);
        }
    }
    consumer
        .assign(&list)
        .map_err(SourceError::kafka("assign partitions"))?;
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let Some(high) = left.get(&message.partition()) else {
                    continue;
                };
                let (next, high) = (message.offset() + 1, *high);
                if next <= high && !sink(scanned(&message, topic)) {
                    return Ok(());
                }
                if next >= high {
                    left.remove(&message.partition());
                }
            }
            // What is left before the end is no record, such as the mark of a transaction.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                left.remove(&partition);
            }
            Some(Err(error)) if heard.elapsed() > SILENCE => {
                return Err(SourceError::kafka("read the topic")(error));
            }
            None if heard.elapsed() > SILENCE => {
                let error = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                return Err(SourceError::kafka("read the topic")(error));
            }
            Some(Err(error)) => tracing::debug!(%topic, %error, "kafka: reading goes on"),
            None => {}
        }
    }
    Ok(())
}

fn partitions(consumer: &BaseConsumer<Plain>, topic: &TopicName) -> Result<Vec<i32>, SourceError> {
    let metadata = consumer
        .fetch_metadata(Some(topic.as_str()), REQUEST)
        .map_err(SourceError::kafka("read the metadata"))?;
    let topics = metadata.topics().iter();
    Ok(topics
        .filter(|found| found.name() == topic.as_str() && found.error().is_none())
        .flat_map(|found| found.partitions().iter().map(MetadataPartition::id))
        .collect())
}

fn scanned(message: &BorrowedMessage<'_>, topic: &TopicName) -> Scanned {
    let headers = message.headers().map(|headers| {
        let all = headers.iter().map(|header| {
            let value = header.value.map(Bytes::copy_from_slice);
            (header.key.to_owned(), value.unwrap_or_default())
        });
        all.collect()
    });
    Scanned {
        partition: PartitionId::new(topic.clone(), message.partition()),
        offset: Offset(message.offset().max(0) as u64),
        timestamp_ms: message.timestamp().to_millis(),
        headers: headers.unwrap_or_default(),
        payload: message
            .payload()
            .map(Bytes::copy_from_slice)
            .unwrap_or_default(),
    }
}
