//! One assigned partition.

use tokio::{task::AbortHandle, time::Instant};
use tracer_source::Offset;
use tracer_store::LastRecord;

use crate::{AggregatorConfig, buffer::Buffer, metrics::PartitionMetrics};

/// A put under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) task: AbortHandle,
    pub(crate) bytes: usize,
    /// Where its range starts: everything before is durable.
    pub(crate) base: Offset,
}

pub(crate) struct Partition {
    pub(crate) buffer: Buffer,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) paused: bool,
    /// The record before the position, as it was read into a shard. It is read
    /// again first, and must be the same.
    pub(crate) before: Option<LastRecord>,
    /// The last record that has been read, or that the shards end by.
    pub(crate) last_read: Option<LastRecord>,
    /// The log no longer has the position.
    pub(crate) lost: bool,
    /// The range of a put is in the store already: only the store knows where reading goes
    /// on, and with which shift.
    pub(crate) asks: bool,
    /// Which assignment this is: results of an earlier one are ignored.
    pub(crate) epoch: u64,
    pub(crate) metrics: PartitionMetrics,
}

impl Partition {
    /// Rows or bytes have reached the limit of a shard.
    pub(crate) fn is_full(&self, config: &AggregatorConfig) -> bool {
        self.buffer.rows.len() + self.buffer.dead.len() >= config.max_rows
            || self.buffer.bytes >= config.max_bytes
    }

    /// The oldest record has waited long enough.
    pub(crate) fn is_old(&self, config: &AggregatorConfig, now: Instant) -> bool {
        self.buffer
            .since
            .is_some_and(|since| now.duration_since(since) >= config.max_age())
    }

    /// Nothing is read until the store tells where to go on.
    pub(crate) fn stands_still(&self) -> bool {
        self.lost || self.asks
    }

    /// Everything before is durable.
    pub(crate) fn durable(&self) -> Offset {
        self.in_flight
            .as_ref()
            .map_or(self.buffer.base, |put| put.base)
    }

    /// Bytes in memory, those of a put under way included.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.bytes + self.in_flight.as_ref().map_or(0, |put| put.bytes)
    }
}
