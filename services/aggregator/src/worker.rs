//! The loop that owns the source and the buffers.

mod assignment;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracer_source::{Event, LogWriter, Offset, PartitionId, Record, Source, Start};
use tracer_store::{Appended, LastRecord, Resume, ShardLog};
use tracer_telemetry::{Health, Metrics, Spans};
use tracer_trace::Limits;

use crate::{
    AggregatorConfig, Error,
    append::{self, DeadLetters, Failure, Listing, Retry},
    buffer::Buffer,
    failpoint,
    metrics::AggregatorMetrics,
    partition::{InFlight, Partition},
    reader::Reader,
    shifted::Shifted,
    status::Status,
};

/// How often ages are checked.
const TICK: Duration = Duration::from_millis(100);

/// The lag is published every so many ticks.
const LAG_TICKS: u32 = 10;

/// Every so many ticks the store is asked about partitions that stand still.
const RESET_TICKS: u32 = 50;

/// What the tasks beside the loop bring back.
enum Done {
    /// Where to start reading what was assigned.
    Listed(u64, Listing),
    /// Where a partition that stands still goes on, as the store has it now.
    Looked(
        PartitionId,
        u64,
        Box<Result<Resume, tracer_store::StoreError>>,
    ),
    /// A put that came to an end.
    Put {
        partition: PartitionId,
        epoch: u64,
        outcome: Box<(Buffer, Appended)>,
    },
}

pub(crate) struct Worker {
    config: AggregatorConfig,
    source: Box<Shifted>,
    dead_letters: Option<DeadLetters>,
    shards: ShardLog,
    reader: Reader,
    metrics: AggregatorMetrics,
    status: Status,
    partitions: BTreeMap<PartitionId, Partition>,
    /// The same, for those who look after their shards.
    owned: watch::Sender<BTreeSet<PartitionId>>,
    tasks: JoinSet<Done>,
    failures: mpsc::UnboundedSender<Failure>,
    failed: mpsc::UnboundedReceiver<Failure>,
    /// Assignments that have not been answered: the store is asked for positions,
    /// and asked again by a task of its own about each where it did not answer.
    listing: BTreeMap<u64, BTreeMap<PartitionId, Option<AbortHandle>>>,
    /// Numbers assignments.
    epoch: u64,
    ticks: u32,
    /// Where spans of shards go.
    pub(crate) spans: Spans,
}

impl Worker {
    pub(crate) fn new(
        config: AggregatorConfig,
        source: Box<dyn Source>,
        dead_letters: Option<Arc<dyn LogWriter>>,
        shards: ShardLog,
        limits: Limits,
        metrics: &Metrics,
        health: &Health,
    ) -> Self {
        let topic = config.dead_letter_topic.clone();
        let (failures, failed) = mpsc::unbounded_channel();
        let dead_letters = dead_letters
            .zip(topic)
            .map(|(writer, topic)| DeadLetters { writer, topic });
        let as_lines = dead_letters.as_ref().map(|to| to.writer.keeps_lines());
        Self {
            reader: Reader::new(&config, limits, as_lines),
            dead_letters,
            config,
            source: Box::new(Shifted::new(source)),
            shards,
            metrics: AggregatorMetrics::new(metrics),
            status: Status::new(health),
            partitions: BTreeMap::new(),
            owned: watch::Sender::default(),
            tasks: JoinSet::new(),
            failures,
            failed,
            listing: BTreeMap::new(),
            epoch: 0,
            ticks: 0,
            spans: Spans::default(),
        }
    }

