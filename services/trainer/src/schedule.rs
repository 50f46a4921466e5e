//! When a task is refitted.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use tracer_features::stable_hash;
use tracer_trace::TaskName;

/// When to refit a task: whatever comes first, and only when something is new.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// After this time since the last refit.
    pub interval: Option<TimeDelta>,
    /// At these times, in UTC.
    pub cron: Option<Cron>,
    /// Up to so much later than `interval` and `cron` say: tasks of one pattern are not
    /// all due at once. How much later is the same for all replicas.
    pub jitter: TimeDelta,
    /// After this many new traces.
    pub after_traces: Option<u64>,
    /// When the newest traces show that the active version no longer does what it was
    /// certified for; looked at after this many new ones.
    pub drift_after: Option<u64>,
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
    /// The newest traces are not what the active version was certified on.
    Drift,
    /// Somebody asked for it.
    Request,
}

impl Trigger {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Traces => "traces",
            Self::Interval => "interval",
            Self::Cron => "cron",
            Self::Drift => "drift",
            Self::Request => "request",
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
            jitter: TimeDelta::seconds(60),
            after_traces: Some(5_000),
            drift_after: None,
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

    /// Whether a refit is due at `now`, with `rows` traces there. However many times have
    /// passed since the last one, it is due once.
    pub(crate) fn due(
        &self,
        task: &TaskName,
        past: &Past,
        rows: u64,
        now: DateTime<Utc>,
    ) -> Option<Trigger> {
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
                .is_ok_and(|next| next + self.delay(task, next) <= now)
            {
                return Some(Trigger::Cron);
            }
        }
        let interval = self.interval?;
        match past.last {
            None => Some(Trigger::First),
            Some(last) => {
                let next = last.checked_add_signed(interval)?;
                (next + self.delay(task, next) <= now).then_some(Trigger::Interval)
            }
        }
    }

    /// How much later than at `time` a task's turn is.
    fn delay(&self, task: &TaskName, time: DateTime<Utc>) -> TimeDelta {
        let time = time.timestamp_millis().to_le_bytes();
        let draw = stable_hash(&[b"jitter", task.as_str().as_bytes(), &time]) >> 11;
        let share = draw as f64 / (1_u64 << 53) as f64;
        TimeDelta::milliseconds((self.jitter.num_milliseconds() as f64 * share) as i64)
    }

    /// Whether it is time to look for drift, with `rows` traces there and so many when
    /// it was looked for last.
    pub(crate) fn looks_for_drift(&self, past: &Past, looked_at: u64, rows: u64) -> bool {
        let new = rows.saturating_sub(past.rows.max(looked_at));
        self.drift_after.is_some_and(|after| new >= after) && rows >= self.min_traces
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
        jitter: TimeDelta::zero(),
        after_traces: None,
        drift_after: None,
        min_traces: 0,
    };

    fn task() -> TaskName {
        TaskName::default()
    }

    #[test]
    fn nothing_new_is_never_due() {
        let schedule = Schedule {
            interval: Some(TimeDelta::seconds(1)),
            cron: Some(Schedule::parse_cron("* * * * *").unwrap()),
            after_traces: Some(1),
            ..NEVER
        };
        assert_eq!(
            schedule.due(&task(), &past(Some("00:00:00"), 500), 500, at("23:00:00")),
            None
        );
        // Fewer rows than the last refit saw, after a task's shards were removed.
        assert_eq!(
            schedule.due(&task(), &past(Some("00:00:00"), 500), 400, at("23:00:00")),
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
            schedule.due(&task(), &past(Some("00:00:00"), 500), 599, at("23:00:00")),
            None
        );
        assert_eq!(
            schedule.due(&task(), &past(Some("00:00:00"), 500), 600, at("00:00:01")),
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
        assert_eq!(
            schedule.due(&task(), &past(None, 0), 199, at("01:00:00")),
            None
        );
        assert_eq!(
            schedule.due(&task(), &past(None, 0), 200, at("01:00:00")),
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
            schedule.due(&task(), &past(None, 0), 1, at("00:00:00")),
            Some(Trigger::First)
        );
        assert_eq!(
            schedule.due(&task(), &past(Some("03:00:00"), 1), 2, at("04:59:59")),
            None
        );
        assert_eq!(
            schedule.due(&task(), &past(Some("03:00:00"), 1), 2, at("05:00:00")),
            Some(Trigger::Interval)
        );
    }

    #[test]
    fn a_pattern_is_due_once_for_each_of_its_times() {
        let cron = Some(Schedule::parse_cron("30 4 * * *").unwrap());
        let schedule = Schedule { cron, ..NEVER };
        assert_eq!(
            schedule.due(&task(), &past(None, 0), 5, at("04:29:59")),
            None
        );
        assert_eq!(
            schedule.due(&task(), &past(None, 0), 5, at("04:30:00")),
            Some(Trigger::Cron)
        );
        assert_eq!(
            schedule.due(&task(), &past(Some("04:30:00"), 5), 6, at("23:00:00")),
            None
        );
        // A time that passed while the trainer was down is made up for.
        assert_eq!(
            schedule.due(&task(), &past(Some("04:29:00"), 5), 6, at("22:00:00")),
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

    /// The times that a pattern names, by hand from a calendar.
    #[test]
    fn patterns_name_the_times_they_should() {
        for (pattern, from, next) in [
            ("0 4 * * *", "2028-02-28T04:00:00Z", "2028-02-29T04:00:00Z"),
            ("0 4 * * *", "2027-02-28T04:00:00Z", "2027-03-01T04:00:00Z"),
            (
                "*/15 * * * *",
                "2030-12-31T23:50:00Z",
                "2031-01-01T00:00:00Z",
            ),
            // 2030-05-01 is a Wednesday.
            ("30 6 * * 1", "2030-05-01T00:00:00Z", "2030-05-06T06:30:00Z"),
            (
                "30 6 * * 1-5",
                "2030-05-03T07:00:00Z",
                "2030-05-06T06:30:00Z",
            ),
            ("0 0 31 * *", "2030-04-01T00:00:00Z", "2030-05-31T00:00:00Z"),
            (
                "0 0 1 1,7 *",
                "2030-05-01T00:00:00Z",
                "2030-07-01T00:00:00Z",
            ),
            // No hour is skipped or comes twice in UTC.
            ("30 2 * * *", "2030-03-31T01:00:00Z", "2030-03-31T02:30:00Z"),
            (
                "15 30 4 * * *",
                "2030-05-01T04:30:15Z",
                "2030-05-02T04:30:15Z",
            ),
        ] {
            let (from, next): (DateTime<Utc>, DateTime<Utc>) =
                (from.parse().unwrap(), next.parse().unwrap());
            let cron = Some(Schedule::parse_cron(pattern).unwrap());
            let schedule = Schedule { cron, ..NEVER };
            let past = Past {
                last: Some(from),
                since: from,
                rows: 0,
            };
            let second = TimeDelta::seconds(1);
            assert_eq!(
                schedule.due(&task(), &past, 1, next - second),
                None,
                "{pattern}"
            );
            assert_eq!(
                schedule.due(&task(), &past, 1, next),
                Some(Trigger::Cron),
                "{pattern}"
            );
            // However many were missed, one makes up for them.
            let late = next + TimeDelta::days(800);
            assert!(schedule.due(&task(), &past, 1, late).is_some(), "{pattern}");
            let done = Past {
                last: Some(late),
                ..past
            };
            assert_eq!(schedule.due(&task(), &done, 2, late), None, "{pattern}");
        }
    }

    #[test]
    fn jitter_spreads_tasks_and_is_the_same_everywhere() {
        let cron = Some(Schedule::parse_cron("30 4 * * *").unwrap());
        let schedule = Schedule {
            cron,
            jitter: TimeDelta::minutes(10),
            ..NEVER
        };
        let past = past(None, 0);
        let first = |name: String| {
            let task = TaskName::new(&name).unwrap();
            (0..=600)
                .find(|s| {
                    let now = at("04:30:00") + TimeDelta::seconds(*s);
                    schedule.due(&task, &past, 1, now).is_some()
                })
                .expect("within the jitter")
        };
        let delays: Vec<i64> = (0..40).map(|i| first(format!("task-{i}"))).collect();
        let again: Vec<i64> = (0..40).map(|i| first(format!("task-{i}"))).collect();
        assert_eq!(delays, again);
        for third in [0..200, 200..400, 400..601] {
            assert!(
                delays.iter().any(|delay| third.contains(delay)),
                "{delays:?}"
            );
        }
        // Enough traces wait for nothing.
        let schedule = Schedule {
            after_traces: Some(1),
            ..schedule
        };
        assert_eq!(
            schedule.due(&task(), &past, 1, at("00:00:00")),
            Some(Trigger::Traces)
        );
    }

    #[test]
    fn drift_is_looked_for_after_so_many_traces() {
        let schedule = Schedule {
            drift_after: Some(100),
            ..NEVER
        };
        let past = past(None, 1000);
        for (looked_at, rows, looks) in [
            (0, 1099, false),
            (0, 1100, true),
            (1100, 1199, false),
            (1100, 1200, true),
        ] {
            assert_eq!(schedule.looks_for_drift(&past, looked_at, rows), looks);
        }
        assert!(!NEVER.looks_for_drift(&past, 0, 1_000_000));
    }
}
