//! The reading end of a log.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Offset, OffsetRange, PartitionId, SourceError};

/// One record of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub partition: PartitionId,
    /// Its position.
    pub offset: Offset,
    /// The position after it.
    pub next: Offset,
    /// Its bytes; empty for a record without a value.
    pub payload: Bytes,
    /// The log's own time of the record in epoch milliseconds, where it keeps one.
    pub timestamp_ms: Option<i64>,
}

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record there is: nothing has been read yet.
    Beginning,
    /// At this position, and nowhere else.
    At(Offset),
}

impl From<Option<Offset>> for Start {
    fn from(resume: Option<Offset>) -> Self {
        resume.map_or(Self::Beginning, Self::At)
    }
}

/// What a source has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These partitions are ours; to be answered with [`Source::assign`].
    Assigned(Vec<PartitionId>),
    /// These partitions go to another consumer; to be answered with
    /// [`Source::release`] after a flush.
    Revoked(Vec<PartitionId>),
    /// Records, those of one partition in order.
    Records(Vec<Record>),
    /// The log does not hold the position that is to be read next. The partition
    /// is silent until it is sought.
    PositionLost {
        /// The partition.
        partition: PartitionId,
        /// The position that was to be read.
        position: Offset,
        /// The positions the log has.
        available: OffsetRange,
    },
    /// The log has refused a position, perhaps this one, and has this one now: it has
    /// grown since, or it is another log. The partition is silent until it is sought.
    PositionDoubtful {
        /// The partition.
        partition: PartitionId,
        /// The position that is to be read next.
        position: Offset,
    },
}

/// What has been read ahead of whoever asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadAhead {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The reading end of a log. The crate's documentation gives its contract.
#[async_trait]
pub trait Source: Send {
    /// The next event. Safe to cancel: nothing is lost when the future is dropped.
    ///
    /// It must be called regularly, also when every partition is paused: it keeps
    /// the membership in a consumer group alive. An error ends the source; what
    /// passes by itself, such as a broker that does not answer, is logged inside.
    async fn next(&mut self) -> Result<Event, SourceError>;

    /// Starts reading partitions after [`Event::Assigned`].
    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError>;

    /// Lets partitions go after [`Event::Revoked`].
    async fn release(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError>;

    /// Reads on from another position of an assigned partition.
    async fn seek(&mut self, partition: &PartitionId, start: Start) -> Result<(), SourceError>;

    /// Stops the records of assigned partitions, not the events.
    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError>;

    /// Lets the records of paused partitions flow again, without a gap.
    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError>;

    /// Tells the log how far results are durable: a hint, sent in the background.
    fn commit(&mut self, positions: &[(PartitionId, Offset)]);

    /// The position after the last record of a partition, as far as it is known
    /// without asking anybody.
    fn end(&self, partition: &PartitionId) -> Option<Offset>;

    /// The position before which no record is left that has not been delivered, where
    /// it is known: it may lie behind the last record's [`Record::next`], when what follows
    /// is none, such as the marks of transactions. For lag and for [`Source::commit`] only: a
    /// range of results never ends here.
    fn reached(&self, _partition: &PartitionId) -> Option<Offset> {
        None
    }

    /// What keeps the log from being read, in words for people. It passes by itself, or
    /// by what somebody does.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// What waits inside the source, where it reads ahead.
    fn read_ahead(&self) -> Option<ReadAhead> {
        None
    }

    /// Leaves in good order: partitions are released, the last hints are sent.
    async fn close(self: Box<Self>);
}
