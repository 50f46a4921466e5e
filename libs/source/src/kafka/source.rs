//! Reading Kafka as a member of a consumer group.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{FutureExt as _, StreamExt as _};
use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{Consumer as _, RebalanceProtocol, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, Rebalanced},
    oauth::TokenFile,
    properties,
    state::Shared,
    watch,
};
use crate::{
    Event, KafkaConfig, Offset, OffsetRange, PartitionId, ReadAhead, Record, Source, SourceError,
    Start, TopicName,
};

type Consumer = StreamConsumer<Context>;

/// Most records of one event, and most bytes before it is cut.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// Bytes that most batches fit into.
const PAYLOADS: usize = 512 << 10;

/// How long one request to the broker may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often a seek is tried while librdkafka is still starting the partition.
const SEEK_TRIES: u32 = 50;
const SEEK_PAUSE: Duration = Duration::from_millis(100);

/// The reading end of Kafka topics.
pub struct KafkaSource {
    consumer: Arc<Consumer>,
    rebalances: mpsc::UnboundedReceiver<Rebalanced>,
    shared: Shared,
    closing: Arc<AtomicBool>,
    /// Ends the watch, which is waited for: it holds the consumer while it looks.
    closed: CancellationToken,
    watch: Option<JoinHandle<()>>,
    /// The partition of the last record: most often it is that of the next one as well.
    last: Option<PartitionId>,
    /// Payloads of a batch stand in one allocation, which is used again once the records
    /// are gone.
    payloads: BytesMut,
    /// The next position of every partition that has been assigned. Records before
    /// it are what was under way when the partition was sought: they are dropped.
    positions: BTreeMap<PartitionId, Position>,
    /// Positions to be compared with the log after the broker refused one of them.
    suspects: Vec<PartitionId>,
    /// When the broker that did not answer about them is asked again.
    ask_after: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    start: Start,
    /// Lost or doubtful: nothing is delivered until it is sought.
    lost: bool,
    /// librdkafka forgets it when a partition is started anew.
    paused: bool,
}

impl KafkaSource {
    /// Joins the group. Brokers that do not answer are waited for.
    pub fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let (sender, rebalances) = mpsc::unbounded_channel();
        let shared = Shared::default();
        let closing = Arc::new(AtomicBool::new(false));
        let context = Context {
            rebalances: sender,
            shared: shared.clone(),
            token: TokenFile::of(config),
            closing: closing.clone(),
        };
        let consumer: Consumer = properties::consumer(config)?
            .create_with_context(context)
            .map_err(properties::refused("create the consumer"))?;
        consumer
            .subscribe(&properties::subscription(config))
            .map_err(SourceError::kafka("subscribe"))?;
        let consumer = Arc::new(consumer);
        let closed = CancellationToken::new();
        let watch = tokio::spawn(watch::watch(
            Arc::downgrade(&consumer),
            config.clone(),
            shared.clone(),
            closed.clone(),
        ));
        Ok(Self {
            consumer,
            rebalances,
            shared,
            closing,
            closed,
            watch: Some(watch),
            last: None,
            payloads: BytesMut::new(),
            positions: BTreeMap::new(),
            suspects: Vec::new(),
            ask_after: Instant::now(),
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
        let (topic, number) = (message.topic(), message.partition());
        let partition = match &self.last {
            Some(last) if last.partition == number && last.topic.as_str() == topic => last.clone(),
            _ => {
                let partition = PartitionId::new(TopicName::new(topic).ok()?, number);
                self.last.insert(partition).clone()
            }
        };
        let offset = Offset(u64::try_from(message.offset()).ok()?);
        let next = Offset(offset.get() + 1);
        let position = self.positions.get_mut(&partition)?;
        if position.lost || matches!(position.start, Start::At(at) if offset < at) {
            return None;
        }
        position.start = Start::At(next);
        let payload = message.payload().unwrap_or_default();
        self.payloads.extend_from_slice(payload);
        Some(Record {
            partition,
            offset,
            next,
            payload: self.payloads.split().freeze(),
            timestamp_ms: message.timestamp().to_millis(),
        })
    }

    /// The records that are there already, beginning with `first`.
    fn batch(&mut self, first: &BorrowedMessage<'_>) -> Result<Vec<Record>, SourceError> {
        let consumer = self.consumer.clone();
        // One for all: to make a stream takes two turns of a lock.
        let mut stream = consumer.stream();
        self.payloads.reserve(PAYLOADS);
        let mut records = Vec::with_capacity(BATCH_RECORDS);
        records.extend(self.take(first));
        let mut bytes = first.payload_len();
        while records.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            match stream.next().now_or_never() {
                Some(Some(Ok(message))) => {
                    bytes += message.payload_len();
                    records.extend(self.take(&message));
                }
                Some(Some(Err(error))) => {
                    self.note(error)?;
                    break;
                }
                Some(None) | None => break,
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
                self.shared.lock().deny(&error);
                Ok(())
            }
        }
    }

    fn set_paused(&mut self, partitions: &[PartitionId], paused: bool) {
        for partition in partitions {
            if let Some(position) = self.positions.get_mut(partition) {
                position.paused = paused;
            }
        }
    }

