//! What people do to the versions of a task. Each change is an entry of its log, decided
//! on the entries before it: it is put under the number that follows them, and whoever
//! finds that number taken looks again.

use std::collections::BTreeSet;

use super::{ATTEMPTS, Registry, contended, entry_path, to_json};
use crate::{
    error::{Result, StoreError},
    log::{Active, LogEntry, LogEvent},
    manifest::{PipelineVersion, REGISTRY_SCHEMA_VERSION},
    store::Put,
};
use chrono::{SubsecRound, Utc};
use std::hash::{BuildHasher, RandomState};
use tracer_trace::TaskName;

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its entry; none where everything was already as it was asked for.
    pub entry: Option<LogEntry>,
    /// What served before.
    pub before: Active,
    /// What serves now.
    pub after: Active,
}

/// What to do, given the entries so far.
pub(crate) enum Step {
    Append(LogEvent),
    Nothing,
}

impl Registry {
    /// Has an earlier version serve again: `to`, or without it the one that served before
    /// the active one ([`before`]). It ends a suspension. Somebody else's change at the
    /// same time is an error, where it changes what serves: the step was meant for
    /// another state.
    pub async fn roll_back(
        &self,
        task: &TaskName,
        to: Option<PipelineVersion>,
        author: &str,
        reason: Option<&str>,
    ) -> Result<Changed> {
        let entries = self.log(task).await?;
        let active = Active::fold(&entries);
        let Some(to_version) = to.or_else(|| before(&entries)) else {
            return Err(refused(
                task,
                "no version served before the active one; name the version to go back to",
            ));
        };
        if active.version == Some(to_version) && !active.suspended {
            return Ok(unchanged(active));
        }
        if retired(&entries).contains(&to_version) {
            return Err(refused(
                task,
                format!("version {} is gone: it was retired", to_version.get()),
            ));
        }
        // Whatever is damaged would not serve.
        match self.load(task, to_version).await {
            Err(StoreError::NotFound { .. }) => {
                return Err(refused(
                    task,
                    format!("there is no version {}", to_version.get()),
                ));
            }
            loaded => loaded?,
        };
        self.change(task, author, reason, &active, |entries| {
            if retired(entries).contains(&to_version) {
                return Err(refused(
                    task,
                    format!("version {} has just been retired", to_version.get()),
                ));
            }
            Ok(Step::Append(LogEvent::RolledBack { to_version }))
        })
        .await
    }

    /// Has everything be deferred, until a version is published or rolled back to, or the
    /// task is resumed. A task that is suspended stays so, for its first reason.
    pub async fn suspend(&self, task: &TaskName, author: &str, reason: &str) -> Result<Changed> {
        let active = self.active(task).await?;
        if active.version.is_none() {
            return Err(refused(
                task,
                "no version serves, so there is none to suspend",
            ));
        }
        self.change(task, author, None, &active.clone(), |_| {
            Ok(if active.suspended {
                Step::Nothing
            } else {
                Step::Append(LogEvent::Suspended {
                    reason: reason.to_owned(),
                })
            })
        })
        .await
    }

    /// Has the suspended version serve again.
    pub async fn resume(
        &self,
        task: &TaskName,
        author: &str,
        reason: Option<&str>,
    ) -> Result<Changed> {
        let active = self.active(task).await?;
        if active.version.is_none() {
            return Err(refused(
                task,
                "no version serves, so there is none to resume",
            ));
        }
        self.change(task, author, reason, &active.clone(), |_| {
            Ok(if active.suspended {
                Step::Append(LogEvent::Resumed)
            } else {
                Step::Nothing
            })
        })
        .await
    }

    /// Makes a change that was decided while `seen` served.
    async fn change(
        &self,
        task: &TaskName,
        author: &str,
        reason: Option<&str>,
        seen: &Active,
        step: impl Fn(&[LogEntry]) -> Result<Step>,
    ) -> Result<Changed> {
        let entry = self
            .append_when(task, author, reason, |entries| {
                let now = Active::fold(entries);
                if (now.version, now.suspended) != (seen.version, seen.suspended) {
                    let last = entries.last();
                    let who = last.map_or("somebody", |entry| entry.author.as_str());
                    return Err(refused(
                        task,
                        format!("{who} has changed what serves in the meantime; look again"),
                    ));
                }
                step(entries)
            })
            .await?;
        let Some(entry) = entry else {
            return Ok(unchanged(seen.clone()));
        };
        let after = self.active(task).await?;
        Ok(Changed {
            entry: Some(entry),
            before: seen.clone(),
            after,
        })
    }

