//! Configuration.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tracer_trace::{TaskName, TeacherPrice};

/// How the service answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceConfig {
    /// Milliseconds between two looks at the registry. A publication serves
    /// after at most this, plus the time to load it.
    pub poll_interval_ms: u64,
    /// Milliseconds after which a look at the registry is given up and tried again.
    pub store_timeout_ms: u64,
    /// Most inputs of one `RouteBatch`.
    pub max_batch: usize,
    /// Largest message in bytes.
    pub max_message_bytes: usize,
    /// Requests under way at the most. One with large inputs, or many, counts for
    /// several: one more for each 8 KiB, with half a KiB for every input.
    pub max_in_flight: usize,
    /// Milliseconds that requests may wait for a thread while it is busy; when all
    /// wait longer, some are turned away.
    pub queue_target_ms: u64,
    /// Routes over which `coverage_ratio` is measured.
    pub coverage_window: u32,
    /// Milliseconds that requests go on to be taken in after a shutdown begins and
    /// the service is no longer ready: until nobody sends new ones.
    pub settle_ms: u64,
    /// Milliseconds that requests under way get to finish after that.
    pub drain_timeout_ms: u64,
    /// Makes the draw of audits repeatable. Leave it out in production.
    pub audit_seed: Option<u64>,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            poll_interval_ms: 500,
            store_timeout_ms: 30_000,
            max_batch: 1024,
            max_message_bytes: 16 << 20,
            max_in_flight: 4096,
            queue_target_ms: 50,
            coverage_window: 1000,
            settle_ms: 0,
            drain_timeout_ms: 10_000,
            audit_seed: None,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("inference.{key} is {value}: it must be {expected}")]
pub struct ConfigError {
    key: &'static str,
    value: String,
    expected: &'static str,
}

impl InferenceConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("poll_interval_ms", self.poll_interval_ms),
            ("store_timeout_ms", self.store_timeout_ms),
            ("max_batch", self.max_batch as u64),
            ("max_message_bytes", self.max_message_bytes as u64),
            ("max_in_flight", self.max_in_flight as u64),
            ("queue_target_ms", self.queue_target_ms),
            ("coverage_window", u64::from(self.coverage_window)),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, value)) => Err(ConfigError {
                key,
                value: value.to_string(),
                expected: "at least 1",
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.store_timeout_ms)
    }

    pub(crate) fn queue_target(&self) -> Duration {
        Duration::from_millis(self.queue_target_ms)
    }

    pub(crate) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

/// What the service must know of a task besides its pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskPolicy {
    /// Probability in [0, 1] that a handled request is marked for an audit.
    pub audit_rate: f64,
    /// What the teacher's calls cost.
    pub teacher: TeacherPrice,
    /// The teacher agreement that is asked for, shown until a version says what it promises.
    pub target_agreement: f64,
}

impl Default for TaskPolicy {
    fn default() -> Self {
        Self {
            audit_rate: 0.02,
            teacher: TeacherPrice::default(),
            target_agreement: 0.95,
        }
    }
}

/// The policies of the configured tasks, and the one of all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPolicies {
    /// Tasks without an entry of their own.
    pub default: TaskPolicy,
    /// Tasks with one. They have metrics before their first publication.
    pub tasks: BTreeMap<TaskName, TaskPolicy>,
}

impl TaskPolicies {
    /// The policy of a task.
    pub fn of(&self, task: &TaskName) -> TaskPolicy {
        self.tasks.get(task).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        assert_eq!(InferenceConfig::default().validate(), Ok(()));
        let config = InferenceConfig {
            max_batch: 0,
            ..InferenceConfig::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "inference.max_batch is 0: it must be at least 1");
    }

    #[test]
    fn a_task_without_a_policy_has_the_default_one() {
        let own = TaskPolicy {
            audit_rate: 0.5,
            ..TaskPolicy::default()
        };
        let task = TaskName::new("mail").unwrap();
        let policies = TaskPolicies {
            tasks: BTreeMap::from([(task.clone(), own)]),
            ..TaskPolicies::default()
        };
        assert_eq!(policies.of(&task), own);
        assert_eq!(policies.of(&TaskName::default()), TaskPolicy::default());
    }
}
