//! Partitions come and go, and sometimes their position is gone.

use tracer_source::{Offset, OffsetRange, PartitionId, Source as _, Start};

use tracer_store::Resume;

use super::{Done, Worker};
use crate::{
    Error, OnLostPosition,
    append::{self, Listing},
    buffer::Buffer,
    failpoint,
    partition::Partition,
};

/// What happened to a log that is not the one that was read, and what to do.
const ANEW: &str = "was created anew; `tracer aggregator reset --to beginning` reads it from its first record, after what is stored";

impl Worker {
    /// Asks the store where to go on, beside the loop: the source must be polled
    /// however long that takes.
    pub(super) fn assigned(&mut self, partitions: Vec<PartitionId>) {
        tracing::info!(?partitions, "partitions assigned");
        self.epoch += 1;
        let epoch = self.epoch;
        let wanted = partitions.iter().map(|partition| (partition.clone(), None));
        self.listing.insert(epoch, wanted.collect());
        let (shards, failures) = (self.shards.clone(), self.failures.clone());
        self.tasks.spawn(async move {
            let listing = append::list(partitions, shards, failures).await;
            Done::Listed(epoch, listing)
        });
    }

    /// Starts reading those partitions of which the store told. One whose shards
    /// cannot be read waits, and the others do not wait for it.
    pub(super) async fn listed(&mut self, epoch: u64, listing: Listing) -> Result<(), Error> {
        let Listing { found, failed } = listing;
        let Some(wanted) = self.listing.get_mut(&epoch) else {
            return Ok(());
        };
        for partition in failed {
            let Some(task) = wanted.get_mut(&partition) else {
                continue;
            };
            let (shards, failures) = (self.shards.clone(), self.failures.clone());
            *task = Some(self.tasks.spawn(async move {
                let listing = append::list_again(partition, shards, failures).await;
                Done::Listed(epoch, listing)
            }));
        }
        let found: Vec<_> = found
            .into_iter()
            .filter(|(partition, _)| wanted.remove(partition).is_some())
            .collect();
        if wanted.is_empty() {
            self.listing.remove(&epoch);
        } else if found.is_empty() {
            return Ok(());
        }
        let mut starts = Vec::with_capacity(found.len());
        for (partition, Resume { last, shift }) in found {
            let resume = last.as_ref().map(|shard| shard.range.end);
            let before = last.and_then(|shard| shard.last_record);
            tracing::info!(%partition, position = ?resume.map(Offset::get), shift, "reading on");
            self.source.shift(&partition, shift);
            let metrics = self.metrics.partition(&partition);
            metrics.lost.set(0.0);
            self.status.well(&partition);
            let start = before.as_ref().map(|last| last.offset).or(resume);
            let state = Partition {
                // The first shard of all starts at 0, wherever its first record
                // stands: every aggregator must want the same name for it.
                buffer: Buffer::at(resume.unwrap_or(Offset::ZERO)),
                in_flight: None,
                paused: false,
                last_read: before.clone(),
                before,
                lost: false,
                asks: false,
                epoch,
                metrics,
            };
            self.partitions.insert(partition.clone(), state);
            starts.push((partition, Start::from(start)));
        }
        let _ = failpoint::reach("assign_before");
        self.source.assign(&starts).await?;
        let _ = failpoint::reach("assign_after");
        // The group may know less, as after a crash.
        let known: Vec<_> = starts
            .iter()
            .filter_map(|(partition, _)| {
                let state = self.partitions.get(partition)?;
                let position = state.buffer.position;
                (position > Offset::ZERO).then(|| (partition.clone(), position))
            })
            .collect();
        self.source.commit(&known);
        self.status.started();
        Ok(())
    }

    pub(super) async fn revoked(&mut self, partitions: &[PartitionId]) -> Result<(), Error> {
        tracing::info!(?partitions, "partitions revoked");
        for wanted in self.listing.values_mut() {
            for partition in partitions {
                if let Some(Some(task)) = wanted.remove(partition) {
                    task.abort();
                }
            }
        }
        self.drain(partitions).await?;
        for partition in partitions {
            self.status.well(partition);
            if let Some(state) = self.partitions.remove(partition) {
                state.metrics.lag.set(0.0);
                state.metrics.lost.set(0.0);
            }
        }
        let _ = failpoint::reach("release_before");
        self.source.release(partitions).await?;
        let _ = failpoint::reach("release_after");
        Ok(())
    }

