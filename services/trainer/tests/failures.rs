//! Refits that fail: which are tried again, and what the log says of that; and tasks that
//! cannot be claimed.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "../../../libs/store/tests/common/hooked.rs"]
#[allow(dead_code, reason = "shared with the tests of the store")]
mod hooked;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use common::{PATIENCE, Trainer, learnable, plan, start_embedding, store, task, trace, write};
use hooked::{Fate, Hooked, Kind};
use tracer_features::embed::{EmbedError, Embedder, Embedders, Identity};
use tracer_store::{Leases, ShardLog, Store};
use tracer_telemetry::Health;
use tracer_trace::{Offset, OffsetRange, PartitionId, TaskName, TopicName};
use tracer_trainer::{Record, RefitResult, TaskPlan, TrainerConfig};

const NO_END: &str = "its refit did not get to an end";
const DRIFT: &str = "the newest traces are not what";
const LATER: &str = "refit failed, trying again later";
const NOT_AGAIN: &str =
    "refit failed, not trying again: it was asked for, and nothing else makes it due so far";

/// Embeds nothing while it is down.
#[derive(Debug)]
struct Server {
    identity: Identity,
    down: Arc<AtomicBool>,
}

#[async_trait]
impl Embedder for Server {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(EmbedError::Server {
                url: "http://embedder".to_owned(),
                detail: "it is down".to_owned(),
            });
        }
        let vector = |text: &String| vec![f32::from(text.contains("fern")), text.len() as f32];
        Ok(texts.iter().map(vector).collect())
    }

    fn bulk_size(&self) -> usize {
        64
    }
}

/// The log of this thread, on which everything runs that a test has begun.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// What it says that begins so.
    fn says(&self, what: &str) -> Vec<String> {
        let written = self.0.lock().unwrap();
        let lines = std::str::from_utf8(&written).unwrap().lines();
        let messages = lines.filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            Some(line["fields"]["message"].as_str()?.to_owned())
        });
        messages.filter(|said| said.starts_with(what)).collect()
    }

    fn failed(&self) -> Vec<String> {
        self.says("refit failed")
    }
}

/// On text alone: a version needs no vectors, but its refit makes them.
fn quick(after_traces: u64) -> TaskPlan {
    let mut plan = plan(after_traces);
    plan.fit.only = vec!["lexical_logistic".to_owned()];
    plan.fit.cascade = false;
    plan
}

