//! Small shards become one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracer_trace::{OffsetRange, PartitionId, Rows};

use super::plan::{Candidate, Compaction, plan};
use crate::{
    error::{Result, StoreError},
    shard::{self, Draft, WrittenSpan},
    shard_log::{ShardLog, blocking},
    shard_name::ShardName,
    store::Put,
    walk::Link,
};

/// What a compaction of a partition has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Shards that were made.
    pub made: u64,
    /// Shards they replace.
    pub replaced: u64,
    /// The rows of these.
    pub rows: u64,
    /// The bytes of what is replaced.
    pub bytes_before: u64,
    /// The bytes of what was made.
    pub bytes_after: u64,
}

impl Compacted {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.made += other.made;
        self.replaced += other.replaced;
        self.rows += other.rows;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
    }
}

impl ShardLog {
    /// Makes few shards of many small ones, away from the end of the partition. Those
    /// that are replaced stay until [`ShardLog::sweep`]. `now` is [`ShardLog::now`].
    ///
    /// Shards that cannot be read are left as they are.
    pub async fn compact(
        &self,
        partition: &PartitionId,
        rules: &Compaction,
        now: DateTime<Utc>,
    ) -> Result<Compacted> {
        let chain = self.walk(partition).await?.chain;
        let candidates: Vec<_> = chain
            .iter()
            .map(|link| Candidate {
                range: link.info.range,
                rows: link.info.rows(),
                unpacked: link.info.unpacked,
                written: link.written(),
            })
            .collect();
        let mut done = Compacted::default();
        for run in plan(&candidates, rules, now) {
            match self.join(partition, &chain[run.clone()]).await {
                Ok(Some(joined)) => done.add(joined),
                // A rival was faster.
                Ok(None) | Err(StoreError::NotFound { .. }) => {}
                Err(error) if error.is_refusal() => {
                    tracing::error!(%partition, %error, "cannot compact these shards");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Puts the one shard that replaces these; `None` when that was not to be.
    async fn join(&self, partition: &PartitionId, links: &[Link]) -> Result<Option<Compacted>> {
        let (Some(first), Some(last)) = (links.first(), links.last()) else {
            return Ok(None);
        };
        let range = OffsetRange {
            start: first.info.range.start,
            end: last.info.range.end,
        };
        let name = ShardName::compacted(range.start, range.end);
        let path = name.path(partition);
        let mut rows = Rows::new();
        for link in links {
            rows.extend(&self.read(&link.info, None).await?);
        }
        let draft = Draft {
            partition: partition.clone(),
            name,
            range,
            last_record: last.info.last_record.clone(),
            written: links.iter().map(Link::written).reduce(WrittenSpan::and),
            bare: links
                .iter()
                .flat_map(|link| link.info.bare_ranges())
                .collect(),
            embeddings: self.embeddings(),
        };
        let (bytes, info) = blocking(&path, move || shard::encode(draft, &rows)).await?;
        // What has expired meanwhile must not come back.
        let walk = self.walk(partition).await?;
        let counts = |link: &Link| walk.chain.iter().any(|now| now.meta == link.meta);
        if !links.iter().all(counts) {
            return Ok(None);
        }
        if self.store().create(&path, bytes).await? == Put::Taken {
            return Ok(None);
        }
        tracing::info!(%path, replaces = links.len(), rows = info.rows(), "shards compacted");
        Ok(Some(Compacted {
            made: 1,
            replaced: links.len() as u64,
            rows: info.rows(),
            bytes_before: links.iter().map(|link| link.meta.size).sum(),
            bytes_after: info.size,
        }))
    }
}
