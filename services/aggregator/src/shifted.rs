//! A source whose offsets are positions: what was decided about a partition whose topic was
//! created anew is added on the way up and taken off on the way down.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tracer_source::{
    Event, Offset, OffsetRange, PartitionId, ReadAhead, Record, Source, SourceError, Start,
};

/// A source, and for some partitions a difference of position and offset.
pub(crate) struct Shifted {
    inner: Box<dyn Source>,
    /// Of the partitions that have one.
    shifts: BTreeMap<PartitionId, u64>,
}

impl Shifted {
    pub(crate) fn new(inner: Box<dyn Source>) -> Self {
        Self {
            inner,
            shifts: BTreeMap::new(),
        }
    }

    /// From now on position = offset + shift. To be said before the partition is
    /// assigned or sought.
    pub(crate) fn shift(&mut self, partition: &PartitionId, shift: u64) {
        if shift == 0 {
            self.shifts.remove(partition);
        } else {
            self.shifts.insert(partition.clone(), shift);
        }
    }

    fn of(&self, partition: &PartitionId) -> u64 {
        self.shifts.get(partition).copied().unwrap_or_default()
    }

    fn up(&self, partition: &PartitionId, offset: Offset) -> Offset {
        Offset(offset.get() + self.of(partition))
    }

    fn down(&self, partition: &PartitionId, position: Offset) -> Offset {
        Offset(position.get().saturating_sub(self.of(partition)))
    }

    fn start(&self, partition: &PartitionId, start: Start) -> Start {
        match start {
            Start::Beginning => Start::Beginning,
            Start::At(position) => Start::At(self.down(partition, position)),
        }
    }
}

#[async_trait]
impl Source for Shifted {
    async fn next(&mut self) -> Result<Event, SourceError> {
        let event = self.inner.next().await?;
        if self.shifts.is_empty() {
            return Ok(event);
        }
        Ok(match event {
            Event::Records(records) => Event::Records(
                records
                    .into_iter()
                    .map(|record| Record {
                        offset: self.up(&record.partition, record.offset),
                        next: self.up(&record.partition, record.next),
                        ..record
                    })
                    .collect(),
            ),
            Event::PositionLost {
                partition,
                position,
                available,
            } => Event::PositionLost {
                position: self.up(&partition, position),
                available: OffsetRange {
                    start: self.up(&partition, available.start),
                    end: self.up(&partition, available.end),
                },
                partition,
            },
            Event::PositionDoubtful {
                partition,
                position,
            } => Event::PositionDoubtful {
                position: self.up(&partition, position),
                partition,
            },
            event @ (Event::Assigned(_) | Event::Revoked(_)) => event,
        })
    }

    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError> {
        let starts: Vec<_> = starts
            .iter()
            .map(|(partition, start)| (partition.clone(), self.start(partition, *start)))
            .collect();
        self.inner.assign(&starts).await
    }

    async fn release(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.inner.release(partitions).await?;
        for partition in partitions {
            self.shifts.remove(partition);
        }
        Ok(())
    }

    async fn seek(&mut self, partition: &PartitionId, start: Start) -> Result<(), SourceError> {
        let start = self.start(partition, start);
        self.inner.seek(partition, start).await
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        self.inner.resume(partitions)
    }

    fn commit(&mut self, positions: &[(PartitionId, Offset)]) {
        let offsets: Vec<_> = positions
            .iter()
            .map(|(partition, position)| (partition.clone(), self.down(partition, *position)))
            .collect();
        self.inner.commit(&offsets);
    }

    fn end(&self, partition: &PartitionId) -> Option<Offset> {
        let end = self.inner.end(partition)?;
        Some(self.up(partition, end))
    }

    fn reached(&self, partition: &PartitionId) -> Option<Offset> {
        let reached = self.inner.reached(partition)?;
        Some(self.up(partition, reached))
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn read_ahead(&self) -> Option<ReadAhead> {
        self.inner.read_ahead()
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}