    pub(super) async fn position_lost(
        &mut self,
        partition: &PartitionId,
        position: Offset,
        available: OffsetRange,
    ) -> Result<(), Error> {
        let Some(state) = self.partitions.get_mut(partition) else {
            return Ok(());
        };
        let mut position = position;
        if state.before.take().is_some() {
            // What was asked for is the record before the position.
            position = state.buffer.position;
            if available.start <= position && position <= available.end {
                return self.seek(partition, position).await;
            }
        }
        let removed = position < available.start;
        if removed && self.config.on_lost_position == OnLostPosition::Skip {
            tracing::error!(%partition, %position, %available, "the log no longer has the position: going on at its oldest record, as configured");
            return self.seek(partition, available.start).await;
        }
        let what_helps = if removed {
            "records were removed before they were read; `tracer aggregator reset --to beginning` goes on without them".to_owned()
        } else {
            format!("the log ends before what has been read of it, so it {ANEW}")
        };
        self.lose(
            partition,
            position,
            &format!("the log has {available}"),
            &what_helps,
        );
        Ok(())
    }

    /// Goes on after the last record that was read, if that is still the one there.
    pub(super) async fn position_doubtful(
        &mut self,
        partition: &PartitionId,
        position: Offset,
    ) -> Result<(), Error> {
        let Some(state) = self.partitions.get(partition) else {
            return Ok(());
        };
        tracing::warn!(%partition, %position, "the log refused a position: comparing its last record with the one that was read");
        let last = state.last_read.clone();
        let start = last.as_ref().map_or(position, |last| last.offset);
        self.seek(partition, start).await?;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.before.clone_from(&last);
            state.last_read = last;
        }
        Ok(())
    }

    /// The record before the position is not the one that was read.
    pub(super) fn another_log(
        &mut self,
        partition: &PartitionId,
        offset: Offset,
    ) -> Result<(), Error> {
        self.source.pause(std::slice::from_ref(partition))?;
        let Some(state) = self.partitions.get(partition) else {
            return Ok(());
        };
        let position = state.buffer.position;
        let has = format!("the log has another record at {offset} than was read there");
        self.lose(partition, position, &has, &format!("so it {ANEW}"));
        Ok(())
    }

    /// Asks the store where the partitions that stand still go on, beside the loop: somebody
    /// may have decided it.
    pub(super) fn look_for_resets(&mut self) {
        for (partition, state) in &self.partitions {
            if !state.stands_still() || state.in_flight.is_some() || !state.buffer.is_empty() {
                continue;
            }
            let (partition, epoch) = (partition.clone(), state.epoch);
            let shards = self.shards.clone();
            self.tasks.spawn(async move {
                let resume = shards.resume(&partition).await;
                Done::Looked(partition, epoch, Box::new(resume))
            });
        }
    }

    /// Goes on where the store says. A partition that is lost needs more than that: a
    /// position behind its own, as somebody has decided it.
    pub(super) async fn looked(
        &mut self,
        partition: &PartitionId,
        epoch: u64,
        resume: Resume,
    ) -> Result<(), Error> {
        let position = resume.position().unwrap_or_default();
        let Some(state) = self.partitions.get_mut(partition) else {
            return Ok(());
        };
        let waits = state.stands_still() && state.in_flight.is_none() && state.buffer.is_empty();
        let told = state.asks || position > state.buffer.position;
        if state.epoch != epoch || !waits || !told {
            return Ok(());
        }
        tracing::warn!(%partition, %position, shift = resume.shift, "the store tells where to go on reading");
        if state.lost {
            state.metrics.resets.increment(1);
        }
        state.buffer = Buffer::at(position);
        state.asks = false;
        self.source.shift(partition, resume.shift);
        // A seal has no last record. A shard that somebody wrote meanwhile has, and its log
        // may be another one than this.
        let before = resume.last.and_then(|shard| shard.last_record);
        let start = before.as_ref().map_or(position, |last| last.offset);
        self.seek(partition, start).await?;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.before.clone_from(&before);
            state.last_read = before;
        }
        self.source.commit(&[(partition.clone(), position)]);
        Ok(())
    }

    /// Leaves a partition alone until somebody decides.
    fn lose(&mut self, partition: &PartitionId, position: Offset, has: &str, what_helps: &str) {
        tracing::error!(%partition, %position, "{has}, and cannot be read on from there: {what_helps}");
        if let Some(state) = self.partitions.get_mut(partition) {
            state.lost = true;
            state.metrics.lost.set(1.0);
        }
        self.status.trouble(
            partition,
            format!("{partition}: {has}, but reading is at {position}: {what_helps}"),
        );
    }
}
