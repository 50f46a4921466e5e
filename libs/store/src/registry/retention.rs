//! Which versions are kept, and how the others go.
//!
//! A version goes in two steps. An entry of the log says that it is gone: from here on
//! nobody rolls back to it, and who folds the log knows why its files are missing. After a
//! time of grace, in which whoever is reading it comes to an end, its files are deleted,
//! the manifest first. Either step can be done by anybody, at any time and again.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tracer_trace::TaskName;

use super::{
    MANIFEST, Registry,
    lifecycle::{Step, before, refused, retired},
    version_folder,
};
use crate::{
    error::Result,
    log::{Active, LogEntry, LogEvent},
    manifest::PipelineVersion,
};

/// What is kept of the versions of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The newest so many, at least one.
    pub versions: usize,
    /// Whatever is younger than this.
    pub age: TimeDelta,
    /// How long the files of a version stay after the log says that it is gone.
    pub grace: TimeDelta,
}

/// What a look at a task's versions did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// Versions that are kept.
    pub kept: Vec<PipelineVersion>,
    /// Versions that the log says are gone from now on.
    pub retired: Vec<PipelineVersion>,
    /// Versions whose files were deleted: they were gone long enough.
    pub deleted: Vec<PipelineVersion>,
    /// Files that were deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Registry {
    /// Retires what the rule does not keep, and deletes what was retired long enough ago.
    /// With `dry_run` it only says what it would do.
    ///
    /// Kept are, besides what the rule says: the version that serves, suspended or not;
    /// the one that a rollback would go back to; and whatever an incremental refit began
    /// at whose version is kept, so that it can be reproduced. A publication that is under
    /// way is no version yet, and is left alone.
    pub async fn retire(
        &self,
        task: &TaskName,
        rule: &RetentionRule,
        author: &str,
        dry_run: bool,
    ) -> Result<Retention> {
        if rule.versions == 0 {
            return Err(refused(task, "at least one version must be kept"));
        }
        let now = Utc::now();
        let entries = self.log(task).await?;
        let (kept, go) = self.plan(task, rule, &entries, now).await?;
        let mut done = Retention {
            kept: kept.into_iter().collect(),
            retired: go.iter().copied().collect(),
            ..Retention::default()
        };
        if !dry_run && !go.is_empty() {
            let seen = needed(&entries);
            let versions = done.retired.clone();
            let appended = self.append_when(task, author, None, |entries| {
                // Somebody rolled back to one of them, or published: the next look plans anew.
                if needed(entries) != seen || !retired(entries).is_disjoint(&go) {
                    return Ok(Step::Nothing);
                }
                let versions = versions.clone();
                Ok(Step::Append(LogEvent::Retired { versions }))
            });
            if appended.await?.is_none() {
                done.kept.append(&mut done.retired);
                done.kept.sort_unstable();
            }
        }
        let long_gone = gone_since(&entries, now - rule.grace);
        self.delete(task, &long_gone, dry_run, &mut done).await?;
        Ok(done)
    }

    /// What is kept and what goes.
    async fn plan(
        &self,
        task: &TaskName,
        rule: &RetentionRule,
        entries: &[LogEntry],
        now: DateTime<Utc>,
    ) -> Result<(BTreeSet<PipelineVersion>, BTreeSet<PipelineVersion>)> {
        let gone = retired(entries);
        let published: Vec<(PipelineVersion, DateTime<Utc>)> = entries
            .iter()
            .filter_map(|entry| match entry.event {
                LogEvent::Published { version } if !gone.contains(&version) => {
                    Some((version, entry.at))
                }
                _ => None,
            })
            .collect();
        let newest = published.len().saturating_sub(rule.versions);
        let mut kept: BTreeSet<PipelineVersion> = needed(entries).into_iter().flatten().collect();
        for (place, (version, at)) in published.iter().enumerate() {
            if place >= newest || *at > now - rule.age {
                kept.insert(*version);
            }
        }
        for version in kept.clone() {
            let base = match self.manifest(task, version).await {
                Err(error) if error.is_refusal() => None,
                Err(crate::StoreError::NotFound { .. }) => None,
                // That of an imported one is a number of another store.
                read => Some(read?)
                    .filter(|manifest| manifest.imported.is_none())
                    .and_then(|manifest| manifest.provenance?.base),
            };
            kept.extend(base.filter(|base| !gone.contains(base)));
        }
        let go = published.into_iter().map(|(version, _)| version);
        let go = go.filter(|version| !kept.contains(version)).collect();
        Ok((kept, go))
    }

    async fn delete(
        &self,
        task: &TaskName,
        versions: &BTreeSet<PipelineVersion>,
        dry_run: bool,
        done: &mut Retention,
    ) -> Result<()> {
        // One look for all: most of those that ever were are long gone.
        let there = self.version_files(task).await?;
        let there: BTreeSet<PipelineVersion> = there.into_iter().map(|(of, _)| of).collect();
        for &version in versions.intersection(&there) {
            let folder = version_folder(task, version);
            let mut files = self.store.list(&folder, None).await?;
            if files.is_empty() {
                continue;
            }
            // Without its manifest it is no version any more, whatever comes in between.
            files.sort_by_key(|file| file.location.filename() != Some(MANIFEST));
            for file in files {
                if !dry_run {
                    self.store.delete(&file.location).await?;
                }
                done.objects += 1;
                done.bytes += file.size;
            }
            done.deleted.push(version);
        }
        Ok(())
    }
}

/// The versions that must never go: what serves, and what it would be rolled back to.
fn needed(entries: &[LogEntry]) -> [Option<PipelineVersion>; 2] {
    [Active::fold(entries).version, before(entries)]
}

/// The versions that were retired before a time.
fn gone_since(entries: &[LogEntry], before: DateTime<Utc>) -> BTreeSet<PipelineVersion> {
    let old = entries.iter().take_while(|entry| entry.at <= before);
    let old: Vec<LogEntry> = old.cloned().collect();
    retired(&old)
}
