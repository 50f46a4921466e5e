//! What the replicas tell each other of a task: the body of its lease's entries.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracer_store::{LeaseEntry, ShardSpan};

/// Answers to requests that are remembered.
const ANSWERS: usize = 32;

/// Refits in a row that were taken over before they ended, from which on the next waits.
pub(crate) const PATIENT_TAKEOVERS: u32 = 3;

/// What is known of a task's refits. It is carried over from one entry to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The last refit that came to a verdict.
    pub last: Option<LastRefit>,
    /// Refits since then that failed.
    pub failures: u32,
    /// Refits since then whose trainer was not heard of any more.
    pub takeovers: u32,
    /// No refit before this time, because of failures.
    pub not_before: Option<DateTime<Utc>>,
    /// The refit under way, while the lease is held.
    pub running: Option<Running>,
    /// What became of the latest requests.
    pub answers: Vec<Answer>,
}

/// A refit that came to a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastRefit {
    /// When it began, by the clock of its trainer.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// What made it due.
    pub trigger: String,
    /// `passed` or `refused`.
    pub verdict: String,
    /// The version that was published.
    pub version: Option<u64>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// Rows of the task that it stands on.
    pub traces: u64,
    /// Refits since the last full one; none when the next is to be full.
    pub since_full: Option<u32>,
    /// The release that did it.
    pub code_version: String,
    /// How far it has read.
    pub seen: Vec<ShardSpan>,
}

/// A refit under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// What made it due.
    pub trigger: String,
    /// When it began, by the clock of its trainer.
    pub began: DateTime<Utc>,
    /// `reading`, `fitting` or `publishing`.
    pub stage: String,
    /// The step that was done last, such as a candidate.
    pub step: String,
    /// Steps of the stage that are done.
    pub done: u64,
    /// Steps of the stage, as far as they are known.
    pub total: u64,
    /// Seconds to the end of the stage, if the steps to come take as long as those before.
    pub eta_seconds: Option<f64>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's id.
    pub request: String,
    /// `passed`, `refused` or `failed`.
    pub verdict: String,
    /// The version that was published.
    pub version: Option<u64>,
    /// Why none was.
    pub reason: Option<String>,
}

impl Record {
    /// The record in an entry. One that cannot be read, of a later release, is as none.
    pub fn of(entry: Option<&LeaseEntry>) -> Self {
        entry
            .and_then(|entry| serde_json::from_value(entry.body.clone()).ok())
            .unwrap_or_default()
    }

    /// What became of a request, if that is remembered.
    pub fn answer_to(&self, request: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.request == request)
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
        let beyond = self.answers.len().saturating_sub(ANSWERS);
        self.answers.drain(..beyond);
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answers_are_remembered() {
        let mut record = Record::default();
        for i in 0..ANSWERS + 3 {
            record.answer(Answer {
                request: i.to_string(),
                verdict: "failed".to_owned(),
                version: None,
                reason: None,
            });
        }
        assert_eq!(record.answers.len(), ANSWERS);
        assert!(record.answer_to("2").is_none() && record.answer_to("3").is_some());
        let again: Record = serde_json::from_value(record.to_json()).unwrap();
        assert_eq!(again, record);
    }
}
