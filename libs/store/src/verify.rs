//! What is there of a partition, and whether it is whole.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName};

use crate::{
    error::{Result, StoreError},
    shard::ShardInfo,
    shard_log::{ShardLog, blocking},
    shard_name::{ShardKind, ShardName},
};

/// An object in the folder of a partition.
#[derive(Clone, Debug, Serialize)]
pub struct ListedShard {
    /// Its path in the store.
    pub path: String,
    /// Whether it counts. One that does not was replaced, or left behind by a writer
    /// that was replaced.
    pub counts: bool,
    /// How it came to be.
    pub kind: ShardKind,
    /// The first position of its range.
    pub base_offset: Offset,
    /// The position after its range, where that is known without reading it.
    pub next_offset: Option<Offset>,
    /// Its rows by task; empty for one that does not count.
    pub rows_by_task: BTreeMap<TaskName, u64>,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was put into the store, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// What a look at every row of a partition has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionCheck {
    /// The partition.
    #[serde(flatten)]
    pub partition: PartitionId,
    /// Shards that count.
    pub shards: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Objects that do not count.
    pub others: usize,
    /// The first position that is covered; `None` when nothing is.
    pub first_offset: Option<Offset>,
    /// The position at which reading goes on.
    pub next_offset: Option<Offset>,
    /// Rows of all tasks.
    pub rows: u64,
    /// Positions that have a row. A record may yield several traces, and so rows.
    pub offsets: u64,
    /// Rows with the position and the id of another.
    pub duplicates: u64,
    /// Ranges that no shard covers before one that would go on.
    pub gaps: Vec<OffsetRange>,
    /// The sum, modulo 2^64, of the first eight bytes (big-endian) of the SHA-256 of
    /// every row's id. The order of the rows makes no difference.
    pub checksum: Checksum,
    /// Shards that are not what they should be, in words.
    pub problems: Vec<String>,
}

impl PartitionCheck {
    /// True when every position from the first to the next is there exactly once.
    pub fn is_whole(&self) -> bool {
        self.duplicates == 0 && self.gaps.is_empty() && self.problems.is_empty()
    }
}

/// A sum over ids that does not depend on their order; 16 hexadecimal digits in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Adds an id.
    pub fn add(&mut self, id: &str) {
        let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        self.0 = self.0.wrapping_add(u64::from_be_bytes(first));
    }

    /// Adds all ids of another sum.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Checksum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the rows of one shard say.
#[derive(Default)]
struct Found {
    rows: u64,
    offsets: u64,
    duplicates: u64,
    checksum: Checksum,
    problem: Option<String>,
}

impl ShardLog {
    /// The objects of a partition, by offset: those that count and those that do not.
    pub async fn list(&self, partition: &PartitionId) -> Result<Vec<ListedShard>> {
        let walk = self.walk(partition).await?;
        let counting = walk.chain.into_iter().map(|link| ListedShard {
            path: link.info.path.clone(),
            counts: true,
            kind: link.info.kind,
            base_offset: link.info.range.start,
            next_offset: Some(link.info.range.end),
            rows_by_task: link.info.rows_by_task.clone(),
            bytes: link.meta.size,
            modified: link.meta.last_modified,
        });
        let others = walk.others.into_iter().map(|(name, meta)| ListedShard {
            path: meta.location.to_string(),
            counts: false,
            kind: name.kind(),
            base_offset: name.base,
            next_offset: name.end(),
            rows_by_task: BTreeMap::new(),
            bytes: meta.size,
            modified: meta.last_modified,
        });
        let mut listed: Vec<_> = counting.chain(others).collect();
        listed.sort_by(|a, b| (a.base_offset, &a.path).cmp(&(b.base_offset, &b.path)));
        Ok(listed)
    }

    /// Reads every row of a partition and says whether each position is there exactly
    /// once. What is wrong with a shard is told in the answer; only a store that does
    /// not answer is an error.
    pub async fn verify(&self, partition: &PartitionId) -> Result<PartitionCheck> {
        let mut check = PartitionCheck {
            partition: partition.clone(),
            shards: 0,
            bytes: 0,
            others: 0,
            first_offset: None,
            next_offset: None,
            rows: 0,
            offsets: 0,
            duplicates: 0,
            gaps: Vec::new(),
            checksum: Checksum::default(),
            problems: Vec::new(),
        };
        let walk = match self.walk(partition).await {
            Ok(walk) => walk,
            Err(error) if error.is_refusal() => {
                check.problems.push(error.to_string());
                return Ok(check);
            }
            Err(error) => return Err(error),
        };
        check.shards = walk.chain.len();
        check.others = walk.others.len();
        check.first_offset = walk.chain.first().map(|link| link.info.range.start);
        check.next_offset = walk.end();
        check.gaps = gaps(walk.end(), &walk.others);
        for link in &walk.chain {
            check.bytes += link.meta.size;
            match self.rows_of(&link.info).await {
                Ok(found) => {
                    check.rows += found.rows;
                    check.offsets += found.offsets;
                    check.duplicates += found.duplicates;
                    check.checksum.merge(found.checksum);
                    check.problems.extend(found.problem);
                }
                Err(error) if error.is_refusal() => check.problems.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(check)
    }

    async fn rows_of(&self, info: &ShardInfo) -> Result<Found> {
        let rows = match self.read(info, None).await {
            // Replaced while the shards before it were read.
            Err(StoreError::NotFound { .. }) => {
                self.read_all(std::slice::from_ref(info), None).await?
            }
            rows => rows?,
        };
        let info = info.clone();
        let path = object_store::path::Path::from(info.path.as_str());
        blocking(&path, move || Ok(look_at(&info, &rows))).await
    }
}

/// Ranges of a row must not overlap and rows stand only in the range of their shard,
/// so a row can be there twice only within a shard.
fn look_at(info: &ShardInfo, rows: &[StoredTrace]) -> Found {
    let mut found = Found {
        rows: rows.len() as u64,
        ..Found::default()
    };
    let mut seen = HashSet::with_capacity(rows.len());
    let mut offsets = HashSet::with_capacity(rows.len());
    for row in rows {
        found.checksum.add(&row.trace.id);
        found.offsets += u64::from(offsets.insert(row.offset));
        found.duplicates += u64::from(!seen.insert((row.offset, row.trace.id.as_str())));
    }
    let mut rows_by_task = BTreeMap::<TaskName, u64>::new();
    for row in rows {
        *rows_by_task.entry(row.trace.task.clone()).or_default() += 1;
    }
    let key = |row: &StoredTrace| (row.trace.task.clone(), row.offset);
    if rows_by_task != info.rows_by_task {
        found.problem = Some(format!(
            "{}: its footer counts other rows by task",
            info.path
        ));
    } else if !rows.is_sorted_by_key(key) {
        found.problem = Some(format!("{}: its rows are not in order", info.path));
    }
    found
}

/// What is missing between the end of the chain and what comes after it.
fn gaps(end: Option<Offset>, others: &[(ShardName, object_store::ObjectMeta)]) -> Vec<OffsetRange> {
    let Some(end) = end else {
        return Vec::new();
    };
    let beyond = others.iter().map(|(name, _)| name.base);
    beyond
        .filter(|base| *base > end)
        .min()
        .and_then(|base| OffsetRange::new(end, base))
        .into_iter()
        .collect()
}
