//! Partitions come and go, and sometimes their position is gone.

use tracer_source::{Offset, OffsetRange, PartitionId, Start};

use super::{Done, Worker};
use crate::{Error, OnLostPosition, append, buffer::Buffer, partition::Partition};

impl Worker {
    /// Asks the store where to go on, beside the loop: the source must be polled
    /// however long that takes.
    pub(super) fn assigned(&mut self, partitions: Vec<PartitionId>) {
        tracing::info!(?partitions, "partitions assigned");
        self.epoch += 1;
        let epoch = self.epoch;
        self.listing
            .insert(epoch, partitions.iter().cloned().collect());
        let (shards, failures) = (self.shards.clone(), self.failures.clone());
        self.tasks.spawn(async move {
            let positions = append::resume_positions(partitions, shards, failures).await;
            Done::Listed(epoch, positions)
        });
    }

    pub(super) async fn listed(
        &mut self,
        epoch: u64,
        positions: Vec<(PartitionId, Option<Offset>)>,
    ) -> Result<(), Error> {
        let Some(wanted) = self.listing.remove(&epoch) else {
            return Ok(());
        };
        let mut starts = Vec::with_capacity(positions.len());
        for (partition, resume) in positions {
            if !wanted.contains(&partition) {
                continue;
            }
            tracing::info!(%partition, position = ?resume.map(Offset::get), "reading on");
            let metrics = self.metrics.partition(&partition);
            metrics.lost.set(0.0);
            self.status.well(&partition);
            let state = Partition {
                // The first shard of all starts at 0, wherever its first record
                // stands: every aggregator must want the same name for it.
                buffer: Buffer::at(resume.unwrap_or(Offset::ZERO)),
                in_flight: None,
                paused: false,
                lost: false,
                epoch,
                metrics,
            };
            self.partitions.insert(partition.clone(), state);
            starts.push((partition, Start::from(resume)));
        }
        self.source.assign(&starts).await?;
        self.status.started();
        Ok(())
    }

    pub(super) async fn revoked(&mut self, partitions: &[PartitionId]) -> Result<(), Error> {
        tracing::info!(?partitions, "partitions revoked");
        for wanted in self.listing.values_mut() {
            wanted.retain(|partition| !partitions.contains(partition));
        }
        self.drain(partitions).await?;
        for partition in partitions {
            self.status.well(partition);
            if let Some(state) = self.partitions.remove(partition) {
                state.metrics.lag.set(0.0);
                state.metrics.lost.set(0.0);
            }
        }
        Ok(self.source.release(partitions).await?)
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
        let removed = position < available.start;
        if removed && self.config.on_lost_position == OnLostPosition::Skip {
            tracing::error!(%partition, %position, %available, "the log no longer has the position: going on at its oldest record, as configured");
            return self.seek(partition, available.start).await;
        }
        let what_helps = if removed {
            "records were removed before they were read; to go on without them set aggregator.on_lost_position to \"skip\""
        } else {
            "the log ends before what has been read of it, so it was created anew; use another topic, or move the old shards of this partition away"
        };
        tracing::error!(%partition, %position, %available, "the log does not have the position to read from: {what_helps}");
        state.lost = true;
        state.metrics.lost.set(1.0);
        self.status.trouble(
            partition,
            format!(
                "{partition}: the log has {available}, but reading is at {position}: {what_helps}"
            ),
        );
        Ok(())
    }
}
