//! The watch over the live agreement, over a store in memory: what the metrics show, when
//! a task is suspended, and when it is not.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{PATIENCE, Trainer, learnable, plan, start, store, task, trace};
use object_store::{ObjectStoreExt as _, memory::InMemory, path::Path};
use tokio::time::timeout;
use tracer_store::{LogEvent, PipelineVersion, Store};
use tracer_trace::{
    Decision, Offset, OffsetRange, PartitionId, Routing, StoredTrace, TaskName, TopicName,
};
use tracer_trainer::TaskPlan;

/// Traces that the first version is fitted on.
const FITTED: u64 = 400;

/// A refit once, of the first traces, and never again.
fn once() -> TaskPlan {
    TaskPlan {
        schedule: tracer_trainer::Schedule {
            after_traces: Some(1_000_000),
            ..plan(0).schedule
        },
        ..plan(0)
    }
}

/// An answer of a version to which the teacher says something, at an offset.
fn audited(task: &TaskName, offset: u64, version: u64, agrees: bool) -> StoredTrace {
    let label = learnable(offset);
    let teacher = match (agrees, label) {
        (true, label) => label,
        (false, "plants") => "billing",
        (false, _) => "plants",
    };
    let mut stored = trace(task, offset, label);
    stored.trace.teacher = format!(" {} ", teacher.to_uppercase());
    stored.trace.routing = Some(Routing {
        pipeline_version: version,
        decision: Decision::Handled,
        label: Some(label.to_owned()),
        score: Some(0.9),
        audit: true,
        propensity: 0.5,
    });
    stored
}

/// So many audits of a version from an offset on, of which every so manieth is a
/// disagreement.
fn audits(
    task: &TaskName,
    start: u64,
    (count, version, wrong_every): (u64, u64, u64),
) -> Vec<StoredTrace> {
    let rows = (0..count).map(|i| {
        let agrees = !(i + 1).is_multiple_of(wrong_every);
        audited(task, start + i, version, agrees)
    });
    rows.collect()
}

struct World {
    trainer: Trainer,
    task: TaskName,
    end: u64,
}

impl World {
    /// With version 1 active, which promises 0.9.
    async fn new(store: &Store, plan: TaskPlan) -> Self {
        let mut trainer = start(store, plan.clone());
        let mail = task("mail");
        common::write(&trainer.shards, &mail, 0, FITTED, learnable).await;
        // The first version is there, whatever the plan of those to come.
        if plan.schedule.after_traces > Some(FITTED) {
            trainer.stop().await;
            let mut fits = start(store, common::plan(FITTED));
            assert_eq!(fits.next().await.result.verdict(), "passed");
            fits.stop().await;
            trainer = start(store, plan);
        } else {
            assert_eq!(trainer.next().await.result.verdict(), "passed");
        }
        Self {
            trainer,
            task: mail,
            end: FITTED,
        }
    }

    async fn append(&mut self, rows: Vec<StoredTrace>) {
        let partition = PartitionId::new(TopicName::default(), 0);
        let next = self.end + rows.len() as u64;
        let range = OffsetRange::new(Offset(self.end), Offset(next)).unwrap();
        let appended = self.trainer.shards.append(&partition, range, rows);
        appended.await.unwrap();
        self.end = next;
    }

    /// Audits of a version, of which every so manieth is a disagreement.
    async fn audits(&mut self, count: u64, version: u64, wrong_every: u64) {
        let rows = audits(&self.task, self.end, (count, version, wrong_every));
        self.append(rows).await;
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.trainer.metrics.render();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(f64::NAN, |value| value.parse().unwrap())
    }

