//! Watching what serves: since when, and which audits tell of it.
//!
//! ```text
//! audits/{task}/{seq:020}.json
//! ```
//!
//! An audit names the version that answered. That suffices after a publication, whose
//! number is new. A version that was resumed or rolled back to has audits of before, of
//! which some may have been the reason why it was taken out: so the first who watches it
//! writes down how far the shards go by then, by put-if-absent, and only what comes later
//! counts.

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracer_trace::TaskName;

use crate::{
    error::{Result, StoreError},
    log::{Active, LogEntry, LogEvent},
    manifest::{self, REGISTRY_SCHEMA_VERSION, ShardSpan},
    registry::{Registry, lifecycle::Step},
    store::Put,
};

const ROOT: &str = "audits";

/// From where on audits count.
#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    schema_version: u32,
    /// Where the partitions with shards ended.
    shards: Vec<ShardSpan>,
}

/// The entry since which the active version serves: its publication, or the last rollback
/// or resumption. `None` when nothing serves.
fn serving_since(entries: &[LogEntry]) -> Option<&LogEntry> {
    if Active::fold(entries).suspended {
        return None;
    }
    entries.iter().rev().find(|entry| {
        matches!(
            entry.event,
            LogEvent::Published { .. } | LogEvent::RolledBack { .. } | LogEvent::Resumed
        )
    })
}

impl Registry {
    /// What serves a task and since which entry of its log. `None` while nothing does, or
    /// while it is suspended.
    pub async fn serving(&self, task: &TaskName) -> Result<Option<(Active, LogEntry)>> {
        let entries = self.log(task).await?;
        let since = serving_since(&entries).cloned();
        let active = Active::fold(&entries);
        Ok(since
            .filter(|_| active.version.is_some())
            .map(|since| (active, since)))
    }

    /// Suspends a task as long as what serves it does so since the entry `since`. False
    /// when that is no longer so: somebody else was faster, with this or with another
    /// decision.
    pub async fn suspend_since(
        &self,
        task: &TaskName,
        since: u64,
        reason: &str,
        author: &str,
    ) -> Result<bool> {
        let event = LogEvent::Suspended {
            reason: reason.to_owned(),
        };
        let entry = self.append_when(task, author, None, |entries| {
            let serves = serving_since(entries).is_some_and(|entry| entry.seq == since);
            Ok(if serves {
                Step::Append(event.clone())
            } else {
                Step::Nothing
            })
        });
        Ok(entry.await?.is_some())
    }

    /// From where on audits tell of what serves since the entry `since`: the ends that
    /// whoever asked first has named.
    pub async fn audits_since(
        &self,
        task: &TaskName,
        since: u64,
        now: Vec<ShardSpan>,
    ) -> Result<Vec<ShardSpan>> {
        let path = Path::from(format!("{ROOT}/{task}/{since:020}.json"));
        let begin = Begin {
            schema_version: REGISTRY_SCHEMA_VERSION,
            shards: now,
        };
        let json = serde_json::to_vec(&begin).map_err(|e| StoreError::encode(&path, &e))?;
        if self.store.create(&path, json.into()).await? == Put::Created {
            return Ok(begin.shards);
        }
        let found: Begin = manifest::parse(&path, &self.store.get(&path).await?)?;
        Ok(found.shards)
    }
}
