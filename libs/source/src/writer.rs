//! The writing end of a log.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Offset, PartitionId, SourceError, TopicName};

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Records of one key go to one partition.
    pub key: Option<Bytes>,
    /// The bytes of the record.
    pub payload: Bytes,
    /// Names and values that travel beside the payload. A log that keeps text
    /// lines has no room for them: see [`LogWriter::keeps_lines`].
    pub headers: Vec<(String, Bytes)>,
}

impl Message {
    /// A record without key and headers.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// The writing end of a log.
#[async_trait]
pub trait LogWriter: Send + Sync {
    /// Writes a record and answers its place once it is durable.
    async fn append(
        &self,
        topic: &TopicName,
        message: Message,
    ) -> Result<(PartitionId, Offset), SourceError>;

    /// Writes records and answers their places, in the order given, once all are
    /// durable. Cheaper than one by one. After an error some may have been written.
    async fn append_batch(
        &self,
        topic: &TopicName,
        messages: Vec<Message>,
    ) -> Result<Vec<(PartitionId, Offset)>, SourceError>;

    /// Waits until everything handed over so far is durable or has failed.
    async fn flush(&self) -> Result<(), SourceError>;

    /// True when a record is a line of text: payloads must not hold a newline,
    /// and headers are dropped.
    fn keeps_lines(&self) -> bool;
}
