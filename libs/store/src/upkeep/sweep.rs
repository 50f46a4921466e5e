//! What was replaced is deleted.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use serde::Serialize;
use tracer_trace::{OffsetRange, PartitionId};

use super::before;
use crate::{
    error::{Result, StoreError},
    shard_log::ShardLog,
    shard_name::{ShardKind, ShardName},
    walk::Link,
};

/// What was deleted of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Objects that were deleted.
    pub deleted: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Swept {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.bytes += other.bytes;
    }
}

impl ShardLog {
    /// Deletes what was replaced: every object that does not count and whose positions
    /// lie in compacted or expired shards that have stood for `grace`. Each of these is
    /// read once before anything is deleted for its sake. `now` is [`ShardLog::now`].
    ///
    /// What was replaced is kept for `grace` so that readers of an earlier listing find
    /// it, and so that the name of a shard is not free while a writer that wants it may
    /// still be at work. It must be well above [`ShardLog::CONFIRM_EVERY`], or whatever
    /// writers were told in its place.
    pub async fn sweep(
        &self,
        partition: &PartitionId,
        grace: Duration,
        now: DateTime<Utc>,
    ) -> Result<Swept> {
        let walk = self.walk(partition).await?;
        let stood_since = before(now, grace);
        let mut swept = Swept::default();
        for (name, meta) in &walk.others {
            let range = match self.range_of(*name, meta).await {
                Ok(range) => range,
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%error, "it does not count, but cannot be deleted");
                    continue;
                }
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let Some(holding) = holding(&walk.chain, range, stood_since) else {
                continue;
            };
            if self.are_sound(holding).await? {
                self.store().delete(&meta.location).await?;
                tracing::debug!(path = %meta.location, "replaced shard deleted");
                swept.add(Swept {
                    deleted: 1,
                    bytes: meta.size,
                });
            }
        }
        Ok(swept)
    }

    async fn range_of(&self, name: ShardName, meta: &ObjectMeta) -> Result<OffsetRange> {
        match name.end() {
            Some(end) => Ok(OffsetRange {
                start: name.base,
                end,
            }),
            None => Ok(self.footer(meta.clone()).await?.range),
        }
    }

    /// Whether these shards can be read to the last row.
    async fn are_sound(&self, links: &[Link]) -> Result<bool> {
        for link in links {
            if self.is_sound(&link.meta) {
                continue;
            }
            match self.read(&link.info, None).await {
                Ok(_) => self.sound(&link.meta),
                Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) if error.is_refusal() => {
                    tracing::error!(%error, "it replaces others, which are kept");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// The shards that hold a range, where all of them replace others and have stood since
/// a time.
fn holding(chain: &[Link], range: OffsetRange, since: DateTime<Utc>) -> Option<&[Link]> {
    let first = chain.partition_point(|link| link.info.range.end <= range.start);
    let past = chain.partition_point(|link| link.info.range.start < range.end);
    let holding = chain.get(first..past)?;
    let start = holding.first()?.info.range.start;
    let end = holding.last()?.info.range.end;
    let all = holding
        .iter()
        .all(|link| link.info.kind != ShardKind::Written && link.meta.last_modified <= since);
    (start <= range.start && range.end <= end && all).then_some(holding)
}