    /// Starts a partition anew. After a refused position librdkafka has stopped it,
    /// and a stopped partition cannot be sought.
    fn restart(&self, partition: &PartitionId, position: Position) -> Result<(), SourceError> {
        let assigned = if self.cooperative() {
            let stop = names(std::slice::from_ref(partition));
            let start = list(&[(partition.clone(), position.start)])?;
            self.consumer
                .incremental_unassign(&stop)
                .and_then(|()| self.consumer.incremental_assign(&start))
        } else {
            self.assign_all()
        };
        assigned.map_err(SourceError::kafka("start a partition anew"))?;
        let paused: Vec<_> = self
            .positions
            .iter()
            .filter(|(of, position)| position.paused && (!self.cooperative() || *of == partition))
            .map(|(partition, _)| partition.clone())
            .collect();
        self.consumer
            .pause(&names(&paused))
            .map_err(SourceError::kafka("pause"))
    }

    /// The eager protocol knows no assignment but that of everything at once. What
    /// is read again of partitions that were read before lies before their positions.
    fn assign_all(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(self.positions.len());
        for (partition, position) in &self.positions {
            list.add_partition_offset(
                partition.topic.as_str(),
                partition.partition,
                kafka_offset(position.start),
            )?;
        }
        self.consumer.assign(&list)
    }

    /// Compares suspected positions with what the broker has.
    async fn examine(&mut self) -> Result<Option<Event>, SourceError> {
        if Instant::now() < self.ask_after {
            return Ok(None);
        }
        while let Some(partition) = self.suspects.last().cloned() {
            if self.positions.get(&partition).is_none_or(|p| p.lost) {
                self.suspects.pop();
                continue;
            }
            let (consumer, asked) = (self.consumer.clone(), partition.clone());
            let watermarks = tokio::task::spawn_blocking(move || {
                consumer.fetch_watermarks(asked.topic.as_str(), asked.partition, TIMEOUT)
            });
            let (low, high) = match watermarks.await {
                Ok(Ok((low, high))) => (low.max(0) as u64, high.max(0) as u64),
                Ok(Err(error)) => {
                    tracing::warn!(%partition, %error, "kafka: cannot read the watermarks");
                    // The other partitions go on meanwhile.
                    self.ask_after = Instant::now() + TIMEOUT;
                    return Ok(None);
                }
                Err(_) => return Ok(None),
            };
            self.suspects.pop();
            let Some(position) = self.positions.get_mut(&partition).filter(|p| !p.lost) else {
                continue;
            };
            let Start::At(at) = position.start else {
                // Nothing has been read of it. If it is the refused one, librdkafka has
                // stopped it.
                let position = *position;
                self.restart(&partition, position)?;
                continue;
            };
            position.lost = true;
            return Ok(Some(if at.get() < low || at.get() > high {
                Event::PositionLost {
                    partition,
                    position: at,
                    available: OffsetRange {
                        start: Offset(low),
                        end: Offset(high),
                    },
                }
            } else {
                Event::PositionDoubtful {
                    partition,
                    position: at,
                }
            }));
        }
        Ok(None)
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
            if let Some(event) = self.examine().await? {
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
                () = tokio::time::sleep_until(self.ask_after), if !self.suspects.is_empty() => {}
            }
        }
    }

    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError> {
        for (partition, start) in starts {
            let position = Position {
                start: *start,
                lost: false,
                paused: false,
            };
            self.positions.insert(partition.clone(), position);
            self.shared.lock().assign(partition);
        }
        let assigned = if self.cooperative() {
            self.consumer.incremental_assign(&list(starts)?)
        } else {
            self.assign_all()
        };
        assigned.map_err(SourceError::kafka("assign partitions"))
    }

    async fn release(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        // One that was never assigned cannot be unassigned; an empty list is an answer.
        let assigned: Vec<_> = partitions
            .iter()
            .filter(|partition| self.positions.remove(partition).is_some())
            .cloned()
            .collect();
        for partition in &assigned {
            self.shared.lock().release(partition);
        }
        let released = if self.cooperative() {
            self.consumer.incremental_unassign(&names(&assigned))
        } else {
            self.consumer.unassign()
        };
        released.map_err(SourceError::kafka("release partitions"))
    }

    async fn seek(&mut self, partition: &PartitionId, start: Start) -> Result<(), SourceError> {
        let Some(position) = self.positions.get_mut(partition) else {
            return Err(SourceError::Config(format!(
                "partition {partition} has not been assigned"
            )));
        };
        let was_lost = position.lost;
        position.start = start;
        position.lost = false;
        self.shared.lock().reached.remove(partition);
        if was_lost {
            let position = *position;
            return self.restart(partition, position);
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
        self.set_paused(partitions, true);
        self.consumer
            .pause(&names(partitions))
            .map_err(SourceError::kafka("pause"))
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.set_paused(partitions, false);
        self.consumer
            .resume(&names(partitions))
            .map_err(SourceError::kafka("resume"))
    }

    fn commit(&mut self, positions: &[(PartitionId, Offset)]) {
        {
            let mut known = self.shared.lock();
            for (partition, offset) in positions {
                if known.partitions.contains(partition) {
                    known.durable.insert(partition.clone(), *offset);
                }
            }
        }
        watch::commit(&self.consumer, positions);
    }

    fn end(&self, partition: &PartitionId) -> Option<Offset> {
        self.shared.lock().ends.get(partition).copied()
    }

    fn reached(&self, partition: &PartitionId) -> Option<Offset> {
        self.shared.lock().reached.get(partition).copied()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.lock().trouble()
    }

    fn read_ahead(&self) -> Option<ReadAhead> {
        Some(self.shared.lock().read_ahead)
    }

    async fn close(mut self: Box<Self>) {
        self.closing.store(true, Ordering::SeqCst);
        self.closed.cancel();
        if let Some(watch) = self.watch.take() {
            let _ = watch.await;
        }
        // A change that was not answered would keep the consumer from closing.
        // Leaving the group and the last commits take a while: the drop blocks.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        self.closed.cancel();
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
