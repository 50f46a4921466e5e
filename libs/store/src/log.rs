//! The deployment log of a task: events, and what they add up to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::manifest::PipelineVersion;

/// One entry of a task's deployment log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The version of this JSON.
    pub schema_version: u32,
    /// Its place in the log, from 1 without gaps.
    pub seq: u64,
    /// When it was appended, by the clock of its author.
    pub at: DateTime<Utc>,
    /// Who appended it.
    pub author: String,
    /// Tells an entry from a rival's that is equal otherwise.
    pub nonce: String,
    /// What happened.
    pub event: LogEvent,
    /// Why, where its author said so and the event does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened to a task's pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogEvent {
    /// A version passed the gate and serves from now on.
    Published {
        /// The version.
        version: PipelineVersion,
    },
    /// An earlier version serves again.
    RolledBack {
        /// The version.
        to_version: PipelineVersion,
    },
    /// Everything is deferred until a version is published or rolled back to, or
    /// until it is resumed.
    Suspended {
        /// Why.
        reason: String,
    },
    /// The suspended version serves again.
    Resumed,
    /// Versions are gone for good: there were too many. It changes nothing of what serves;
    /// nobody may roll back to them from here on, and their files are deleted later.
    Retired {
        /// The versions.
        versions: Vec<PipelineVersion>,
    },
    /// A trainer took a task over from another: whoever had it in an earlier epoch
    /// publishes no more. It changes nothing of what serves.
    Fenced {
        /// The epoch of the lease from which on versions may be published.
        epoch: u64,
    },
}

/// The epoch that was fenced off last; 0 when none was.
pub(crate) fn fence(entries: &[LogEntry]) -> u64 {
    let fenced = entries.iter().filter_map(|entry| match entry.event {
        LogEvent::Fenced { epoch } => Some(epoch),
        _ => None,
    });
    fenced.max().unwrap_or(0)
}

/// The versions that were published, in the order of the log.
pub(crate) fn published(entries: &[LogEntry]) -> impl Iterator<Item = PipelineVersion> + '_ {
    entries.iter().filter_map(|entry| match entry.event {
        LogEvent::Published { version } => Some(version),
        _ => None,
    })
}

/// What serves a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// The version, if any was published.
    pub version: Option<PipelineVersion>,
    /// True when it does not answer for now and everything is deferred.
    pub suspended: bool,
    /// Why it is suspended.
    pub reason: Option<String>,
    /// The last entry this was folded from; 0 for an empty log.
    pub seq: u64,
}

impl Active {
    /// What the entries add up to.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Self {
        let mut active = Self::default();
        for entry in entries {
            active.seq = entry.seq;
            if let LogEvent::Retired { .. } | LogEvent::Fenced { .. } = entry.event {
                continue;
            }
            active.reason = match &entry.event {
                LogEvent::Published { version }
                | LogEvent::RolledBack {
                    to_version: version,
                } => {
                    active.version = Some(*version);
                    None
                }
                LogEvent::Suspended { reason } => Some(reason.clone()),
                LogEvent::Resumed | LogEvent::Retired { .. } | LogEvent::Fenced { .. } => None,
            };
            active.suspended = active.reason.is_some();
        }
        active
    }
}
