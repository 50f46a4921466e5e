//! What can go wrong with a log.

use std::{io, path::PathBuf};

use rdkafka::error::RDKafkaErrorCode;

use crate::TopicName;

/// An error of a log.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The configuration cannot work.
    #[error("source: {0}")]
    Config(String),
    /// A file of the spool cannot be read or written.
    #[error("spool {path}: cannot {action}: {source}", path = path.display())]
    Spool {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A payload with a newline cannot be a line of the spool.
    #[error("topic {topic}: the payload holds a newline, and a record of the spool is one line")]
    NotALine {
        /// The topic.
        topic: TopicName,
    },
    /// Kafka refused something.
    #[error("kafka: cannot {action}: {source}")]
    Kafka {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: rdkafka::error::KafkaError,
    },
    /// The record is durable, but the broker did not say where: it had accepted
    /// the record before and the first answer was lost.
    #[error("topic {topic}: the record was written, but its offset is not known")]
    UnknownOffset {
        /// The topic.
        topic: TopicName,
    },
    /// The writer or source has stopped.
    #[error("the log has been closed")]
    Closed,
}

impl SourceError {
    /// True when the log takes no record of this size: it will not take it later.
    pub fn is_too_large(&self) -> bool {
        let Self::Kafka { source, .. } = self else {
            return false;
        };
        source.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }

    pub(crate) fn kafka(action: &'static str) -> impl Fn(rdkafka::error::KafkaError) -> Self {
        move |source| Self::Kafka { action, source }
    }

    pub(crate) fn spool(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Spool {
            path,
            action,
            source,
        }
    }
}
