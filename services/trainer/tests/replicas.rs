//! Several trainers on one store.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    PATIENCE, Trainer, learnable, plan, start, start_embedding, start_with, store, task, trace,
    write,
};
use tokio::time::timeout;
use tracer_features::embed::{EmbedError, Embedder, Embedders, Identity};
use tracer_store::{Claimable, Leases, LogEvent, Registry, ShardLog, Store};
use tracer_trace::{Offset, OffsetRange, PartitionId, TaskName, TopicName};
use tracer_trainer::{Record, RefitEvent, TaskPlan, TrainerConfig};

/// Refits after so many traces, and quickly.
fn quick(after_traces: u64) -> TaskPlan {
    let mut plan = plan(after_traces);
    plan.fit.only = vec!["lexical_logistic".to_owned()];
    plan.fit.cascade = false;
    plan
}

/// Waits until something holds of what the store says.
async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}

async fn published(store: &Store, task: &TaskName) -> Vec<u64> {
    let log = Registry::new(store.clone()).log(task).await.unwrap();
    let published = log.into_iter().filter_map(|entry| match entry.event {
        LogEvent::Published { version } => Some(version.get()),
        _ => None,
    });
    published.collect()
}

async fn fences(store: &Store, task: &TaskName) -> usize {
    let log = Registry::new(store.clone()).log(task).await.unwrap();
    log.iter()
        .filter(|entry| matches!(entry.event, LogEvent::Fenced { .. }))
        .count()
}

