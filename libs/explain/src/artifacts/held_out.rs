//! The shadow split as the artifacts see it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tracer_learn::{Dataset, Outcome, Verdict};

use crate::words::tidy;

/// Longest text and longest name of an example, in characters.
const LONGEST_TEXT: usize = 280;
const LONGEST_NAME: usize = 120;

/// Which trace a row of the dataset was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceRef {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub time: Option<DateTime<Utc>>,
}

/// A trace of the shadow split and what the pipeline made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Example {
    /// The trace's id.
    pub id: String,
    /// Its time, RFC 3339; absent where the trace has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Its text, shortened; absent where it has none, or where it is withheld.
    pub text: Option<String>,
    /// The teacher's label.
    pub label: String,
    /// The surrogate's label.
    pub predicted: String,
    /// Whether the two are one.
    pub agrees: bool,
    /// What is held against the threshold, 0 to 1.
    pub score: f64,
    /// Whether the surrogate's label is served.
    pub handled: bool,
    /// What defers it; absent where it is handled, and after a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred_by: Option<DeferredBy>,
}

/// What defers a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeferredBy {
    /// Its score is below the threshold.
    LowScore,
    /// The out-of-distribution guard.
    OutOfDistribution,
}

/// The rows of the shadow split.
pub(crate) struct HeldOut<'a> {
    pub(crate) data: &'a Dataset,
    pub(crate) outcome: &'a Outcome,
    traces: &'a [TraceRef],
    /// Whether the pipeline passed. After a refusal nothing is handled.
    pub(crate) serves: bool,
    pub(crate) rows: Vec<Seen>,
}

/// A row of the shadow split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Row of the dataset.
    pub(crate) row: usize,
    /// The teacher's label, as the dataset numbers it.
    pub(crate) label: u32,
    /// The surrogate's label, as the outcome numbers it.
    pub(crate) predicted: usize,
    pub(crate) agrees: bool,
    pub(crate) score: f32,
    pub(crate) foreign: bool,
    pub(crate) handled: bool,
    pub(crate) weight: f64,
}

impl<'a> HeldOut<'a> {
    pub(crate) fn new(data: &'a Dataset, outcome: &'a Outcome, traces: &'a [TraceRef]) -> Self {
        let serves = outcome.verdict == Verdict::Passed;
        let rows = outcome.shadow_rows.iter();
        let rows = rows.map(|row| Seen {
            row: row.row,
            label: data.label(row.row),
            predicted: row.predicted,
            agrees: row.agrees,
            score: row.score,
            foreign: row.foreign,
            handled: row.handled && serves,
            weight: data.weight(row.row),
        });
        Self {
            data,
            outcome,
            traces,
            serves,
            rows: rows.collect(),
        }
    }

    /// The teacher's label.
    pub(crate) fn label(&self, seen: &Seen) -> &'a str {
        &self.data.label_names()[seen.label as usize]
    }

    /// The surrogate's label.
    pub(crate) fn predicted(&self, seen: &Seen) -> &'a str {
        self.class(seen.predicted)
    }

    /// A label of the surrogate.
    pub(crate) fn class(&self, class: usize) -> &'a str {
        self.outcome.labels.get(class).map_or("", String::as_str)
    }

    pub(crate) fn text(&self, seen: &Seen) -> Option<&'a str> {
        self.data.text(seen.row)
    }

    pub(crate) fn time(&self, seen: &Seen) -> Option<DateTime<Utc>> {
        self.traces.get(seen.row)?.time
    }

    /// Whether texts may be shown: there are some, and none is withheld.
    pub(crate) fn shows_texts(&self) -> bool {
        let rows = || self.rows.iter();
        rows().any(|seen| self.text(seen).is_some())
            && rows().all(|seen| self.data.withheld(seen.row).is_none())
    }

    pub(crate) fn example(&self, i: usize) -> Example {
        let seen = &self.rows[i];
        let trace = self.traces.get(seen.row);
        Example {
            id: trace.map_or_else(
                || format!("row {}", seen.row),
                |trace| tidy(&trace.id, LONGEST_NAME),
            ),
            time: trace
                .and_then(|trace| trace.time)
                .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            text: self.text(seen).map(|text| tidy(text, LONGEST_TEXT)),
            label: name(self.label(seen)),
            predicted: name(self.predicted(seen)),
            agrees: seen.agrees,
            score: f64::from(seen.score),
            handled: seen.handled,
            deferred_by: match seen {
                _ if seen.handled || !self.serves => None,
                Seen { foreign: true, .. } => Some(DeferredBy::OutOfDistribution),
                _ => Some(DeferredBy::LowScore),
            },
        }
    }
}

/// A label as reports show it: anybody may send one of any length.
pub(crate) fn name(label: &str) -> String {
    tidy(label, LONGEST_NAME)
}
