//! Making one buffer durable, however long it takes.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracer_source::{LogWriter, Offset, PartitionId, TopicName};
use tracer_store::{Appended, ShardLog};

use crate::buffer::Buffer;

/// Waits between attempts double from the first to the second of these.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where payloads go that are not traces.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub(crate) writer: Arc<dyn LogWriter>,
    pub(crate) topic: TopicName,
}

/// What is said of the store or the dead-letter topic when it fails.
pub(crate) struct Failure {
    pub(crate) partition: PartitionId,
    pub(crate) detail: String,
}

/// Waits between attempts, longer every time, and reports each failure.
pub(crate) struct Retry {
    partition: PartitionId,
    failures: mpsc::UnboundedSender<Failure>,
    wait: Duration,
}

impl Retry {
    pub(crate) fn new(partition: PartitionId, failures: mpsc::UnboundedSender<Failure>) -> Self {
        Self {
            partition,
            failures,
            wait: FIRST_WAIT,
        }
    }

    pub(crate) async fn after(&mut self, what: &'static str, error: impl std::fmt::Display) {
        let Self {
            partition, wait, ..
        } = self;
        tracing::warn!(%partition, %error, ?wait, "cannot {what}: trying again");
        // The receiver lives as long as the loop that aborts us.
        let _ = self.failures.send(Failure {
            partition: partition.clone(),
            detail: format!("{partition}: cannot {what}: {error}"),
        });
        tokio::time::sleep(*wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

/// Makes a buffer durable; tries until it works, or until it is aborted.
///
/// First the dead letters, then the shard: once the shard is durable nobody reads
/// these records again. A crash in between sends the dead letters twice.
pub(crate) async fn append(
    mut buffer: Buffer,
    shards: ShardLog,
    dead_letters: Option<DeadLetters>,
    mut retry: Retry,
) -> (Buffer, Appended) {
    let messages: Vec<_> = buffer.dead.drain(..).map(|(_, message)| message).collect();
    if let (Some(to), false) = (dead_letters, messages.is_empty()) {
        while let Err(error) = to.writer.append_batch(&to.topic, messages.clone()).await {
            retry.after("write dead letters", error).await;
        }
    }
    loop {
        let rows = buffer.rows.clone();
        match shards.append(&retry.partition, buffer.range(), rows).await {
            Ok(appended) => return (buffer, appended),
            Err(error) => retry.after("write a shard", error).await,
        }
    }
}

/// Where to go on reading partitions; tries until the store answers.
pub(crate) async fn resume_positions(
    partitions: Vec<PartitionId>,
    shards: ShardLog,
    failures: mpsc::UnboundedSender<Failure>,
) -> Vec<(PartitionId, Option<Offset>)> {
    let mut positions = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let mut retry = Retry::new(partition.clone(), failures.clone());
        let position = loop {
            match shards.resume_position(&partition).await {
                Ok(position) => break position,
                Err(error) => retry.after("read where to resume", error).await,
            }
        };
        positions.push((partition, position));
    }
    positions
}
