//! Reading Kafka as a member of a consumer group.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, RebalanceProtocol, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::mpsc;

use super::{
    context::{Context, Ends, Rebalanced},
    properties,
};
use crate::{
    Event, KafkaConfig, Offset, OffsetRange, PartitionId, Record, Source, SourceError, Start,
    TopicName,
};

type Consumer = StreamConsumer<Context>;

/// Most records of one event, and most bytes before it is cut.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// How long one request to the broker may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often a seek is tried while librdkafka is still starting the partition.
const SEEK_TRIES: u32 = 50;
const SEEK_PAUSE: Duration = Duration::from_millis(100);

/// The reading end of Kafka topics.
pub struct KafkaSource {
    consumer: Arc<Consumer>,
    rebalances: mpsc::UnboundedReceiver<Rebalanced>,
    ends: Ends,
    closing: Arc<AtomicBool>,
    /// The next position of every partition that has been assigned. Records before
    /// it are what was under way when the partition was sought: they are dropped.
    positions: BTreeMap<PartitionId, Position>,
    /// Positions to be compared with the log after the broker refused one of them.
    suspects: Vec<PartitionId>,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    start: Start,
    lost: bool,
}

impl KafkaSource {
    /// Joins the group. Brokers that do not answer are waited for.
    pub fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let (sender, rebalances) = mpsc::unbounded_channel();
        let ends = Ends::default();
        let closing = Arc::new(AtomicBool::new(false));
        let context = Context {
            rebalances: sender,
            ends: ends.clone(),
            closing: closing.clone(),
        };
        let consumer: Consumer = properties::consumer(config)?
            .create_with_context(context)
            .map_err(SourceError::kafka("create the consumer"))?;
        let topics: Vec<&str> = config.topics.iter().map(TopicName::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(SourceError::kafka("subscribe"))?;
        Ok(Self {
            consumer: Arc::new(consumer),
            rebalances,
            ends,
            closing,
            positions: BTreeMap::new(),
            suspects: Vec::new(),
        })
    }

    fn cooperative(&self) -> bool {
        matches!(
            self.consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        )
    }

    /// Advances the partition's position over a record; `None` when the record
    /// lies before the position or belongs to nobody.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let topic = TopicName::new(message.topic()).ok()?;
        let partition = PartitionId::new(topic, message.partition());
        let offset = Offset(u64::try_from(message.offset()).ok()?);
        let next = Offset(offset.get() + 1);
        let position = self.positions.get_mut(&partition)?;
        if position.lost || matches!(position.start, Start::At(at) if offset < at) {
            return None;
        }
        position.start = Start::At(next);
        Some(Record {
            partition,
            offset,
            next,
            payload: message
                .payload()
                .map(Bytes::copy_from_slice)
                .unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
        })
    }

    /// The records that are there already, beginning with `first`.
    fn batch(&mut self, first: &BorrowedMessage<'_>) -> Result<Vec<Record>, SourceError> {
        let consumer = self.consumer.clone();
        let mut records: Vec<Record> = self.take(first).into_iter().collect();
        let mut bytes = first.payload_len();
        while records.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            match consumer.recv().now_or_never() {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    records.extend(self.take(&message));
                }
                Some(Err(error)) => {
                    self.note(error)?;
                    break;
                }
                None => break,
            }
        }
        Ok(records)
    }

    /// Sorts out an error of a poll: what ends the source is returned.
    fn note(&mut self, error: KafkaError) -> Result<(), SourceError> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => Err(SourceError::Kafka {
                action: "consume",
                source: error,
            }),
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                // The error does not say which partition it is about.
                self.suspects = self
                    .positions
                    .iter()
                    .filter(|(_, position)| !position.lost)
                    .map(|(partition, _)| partition.clone())
                    .collect();
                Ok(())
            }
            error => {
                tracing::warn!(%error, "kafka: consuming goes on");
                Ok(())
            }
        }
    }

    /// Starts a partition anew. After a refused position librdkafka has stopped it,
    /// and a stopped partition cannot be sought.
    fn restart(&self, partition: &PartitionId, start: Start) -> Result<(), SourceError> {
        let assigned = if self.cooperative() {
            let stop = names(std::slice::from_ref(partition));
            let start = list(&[(partition.clone(), start)])?;
            self.consumer
                .incremental_unassign(&stop)
                .and_then(|()| self.consumer.incremental_assign(&start))
        } else {
            // All at once is the only way here; what is read again of the others
            // lies before their positions.
            let all: Vec<_> = self
                .positions
                .iter()
                .map(|(partition, position)| (partition.clone(), position.start))
                .collect();
            self.consumer.assign(&list(&all)?)
        };
        assigned.map_err(SourceError::kafka("start a partition anew"))
    }

    /// Compares suspected positions with what the broker has.
    async fn examine(&mut self) -> Option<Event> {
        while let Some(partition) = self.suspects.last().cloned() {
            let Some(&Position { start, lost: false }) = self.positions.get(&partition) else {
                self.suspects.pop();
                continue;
            };
            let Start::At(position) = start else {
                self.suspects.pop();
                continue;
            };
            let (consumer, asked) = (self.consumer.clone(), partition.clone());
            let watermarks = tokio::task::spawn_blocking(move || {
                consumer.fetch_watermarks(asked.topic.as_str(), asked.partition, TIMEOUT)
            });
            let (low, high) = match watermarks.await {
                Ok(Ok((low, high))) => (low.max(0) as u64, high.max(0) as u64),
                Ok(Err(error)) => {
                    tracing::warn!(%partition, %error, "kafka: cannot read the watermarks");
                    return None;
                }
                Err(_) => return None,
            };
            self.suspects.pop();
            if position.get() < low || position.get() > high {
                if let Some(position) = self.positions.get_mut(&partition) {
                    position.lost = true;
                }
                return Some(Event::PositionLost {
                    partition,
                    position,
                    available: OffsetRange {
                        start: Offset(low),
                        end: Offset(high),
                    },
                });
            }
        }
        None
    }
}

