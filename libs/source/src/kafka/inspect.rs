//! A look at a partition from outside the group.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::{
    Message as _, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use super::{context::Plain, oauth::TokenFile, properties};
use crate::{KafkaConfig, Offset, OffsetRange, PartitionId, Record, SourceError};

/// How long the cluster may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Looks at partitions without being a member of the group: nobody is disturbed. It
/// blocks while it waits.
pub struct KafkaInspector {
    consumer: BaseConsumer<Plain>,
}

impl KafkaInspector {
    /// Opens a client.
    pub fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let context = Plain {
            token: TokenFile::of(config),
        };
        let consumer = properties::consumer(config)?
            .create_with_context(context)
            .map_err(properties::refused("create the consumer"))?;
        Ok(Self { consumer })
    }

    /// The offsets that the log has of a partition.
    pub fn available(&self, partition: &PartitionId) -> Result<OffsetRange, SourceError> {
        let (topic, number) = (partition.topic.as_str(), partition.partition);
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, number, TIMEOUT)
            .map_err(SourceError::kafka("read the watermarks"))?;
        let offset = |watermark: i64| Offset(watermark.max(0) as u64);
        Ok(OffsetRange {
            start: offset(low),
            end: offset(high).max(offset(low)),
        })
    }

    /// The first record at an offset or after it; `None` when none comes in time.
    pub fn record(
        &self,
        partition: &PartitionId,
        offset: Offset,
    ) -> Result<Option<Record>, SourceError> {
        let mut list = TopicPartitionList::new();
        let start = KafkaOffset::Offset(offset.get() as i64);
        list.add_partition_offset(partition.topic.as_str(), partition.partition, start)
            .and_then(|()| self.consumer.assign(&list))
            .map_err(SourceError::kafka("assign a partition"))?;
        let deadline = Instant::now() + TIMEOUT;
        let mut found = None;
        while found.is_none() && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(200)) {
                None => {}
                Some(Ok(message)) => {
                    let at = Offset(message.offset().max(0) as u64);
                    let payload = message.payload().unwrap_or_default();
                    found = Some(Record {
                        partition: partition.clone(),
                        offset: at,
                        next: Offset(at.get() + 1),
                        payload: Bytes::copy_from_slice(payload),
                        timestamp_ms: message.timestamp().to_millis(),
                    });
                }
                Some(Err(error)) => return Err(SourceError::kafka("read a record")(error)),
            }
        }
        let released = self.consumer.unassign();
        released.map_err(SourceError::kafka("release a partition"))?;
        Ok(found)
    }
}
