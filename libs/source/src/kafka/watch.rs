//! Looks at the cluster regularly, also at what is paused or idle and tells nothing.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    metadata::MetadataTopic,
    types::RDKafkaRespErr,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{access::Access, context::Context, state::Shared};
use crate::{KafkaConfig, Offset, PartitionId, TopicName};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Looks until the source closes.
pub(super) async fn watch(
    consumer: Weak<StreamConsumer<Context>>,
    config: KafkaConfig,
    shared: Shared,
    closed: CancellationToken,
) {
    let config = Arc::new(config);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(consumer) = consumer.upgrade() else {
            return;
        };
        let (config, shared, closed) = (config.clone(), shared.clone(), closed.clone());
        let look = move || look(&consumer, &config, &shared, &closed);
        if tokio::task::spawn_blocking(look).await.is_err() {
            return;
        }
    }
}

fn look(
    consumer: &StreamConsumer<Context>,
    config: &KafkaConfig,
    shared: &Shared,
    closed: &CancellationToken,
) {
    let (mut missing, mut denied) = (Vec::new(), Vec::new());
    let mut answered = true;
    for topic in &config.topics {
        match consumer.fetch_metadata(Some(topic.as_str()), TIMEOUT) {
            Ok(metadata) => {
                let said = metadata.topics().iter().find_map(MetadataTopic::error);
                match said {
                    Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {
                        missing.push(topic.clone());
                    }
                    Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
                        denied.push(topic.clone());
                    }
                    _ => {}
                }
            }
            Err(error) => {
                tracing::debug!(%topic, %error, "kafka: no metadata");
                answered = false;
                break;
            }
        }
    }
    let ends = if answered {
        let certain = try_to_read(config, shared, &mut denied, closed);
        shared.lock().looked(denied, certain);
        ends(consumer, shared)
    } else {
        Vec::new()
    };
    let uncommitted = {
        let mut known = shared.lock();
        if answered {
            known.unanswered = 0;
            if known.missing != missing {
                for topic in &missing {
                    tracing::error!(%topic, "kafka: there is no such topic; it is read once it exists");
                }
                known.missing = missing;
            }
        } else {
            known.unanswered = known.unanswered.saturating_add(1);
        }
        for (partition, end) in ends {
            if known.partitions.contains(&partition) {
                known.ends.insert(partition, end);
            }
        }
        known.uncommitted()
    };
    if answered && !uncommitted.is_empty() {
        commit(consumer, &uncommitted);
    }
}

/// Where a topic was denied, finds out which ones still are. Answers how many denials that
/// settles, if every topic has told.
fn try_to_read(
    config: &KafkaConfig,
    shared: &Shared,
    denied: &mut Vec<TopicName>,
    closed: &CancellationToken,
) -> Option<u64> {
    let (denials, doubtful) = shared.lock().in_doubt()?;
    let access = Access::open(config)
        .inspect_err(|error| tracing::debug!(%error, "kafka: access cannot be tried"))
        .ok()?;
    for partition in doubtful {
        if denied.contains(&partition.topic) {
            continue;
        }
        match access.is_allowed(&partition, closed) {
            Some(true) => {}
            Some(false) => denied.push(partition.topic),
            // Another five seconds for each topic would hold up all that is looked at.
            None => return None,
        }
    }
    Some(denials)
}

/// Asks for the ends of all assigned partitions, in one request a broker.
fn ends(consumer: &StreamConsumer<Context>, shared: &Shared) -> Vec<(PartitionId, Offset)> {
    let mut list = TopicPartitionList::new();
    for partition in &shared.lock().partitions {
        // In place of a time it stands for the latest one there is.
        let (topic, end) = (partition.topic.as_str(), KafkaOffset::End);
        if let Err(error) = list.add_partition_offset(topic, partition.partition, end) {
            tracing::debug!(%partition, %error, "kafka: the end cannot be asked for");
        }
    }
    if list.count() == 0 {
        return Vec::new();
    }
    match consumer.offsets_for_times(list, TIMEOUT) {
        Ok(answers) => answers
            .elements()
            .iter()
            .filter(|answer| answer.error().is_ok())
            .filter_map(|answer| {
                let KafkaOffset::Offset(end) = answer.offset() else {
                    return None;
                };
                let topic = TopicName::new(answer.topic()).ok()?;
                let end = Offset(u64::try_from(end).ok()?);
                Some((PartitionId::new(topic, answer.partition()), end))
            })
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "kafka: the ends of the partitions are not known");
            Vec::new()
        }
    }
}

/// Tells the group how far results are durable.
pub(super) fn commit(consumer: &StreamConsumer<Context>, positions: &[(PartitionId, Offset)]) {
    // A member that has lost its partitions has no id until it joins again. The broker
    // takes a commit without one for that of a rival of the same instance id, and
    // librdkafka ends the consumer for good: for a hint.
    if consumer.assignment_lost() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, offset) in positions {
        let offset = KafkaOffset::Offset(offset.get() as i64);
        let (topic, number) = (partition.topic.as_str(), partition.partition);
        if let Err(error) = list.add_partition_offset(topic, number, offset) {
            tracing::debug!(%partition, %error, "a commit hint cannot be written");
        }
    }
    if let Err(error) = consumer.commit(&list, CommitMode::Async) {
        tracing::debug!(%error, "the commit hint was not sent");
    }
}