fn list(starts: &[(PartitionId, Start)]) -> Result<TopicPartitionList, SourceError> {
    let mut list = TopicPartitionList::with_capacity(starts.len());
    for (partition, start) in starts {
        list.add_partition_offset(
            partition.topic.as_str(),
            partition.partition,
            kafka_offset(*start),
        )
        .map_err(SourceError::kafka("set a position"))?;
    }
    Ok(list)
}

fn names(partitions: &[PartitionId]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(partition.topic.as_str(), partition.partition);
    }
    list
}

fn kafka_offset(start: Start) -> rdkafka::Offset {
    match start {
        Start::Beginning => rdkafka::Offset::Beginning,
        Start::At(offset) => rdkafka::Offset::Offset(offset.get() as i64),
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self) -> Result<Event, SourceError> {
        loop {
            if let Some(event) = self.examine().await {
                return Ok(event);
            }
            let consumer = self.consumer.clone();
            tokio::select! {
                // A change of the assignment goes before records: those of a
                // partition that is leaving are of no use to a flush under way.
                biased;
                Some(change) = self.rebalances.recv() => {
                    return Ok(match change {
                        Rebalanced::Assigned(partitions) => Event::Assigned(partitions),
                        Rebalanced::Revoked(partitions) => Event::Revoked(partitions),
                    });
                }
                polled = consumer.recv() => match polled {
                    Ok(first) => {
                        let records = self.batch(&first)?;
                        if !records.is_empty() {
                            return Ok(Event::Records(records));
                        }
                    }
                    Err(error) => self.note(error)?,
                },
                // The broker did not answer about the suspects: ask again.
                () = tokio::time::sleep(TIMEOUT), if !self.suspects.is_empty() => {}
            }
        }
    }

    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError> {
        let list = list(starts)?;
        let assigned = if self.cooperative() {
            self.consumer.incremental_assign(&list)
        } else {
            self.positions.clear();
            self.consumer.assign(&list)
        };
        assigned.map_err(SourceError::kafka("assign partitions"))?;
        for (partition, start) in starts {
            let position = Position {
                start: *start,
                lost: false,
            };
            self.positions.insert(partition.clone(), position);
        }
        Ok(())
    }

    async fn release(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        let released = if self.cooperative() {
            self.consumer.incremental_unassign(&names(partitions))
        } else {
            self.consumer.unassign()
        };
        for partition in partitions {
            self.positions.remove(partition);
        }
        released.map_err(SourceError::kafka("release partitions"))
    }

    async fn seek(&mut self, partition: &PartitionId, start: Start) -> Result<(), SourceError> {
        let Some(position) = self.positions.get_mut(partition) else {
            return Err(SourceError::Config(format!(
                "partition {partition} has not been assigned"
            )));
        };
        let was_lost = std::mem::replace(position, Position { start, lost: false }).lost;
        if was_lost {
            return self.restart(partition, start);
        }
        let mut tries = 0;
        loop {
            let consumer = self.consumer.clone();
            let name = partition.clone();
            // Only after the answer are records from the old position outdated.
            let sought = tokio::task::spawn_blocking(move || {
                let offset = kafka_offset(start);
                consumer.seek(name.topic.as_str(), name.partition, offset, TIMEOUT)
            })
            .await
            .map_err(|_| SourceError::Closed)?;
            match sought {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tries += 1;
                    if tries == SEEK_TRIES {
                        return Err(SourceError::kafka("seek")(error));
                    }
                    tokio::time::sleep(SEEK_PAUSE).await;
                }
            }
        }
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.consumer
            .pause(&names(partitions))
            .map_err(SourceError::kafka("pause"))
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.consumer
            .resume(&names(partitions))
            .map_err(SourceError::kafka("resume"))
    }

    fn commit(&mut self, positions: &[(PartitionId, Offset)]) {
        let starts: Vec<_> = positions
            .iter()
            .map(|(partition, offset)| (partition.clone(), Start::At(*offset)))
            .collect();
        let sent = list(&starts).and_then(|list| {
            self.consumer
                .commit(&list, CommitMode::Async)
                .map_err(SourceError::kafka("commit"))
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "the commit hint was not sent");
        }
    }

    fn end(&self, partition: &PartitionId) -> Option<Offset> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(partition).copied()
    }

    async fn close(self: Box<Self>) {
        self.closing.store(true, Ordering::SeqCst);
        // A change that was not answered would keep the consumer from closing.
        // Leaving the group and the last commits take a while: the drop blocks.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        while let Ok(change) = self.rebalances.try_recv() {
            let answered = match (change, self.cooperative()) {
                (Rebalanced::Assigned(_), true) => {
                    self.consumer.incremental_assign(&TopicPartitionList::new())
                }
                (Rebalanced::Revoked(partitions), true) => {
                    self.consumer.incremental_unassign(&names(&partitions))
                }
                (_, false) => self.consumer.unassign(),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance was not answered on close");
            }
        }
    }
}
