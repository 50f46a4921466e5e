//! What librdkafka tells from inside a poll, handed on to the source.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::sync::mpsc;

use crate::{Offset, PartitionId, TopicName};

/// A change of the assignment, to be answered by the source.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<PartitionId>),
    Revoked(Vec<PartitionId>),
}

/// The ends of partitions, as the last statistics had them.
pub(super) type Ends = Arc<Mutex<BTreeMap<PartitionId, Offset>>>;

pub(super) struct Context {
    pub(super) rebalances: mpsc::UnboundedSender<Rebalanced>,
    pub(super) ends: Ends,
    /// Nobody answers any more: whatever is revoked is let go at once.
    pub(super) closing: Arc<AtomicBool>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = false;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(facility, "{message}"),
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka");
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in statistics.topics.values() {
            let Ok(name) = TopicName::new(&topic.topic) else {
                continue;
            };
            for partition in topic.partitions.values() {
                // -1 is the partition of records without one, and the offset of
                // partitions that have not been fetched from.
                if let (0.., Ok(end)) = (partition.partition, u64::try_from(partition.hi_offset)) {
                    let partition = PartitionId::new(name.clone(), partition.partition);
                    ends.insert(partition, Offset(end));
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    /// Hands the change on and returns. librdkafka waits for the answer, which is
    /// an assign or unassign from outside, while it keeps the membership alive: the
    /// consumer has the time to list its results, or to flush.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            let released = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
                _ => consumer.unassign(),
            };
            if let Err(error) = released {
                tracing::warn!(%error, "cannot release partitions on close");
            }
            return;
        }
        let partitions = partitions(list);
        let change = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalanced::Assigned(partitions)
        } else {
            if consumer.assignment_lost() {
                tracing::warn!("the group gave our partitions away before we let go");
            }
            Rebalanced::Revoked(partitions)
        };
        // The receiver lives as long as the source, and the source polls.
        let _ = self.rebalances.send(change);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the commit hint was not taken");
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements()
        .iter()
        .filter_map(|element| {
            let topic = TopicName::new(element.topic()).ok()?;
            Some(PartitionId::new(topic, element.partition()))
        })
        .collect()
}
