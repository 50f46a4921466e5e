//! Writing to Kafka.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
    util::Timeout,
};

use super::{context::Plain, oauth::TokenFile, properties};
use crate::{KafkaConfig, LogWriter, Message, Offset, PartitionId, SourceError, TopicName};

/// The longest wait of a flush. Records fail by themselves before.
const FLUSH: Duration = Duration::from_secs(330);

/// The writing end of Kafka topics: an idempotent producer that waits for all
/// replicas in sync.
#[derive(Clone)]
pub struct KafkaWriter {
    producer: FutureProducer<Plain>,
}

impl KafkaWriter {
    /// Opens a producer. Brokers that do not answer are waited for.
    pub fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let context = Plain {
            token: TokenFile::of(config),
        };
        let producer = properties::producer(config)?
            .create_with_context(context)
            .map_err(properties::refused("create the producer"))?;
        Ok(Self { producer })
    }
}

#[async_trait]
impl LogWriter for KafkaWriter {
    async fn append(
        &self,
        topic: &TopicName,
        message: Message,
    ) -> Result<(PartitionId, Offset), SourceError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic.as_str()).payload(&message.payload);
        if let Some(key) = &message.key {
            record = record.key(key);
        }
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record = record.headers(message.headers.iter().fold(headers, |headers, header| {
                headers.insert(Header {
                    key: &header.0,
                    value: Some(header.1.as_ref()),
                })
            }));
        }
        // A full queue is waited for; the delivery has the producer's own timeout.
        let delivery = self
            .producer
            .send(record, Timeout::Never)
            .await
            .map_err(|(error, _)| SourceError::kafka("write a record")(error))?;
        let partition = PartitionId::new(topic.clone(), delivery.partition);
        let offset = u64::try_from(delivery.offset).map_err(|_| SourceError::UnknownOffset {
            topic: topic.clone(),
        })?;
        Ok((partition, Offset(offset)))
    }

    async fn append_batch(
        &self,
        topic: &TopicName,
        messages: Vec<Message>,
    ) -> Result<Vec<(PartitionId, Offset)>, SourceError> {
        try_join_all(
            messages
                .into_iter()
                .map(|message| self.append(topic, message)),
        )
        .await
    }

    async fn flush(&self) -> Result<(), SourceError> {
        let producer = self.producer.clone();
        tokio::task::spawn_blocking(move || producer.flush(FLUSH))
            .await
            .map_err(|_| SourceError::Closed)?
            .map_err(SourceError::kafka("flush"))
    }

    fn keeps_lines(&self) -> bool {
        false
    }
}