    /// Appends what `step` says to the entries before it, asked again for each number that
    /// a rival took.
    pub(crate) async fn append_when(
        &self,
        task: &TaskName,
        author: &str,
        reason: Option<&str>,
        step: impl Fn(&[LogEntry]) -> Result<Step>,
    ) -> Result<Option<LogEntry>> {
        let nonce = format!("{:016x}", RandomState::new().hash_one(author));
        let mut seq = 0;
        for _ in 0..ATTEMPTS {
            let entries = self.log(task).await?;
            let Step::Append(event) = step(&entries)? else {
                return Ok(None);
            };
            seq = entries.last().map_or(1, |last| last.seq.saturating_add(1));
            let entry = LogEntry {
                schema_version: REGISTRY_SCHEMA_VERSION,
                seq,
                at: Utc::now().trunc_subsecs(6),
                author: author.to_owned(),
                nonce: nonce.clone(),
                event,
                reason: reason.map(str::to_owned),
            };
            let path = entry_path(task, seq);
            let json = to_json(&path, &entry)?;
            // A taken name may be this very entry, put before an answer was lost.
            if self.store.create(&path, json.clone()).await? == Put::Created
                || self.store.get(&path).await? == json
            {
                return Ok(Some(entry));
            }
        }
        Err(contended(&entry_path(task, seq)))
    }
}

fn unchanged(active: Active) -> Changed {
    Changed {
        entry: None,
        before: active.clone(),
        after: active,
    }
}

pub(super) fn refused(task: &TaskName, detail: impl Into<String>) -> StoreError {
    StoreError::Deployment {
        task: task.to_string(),
        detail: detail.into(),
    }
}

/// The versions that the log says are gone.
pub fn retired(entries: &[LogEntry]) -> BTreeSet<PipelineVersion> {
    let gone = entries.iter().filter_map(|entry| match &entry.event {
        LogEvent::Retired { versions } => Some(versions),
        _ => None,
    });
    gone.flatten().copied().collect()
}

/// The version that a rollback goes back to: the one that the active one took over from.
/// A version that was rolled back from is not gone back to, so that two rollbacks are two
/// steps back and not one forth.
pub fn before(entries: &[LogEntry]) -> Option<PipelineVersion> {
    let mut line: Vec<PipelineVersion> = Vec::new();
    for entry in entries {
        match &entry.event {
            LogEvent::Published { version } => line.push(*version),
            LogEvent::RolledBack { to_version } => {
                match line.iter().rposition(|version| version == to_version) {
                    Some(place) => line.truncate(place + 1),
                    None => line.push(*to_version),
                }
            }
            _ => {}
        }
    }
    let active = line.pop()?;
    let gone = retired(entries);
    line.into_iter()
        .rfind(|version| *version != active && !gone.contains(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: &[LogEvent]) -> Vec<LogEntry> {
        let entry = |(seq, event): (u64, &LogEvent)| LogEntry {
            schema_version: 1,
            seq,
            at: Utc::now(),
            author: "test".to_owned(),
            nonce: seq.to_string(),
            event: event.clone(),
            reason: None,
        };
        (1..).zip(events).map(entry).collect()
    }

    #[test]
    fn two_rollbacks_are_two_steps_back() {
        let published = |v| LogEvent::Published {
            version: PipelineVersion(v),
        };
        let back = |v| LogEvent::RolledBack {
            to_version: PipelineVersion(v),
        };
        let gone = |v: &[u64]| LogEvent::Retired {
            versions: v.iter().map(|v| PipelineVersion(*v)).collect(),
        };
        for (events, expected) in [
            (vec![], None),
            (vec![published(1)], None),
            (vec![published(1), published(2), published(3)], Some(2)),
            (
                vec![published(1), published(2), published(3), back(2)],
                Some(1),
            ),
            (
                vec![published(1), published(2), published(3), back(1)],
                None,
            ),
            (
                vec![
                    published(1),
                    published(2),
                    published(3),
                    back(1),
                    published(4),
                ],
                Some(1),
            ),
            // Forth again.
            (vec![published(1), published(2), back(1), back(2)], Some(1)),
            (
                vec![published(1), published(2), published(3), gone(&[2])],
                Some(1),
            ),
            (
                vec![published(1), LogEvent::Resumed, published(2), gone(&[1])],
                None,
            ),
        ] {
            assert_eq!(
                before(&log(&events)),
                expected.map(PipelineVersion),
                "{events:?}"
            );
        }
    }
}
