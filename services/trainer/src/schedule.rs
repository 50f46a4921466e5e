//! When a task is refitted.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;

/// When to refit a task: whatever comes first, and only when something is new.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// After this time since the last refit.
    pub interval: Option<TimeDelta>,
    /// At these times, in UTC.
    pub cron: Option<Cron>,
    /// After this many new traces.
    pub after_traces: Option<u64>,
    /// Never with fewer traces than this.
    pub min_traces: u64,
}

/// A pattern that is not one of cron.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a cron pattern: {reason}")]
pub struct InvalidCron {
    pattern: String,
    reason: String,
}

/// What made a refit due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Enough traces to learn from, for the first time.
    First,
    /// Enough new traces.
    Traces,
    /// Enough time since the last refit.
    Interval,
    /// A time of the cron pattern.
    Cron,
}

impl Trigger {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Traces => "traces",
            Self::Interval => "interval",
            Self::Cron => "cron",
        }
    }
}

/// What is known of the refits of a task so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Past {
    /// When the last refit began; none yet when `None`.
    pub(crate) last: Option<DateTime<Utc>>,
    /// From when on the pattern of a task without any refit counts.
    pub(crate) since: DateTime<Utc>,
    /// Traces the last refit has seen.
    pub(crate) rows: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            interval: Some(TimeDelta::hours(24)),
            cron: None,
            after_traces: Some(5_000),
            min_traces: 200,
        }
    }
}

impl Schedule {
    /// Parses a cron pattern: five fields, or six with seconds first.
    pub fn parse_cron(pattern: &str) -> Result<Cron, InvalidCron> {
        Cron::from_str(pattern).map_err(|error| InvalidCron {
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Whether a refit is due at `now`, with `rows` traces there.
    pub(crate) fn due(&self, past: &Past, rows: u64, now: DateTime<Utc>) -> Option<Trigger> {
        let new = rows.saturating_sub(past.rows);
        if new == 0 || rows < self.min_traces {
            return None;
        }
        if self.after_traces.is_some_and(|after| new >= after) {
            return Some(Trigger::Traces);
        }
        if let Some(cron) = &self.cron {
            let from = past.last.unwrap_or(past.since);
            if cron
                .find_next_occurrence(&from, false)
                .is_ok_and(|next| next <= now)
            {
                return Some(Trigger::Cron);
            }
        }
        let interval = self.interval?;
        match past.last {
            None => Some(Trigger::First),
            Some(last) => (now - last >= interval).then_some(Trigger::Interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2030-05-01T{time}Z").parse().unwrap()
    }

    fn past(last: Option<&str>, rows: u64) -> Past {
        Past {
            last: last.map(at),
            since: at("00:00:00"),
            rows,
        }
    }

    const NEVER: Schedule = Schedule {
        interval: None,
        cron: None,
        after_traces: None,
        min_traces: 0,
    };

    #[test]
    fn nothing_new_is_never_due() {
        let schedule = Schedule {
            interval: Some(TimeDelta::seconds(1)),
            cron: Some(Schedule::parse_cron("* * * * *").unwrap()),
            after_traces: Some(1),
            min_traces: 0,
        };
        assert_eq!(
            schedule.due(&past(Some("00:00:00"), 500), 500, at("23:00:00")),
            None
        );
        // Fewer rows than the last refit saw, after a task's shards were removed.
        assert_eq!(
            schedule.due(&past(Some("00:00:00"), 500), 400, at("23:00:00")),
            None
        );
    }

    #[test]
    fn new_traces_are_counted_from_the_last_refit() {
        let schedule = Schedule {
            after_traces: Some(100),
            ..NEVER
        };
        assert_eq!(
            schedule.due(&past(Some("00:00:00"), 500), 599, at("23:00:00")),
            None
        );
        assert_eq!(
            schedule.due(&past(Some("00:00:00"), 500), 600, at("00:00:01")),
            Some(Trigger::Traces)
        );
    }

    #[test]
    fn too_few_traces_wait() {
        let schedule = Schedule {
            after_traces: Some(10),
            min_traces: 200,
            ..NEVER
        };
        assert_eq!(schedule.due(&past(None, 0), 199, at("01:00:00")), None);
        assert_eq!(
            schedule.due(&past(None, 0), 200, at("01:00:00")),
            Some(Trigger::Traces)
        );
    }

    #[test]
    fn the_interval_runs_from_the_last_refit_and_the_first_needs_none() {
        let schedule = Schedule {
            interval: Some(TimeDelta::hours(2)),
            ..NEVER
        };
        assert_eq!(
            schedule.due(&past(None, 0), 1, at("00:00:00")),
            Some(Trigger::First)
        );
        assert_eq!(
            schedule.due(&past(Some("03:00:00"), 1), 2, at("04:59:59")),
            None
        );
        assert_eq!(
            schedule.due(&past(Some("03:00:00"), 1), 2, at("05:00:00")),
            Some(Trigger::Interval)
        );
    }

    #[test]
    fn a_pattern_is_due_once_for_each_of_its_times() {
        let cron = Some(Schedule::parse_cron("30 4 * * *").unwrap());
        let schedule = Schedule { cron, ..NEVER };
        assert_eq!(schedule.due(&past(None, 0), 5, at("04:29:59")), None);
        assert_eq!(
            schedule.due(&past(None, 0), 5, at("04:30:00")),
            Some(Trigger::Cron)
        );
        assert_eq!(
            schedule.due(&past(Some("04:30:00"), 5), 6, at("23:00:00")),
            None
        );
        // A time that passed while the trainer was down is made up for.
        assert_eq!(
            schedule.due(&past(Some("04:29:00"), 5), 6, at("22:00:00")),
            Some(Trigger::Cron)
        );
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Schedule::parse_cron("every full moon")
            .unwrap_err()
            .to_string();
        assert!(error.contains("every full moon"), "{error}");
    }
}
