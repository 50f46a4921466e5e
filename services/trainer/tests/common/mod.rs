//! A trainer over a store in memory, and traces for it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a panic is a failed test"
)]

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::broadcast, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracer_features::embed::Embedders;
use tracer_learn::FitConfig;
use tracer_store::{Leases, Registry, ShardLog, Store};
use tracer_telemetry::{Health, Metrics, Spans};
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, TopicName, Trace};
use tracer_trainer::{Deps, RefitEvent, Schedule, TaskPlan, TaskPlans, TrainerConfig, run};

pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) struct Trainer {
    pub(crate) shards: ShardLog,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) events: broadcast::Receiver<RefitEvent>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) service: JoinHandle<Result<(), tracer_trainer::Error>>,
}

pub(crate) fn start(store: &Store, plan: TaskPlan) -> Trainer {
    start_with(store, plan, TrainerConfig::default().lease_ms)
}

/// A trainer whose lease expires after so many milliseconds.
pub(crate) fn start_with(store: &Store, plan: TaskPlan, lease_ms: u64) -> Trainer {
    start_embedding(store, plan, lease_ms, Embedders::default())
}

pub(crate) fn start_embedding(
    store: &Store,
    plan: TaskPlan,
    lease_ms: u64,
    embedders: Embedders,
) -> Trainer {
    let (sender, events) = broadcast::channel(16);
    let (shards, registry) = (ShardLog::new(store.clone()), Registry::new(store.clone()));
    let (metrics, health) = (Metrics::new(), Health::new());
    let deps = Deps {
        shards: shards.clone(),
        registry: registry.clone(),
        leases: Leases::new(store.clone()),
        embedders,
        embeddings: Some(store.clone()),
        spans: Spans::default(),
        metrics: metrics.clone(),
        health: health.clone(),
        events: Some(sender),
    };
    let config = TrainerConfig {
        poll_interval_ms: 10,
        lease_ms,
        ..TrainerConfig::default()
    };
    let plans = TaskPlans {
        default: plan,
        tasks: BTreeMap::new(),
    };
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(run(config, plans, deps, shutdown.clone()));
    Trainer {
        shards,
        registry,
        metrics,
        health,
        events,
        shutdown,
        service,
    }
}

impl Trainer {
    pub(crate) async fn next(&mut self) -> RefitEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("a refit in time")
            .unwrap()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.service)
            .await
            .expect("an end in time")
            .unwrap()
            .unwrap();
    }

    /// Until the trainer has looked at the shards at least once.
    pub(crate) async fn ready(&self) {
        timeout(PATIENCE, async {
            while self.health.ready().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("ready in time");
    }
}

pub(crate) fn plan(after_traces: u64) -> TaskPlan {
    TaskPlan {
        full_refit_every: 1,
        dedup_window: chrono::TimeDelta::zero(),
        schedule: Schedule {
            interval: None,
            cron: None,
            after_traces: Some(after_traces),
            min_traces: 1,
            ..Schedule::default()
        },
        fit: FitConfig {
            min_traces: 20,
            folds: 2,
            targets: vec![0.9],
            ..FitConfig::default()
        },
        ..TaskPlan::default()
    }
}

pub(crate) fn store() -> Store {
    Store::open("memory://", &BTreeMap::new()).unwrap()
}

pub(crate) fn task(name: &str) -> TaskName {
    TaskName::new(name).unwrap()
}

pub(crate) fn trace(task: &TaskName, i: u64, label: &str) -> StoredTrace {
    let subject = if label == "plants" {
        "fern moss leaf"
    } else {
        "invoice card money"
    };
    StoredTrace {
        offset: i,
        trace: Trace {
            id: format!("{task}-{i}"),
            task: task.clone(),
            input: Some(format!("message number {i} about {subject}")),
            withheld: None,
            embedding: None,
            embedder: None,
            teacher: label.to_owned(),
            ground_truth: None,
            timestamp: None,
            metadata: BTreeMap::new(),
            routing: None,
        },
    }
}

/// Writes one shard at `start` with `count` traces.
pub(crate) async fn write(
    shards: &ShardLog,
    task: &TaskName,
    start: u64,
    count: u64,
    label: impl Fn(u64) -> &'static str,
) {
    let partition = PartitionId::new(TopicName::default(), 0);
    let range = OffsetRange::new(Offset(start), Offset(start + count)).unwrap();
    let rows = (start..start + count)
        .map(|i| trace(task, i, label(i)))
        .collect();
    shards.append(&partition, range, rows).await.unwrap();
}

pub(crate) fn learnable(i: u64) -> &'static str {
    if i.is_multiple_of(2) {
        "plants"
    } else {
        "billing"
    }
}
