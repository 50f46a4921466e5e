//! Old shards lose their rows.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracer_trace::{PartitionId, Rows};

use super::before;
use crate::{
    error::Result,
    shard::{self, Draft},
    shard_log::{ShardLog, blocking},
    shard_name::ShardName,
    store::Put,
    walk::Link,
};

/// What has expired of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Shards that expired.
    pub shards: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Expired {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.shards += other.shards;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

impl ShardLog {
    /// Puts a shard without rows in the place of each whose newest trace was written
    /// longer ago than `age`. `now` is [`ShardLog::now`]. No reader finds the rows from then on; the
    /// objects stay until [`ShardLog::sweep`]. The last shard of a partition never
    /// expires, so the position to resume from stays what it is.
    pub async fn expire(
        &self,
        partition: &PartitionId,
        age: Duration,
        now: DateTime<Utc>,
    ) -> Result<Expired> {
        let chain = self.walk(partition).await?.chain;
        let written_before = before(now, age);
        let below = chain.len().saturating_sub(1);
        let old = chain[..below]
            .iter()
            .filter(|link| link.info.rows() > 0 && link.written().last < written_before);
        let mut done = Expired::default();
        for link in old {
            if self.empty(partition, link).await? {
                done.add(Expired {
                    shards: 1,
                    rows: link.info.rows(),
                    bytes: link.meta.size,
                });
            }
        }
        Ok(done)
    }

    async fn empty(&self, partition: &PartitionId, link: &Link) -> Result<bool> {
        let range = link.info.range;
        let name = ShardName::expired(range.start, range.end);
        let path = name.path(partition);
        let draft = Draft {
            partition: partition.clone(),
            name,
            range,
            last_record: link.info.last_record.clone(),
            written: Some(link.written()),
            bare: link.info.bare_ranges(),
            embeddings: self.embeddings(),
        };
        let (bytes, _) = blocking(&path, move || shard::encode(draft, &Rows::new())).await?;
        let put = self.store().create(&path, bytes).await?;
        tracing::info!(%path, rows = link.info.rows(), "shard expired");
        Ok(put == Put::Created)
    }
}
