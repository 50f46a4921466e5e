//! What keeps the aggregator from being ready, partition by partition.

use std::collections::BTreeMap;

use tracer_source::PartitionId;
use tracer_telemetry::{Condition, Health};

/// Ready once the first partitions are assigned, and while nothing fails.
pub(crate) struct Status {
    condition: Condition,
    started: bool,
    troubles: BTreeMap<PartitionId, String>,
    /// What keeps the whole log from being read.
    source: Option<String>,
}

impl Status {
    pub(crate) fn new(health: &Health) -> Self {
        let condition = health.condition("aggregator");
        condition.set_unready("waiting for partitions");
        Self {
            condition,
            started: false,
            troubles: BTreeMap::new(),
            source: None,
        }
    }

    /// The log answers: partitions were assigned, be it none.
    pub(crate) fn started(&mut self) {
        self.started = true;
        self.publish();
    }

    pub(crate) fn source(&mut self, trouble: Option<String>) {
        if self.source != trouble {
            self.source = trouble;
            self.publish();
        }
    }

    pub(crate) fn trouble(&mut self, partition: &PartitionId, detail: String) {
        self.troubles.insert(partition.clone(), detail);
        self.publish();
    }

    pub(crate) fn well(&mut self, partition: &PartitionId) {
        if self.troubles.remove(partition).is_some() {
            self.publish();
        }
    }

    fn publish(&self) {
        let mut said: Vec<String> = self.source.iter().cloned().collect();
        said.extend(self.troubles.values().next().cloned());
        if self.troubles.len() > 1 {
            said.push(format!("and {} more partitions", self.troubles.len() - 1));
        }
        if said.is_empty() && !self.started {
            said.push("waiting for partitions".to_owned());
        }
        if said.is_empty() {
            self.condition.set_ready();
        } else {
            self.condition.set_unready(said.join("; "));
        }
    }
}
