//! Payloads that are not traces, with where they came from and what is wrong.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tracer_source::{Message, Offset, PartitionId, Record, Scanned, TopicName};
use tracer_trace::DecodeError;

/// Bytes of a payload that fit into a message of the default size limit of
/// Kafka's clients, with headers. A payload can only be longer where the limits
/// of the topics differ; its beginning is kept then.
const MAX_BYTES: usize = 960_000;

const TOPIC: &str = "tracer.topic";
const PARTITION: &str = "tracer.partition";
const OFFSET: &str = "tracer.offset";
const TIMESTAMP: &str = "tracer.timestamp_ms";
const REASON: &str = "tracer.reason";
const ERROR: &str = "tracer.error";
const PAYLOAD_BYTES: &str = "tracer.payload_bytes";
const REJECTED_AT: &str = "tracer.rejected_at";

/// A line of the spool has no headers: everything is in the object.
#[derive(Serialize, Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: u64,
    timestamp_ms: Option<i64>,
    reason: String,
    error: String,
    payload_bytes: usize,
    payload_base64: String,
    /// Absent in lines of earlier releases.
    rejected_at: Option<DateTime<Utc>>,
}

/// The message for a rejected record: the payload itself with headers, or where
/// the log keeps lines one JSON object with the payload in base64.
pub(crate) fn message(record: &Record, error: &DecodeError, as_line: bool) -> Message {
    let partition = &record.partition;
    let key = Bytes::from(partition.to_string());
    let now = Utc::now();
    if as_line {
        let line = Line {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
            reason: error.reason().to_owned(),
            error: error.to_string(),
            payload_bytes: record.payload.len(),
            payload_base64: BASE64_STANDARD.encode(&record.payload),
            rejected_at: Some(now),
        };
        // Numbers and text always become JSON.
        let line = serde_json::to_vec(&line).unwrap_or_default();
        return Message::new(line).with_key(key);
    }
    let kept = record.payload.len().min(MAX_BYTES);
    let headers = [
        (TOPIC, Some(partition.topic.to_string())),
        (PARTITION, Some(partition.partition.to_string())),
        (OFFSET, Some(record.offset.to_string())),
        (TIMESTAMP, record.timestamp_ms.map(|time| time.to_string())),
        (REASON, Some(error.reason().to_owned())),
        (ERROR, Some(error.to_string())),
        (PAYLOAD_BYTES, Some(record.payload.len().to_string())),
        (
            REJECTED_AT,
            Some(now.to_rfc3339_opts(SecondsFormat::Micros, true)),
        ),
    ];
    Message {
        key: Some(key),
        // A copy: the record's bytes may share a large allocation with others.
        payload: Bytes::copy_from_slice(&record.payload[..kept]),
        headers: headers
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Bytes::from(value?))))
            .collect(),
    }
}

/// A dead letter, as it stands in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the rejected record stood.
    pub partition: PartitionId,
    /// Its position.
    pub offset: Offset,
    /// The log's time of the record in epoch milliseconds, where it keeps one.
    pub timestamp_ms: Option<i64>,
    /// The reason of the rejection, as in the label of the metric.
    pub reason: String,
    /// What is wrong, in words.
    pub error: String,
    /// The bytes of the record, or their beginning.
    pub payload: Bytes,
    /// How many bytes the record had.
    pub payload_bytes: usize,
    /// When it was rejected.
    pub rejected_at: Option<DateTime<Utc>>,
}

impl DeadLetter {
    /// Reads a record of a dead-letter topic; `None` for what is no dead letter.
    pub fn parse(scanned: &Scanned) -> Option<Self> {
        if scanned.headers.is_empty() {
            return Self::from_line(&scanned.payload);
        }
        let header = |name: &str| {
            let found = scanned.headers.iter().find(|(key, _)| key == name);
            found.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let topic = TopicName::new(header(TOPIC)?).ok()?;
        let sent = scanned
            .timestamp_ms
            .and_then(DateTime::from_timestamp_millis);
        Some(Self {
            partition: PartitionId::new(topic, header(PARTITION)?.parse().ok()?),
            offset: Offset(header(OFFSET)?.parse().ok()?),
            timestamp_ms: header(TIMESTAMP).and_then(|time| time.parse().ok()),
            reason: header(REASON)?.to_owned(),
            error: header(ERROR)?.to_owned(),
            payload: scanned.payload.clone(),
            payload_bytes: header(PAYLOAD_BYTES)?.parse().ok()?,
            // Letters of earlier releases have the time of their own record alone.
            rejected_at: header(REJECTED_AT)
                .and_then(|time| time.parse().ok())
                .or(sent),
        })
    }

    fn from_line(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        Some(Self {
            partition: PartitionId::new(TopicName::new(&line.topic).ok()?, line.partition),
            offset: Offset(line.offset),
            timestamp_ms: line.timestamp_ms,
            reason: line.reason,
            error: line.error,
            payload: BASE64_STANDARD.decode(line.payload_base64).ok()?.into(),
            payload_bytes: line.payload_bytes,
            rejected_at: line.rejected_at,
        })
    }

    /// `topic-partition@offset` of the rejected record.
    pub fn origin(&self) -> String {
        format!("{}@{}", self.partition, self.offset)
    }

    /// True when the topic has not the whole payload: it was too large for it, or it was
    /// withheld, as of tasks whose inputs are not stored.
    pub fn is_cut(&self) -> bool {
        self.payload.is_empty() || self.payload.len() < self.payload_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let record = Record {
            partition: PartitionId::new("traces".parse().unwrap(), 3),
            offset: Offset(17),
            next: Offset(18),
            payload: Bytes::from_static(b"not\xffa trace"),
            timestamp_ms: Some(1_800_000_000_000),
        };
        for as_line in [true, false] {
            let message = message(&record, &DecodeError::MissingInput, as_line);
            let mut scanned = Scanned {
                partition: PartitionId::new("dead".parse().unwrap(), 0),
                offset: Offset(0),
                timestamp_ms: None,
                headers: message.headers,
                payload: message.payload,
            };
            let letter = DeadLetter::parse(&scanned).unwrap();
            assert_eq!(letter.origin(), "traces-3@17");
            assert_eq!(letter.payload, record.payload);
            assert_eq!(letter.timestamp_ms, record.timestamp_ms);
            assert_eq!(letter.reason, DecodeError::MissingInput.reason());
            assert_eq!(letter.error, DecodeError::MissingInput.to_string());
            assert!(letter.rejected_at.is_some() && !letter.is_cut());
            // What is withheld is not there to be sent back.
            let mut record = record.clone();
            record.payload = Bytes::new();
            let withheld = super::message(&record, &DecodeError::MissingInput, as_line);
            let withheld = DeadLetter::parse(&Scanned {
                headers: withheld.headers,
                payload: withheld.payload,
                ..scanned.clone()
            });
            assert!(withheld.unwrap().is_cut());
            scanned.headers.clear();
            scanned.payload = Bytes::from_static(b"{}");
            assert_eq!(DeadLetter::parse(&scanned), None);
        }
    }
}
