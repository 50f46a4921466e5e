//! Positions in an ordered log: topic, partition, offset, range.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::name::{excerpt, is_plain, text_of_name};

/// The name of a topic: 1 to 249 characters of `a-z`, `A-Z`, `0-9`, `.`, `_` and
/// `-`, and neither `.` nor `..`. These are Kafka's rules, and they make every
/// topic a safe directory name as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

/// A topic name that is empty, too long or holds a character that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid topic name {name:?}: a topic name is 1 to {max} characters of letters, digits, '.', '_' and '-', and not '.' or '..'",
    max = TopicName::MAX_LEN
)]
pub struct InvalidTopicName {
    name: String,
}

impl TopicName {
    /// The longest name in bytes.
    pub const MAX_LEN: usize = 249;

    /// Parses a name.
    pub fn new(name: &str) -> Result<Self, InvalidTopicName> {
        if is_plain(name, Self::MAX_LEN) && name != "." && name != ".." {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTopicName {
                name: excerpt(name, Self::MAX_LEN),
            })
        }
    }
}

text_of_name!(TopicName, InvalidTopicName);

impl Default for TopicName {
    /// The topic of traces.
    fn default() -> Self {
        Self("traces".into())
    }
}

/// One partition of one topic: the unit of order and of ownership.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number within the topic, from 0.
    pub partition: i32,
}

impl PartitionId {
    /// Names a partition.
    pub fn new(topic: TopicName, partition: i32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A position in a partition. What one step means is the log's business: a
/// record in Kafka, a byte in the spool. Offsets only ever grow, and may have gaps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The first position of every partition.
    pub const ZERO: Self = Self(0);

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of positions: `start` is in it, `end` is the next position
/// after it. It counts positions, not records: offsets may have gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first position.
    pub start: Offset,
    /// The position after the last one.
    pub end: Offset,
}

impl OffsetRange {
    /// A range; `None` when `end` lies before `start`.
    pub fn new(start: Offset, end: Offset) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// True when no position is in the range.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// True when `offset` is in the range.
    pub fn contains(&self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafka() {
        for name in ["traces", "traces.dead-letters", "a_b", "7"] {
            assert_eq!(TopicName::new(name).unwrap().as_str(), name);
        }
        let long = "x".repeat(TopicName::MAX_LEN + 1);
        for name in ["", ".", "..", "a/b", "a b", "ä", "a\n", long.as_str()] {
            assert!(TopicName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn ranges_are_half_open() {
        let range = OffsetRange::new(Offset(3), Offset(5)).unwrap();
        assert!(!range.contains(Offset(2)));
        assert!(range.contains(Offset(3)));
        assert!(range.contains(Offset(4)));
        assert!(!range.contains(Offset(5)));
        assert!(OffsetRange::new(Offset(5), Offset(5)).unwrap().is_empty());
        assert!(OffsetRange::new(Offset(5), Offset(4)).is_none());
        assert_eq!(range.to_string(), "[3, 5)");
    }
}
