//! What a shard is called, and which of several counts.

use std::fmt;

use object_store::path::Path;
use serde::Serialize;
use tracer_trace::{Offset, PartitionId};

/// How a shard came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardKind {
    /// By an aggregator, from records of the log.
    Written,
    /// From the rows of the shards of its range, which it replaces.
    Compacted,
    /// In place of the shards of its range, whose rows were too old. It has none.
    Expired,
}

impl ShardKind {
    /// For people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Compacted => "compacted",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for ShardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a shard within the folder of its partition. A written one is named by
/// its first position, one that replaces others by its whole range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ShardName {
    pub(crate) base: Offset,
    /// Where the range ends; a written shard's name does not say.
    end: Option<Offset>,
    kind: ShardKind,
}

const EXTENSION: &str = ".parquet";
const EXPIRED: &str = ".expired";
const DIGITS: usize = 20;

impl ShardName {
    pub(crate) fn written(base: Offset) -> Self {
        Self {
            base,
            end: None,
            kind: ShardKind::Written,
        }
    }

    pub(crate) fn compacted(base: Offset, end: Offset) -> Self {
        Self {
            base,
            end: Some(end),
            kind: ShardKind::Compacted,
        }
    }

    pub(crate) fn expired(base: Offset, end: Offset) -> Self {
        Self {
            base,
            end: Some(end),
            kind: ShardKind::Expired,
        }
    }

    /// The name in a path; `None` for anything that is not a shard.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.filename()?.strip_suffix(EXTENSION)?;
        let (name, expired) = match name.strip_suffix(EXPIRED) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (base, end) = match name.split_once('-') {
            Some((base, end)) => (offset(base)?, Some(offset(end)?)),
            None => (offset(name)?, None),
        };
        match (end, expired) {
            (Some(end), _) if end <= base => None,
            (Some(end), false) => Some(Self::compacted(base, end)),
            (Some(end), true) => Some(Self::expired(base, end)),
            (None, false) => Some(Self::written(base)),
            (None, true) => None,
        }
    }

    pub(crate) fn path(self, partition: &PartitionId) -> Path {
        folder(partition).join(self.to_string())
    }

    pub(crate) fn kind(self) -> ShardKind {
        self.kind
    }

    /// The end of the range, where the name says it.
    pub(crate) fn end(self) -> Option<Offset> {
        self.end
    }

    /// Of several shards that start at one position the greatest counts: the one that
    /// reaches furthest holds what the others do, and what has expired has gone.
    pub(crate) fn rank(self) -> (Option<Offset>, ShardKind) {
        (self.end, self.kind)
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$}", self.base.get())?;
        if let Some(end) = self.end {
            write!(f, "-{:0DIGITS$}", end.get())?;
        }
        if self.kind == ShardKind::Expired {
            f.write_str(EXPIRED)?;
        }
        f.write_str(EXTENSION)
    }
}

fn offset(digits: &str) -> Option<Offset> {
    let canonical = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok().map(Offset)).flatten()
}

/// The folder of a partition's shards.
pub(crate) fn folder(partition: &PartitionId) -> Path {
    Path::from(format!(
        "traces/{}/{:05}",
        partition.topic, partition.partition
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_and_sort_as_offsets_do() {
        let partition = PartitionId::new("traces".parse().unwrap(), 3);
        let names = [
            (
                ShardName::written(Offset(9)),
                "00000000000000000009.parquet",
            ),
            (
                ShardName::compacted(Offset(9), Offset(12)),
                "00000000000000000009-00000000000000000012.parquet",
            ),
            (
                ShardName::expired(Offset(9), Offset(u64::MAX)),
                "00000000000000000009-18446744073709551615.expired.parquet",
            ),
        ];
        for (name, text) in names {
            let path = name.path(&partition);
            assert_eq!(path.as_ref(), format!("traces/traces/00003/{text}"));
            assert_eq!(ShardName::of(&path), Some(name));
        }
        assert!(
            ShardName::written(Offset(9)).path(&partition)
                < ShardName::written(Offset(10)).path(&partition)
        );
        for other in [
            "9.parquet",
            "0000000000000000000x.parquet",
            "00000000000000000009.tmp",
            "00000000000000000009.expired.parquet",
            "00000000000000000009-00000000000000000009.parquet",
            "00000000000000000009-.parquet",
            "00000000000000000009-00000000000000000012-3.parquet",
            "99999999999999999999.parquet",
        ] {
            assert_eq!(ShardName::of(&Path::from(other)), None, "{other}");
        }
    }

    #[test]
    fn the_furthest_counts_and_then_what_has_expired() {
        let rank = |name: ShardName| name.rank();
        let (start, near, far) = (Offset(0), Offset(5), Offset(9));
        assert!(rank(ShardName::written(start)) < rank(ShardName::compacted(start, near)));
        assert!(rank(ShardName::compacted(start, near)) < rank(ShardName::expired(start, near)));
        assert!(rank(ShardName::expired(start, near)) < rank(ShardName::compacted(start, far)));
    }
}