    /// The partitions that are being read, as they come and go.
    pub(crate) fn owned(&self) -> watch::Receiver<BTreeSet<PartitionId>> {
        self.owned.subscribe()
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let ended = self.work(&shutdown).await;
        if let Err(error) = &ended {
            tracing::error!(%error, "the source failed: flushing what was read");
        }
        let all: Vec<_> = self.partitions.keys().cloned().collect();
        let drained = self.drain(&all).await;
        self.tasks.shutdown().await;
        self.source.close().await;
        ended.and(drained)
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(done) = self.tasks.join_next() => self.done(done).await?,
                Some(failure) = self.failed.recv() => self.failure(failure),
                _ = ticks.tick() => self.tick(),
                event = self.source.next() => self.event(event?).await?,
            }
            self.balance()?;
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Assigned(partitions) => self.assigned(partitions),
            Event::Revoked(partitions) => self.revoked(&partitions).await?,
            Event::Records(records) => {
                // They come in runs of one partition.
                for run in records.chunk_by(|a, b| a.partition == b.partition) {
                    self.records(run)?;
                }
            }
            Event::PositionLost {
                partition,
                position,
                available,
            } => self.position_lost(&partition, position, available).await?,
            Event::PositionDoubtful {
                partition,
                position,
            } => self.position_doubtful(&partition, position).await?,
        }
        Ok(())
    }

    /// Reads records of one partition, in their order.
    fn records(&mut self, run: &[Record]) -> Result<(), Error> {
        let Some(first) = run.first() else {
            return Ok(());
        };
        let Some(state) = self.partitions.get_mut(&first.partition) else {
            return Ok(());
        };
        if state.stands_still() {
            return Ok(());
        }
        // No other record stood between this one and the position. When it is gone
        // and the first to come lies after the position, there is nothing to compare.
        if let Some(before) = state.before.take()
            && first.offset < state.buffer.position
            && before != last_record(first)
        {
            return self.another_log(&first.partition, first.offset);
        }
        self.reader
            .read(run, &self.config, &mut state.buffer, &self.metrics);
        // For the footer of the shard: by which record the buffer ends now.
        let position = state.buffer.position;
        if let Some(last) = run.iter().rfind(|record| record.next == position)
            && !state.buffer.is_empty()
        {
            state.buffer.last = Some(last_record(last));
            state.last_read.clone_from(&state.buffer.last);
        }
        Ok(())
    }

    fn failure(&mut self, failure: Failure) {
        let Failure { partition, detail } = failure;
        // The retry may have succeeded, or the partition gone, since it was sent.
        let putting = self
            .partitions
            .get(&partition)
            .is_some_and(|state| state.in_flight.is_some());
        let listing = self
            .listing
            .values()
            .any(|wanted| wanted.contains_key(&partition));
        if putting || listing {
            self.status.trouble(&partition, detail);
        }
    }

    fn tick(&mut self) {
        self.owned.send_if_modified(|owned| {
            let changed = !owned.iter().eq(self.partitions.keys());
            if changed {
                *owned = self.partitions.keys().cloned().collect();
            }
            changed
        });
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(LAG_TICKS) {
            self.report();
        }
        if self.ticks.is_multiple_of(RESET_TICKS) {
            self.look_for_resets();
        }
    }

    /// Publishes how far the partitions are, and how the source is.
    fn report(&mut self) {
        let mut drained = Vec::new();
        for (partition, state) in &self.partitions {
            let mut durable = state.durable();
            // What follows may be no records, such as the marks of transactions: nothing
            // is left to read then, and the group is to know it.
            if state.buffer.is_empty()
                && state.in_flight.is_none()
                && !state.stands_still()
                && let Some(reached) = self.source.reached(partition)
                && reached > durable
            {
                durable = reached;
                drained.push((partition.clone(), reached));
            }
            if let Some(end) = self.source.end(partition) {
                let lag = end.get().saturating_sub(durable.get());
                state.metrics.lag.set(lag as f64);
            }
        }
        if !drained.is_empty() {
            self.source.commit(&drained);
        }
        if let Some(read_ahead) = self.source.read_ahead() {
            self.metrics.queue_records.set(read_ahead.records as f64);
            self.metrics.queue_bytes.set(read_ahead.bytes as f64);
        }
        let trouble = self.source.trouble();
        self.metrics
            .source_failing
            .set(f64::from(u8::from(trouble.is_some())));
        self.status.source(trouble);
    }

    /// Starts the puts that are due, and lets records flow where there is room.
    fn balance(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let total: usize = self.partitions.values().map(Partition::bytes).sum();
        let crowded = total >= self.config.max_buffered_bytes;
        let due: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, state)| {
                let due = state.is_full(&self.config) || state.is_old(&self.config, now) || crowded;
                due && state.in_flight.is_none() && !state.buffer.is_empty()
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in &due {
            self.put(partition);
        }
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, state) in &mut self.partitions {
            let wanted = crowded || state.is_full(&self.config);
            if wanted != state.paused && !state.stands_still() {
                state.paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.push(partition.clone());
            }
        }
        if !pause.is_empty() {
            self.source.pause(&pause)?;
        }
        if !resume.is_empty() {
            self.source.resume(&resume)?;
        }
        Ok(())
    }

    /// Starts to make a partition's buffer durable.
    fn put(&mut self, partition: &PartitionId) {
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        let (buffer, epoch) = (state.buffer.take(), state.epoch);
        // The rows, and what they are encoded to.
        let (bytes, base) = (2 * buffer.bytes, buffer.base);
        let retry = Retry::new(partition.clone(), self.failures.clone());
        let shards = self.shards.clone();
        let (dead_letters, partition) = (self.dead_letters.clone(), partition.clone());
        let mut span = self.spans.root("shard write");
        if let Some(span) = &mut span {
            let number = u64::from(partition.partition.unsigned_abs());
            span.set("messaging.destination.name", partition.topic.as_str());
            span.set("messaging.destination.partition.id", number.to_string());
            span.set("tracer.base_offset", buffer.base.get());
            span.set("tracer.traces", buffer.rows.len() as u64);
        }
        let task = self.tasks.spawn(async move {
            let outcome = append::append(buffer, shards, dead_letters, retry).await;
            drop(span);
            Done::Put {
                partition,
                epoch,
                outcome: Box::new(outcome),
            }
        });
        state.in_flight = Some(InFlight { task, bytes, base });
    }

    async fn done(&mut self, done: Result<Done, JoinError>) -> Result<(), Error> {
        match done {
            Ok(Done::Listed(epoch, listing)) => self.listed(epoch, listing).await,
            Ok(Done::Looked(partition, epoch, resume)) => match *resume {
                Ok(resume) => self.looked(&partition, epoch, resume).await,
                // It is asked again.
                Err(error) => {
                    tracing::warn!(%partition, %error, "the store did not tell whether reading goes on");
                    Ok(())
                }
            },
            Ok(Done::Put {
                partition,
                epoch,
                outcome,
            }) => {
                if self.appended(&partition, epoch, *outcome) {
                    // What comes until the store answers would be read for nothing.
                    self.source.pause(std::slice::from_ref(&partition))?;
                    self.look_for_resets();
                }
                Ok(())
            }
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn seek(&mut self, partition: &PartitionId, to: Offset) -> Result<(), Error> {
        self.source.seek(partition, Start::At(to)).await?;
        // The seek may have undone a pause: go on from a known state.
        self.source.resume(std::slice::from_ref(partition))?;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.paused = false;
            state.before = None;
            state.last_read = None;
            if std::mem::take(&mut state.lost) {
                state.metrics.lost.set(0.0);
                self.status.well(partition);
            }
        }
        Ok(())
    }

    /// Books the outcome of a put. True when the store is to be asked where to go on.
    ///
    /// What took the range may be a rival's shard, this very one by a put whose answer was
    /// lost, or the seal of a reset. Behind a seal the rows that were read are of the old
    /// log and their positions of the new one, so nothing of the buffer is kept.
    fn appended(
        &mut self,
        partition: &PartitionId,
        epoch: u64,
        (buffer, appended): (Buffer, Appended),
    ) -> bool {
        let Some(state) = self.partitions.get_mut(partition) else {
            return false;
        };
        if state.epoch != epoch {
            return false;
        }
        state.in_flight = None;
        if !state.lost {
            self.status.well(partition);
        }
        match appended {
            Appended::Written(info) => {
                tracing::debug!(%partition, range = %info.range, rows = info.rows(), "shard written");
                self.metrics.shards.increment(1);
                if failpoint::reach("commit_before").is_ok() {
                    self.source.commit(&[(partition.clone(), info.range.end)]);
                }
                let _ = failpoint::reach("commit_after");
                false
            }
            Appended::Taken { next } => {
                tracing::warn!(%partition, range = %buffer.range(), %next, "the range is in the store already, or does not follow what is there: asking where to go on");
                state.buffer = Buffer::at(next);
                state.asks = true;
                true
            }
        }
    }

    /// Makes the buffers of partitions durable within the budget. What is not
    /// durable at its end is dropped.
    async fn drain(&mut self, partitions: &[PartitionId]) -> Result<(), Error> {
        let deadline = Instant::now() + self.config.flush_budget();
        loop {
            let mut busy = false;
            for partition in partitions {
                let Some(state) = self.partitions.get(partition) else {
                    continue;
                };
                if state.in_flight.is_none() && !state.buffer.is_empty() {
                    self.put(partition);
                }
                busy |= self
                    .partitions
                    .get(partition)
                    .is_some_and(|state| state.in_flight.is_some());
            }
            if !busy {
                return Ok(());
            }
            let done = match timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(done)) => done,
                Ok(None) => return Ok(()),
                Err(_) => break,
            };
            match done {
                Ok(Done::Put {
                    partition,
                    epoch,
                    outcome,
                }) if partitions.contains(&partition) => {
                    // Whoever reads on asks by itself.
                    let _ = self.appended(&partition, epoch, *outcome);
                }
                done => self.done(done).await?,
            }
        }
        for partition in partitions {
            if let Some(state) = self.partitions.get_mut(partition)
                && let Some(put) = state.in_flight.take()
            {
                put.task.abort();
                tracing::warn!(%partition, "not flushed within the budget: it will be read again");
            }
        }
        Ok(())
    }
}

fn last_record(record: &Record) -> LastRecord {
    LastRecord::of(record.offset, record.timestamp_ms, &record.payload)
}