    fn audits_seen(&self) -> f64 {
        self.metric(r#"tracer_live_audits{task="mail"}"#)
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let reached = timeout(PATIENCE, async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            reached.await.is_ok(),
            "never: {what}\n{}",
            self.trainer.metrics.render()
        );
    }

    async fn suspended(&self) -> bool {
        let active = self.trainer.registry.active(&self.task).await.unwrap();
        active.suspended
    }
}

#[tokio::test]
async fn audits_are_shown_and_what_is_none_does_not_count() {
    let mut world = World::new(&store(), once()).await;
    let lower = r#"tracer_teacher_agreement_lower{task="mail",kind="live"}"#;
    let ratio = r#"tracer_teacher_agreement_ratio{task="mail",kind="live"}"#;
    world
        .until("the series are there", async |w| w.metric(ratio) == 0.0)
        .await;
    assert_eq!(world.metric(lower), 0.0);
    world.audits(100, 1, 50).await;
    // Another version's, a deferral's, one that was not drawn, one without an echo, and a
    // copy of one that has counted.
    let (mail, end) = (world.task.clone(), world.end);
    let with = |i: u64, change: &dyn Fn(&mut StoredTrace)| {
        let mut stored = audited(&mail, end + i, 1, false);
        change(&mut stored);
        stored
    };
    let routing = |stored: &mut StoredTrace| stored.trace.routing.take().unwrap();
    let rows = vec![
        with(0, &|s| {
            s.trace.routing.as_mut().unwrap().pipeline_version = 2;
        }),
        with(1, &|s| {
            s.trace.routing.as_mut().unwrap().decision = Decision::Deferred;
        }),
        with(2, &|s| s.trace.routing.as_mut().unwrap().audit = false),
        with(3, &|s| drop(routing(s))),
        with(4, &|s| s.trace.id = format!("mail-{FITTED}")),
        with(5, &|_| ()),
    ];
    world.append(rows).await;
    world
        .until("all are seen", async |w| w.audits_seen() >= 101.0)
        .await;
    assert_eq!(world.audits_seen(), 101.0);
    assert_eq!(world.metric(ratio), 98.0 / 101.0);
    let bound = world.metric(lower);
    assert!(bound > 0.85 && bound < 98.0 / 101.0, "{bound}");
    let evidence = world.metric(r#"tracer_live_evidence_ratio{task="mail"}"#);
    assert!(evidence < 1.0, "{evidence}");
    assert!(!world.suspended().await);
    world.trainer.stop().await;
}

#[tokio::test]
async fn a_restart_reads_the_audits_again_and_two_trainers_suspend_once() {
    let store = store();
    let mut world = World::new(&store, once()).await;
    world.audits(60, 1, 20).await;
    world
        .until("all are seen", async |w| w.audits_seen() == 60.0)
        .await;
    world.trainer.stop().await;
    world.trainer = start(&store, once());
    let other = start(&store, once());
    world
        .until("all are seen again", async |w| w.audits_seen() == 60.0)
        .await;
    // Promised are 0.9.
    world.audits(200, 1, 2).await;
    world
        .until("it is suspended", async |w| w.suspended().await)
        .await;
    world
        .until("both have looked", async |w| w.audits_seen() >= 260.0)
        .await;
    let log = world.trainer.registry.log(&world.task).await.unwrap();
    let suspensions: Vec<_> = log
        .iter()
        .filter_map(|entry| match &entry.event {
            LogEvent::Suspended { reason } => Some((entry.author.clone(), reason.clone())),
            _ => None,
        })
        .collect();
    let [(author, reason)] = &suspensions[..] else {
        panic!("{suspensions:?}");
    };
    assert_eq!(author, "trainer");
    assert!(
        reason.contains("audited answers of version 1") && reason.contains("0.9"),
        "{reason}"
    );
    let total = |text: String| {
        let series = r#"tracer_suspensions_total{task="mail"} "#;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)).unwrap();
        value.parse::<u64>().unwrap()
    };
    let both = total(world.trainer.metrics.render()) + total(other.metrics.render());
    assert_eq!(both, 1);
    other.stop().await;
    world.trainer.stop().await;
}

#[tokio::test]
async fn what_is_resumed_is_judged_by_later_audits_alone() {
    let store = store();
    let mut world = World::new(&store, once()).await;
    world.audits(200, 1, 2).await;
    world
        .until("it is suspended", async |w| w.suspended().await)
        .await;
    let resumed = world
        .trainer
        .registry
        .append(&world.task, LogEvent::Resumed, "me");
    resumed.await.unwrap();
    world
        .until("it begins anew", async |w| w.audits_seen() == 0.0)
        .await;
    world.audits(80, 1, 40).await;
    world
        .until("all are seen", async |w| w.audits_seen() == 80.0)
        .await;
    assert!(!world.suspended().await);
    // Another trainer, or the same one after a restart, begins at the same place.
    world.trainer.stop().await;
    world.trainer = start(&store, once());
    world
        .until("all are seen", async |w| w.audits_seen() == 80.0)
        .await;
    assert!(!world.suspended().await);
    world.audits(200, 1, 2).await;
    world
        .until("it is suspended again", async |w| w.suspended().await)
        .await;
    let back = LogEvent::RolledBack {
        to_version: PipelineVersion(1),
    };
    let append = world.trainer.registry.append(&world.task, back, "me");
    append.await.unwrap();
    world
        .until("it begins anew", async |w| w.audits_seen() == 0.0)
        .await;
    world.trainer.stop().await;
}

/// The audits of before a resumption are in a partition that cannot be read when the watch
/// looks for where they end. Named without it, its audits would all count once it can be.
#[tokio::test]
async fn while_a_partition_cannot_be_read_no_begin_is_written_down() {
    let objects = Arc::new(InMemory::new());
    let store = Store::from_object_store(objects.clone());
    let mut world = World::new(&store, once()).await;
    let second = PartitionId::new(TopicName::default(), 1);
    let append = async |world: &World, start: u64, audits: Vec<StoredTrace>| {
        let end = start + audits.len() as u64;
        let range = OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let appended = world.trainer.shards.append(&second, range, audits);
        appended.await.unwrap();
    };
    let before = audits(&world.task, 10_000, (200, 1, 2));
    append(&world, 10_000, before).await;
    world
        .until("it is suspended", async |w| w.suspended().await)
        .await;
    world.trainer.stop().await;

    let shard = Path::from("traces/traces/00001/00000000000000010000.parquet");
    let whole = objects.get(&shard).await.unwrap().bytes().await.unwrap();
    let cut = whole.slice(..whole.len() - 16);
    objects.put(&shard, cut.into()).await.unwrap();
    world.trainer = start(&store, once());
    let registry = &world.trainer.registry;
    let resumed = registry.append(&world.task, LogEvent::Resumed, "me");
    let seq = resumed.await.unwrap().seq;
    let begin = Path::from(format!("audits/mail/{seq:020}.json"));
    // One look may have been under way at the resumption, and one is all of it.
    let looks = |w: &World| w.metric("tracer_live_failures_total").max(0.0);
    let so_far = looks(&world);
    world
        .until("it has looked", async |w| looks(w) >= so_far + 3.0)
        .await;
    assert!(objects.head(&begin).await.is_err(), "{begin} is there");

    objects.put(&shard, whole.into()).await.unwrap();
    world
        .until("the begin is known", async |_| {
            objects.head(&begin).await.is_ok()
        })
        .await;
    // In either partition what comes later counts, and nothing else.
    world.audits(80, 1, 40).await;
    let later = audits(&world.task, 10_200, (20, 1, 20));
    append(&world, 10_200, later).await;
    world
        .until("all are seen", async |w| w.audits_seen() >= 100.0)
        .await;
    assert_eq!(world.audits_seen(), 100.0);
    assert!(!world.suspended().await);
    world.trainer.stop().await;
}

#[tokio::test]
async fn a_task_that_is_not_to_be_suspended_serves_on_and_shows_the_proof() {
    let plan = TaskPlan {
        auto_suspend: false,
        ..once()
    };
    let mut world = World::new(&store(), plan).await;
    world.audits(200, 1, 2).await;
    let evidence = r#"tracer_live_evidence_ratio{task="mail"}"#;
    world
        .until("it is proven", async |w| w.metric(evidence) >= 1.0)
        .await;
    world
        .until("all are seen", async |w| w.audits_seen() == 200.0)
        .await;
    assert!(!world.suspended().await);
    assert_eq!(
        world.metric(r#"tracer_suspensions_total{task="mail"}"#),
        0.0
    );
    world.trainer.stop().await;
}
