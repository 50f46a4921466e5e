//! Reading a topic once, from its oldest record to its end as it is now, beside
//! whoever reads it for good: no group is joined and nothing is committed.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Offset, PartitionId, SourceConfig, SourceError, TopicName};

/// Records that wait for whoever asks for them.
const AHEAD: usize = 64;

/// One record of a topic, with what travels beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Where it stands.
    pub partition: PartitionId,
    /// Its position.
    pub offset: Offset,
    /// The log's own time of the record in epoch milliseconds, where it keeps one.
    pub timestamp_ms: Option<i64>,
    /// Names and values beside the payload; none in a log that keeps lines.
    pub headers: Vec<(String, Bytes)>,
    /// Its bytes.
    pub payload: Bytes,
}

/// Where a scan puts what it reads. `false` when nobody wants more.
pub(crate) type Sink<'a> = dyn FnMut(Scanned) -> bool + 'a;

impl SourceConfig {
    /// Reads a topic once, those of one partition in order. A topic that does not exist
    /// is empty. Must be called inside a tokio runtime; reading ends when the receiver
    /// is dropped.
    pub fn scan(&self, topic: &TopicName) -> mpsc::Receiver<Result<Scanned, SourceError>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (config, topic) = (self.clone(), topic.clone());
        tokio::task::spawn_blocking(move || {
            let mut sink = |scanned| sender.blocking_send(Ok(scanned)).is_ok();
            let read = match &config {
                Self::Kafka(kafka) => crate::kafka::scan(kafka, &topic, &mut sink),
                Self::Spool(spool) => crate::spool::scan(spool, &topic, &mut sink),
            };
            if let Err(error) = read {
                // Nobody is left to be told.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }
}
