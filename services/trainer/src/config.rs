//! Configuration.

use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tracer_features::InputKey;
use tracer_learn::FitConfig;
use tracer_trace::TaskName;

use crate::{Schedule, Teacher};

/// How the service works, whatever the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerConfig {
    /// Milliseconds between two looks at the shards.
    pub poll_interval_ms: u64,
    /// Milliseconds after which a replica that is not heard of any more loses the task that
    /// it refits. It is heard of thrice in that time.
    pub lease_ms: u64,
    /// Embeddings that refits make are kept in the store, so that none is made twice.
    pub keep_embeddings: bool,
    /// Who publishes, in manifests and in the deployment log.
    pub author: String,
    /// Keys the hashes of inputs: where a task has texts from before it withheld them.
    #[serde(skip)]
    pub input_key: InputKey,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            poll_interval_ms: 5_000,
            lease_ms: 30_000,
            keep_embeddings: true,
            author: "trainer".to_owned(),
            input_key: InputKey::default(),
        }
    }
}

impl TrainerConfig {
    pub(crate) fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms.max(1))
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.max(3))
    }
}

/// What is asked of the refits of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    /// When to refit.
    pub schedule: Schedule,
    /// Every so manieth refit is a full one; those between begin at the active version
    /// and try its candidates alone. At 1 every refit is full.
    pub full_refit_every: u32,
    /// Copies of a text with the same label count once within this time: they are retries.
    pub dedup_window: TimeDelta,
    /// Whether the task is suspended once audits prove that its live agreement is below
    /// the target of what serves it.
    pub auto_suspend: bool,
    /// How to refit. Its first target is the task's target agreement.
    pub fit: FitConfig,
    /// The teacher, for what a version saves.
    pub teacher: Teacher,
}

impl Default for TaskPlan {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            full_refit_every: 1,
            dedup_window: TimeDelta::seconds(5),
            auto_suspend: true,
            fit: FitConfig::default(),
            teacher: Teacher::default(),
        }
    }
}

/// The plans of the configured tasks, and the one of all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPlans {
    /// Tasks without an entry of their own.
    pub default: TaskPlan,
    /// Tasks with one.
    pub tasks: BTreeMap<TaskName, TaskPlan>,
}

impl TaskPlans {
    /// The plan of a task.
    pub fn of(&self, task: &TaskName) -> &TaskPlan {
        self.tasks.get(task).unwrap_or(&self.default)
    }
}
