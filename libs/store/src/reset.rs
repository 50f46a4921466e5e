//! Where somebody decided that reading goes on, after the log lost what was to be read next.
//!
//! Positions of a partition only grow and follow each other without a gap, or two shards
//! might want one name. The offsets of its log may not: retention removes what was not
//! read, and a topic that is created anew begins at 0 again. So a decision to go on at an
//! offset is two objects, both put if absent:
//!
//! 1. a *reset*, `resets/{topic}/{partition:05}/{position:020}.json`, named by the position
//!    at which the shards end: it says which position follows, which offset of the log
//!    stands there from then on, who decided it, and why;
//! 2. a *seal*, a shard without traces that begins at the same position and ends at the
//!    position that follows. It is what makes the reset hold: whoever appends next, a
//!    consumer of the old log that wakes up late included, wants its name and is told to
//!    go on behind it. A reset whose seal came second to another shard is void, and the
//!    decision is made again at the new end.
//!
//! Where the offset lies before the position, as in a topic that was created anew, the
//! difference of the two is the *shift*: position = offset + shift from there on.

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracer_trace::{Offset, OffsetRange, PartitionId};

use crate::{
    error::{Result, StoreError},
    shard::ShardInfo,
    shard_log::{Appended, ShardLog},
};

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// Decisions that are made again because the shards went on meanwhile.
const ATTEMPTS: usize = 10;

/// A decision about a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The version of this JSON.
    pub schema_version: u32,
    /// The position at which the shards ended.
    pub position: Offset,
    /// The position at which they go on.
    pub next: Offset,
    /// The offset of the log that stands at `next`.
    pub offset: Offset,
    /// Who decided.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When, by the clock of the author.
    pub at: DateTime<Utc>,
}

impl Reset {
    /// What is added to an offset to have its position.
    pub fn shift(&self) -> u64 {
        self.next.get().saturating_sub(self.offset.get())
    }
}

/// Where reading of a partition goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The last shard; reading goes on at the end of its range.
    pub last: Option<ShardInfo>,
    /// What is added to an offset of the log to have its position.
    pub shift: u64,
}

impl Resume {
    /// The position to go on at, where there is a shard.
    pub fn position(&self) -> Option<Offset> {
        self.last.as_ref().map(|shard| shard.range.end)
    }
}

impl ShardLog {
    /// Where to go on reading a partition: the end of the shards that count.
    pub async fn resume(&self, partition: &PartitionId) -> Result<Resume> {
        // In this order: a seal that is there has its reset before it.
        let mut shards = self.shards(partition).await?;
        let resets = self.resets(partition).await?;
        self.confirm(partition);
        let holding = resets.iter().rev().find(|reset| holds(reset, &shards));
        Ok(Resume {
            shift: holding.map_or(0, Reset::shift),
            last: shards.pop(),
        })
    }

    /// All decisions about a partition, by position, void ones included.
    pub async fn resets(&self, partition: &PartitionId) -> Result<Vec<Reset>> {
        let listed = self.store().list(&folder(partition), None).await?;
        let mut resets = Vec::with_capacity(listed.len());
        for meta in listed {
            let path = &meta.location;
            let bytes = self.store().get(path).await?;
            resets.push(parse(path, &bytes)?);
        }
        Ok(resets)
    }

    /// Decides that reading of a partition goes on at an offset of its log. Running
    /// consumers whose partition stands still notice it by themselves.
    pub async fn reset(
        &self,
        partition: &PartitionId,
        offset: Offset,
        author: &str,
        reason: &str,
    ) -> Result<Reset> {
        for _ in 0..ATTEMPTS {
            let resume = self.resume(partition).await?;
            let position = resume.position().unwrap_or_default();
            let there = Offset(offset.get().saturating_add(resume.shift));
            let next = if there > position {
                there
            } else {
                Offset(position.get().saturating_add(1)).max(offset)
            };
            let reset = Reset {
                schema_version: SCHEMA_VERSION,
                position,
                next,
                offset,
                author: author.to_owned(),
                reason: reason.to_owned(),
                at: Utc::now(),
            };
            let path = folder(partition).join(format!("{:020}.json", position.get()));
            let json = serde_json::to_vec_pretty(&reset)
                .map_err(|error| StoreError::encode(&path, &error))?;
            // Nothing is put that could not be read back.
            parse(&path, &json)?;
            self.store().create(&path, json.into()).await?;
            // It may be a rival's, or one whose seal was never written.
            let bytes = self.store().get(&path).await?;
            let reset = parse(&path, &bytes)?;
            let seal = OffsetRange {
                start: reset.position,
                end: reset.next,
            };
            let sealed = self.append(partition, seal, Vec::new()).await?;
            let held = match sealed {
                Appended::Written(_) => true,
                // By this very seal, or by the shard of a late writer, which voids it.
                Appended::Taken { .. } => holds(&reset, &self.shards(partition).await?),
            };
            if held && reset.offset == offset {
                return Ok(reset);
            }
        }
        Err(StoreError::Contended {
            path: folder(partition).to_string(),
            attempts: ATTEMPTS,
        })
    }
}

/// Reads a decision, and refuses what cannot be one.
fn parse(path: &Path, bytes: &[u8]) -> Result<Reset> {
    let reset: Reset =
        serde_json::from_slice(bytes).map_err(|error| StoreError::damaged(path, &error))?;
    if reset.schema_version > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_string(),
            found: reset.schema_version,
            supported: SCHEMA_VERSION,
        });
    }
    if reset.next <= reset.position || reset.next < reset.offset {
        return Err(StoreError::damaged(path, "it goes back"));
    }
    // No log has such offsets, and its shift would take those behind it past the last number.
    if i64::try_from(reset.next.get()).is_err() {
        return Err(StoreError::damaged(path, "it is beyond any offset"));
    }
    Ok(reset)
}

/// True when the seal is there, by itself or inside a shard that stands for several and
/// keeps the ranges of those without rows. A shard of a late writer in the seal's place is
/// not it.
fn holds(reset: &Reset, shards: &[ShardInfo]) -> bool {
    let seal = OffsetRange {
        start: reset.position,
        end: reset.next,
    };
    let at = shards
        .iter()
        .find(|shard| shard.range.contains(reset.position));
    at.is_some_and(|shard| shard.bare_ranges().contains(&seal))
}

fn folder(partition: &PartitionId) -> Path {
    Path::from("resets")
        .join(partition.topic.as_str())
        .join(format!("{:05}", partition.partition))
}
