//! Upkeep of the shard log: small shards become few, old ones go.
//!
//! # How a shard is replaced
//!
//! Nothing is overwritten here either. A shard that replaces others is a new object,
//! named by its whole range (`{base}-{end}.parquet`), and put if absent. From then on
//! every walk takes it in place of the shards it replaces; a reader that listed before
//! reads those, which stay for a while. Whichever it takes, it finds every position
//! once. Later the replaced ones are deleted; a reader that comes too late for one of
//! them lists anew and goes on from the position it has covered.
//!
//! A shard expires in the same way: one without rows replaces it.
//!
//! # Why rivals do no harm
//!
//! Any number of processes may do this at the same time. That is safe because two
//! ranges that replace others never overlap without one holding the other: a
//! compaction takes the shards that start in one window of positions, and windows are
//! halves of halves (`plan.rs`), cut at the same places by everybody. And because an
//! object is deleted only where another holds its range and has stood for the time of
//! grace. So there is always, for every position, one greatest range left that holds
//! it, and these follow each other without a gap: they are what a walk finds.
//!
//! A shard that a writer puts late, under a name that was freed, starts inside such a
//! range or where one starts. Neither is ever taken: in the walk the name of a range
//! goes before that of a written shard.

mod compact;
mod expire;
mod plan;
mod sweep;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;

pub use compact::Compacted;
pub use expire::Expired;
pub use plan::Compaction;
pub use sweep::Swept;

use crate::{
    error::Result,
    shard::WrittenSpan,
    shard_log::ShardLog,
    store::{Put, Store},
    walk::Link,
};

/// Where the clock of the store is read from.
const CLOCK: &str = "maintenance";

/// A leftover of a process that died while it read the clock.
const LEFTOVER: TimeDelta = TimeDelta::hours(1);

impl ShardLog {
    /// The time by the clock of the store, which is that of the ages of shards. The
    /// clock of this machine may be wrong, and then nothing old must seem new, or the
    /// other way round. On a directory it is the same clock.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        now(self.store()).await
    }
}

async fn now(store: &Store) -> Result<DateTime<Utc>> {
    let folder = Path::from(CLOCK);
    let mut number = std::process::id();
    let (path, time) = loop {
        let path = folder.clone().join(format!("clock-{number}"));
        if store.create(&path, "".into()).await? == Put::Created {
            let time = store.head(&path).await?.last_modified;
            break (path, time);
        }
        number = number.wrapping_add(0x9e37_79b9);
    };
    store.delete(&path).await?;
    for left in store.list(&folder, None).await? {
        if time - left.last_modified > LEFTOVER {
            store.delete(&left.location).await?;
        }
    }
    Ok(time)
}

/// The time that lies so long before another; nothing is older than the first of all.
fn before(now: DateTime<Utc>, age: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(age)
        .ok()
        .and_then(|age| now.checked_sub_signed(age))
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

impl Link {
    /// When the traces of this shard were written, by the store's clock.
    fn written(&self) -> WrittenSpan {
        self.info.written.unwrap_or(WrittenSpan {
            first: self.meta.last_modified,
            last: self.meta.last_modified,
        })
    }
}
