//! Upkeep of the shards of the partitions this aggregator has: few large shards of
//! many small ones, and none that are older than they may be.
//!
//! Whoever has a partition looks after it, so that the work is done once. Nothing
//! rests on that: `tracer_store` says why any number may do it at the same time.

use std::{collections::BTreeSet, time::Duration};

use metrics::Counter;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracer_source::PartitionId;
use tracer_store::{Compacted, Compaction, Expired, ShardLog, StoreError, Swept};
use tracer_telemetry::{
    Metrics,
    metric::{
        COMPACTIONS_TOTAL, MAINTENANCE_FAILURES_TOTAL, SHARD_BYTES_DELETED_TOTAL,
        SHARDS_COMPACTED_TOTAL, SHARDS_DELETED_TOTAL, TRACES_EXPIRED_TOTAL,
    },
};

use crate::Error;

const DAY: Duration = Duration::from_hours(24);

/// Configuration of the upkeep of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaintenanceConfig {
    /// Whether aggregators do it, each for the partitions it has.
    pub enabled: bool,
    /// Seconds between two rounds.
    pub interval_seconds: u64,
    /// A compacted shard has at most so many traces; 0 switches compaction off.
    pub compact_rows: u64,
    /// The shards that become one have at most so many bytes together, before compression:
    /// so much of them is in memory at the same time.
    pub compact_bytes: u64,
    /// At least so many shards become one.
    pub compact_min_shards: usize,
    /// A shard is left alone until it is so many seconds old.
    pub compact_after_seconds: u64,
    /// The last so many shards of a partition are left alone.
    pub keep_shards: usize,
    /// Traces are kept for so many days after they were written; 0 keeps them for ever.
    pub retention_days: u64,
    /// Seconds for which a shard that was replaced is kept.
    pub grace_seconds: u64,
}

impl Default for MaintenanceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_seconds: 300,
            compact_rows: 100_000,
            compact_bytes: 64 << 20,
            compact_min_shards: 4,
            compact_after_seconds: 900,
            keep_shards: 8,
            retention_days: 0,
            grace_seconds: 3600,
        }
    }
}

impl MaintenanceConfig {
    /// The shortest time of grace. In a fifth of it a writer finds out that its shards
    /// do not count.
    pub const LEAST_GRACE_SECONDS: u64 = 5;

    /// Shards that expire together are written within this part of the retention.
    const SPANS: u32 = 8;

    /// Refuses values that cannot work, naming the key.
    pub fn validate(&self) -> Result<(), Error> {
        let refused = |detail: String| Err(Error::Maintenance(detail));
        for (key, value, least) in [
            ("interval_seconds", self.interval_seconds, 1),
            ("compact_min_shards", self.compact_min_shards as u64, 2),
            ("keep_shards", self.keep_shards as u64, 1),
            (
                "grace_seconds",
                self.grace_seconds,
                Self::LEAST_GRACE_SECONDS,
            ),
        ] {
            if value < least {
                return refused(format!("{key} must be at least {least}"));
            }
        }
        if self.compact_bytes > Self::MOST_BYTES {
            return refused(format!(
                "compact_bytes must be at most {}",
                Self::MOST_BYTES
            ));
        }
        Ok(())
    }

    /// A compaction holds its rows in memory.
    const MOST_BYTES: u64 = 256 << 20;

    /// What is compacted; `None` when nothing is.
    pub fn compaction(&self) -> Option<Compaction> {
        (self.compact_rows > 0).then(|| Compaction {
            max_rows: self.compact_rows,
            max_bytes: self.compact_bytes,
            min_shards: self.compact_min_shards,
            keep_shards: self.keep_shards,
            min_age: Duration::from_secs(self.compact_after_seconds),
            max_span: self.retention().map(|retention| retention / Self::SPANS),
        })
    }

    /// For how long traces are kept; `None` for ever.
    pub fn retention(&self) -> Option<Duration> {
        let days = u32::try_from(self.retention_days).unwrap_or(u32::MAX);
        (days > 0).then(|| DAY * days)
    }

    /// For how long replaced shards are kept.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// How often writers make sure that their shards count.
    pub fn confirm_every(&self) -> Duration {
        ShardLog::CONFIRM_EVERY.min(self.grace() / 5)
    }
}

/// What one round has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upkeep {
    /// Shards that expired.
    pub expired: Expired,
    /// Shards that were made of smaller ones.
    pub compacted: Compacted,
    /// What was deleted.
    pub deleted: Swept,
}

