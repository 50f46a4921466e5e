//! What is asked of the store and the dead-letter topic, however long it takes.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all};
use tokio::sync::mpsc;
use tracer_source::{LogWriter, Message, PartitionId, SourceError, TopicName};
use tracer_store::{Appended, EncodedShard, Resume, ShardLog};

use crate::{buffer::Buffer, failpoint};

/// Waits between attempts double from the first to the second of these.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Partitions that the store is asked about at the same time.
const CONCURRENCY: usize = 16;

const RESUME: &str = "read where to resume";

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

    async fn after(&mut self, what: &'static str, error: impl std::fmt::Display) {
        let Self {
            partition, wait, ..
        } = self;
        tracing::warn!(%partition, %error, ?wait, "cannot {what}: trying again");
        report(&self.failures, partition, what, &error);
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
    if let Some(to) = dead_letters
        && !messages.is_empty()
    {
        to.write(messages, &mut retry).await;
    }
    let shard = encode(&mut buffer, &shards, &mut retry).await;
    loop {
        match put(&shard, &shards).await {
            Ok(appended) => return (buffer, appended),
            Err(error) => retry.after("write a shard", error).await,
        }
    }
}

/// Makes a shard of the rows, which are gone then: it is put as often as it takes.
async fn encode(buffer: &mut Buffer, shards: &ShardLog, retry: &mut Retry) -> EncodedShard {
    let rows = Arc::new(std::mem::take(&mut buffer.rows));
    loop {
        let (rows, last) = (Arc::clone(&rows), buffer.last.clone());
        let encoded = shards.encode(&retry.partition, buffer.range(), rows, last);
        match encoded.await {
            Ok(shard) => return shard,
            Err(error) => retry.after("encode a shard", error).await,
        }
    }
}

async fn put(
    shard: &EncodedShard,
    shards: &ShardLog,
) -> Result<Appended, Box<dyn std::error::Error + Send + Sync>> {
    failpoint::reach("put_before")?;
    let appended = shards.put(shard).await?;
    failpoint::reach("put_after")?;
    Ok(appended)
}

impl DeadLetters {
    /// Writes messages; tries those that fail again, until all are written. One that
    /// is too large for the topic is cut until it is not.
    async fn write(&self, mut messages: Vec<Message>, retry: &mut Retry) {
        loop {
            if let Err(error) = failpoint::reach("letters_before") {
                retry.after("write dead letters", error).await;
            }
            let answers = join_all(messages.iter().map(|message| self.append(message))).await;
            if let Err(error) = failpoint::reach("letters_after") {
                retry.after("write dead letters", error).await;
                continue;
            }
            let mut failure = None;
            let mut left = Vec::new();
            for (message, answer) in messages.into_iter().zip(answers) {
                let answer = match answer {
                    // It may have been refused for its company in a batch.
                    Err(error) if error.is_too_large() => self.cut(&message).await,
                    answer => answer,
                };
                if let Err(error) = answer {
                    failure = Some(error);
                    left.push(message);
                }
            }
            let Some(error) = failure else {
                return;
            };
            retry.after("write dead letters", error).await;
            messages = left;
        }
    }

    async fn append(&self, message: &Message) -> Result<(), SourceError> {
        match self.writer.append(&self.topic, message.clone()).await {
            // Wherever it stands, it is there.
            Ok(_) | Err(SourceError::UnknownOffset { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn cut(&self, message: &Message) -> Result<(), SourceError> {
        let mut message = message.clone();
        loop {
            match self.append(&message).await {
                Err(error) if error.is_too_large() && !message.payload.is_empty() => {
                    message.payload.truncate(message.payload.len() / 2);
                }
                answer => return answer,
            }
        }
    }
}

/// Where to go on reading partitions, after their last shards, and the partitions
/// of which the store did not tell.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) found: Vec<(PartitionId, Resume)>,
    pub(crate) failed: Vec<PartitionId>,
}

/// Asks the store once where to go on reading.
pub(crate) async fn list(
    partitions: Vec<PartitionId>,
    shards: ShardLog,
    failures: mpsc::UnboundedSender<Failure>,
) -> Listing {
    let (shards, failures) = (&shards, &failures);
    let asked = partitions.into_iter().map(|partition| async move {
        let resume = shards.resume(&partition).await;
        (partition, resume)
    });
    let mut answers = futures::stream::iter(asked).buffer_unordered(CONCURRENCY);
    let mut listing = Listing::default();
    while let Some((partition, resume)) = answers.next().await {
        match resume {
            Ok(resume) => listing.found.push((partition, resume)),
            Err(error) => {
                report(failures, &partition, RESUME, &error);
                listing.failed.push(partition);
            }
        }
    }
    listing
}

/// Asks for one partition again, until the store answers.
pub(crate) async fn list_again(
    partition: PartitionId,
    shards: ShardLog,
    failures: mpsc::UnboundedSender<Failure>,
) -> Listing {
    let mut retry = Retry::new(partition.clone(), failures);
    tokio::time::sleep(FIRST_WAIT).await;
    loop {
        match shards.resume(&partition).await {
            Ok(resume) => {
                return Listing {
                    found: vec![(partition, resume)],
                    ..Listing::default()
                };
            }
            Err(error) => retry.after(RESUME, error).await,
        }
    }
}

fn report(
    failures: &mpsc::UnboundedSender<Failure>,
    partition: &PartitionId,
    what: &'static str,
    error: &impl std::fmt::Display,
) {
    // The receiver lives as long as the loop that aborts us.
    let _ = failures.send(Failure {
        partition: partition.clone(),
        detail: format!("{partition}: cannot {what}: {error}"),
    });
}
