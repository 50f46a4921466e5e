//! What is known of the cluster, shared by whoever finds something out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rdkafka::{Statistics, error::KafkaError};

use super::access;
use crate::{Offset, PartitionId, ReadAhead, TopicName};

/// The shared state.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Known {
    /// What is assigned.
    pub(super) partitions: BTreeSet<PartitionId>,
    /// The ends of partitions.
    pub(super) ends: BTreeMap<PartitionId, Offset>,
    /// Every record before these has been delivered, control records and those of
    /// transactions that were given up left out. A hint: after a seek it may be that of
    /// the time before.
    pub(super) reached: BTreeMap<PartitionId, Offset>,
    /// What waits in librdkafka's queue.
    pub(super) read_ahead: ReadAhead,
    /// How far results are durable, as the group is to know.
    pub(super) durable: BTreeMap<PartitionId, Offset>,
    /// What the group has taken of it.
    pub(super) committed: BTreeMap<PartitionId, Offset>,
    /// Why brokers refuse us, until one does not.
    pub(super) refused: Option<String>,
    /// Access lists keep us from the group: until it hands out partitions, or takes a commit.
    group_denied: bool,
    /// How often some topic was denied, and how many of these times are over: a look has
    /// found since that all that are assigned are allowed.
    denials: u64,
    settled: u64,
    /// The topics that are denied, as the last look has it.
    pub(super) denied: Vec<TopicName>,
    /// Topics that are to be read and do not exist.
    pub(super) missing: Vec<TopicName>,
    /// Since when no broker answers, in looks.
    pub(super) unanswered: u32,
}

/// So many looks without an answer are a trouble.
const UNANSWERED: u32 = 3;

impl Known {
    /// What keeps the log from being read.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(refused) = &self.refused {
            return Some(format!("kafka refuses the connection: {refused}"));
        }
        if self.unanswered >= UNANSWERED {
            return Some("kafka: no broker answers".to_owned());
        }
        if self.group_denied {
            return Some("kafka denies the group: its ACLs must allow READ".to_owned());
        }
        let names = |topics: &[TopicName]| {
            let names: Vec<_> = topics.iter().map(TopicName::as_str).collect();
            names.join(", ")
        };
        if !self.denied.is_empty() {
            let denied = names(&self.denied);
            return Some(format!(
                "kafka denies the topic {denied}: its ACLs must allow READ"
            ));
        }
        if self.denials > self.settled {
            return Some("kafka denies a topic: its ACLs must allow READ".to_owned());
        }
        (!self.missing.is_empty())
            .then(|| format!("kafka: there is no topic {}", names(&self.missing)))
    }

    /// Books an error that access lists are the reason of.
    pub(super) fn deny(&mut self, error: &KafkaError) {
        self.denials += u64::from(access::is_of_topic(error));
        if access::is_of_group(error) && !std::mem::replace(&mut self.group_denied, true) {
            tracing::error!("kafka denies the group: reading goes on once its ACLs allow READ");
        }
    }

    /// The group has let us in, or has taken what we told it.
    pub(super) fn group_allowed(&mut self) {
        self.group_denied = false;
    }

    /// Where some topic was denied: how often by now, and a partition of each that is
    /// assigned, to be tried.
    pub(super) fn in_doubt(&self) -> Option<(u64, Vec<PartitionId>)> {
        (self.denials > self.settled).then(|| {
            let mut partitions: Vec<_> = self.partitions.iter().cloned().collect();
            partitions.dedup_by(|a, b| a.topic == b.topic);
            (self.denials, partitions)
        })
    }

    /// Books what a look has found; `certain` of as many denials as were in doubt, when
    /// every topic has told.
    pub(super) fn looked(&mut self, denied: Vec<TopicName>, certain: Option<u64>) {
        if self.denied != denied {
            for topic in &denied {
                tracing::error!(%topic, "kafka denies the topic: it is read once its ACLs allow READ");
            }
            self.denied = denied;
        }
        if let (Some(denials), true) = (certain, self.denied.is_empty()) {
            self.settled = denials;
        }
    }

    /// Takes what librdkafka tells every second.
    pub(super) fn learn(&mut self, statistics: &Statistics) {
        if statistics
            .brokers
            .values()
            .any(|broker| broker.state == "UP")
        {
            self.refused = None;
        }
        let mut read_ahead = ReadAhead::default();
        let partitions = || {
            statistics.topics.values().flat_map(|topic| {
                let name = TopicName::new(&topic.topic).ok();
                let known = topic.partitions.values().filter(|p| p.partition >= 0);
                known.filter_map(move |p| Some((PartitionId::new(name.clone()?, p.partition), p)))
            })
        };
        for (_, partition) in partitions() {
            // All partitions share one queue, and each tells the whole of it.
            read_ahead.records = read_ahead.records.max(partition.fetchq_cnt.max(0) as u64);
            read_ahead.bytes = read_ahead.bytes.max(partition.fetchq_size);
        }
        for (id, partition) in partitions() {
            if let (true, Ok(end)) = (partition.ls_offset > 0, u64::try_from(partition.ls_offset)) {
                let known = self.ends.entry(id.clone()).or_default();
                *known = Offset(end).max(*known);
            }
            // At the end of the partition, with nothing on the way: whatever lies between
            // the last record that was delivered and here is none.
            let at_end =
                partition.next_offset >= 0 && partition.eof_offset == partition.next_offset;
            if at_end && read_ahead.records == 0 && self.partitions.contains(&id) {
                self.reached
                    .insert(id, Offset(partition.next_offset as u64));
            }
        }
        self.read_ahead = read_ahead;
    }

    /// The positions that the group does not know yet.
    pub(super) fn uncommitted(&self) -> Vec<(PartitionId, Offset)> {
        let durable = self.durable.iter();
        durable
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .map(|(partition, offset)| (partition.clone(), *offset))
            .collect()
    }

    pub(super) fn assign(&mut self, partition: &PartitionId) {
        self.partitions.insert(partition.clone());
        self.reached.remove(partition);
    }

    pub(super) fn release(&mut self, partition: &PartitionId) {
        self.partitions.remove(partition);
        self.ends.remove(partition);
        self.reached.remove(partition);
        self.durable.remove(partition);
        self.committed.remove(partition);
    }
}