impl Upkeep {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.expired.add(other.expired);
        self.compacted.add(other.compacted);
        self.deleted.add(other.deleted);
    }
}

/// Looks after one partition once.
pub async fn upkeep(
    config: &MaintenanceConfig,
    shards: &ShardLog,
    partition: &PartitionId,
) -> Result<Upkeep, StoreError> {
    let now = shards.now().await?;
    let mut done = Upkeep::default();
    if let Some(retention) = config.retention() {
        done.expired = shards.expire(partition, retention, now).await?;
    }
    if let Some(rules) = config.compaction() {
        done.compacted = shards.compact(partition, &rules, now).await?;
    }
    done.deleted = shards.sweep(partition, config.grace(), now).await?;
    Ok(done)
}

pub(crate) struct Maintenance {
    config: MaintenanceConfig,
    shards: ShardLog,
    /// The partitions this aggregator has.
    owned: watch::Receiver<BTreeSet<PartitionId>>,
    compactions: Counter,
    compacted: Counter,
    expired: Counter,
    deleted: Counter,
    bytes_deleted: Counter,
    failures: Counter,
}

impl Maintenance {
    pub(crate) fn new(
        config: MaintenanceConfig,
        shards: ShardLog,
        owned: watch::Receiver<BTreeSet<PartitionId>>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            config,
            shards,
            owned,
            compactions: metrics.counter(&COMPACTIONS_TOTAL, &[]),
            compacted: metrics.counter(&SHARDS_COMPACTED_TOTAL, &[]),
            expired: metrics.counter(&TRACES_EXPIRED_TOTAL, &[]),
            deleted: metrics.counter(&SHARDS_DELETED_TOTAL, &[]),
            bytes_deleted: metrics.counter(&SHARD_BYTES_DELETED_TOTAL, &[]),
            failures: metrics.counter(&MAINTENANCE_FAILURES_TOTAL, &[]),
        }
    }

    /// Round after round, until `shutdown`. Nothing has to be finished: what breaks off
    /// leaves a whole log.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if !self.config.enabled {
            return;
        }
        let interval = Duration::from_secs(self.config.interval_seconds);
        let rounds = async {
            loop {
                tokio::time::sleep(interval).await;
                let owned = self.owned.borrow().clone();
                for partition in owned {
                    self.look_after(&partition).await;
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn look_after(&self, partition: &PartitionId) {
        // It may have gone to another aggregator since the round began.
        if !self.owned.borrow().contains(partition) {
            return;
        }
        match upkeep(&self.config, &self.shards, partition).await {
            Ok(done) => {
                self.compactions.increment(done.compacted.made);
                self.compacted.increment(done.compacted.replaced);
                self.expired.increment(done.expired.rows);
                self.deleted.increment(done.deleted.deleted);
                self.bytes_deleted.increment(done.deleted.bytes);
                if done != Upkeep::default() {
                    tracing::info!(%partition, ?done, "shards maintained");
                }
            }
            Err(error) => {
                self.failures.increment(1);
                tracing::warn!(%partition, %error, "cannot maintain the shards, trying again in the next round");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        MaintenanceConfig::default().validate().unwrap();
        for (json, key) in [
            (r#"{"interval_seconds": 0}"#, "interval_seconds"),
            (r#"{"compact_min_shards": 1}"#, "compact_min_shards"),
            (r#"{"keep_shards": 0}"#, "keep_shards"),
            (r#"{"grace_seconds": 4}"#, "grace_seconds"),
            (r#"{"compact_bytes": 1073741824}"#, "compact_bytes"),
        ] {
            let config: MaintenanceConfig = serde_json::from_str(json).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(
                error.starts_with("maintenance: ") && error.contains(key),
                "{error}"
            );
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let off = MaintenanceConfig {
            compact_rows: 0,
            ..MaintenanceConfig::default()
        };
        assert_eq!((off.compaction(), off.retention()), (None, None));
        let on = MaintenanceConfig {
            retention_days: 16,
            ..MaintenanceConfig::default()
        };
        assert_eq!(on.retention(), Some(16 * DAY));
        assert_eq!(on.compaction().unwrap().max_span, Some(2 * DAY));
        let forever = MaintenanceConfig {
            retention_days: u64::MAX,
            ..MaintenanceConfig::default()
        };
        assert!(forever.retention() > on.retention());
    }
}