fn start(store: &Store, plan: TaskPlan) -> (Trainer, Arc<AtomicBool>) {
    let down = Arc::new(AtomicBool::new(false));
    let server = Server {
        identity: Identity::named("server", 2),
        down: Arc::clone(&down),
    };
    let embedders = Embedders::new(Some(Arc::new(server)), BTreeMap::new());
    let lease_ms = TrainerConfig::default().lease_ms;
    (start_embedding(store, plan, lease_ms, embedders), down)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    reached
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

fn failed(result: &RefitResult) {
    assert!(
        matches!(result, RefitResult::Failed { error } if error.contains("it is down")),
        "{result:?}"
    );
}

#[tokio::test]
async fn one_that_the_schedule_makes_due_is_tried_again() {
    let (log, _guard) = Log::begin();
    let (store, mail) = (store(), task("mail"));
    let (mut trainer, down) = start(&store, quick(300));
    down.store(true, Ordering::SeqCst);
    write(&trainer.shards, &mail, 0, 300, learnable).await;
    failed(&trainer.next().await.result);
    down.store(false, Ordering::SeqCst);
    // Those between may have failed before it was up.
    let mut last = trainer.next().await.result;
    let mut failures = 1;
    while last.verdict() == "failed" {
        failures += 1;
        last = trainer.next().await.result;
    }
    assert_eq!(last.version(), Some(1), "{last:?}");
    assert_eq!(log.failed(), vec![LATER; failures]);
    trainer.stop().await;
}

#[tokio::test]
async fn one_that_is_asked_for_is_tried_once() {
    let (log, _guard) = Log::begin();
    let (store, mail, other) = (store(), task("mail"), task("other"));
    let (mut trainer, down) = start(&store, quick(300));
    write(&trainer.shards, &mail, 0, 300, learnable).await;
    assert_eq!(trainer.next().await.result.version(), Some(1));

    // Too few to make it due, but they have to be embedded.
    write(&trainer.shards, &mail, 300, 100, learnable).await;
    down.store(true, Ordering::SeqCst);
    let leases = Leases::new(store.clone());
    let id = leases.request(&mail, "me", "to see").await.unwrap();
    failed(&trainer.next().await.result);
    assert_eq!(log.failed(), [NOT_AGAIN]);
    let standing = leases.look_at(&mail).await.unwrap();
    let record = Record::of(standing.last.as_deref());
    assert_eq!(record.answer_to(&id).unwrap().verdict, "failed");
    down.store(false, Ordering::SeqCst);
    // The wait is over, and this one is left alone.
    let waited = || {
        let until = record.not_before;
        until.is_some_and(|time| chrono::Utc::now() > time)
    };
    until("the wait is over", waited).await;
    // The second time its last refit is the later one: this one would be first, if it were due.
    for from in [400, 700] {
        write(&trainer.shards, &other, from, 300, learnable).await;
        assert_eq!(trainer.next().await.task, other);
    }
    assert_eq!(log.failed(), [NOT_AGAIN]);
    let now = leases.look_at(&mail).await.unwrap();
    assert_eq!(now.last, standing.last, "it was claimed");
    trainer.stop().await;
}

/// What is asked for where the schedule would have done it as well.
#[tokio::test]
async fn one_that_is_asked_for_and_is_due_is_tried_again() {
    let (log, _guard) = Log::begin();
    let (store, mail) = (store(), task("mail"));
    let leases = Leases::new(store.clone());
    leases.request(&mail, "me", "to see").await.unwrap();
    let shards = ShardLog::new(store.clone());
    write(&shards, &mail, 0, 300, learnable).await;
    let (mut trainer, down) = start(&store, quick(300));
    // It has not had its turn: nothing runs here but while the test waits.
    down.store(true, Ordering::SeqCst);
    failed(&trainer.next().await.result);
    let standing = leases.look_at(&mail).await.unwrap();
    let record = Record::of(standing.last.as_deref());
    assert_eq!(record.answers.len(), 1, "it was the one that was asked for");
    down.store(false, Ordering::SeqCst);
    let mut last = trainer.next().await.result;
    while last.verdict() == "failed" {
        last = trainer.next().await.result;
    }
    assert_eq!(last.version(), Some(1), "{last:?}");
    assert!(log.failed().iter().all(|said| said == LATER));
    trainer.stop().await;
}

/// Never by its schedule, but when the teacher says other things than before.
fn on_drift() -> TaskPlan {
    let mut plan = quick(1_000_000);
    plan.schedule.interval = Some(chrono::TimeDelta::days(1));
    plan.schedule.drift_after = Some(200);
    plan
}

/// The teacher says the opposite of what it has said of the 600 traces before.
async fn write_drift(shards: &ShardLog, task: &TaskName) {
    let rows = (600..1200).map(|i| {
        let mut stored = trace(task, i, learnable(i));
        learnable(i + 1).clone_into(&mut stored.trace.teacher);
        stored
    });
    let partition = PartitionId::new(TopicName::default(), 0);
    let range = OffsetRange::new(Offset(600), Offset(1200)).unwrap();
    let appended = shards.append(&partition, range, rows.collect());
    appended.await.unwrap();
}

async fn last_trigger(store: &Store, task: &TaskName) -> String {
    let standing = Leases::new(store.clone()).look_at(task).await.unwrap();
    Record::of(standing.last.as_deref()).last.unwrap().trigger
}

/// Without a new trace, and without that drift is looked for again.
#[tokio::test]
async fn one_that_drift_makes_due_is_tried_again() {
    let (log, _guard) = Log::begin();
    let (store, mail) = (store(), task("mail"));
    let (mut trainer, down) = start(&store, on_drift());
    write(&trainer.shards, &mail, 0, 600, learnable).await;
    assert_eq!(trainer.next().await.result.version(), Some(1));
    down.store(true, Ordering::SeqCst);
    write_drift(&trainer.shards, &mail).await;
    failed(&trainer.next().await.result);
    let mut failures = 1;
    // One that is asked for meanwhile is of a task that is due in any case.
    let leases = Leases::new(store.clone());
    let id = leases.request(&mail, "me", "to see").await.unwrap();
    let answered = async || {
        let standing = leases.look_at(&mail).await.unwrap();
        let record = Record::of(standing.last.as_deref());
        record.answer_to(&id).is_some()
    };
    while !answered().await {
        failed(&trainer.next().await.result);
        failures += 1;
    }
    down.store(false, Ordering::SeqCst);
    let mut last = trainer.next().await.result;
    while last.verdict() == "failed" {
        failures += 1;
        last = trainer.next().await.result;
    }
    assert_eq!(log.failed(), vec![LATER; failures]);
    assert_eq!(last_trigger(&store, &mail).await, "drift");
    assert_eq!(log.says(DRIFT).len(), 1);
    trainer.stop().await;
}

/// A store that takes no puts while it is told to.
struct ReadOnly {
    hooked: Hooked,
    refuses: Arc<AtomicBool>,
    health: Arc<OnceLock<Health>>,
    /// Whether the trainer was ready at each put that was refused.
    refused: Arc<Mutex<Vec<bool>>>,
}

impl ReadOnly {
    fn new() -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let health = Arc::new(OnceLock::<Health>::new());
        let refused = Arc::new(Mutex::new(Vec::new()));
        let hooked = Hooked::new({
            let (refuses, health) = (Arc::clone(&refuses), Arc::clone(&health));
            let refused = Arc::clone(&refused);
            move |_, kind| {
                if kind == Kind::Look || !refuses.load(Ordering::SeqCst) {
                    return Fate::Done;
                }
                let ready = health.get().is_some_and(|health| health.ready().is_ok());
                refused.lock().unwrap().push(ready);
                Fate::Fails
            }
        });
        Self {
            hooked,
            refuses,
            health,
            refused,
        }
    }

    /// A trainer whose claims are refused, and who has tried it a few times.
    async fn refuse(&self, plan: TaskPlan, log: &Log) -> Trainer {
        self.refuses.store(true, Ordering::SeqCst);
        let trainer = start(&self.hooked.store(), plan).0;
        // It has not had its turn: nothing runs here but while the test waits.
        assert!(self.health.set(trainer.health.clone()).is_ok());
        until("claims are refused", || log.says(NO_END).len() >= 4).await;
        trainer
    }
}

