//! Whether access lists let a topic be read.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};

use tokio_util::sync::CancellationToken;

use super::{context::Plain, oauth::TokenFile, properties};
use crate::{KafkaConfig, PartitionId, SourceError};

/// How long the cluster may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks brokers for records, outside the group. librdkafka tells only once that a topic is
/// denied, not which one, and never that it is allowed again; and what may be described may
/// not be read for that. So it is tried.
pub(super) struct Access {
    consumer: BaseConsumer<Plain>,
}

impl Access {
    pub(super) fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let context = Plain {
            token: TokenFile::of(config),
        };
        let consumer = properties::consumer(config)?
            // An answer without records is one as well, and need not wait for some.
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .create_with_context(context)
            .map_err(properties::refused("create the consumer"))?;
        Ok(Self { consumer })
    }

    /// Whether records of a partition may be fetched; `None` when nobody has said so in
    /// time, or the source closes. It blocks while it waits.
    pub(super) fn is_allowed(
        &self,
        partition: &PartitionId,
        closed: &CancellationToken,
    ) -> Option<bool> {
        let mut list = TopicPartitionList::new();
        let (topic, number) = (partition.topic.as_str(), partition.partition);
        list.add_partition_offset(topic, number, KafkaOffset::End)
            .and_then(|()| self.consumer.assign(&list))
            .ok()?;
        let deadline = Instant::now() + TIMEOUT;
        let mut allowed = None;
        while allowed.is_none() && Instant::now() < deadline && !closed.is_cancelled() {
            allowed = match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Some(true),
                Some(Err(error)) if is_of_topic(&error) => Some(false),
                Some(Err(_)) | None => None,
            };
        }
        self.consumer.unassign().ok()?;
        allowed
    }
}

/// A broker says that a topic may not be read.
pub(super) fn is_of_topic(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}

/// A broker says that we may not be in the group.
pub(super) fn is_of_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}