fn events(trainers: &mut [Trainer]) -> Vec<RefitEvent> {
    let mut all = Vec::new();
    for trainer in trainers {
        while let Ok(event) = trainer.events.try_recv() {
            all.push(event);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_is_refitted_by_one() {
    let store = store();
    let mut trainers: Vec<Trainer> = (0..3).map(|_| start(&store, quick(300))).collect();
    let tasks: Vec<TaskName> = (0..5).map(|i| task(&format!("task-{i}"))).collect();
    // Found by all of them at the same time.
    for (i, task) in tasks.iter().enumerate() {
        write(&trainers[0].shards, task, 300 * i as u64, 300, learnable).await;
    }
    for task in &tasks {
        until("it is published", async || {
            (published(&store, task).await == [1]).then_some(())
        })
        .await;
    }
    let leases = Leases::new(store.clone());
    let free = async || {
        let standings = leases.look().await.unwrap();
        let free = |task| standings[task].claim == Claimable::Free;
        tasks.iter().all(free).then_some(())
    };
    until("all is given back", free).await;
    assert!(leases.look().await.unwrap().values().all(|standing| {
        let record = Record::of(standing.last.as_deref());
        record.running.is_none() && record.last.is_some_and(|last| last.verdict == "passed")
    }));

    // One that is asked for is done once, by whoever.
    let id = leases.request(&tasks[3], "me", "to see").await.unwrap();
    let answered = async || {
        let standing = leases.look_at(&tasks[3]).await.unwrap();
        Record::of(standing.last.as_deref()).answer_to(&id).cloned()
    };
    let answer = until("the request is answered", answered).await;
    assert_eq!(
        (answer.verdict.as_str(), answer.version),
        ("passed", Some(2))
    );
    let gone = async || {
        leases
            .requests(&tasks[3])
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    };
    until("the request is gone", gone).await;
    for trainer in &trainers {
        trainer.ready().await;
    }
    let ended = events(&mut trainers);
    assert_eq!(ended.len(), 6, "{ended:?}");
    for task in &tasks {
        assert_eq!(fences(&store, task).await, 0);
    }
    for trainer in trainers {
        trainer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_repeated_by_another() {
    let (store, mail, other) = (store(), task("mail"), task("other"));
    let mut trainer = start(&store, quick(300));
    write(&trainer.shards, &mail, 0, 300, |_| "plants").await;
    assert_eq!(trainer.next().await.result.verdict(), "refused");
    trainer.stop().await;
    let mut trainer = start(&store, quick(300));
    write(&trainer.shards, &other, 300, 300, learnable).await;
    assert_eq!(trainer.next().await.task, other);
    trainer.ready().await;
    assert!(trainer.events.try_recv().is_err());
    trainer.stop().await;
}

/// Ends a trainer as a kill would: nothing that it has begun is finished.
async fn abort(trainer: Trainer) {
    trainer.service.abort();
    assert!(trainer.service.await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ended_trainer_was_at_is_taken_up() {
    let (store, mail) = (store(), task("mail"));
    let slow = || {
        let mut plan = quick(300);
        plan.fit.folds = 5;
        plan
    };
    let first = start_with(&store, slow(), 400);
    write(&first.shards, &mail, 0, 3000, learnable).await;
    let leases = Leases::new(store.clone());
    let fitting = async || {
        let standing = leases.look_at(&mail).await.unwrap();
        let last = standing.last?;
        (last.held && last.body["running"]["stage"] == "fitting").then_some(last.epoch)
    };
    let epoch = until("it is fitting", fitting).await;
    abort(first).await;
    assert!(published(&store, &mail).await.is_empty());
    let mut second = start_with(&store, slow(), 60_000);
    let event = second.next().await;
    assert_eq!(event.result.version(), Some(1), "{event:?}");
    let manifest = second
        .registry
        .manifest(&mail, tracer_store::PipelineVersion(1));
    assert!(manifest.await.unwrap().epoch > Some(epoch));
    assert_eq!(
        (published(&store, &mail).await, fences(&store, &mail).await),
        (vec![1], 1)
    );
    let metrics = second.metrics.render();
    assert!(
        metrics.contains(r#"tracer_refit_takeovers_total{task="mail"} 1"#),
        "{metrics}"
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_found_and_refitted() {
    finds_drift(Embedders::default(), "lexical_logistic").await;
}

/// The newest traces have no embedding either: it is made as for the refit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_found_by_the_vectors_of_the_embedder() {
    let embedder = Subjects(Identity::named("subjects", 3));
    let embedders = Embedders::new(Some(Arc::new(embedder)), BTreeMap::new());
    finds_drift(embedders, "dense_logistic").await;
}

/// Not by the refits of one trainer, nor by another that comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_embedded_once() {
    let (store, mail) = (store(), task("mail"));
    let shards = ShardLog::new(store.clone());
    let mut plan = quick(300);
    plan.fit.only = vec!["dense_logistic".to_owned()];
    let lease_ms = TrainerConfig::default().lease_ms;
    let trainer = || {
        let embedder = Subjects(Identity::named("subjects", 3));
        let embedders = Embedders::new(Some(Arc::new(embedder)), BTreeMap::new());
        start_embedding(&store, plan.clone(), lease_ms, embedders)
    };
    let says = |trainer: &Trainer, from: &str, texts: u64| {
        let line = format!(r#"tracer_refit_embeddings_total{{task="mail",from="{from}"}} {texts}"#);
        let metrics = trainer.metrics.render();
        assert!(metrics.contains(&line), "{line}: {metrics}");
    };
    let mut first = trainer();
    write(&shards, &mail, 0, 300, learnable).await;
    assert_eq!(first.next().await.result.version(), Some(1));
    says(&first, "cache", 0);
    says(&first, "embedder", 300);
    write(&shards, &mail, 300, 300, learnable).await;
    assert_eq!(first.next().await.result.version(), Some(2));
    says(&first, "cache", 300);
    says(&first, "embedder", 600);
    first.stop().await;
    let mut second = trainer();
    write(&shards, &mail, 600, 300, learnable).await;
    assert_eq!(second.next().await.result.version(), Some(3));
    says(&second, "cache", 600);
    says(&second, "embedder", 300);
    second.stop().await;
}

/// Of a rollout nobody should have to wait for a refit that takes hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trainer_is_ready_while_its_first_look_ends_in_a_refit() {
    let (store, mail) = (store(), task("mail"));
    write(&ShardLog::new(store.clone()), &mail, 0, 300, learnable).await;
    let embedder = Silent(Identity::named("silent", 3));
    let embedders = Embedders::new(Some(Arc::new(embedder)), BTreeMap::new());
    let mut plan = quick(300);
    plan.fit.only = vec!["dense_logistic".to_owned()];
    let trainer = start_embedding(&store, plan, 60_000, embedders);
    let leases = Leases::new(store.clone());
    let under_way = async || leases.look_at(&mail).await.unwrap().last.filter(|e| e.held);
    until("its refit is under way", under_way).await;
    // Before the refit has ended: it never does.
    trainer.ready().await;
    assert!(under_way().await.is_some());
    trainer.stop().await;
}

/// Never answers.
#[derive(Debug)]
struct Silent(Identity);

#[async_trait]
impl Embedder for Silent {
    fn identity(&self) -> &Identity {
        &self.0
    }

    async fn embed(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        std::future::pending().await
    }
}

/// Puts each of the two subjects at a place of its own.
#[derive(Debug)]
struct Subjects(Identity);

#[async_trait]
impl Embedder for Subjects {
    fn identity(&self) -> &Identity {
        &self.0
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let vector = |text: &String| {
            let number = text.split(' ').nth(2).and_then(|word| word.parse().ok());
            let spread = number.unwrap_or(0.0_f32) / 90_000.0;
            let side = if text.contains("fern") { 1.0 } else { -1.0 };
            vec![side + spread, side - spread, spread]
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn bulk_size(&self) -> usize {
        64
    }
}

async fn finds_drift(embedders: Embedders, candidate: &str) {
    let (store, mail) = (store(), task("mail"));
    let plan = || {
        let mut plan = quick(1_000_000);
        plan.schedule.interval = Some(chrono::TimeDelta::days(1));
        plan.schedule.drift_after = Some(200);
        plan.fit.only = vec![candidate.to_owned()];
        plan
    };
    let lease_ms = TrainerConfig::default().lease_ms;
    let mut trainer = start_embedding(&store, plan(), lease_ms, embedders);
    let shards = ShardLog::new(store.clone());
    // Numbers that come in no order: what is new looks as what was before.
    let write = async |task: &TaskName, start: u64, count: u64, turned: u64| {
        let rows = (start..start + count).map(|i| {
            let number = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 90_000 + 10_000;
            let mut stored = trace(task, number, learnable(number + turned));
            (stored.offset, stored.trace.id) = (i, format!("{task}-{i}"));
            stored.trace.input = trace(task, number, learnable(number)).trace.input;
            stored
        });
        let partition = PartitionId::new(TopicName::default(), 0);
        let range = OffsetRange::new(Offset(start), Offset(start + count)).unwrap();
        shards
            .append(&partition, range, rows.collect())
            .await
            .unwrap();
    };
    write(&mail, 0, 600, 0).await;
    assert_eq!(trainer.next().await.result.version(), Some(1));
    // More of the same is no drift: the next refit is about another task.
    write(&mail, 600, 300, 0).await;
    write(&task("other"), 900, 300, 0).await;
    assert_eq!(trainer.next().await.task, task("other"));
    // The teacher says the opposite of what it has said.
    write(&mail, 1200, 600, 1).await;
    assert_eq!(trainer.next().await.task, mail);
    let standing = Leases::new(store.clone()).look_at(&mail).await.unwrap();
    let record = Record::of(standing.last.as_deref());
    assert_eq!(record.last.unwrap().trigger, "drift");
    trainer.stop().await;
}

/// A task of more traces than are fitted on: the rows of the sample alone are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_traces_a_sample_is_fitted() {
    let (store, mail) = (store(), task("mail"));
    let mut plan = quick(4000);
    plan.fit.max_fit_traces = 600;
    let mut trainer = start(&store, plan);
    let shards = ShardLog::new(store.clone());
    for shard in 0..4 {
        write(&shards, &mail, 1000 * shard, 1000, learnable).await;
    }
    let event = trainer.next().await;
    assert!((600..900).contains(&event.traces), "{event:?}");
    assert_eq!(event.result.version(), Some(1), "{event:?}");
    let manifest = trainer
        .registry
        .manifest(&mail, tracer_store::PipelineVersion(1));
    let manifest = manifest.await.unwrap();
    assert!(
        (500..700).contains(&manifest.training_traces),
        "{manifest:?}"
    );
    assert!((100..250).contains(&manifest.shadow.n), "{manifest:?}");
    trainer.stop().await;
}