/// A store may take minutes to refuse a put: all the while the trainer can do nothing.
#[tokio::test]
async fn a_trainer_whose_claims_fail_is_not_ready() {
    let (log, _guard) = Log::begin();
    let (store, mail) = (ReadOnly::new(), task("mail"));
    let shards = ShardLog::new(store.hooked.store());
    write(&shards, &mail, 0, 300, learnable).await;
    let mut trainer = store.refuse(quick(300), &log).await;
    let refused = std::mem::take(&mut *store.refused.lock().unwrap());
    assert!(refused.len() >= 4, "{refused:?}");
    assert!(refused.iter().all(|ready| !ready), "{refused:?}");
    let why = trainer.health.ready().unwrap_err();
    assert!(why[0].contains("told to fail"), "{why:?}");
    store.refuses.store(false, Ordering::SeqCst);
    assert_eq!(trainer.next().await.result.version(), Some(1));
    trainer.ready().await;
    trainer.stop().await;
}

/// A look at drift reads up to 2,000 traces, and may have them embedded.
#[tokio::test]
async fn drift_is_looked_for_once_while_claims_fail() {
    let (log, _guard) = Log::begin();
    let (store, mail) = (ReadOnly::new(), task("mail"));
    let of_all = store.hooked.store();
    let mut first = start(&of_all, on_drift()).0;
    write(&first.shards, &mail, 0, 600, learnable).await;
    assert_eq!(first.next().await.result.version(), Some(1));
    first.stop().await;
    write_drift(&ShardLog::new(of_all.clone()), &mail).await;
    let mut second = store.refuse(on_drift(), &log).await;
    assert_eq!(log.says(DRIFT).len(), 1);
    store.refuses.store(false, Ordering::SeqCst);
    // What is found is not in the store: this is the one that found it.
    second.next().await;
    assert_eq!(last_trigger(&of_all, &mail).await, "drift");
    assert_eq!(log.says(DRIFT).len(), 1);
    second.stop().await;
}
