//! The loop: which task is to be refitted next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracer_features::{embed::Embedders, stable_hash};
use tracer_store::{Claimable, Leases, Registry, ShardLog, Standing, Store, StoreError};
use tracer_telemetry::{Condition, Health, Metrics, Spans, metric, metric::MetricDef};
use tracer_trace::TaskName;

use crate::{
    Error, RefitEvent, RefitResult, Schedule, TaskPlans, TrainerConfig, Trigger,
    drift::drift,
    explain::is_lost,
    live::Watch,
    progress,
    publish::{Ends, ends_of, ends_of_spans, rows_seen},
    record::{PATIENT_TAKEOVERS, Record},
    refit::Partition,
    schedule::Past,
};

/// What the service stands on.
#[derive(Clone)]
pub struct Deps {
    /// Where the traces are.
    pub shards: ShardLog,
    /// Where versions are published.
    pub registry: Registry,
    /// Which replica has which task.
    pub leases: Leases,
    /// What makes the embeddings of traces that come without.
    pub embedders: Embedders,
    /// Where embeddings that are made are kept for later refits; `None` to keep none.
    pub embeddings: Option<Store>,
    /// Where spans of refits go.
    pub spans: Spans,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's health; the service adds the condition `trainer`.
    pub health: Health,
    /// Told of every refit that ends.
    pub events: Option<broadcast::Sender<RefitEvent>>,
}

/// Looks at the shards again and again, and refits what is due, until `shutdown`.
///
/// Of several replicas any may refit any task: the one that is faster to claim the task's
/// lease does. A refit under way is given up at the shutdown; a publication is not.
pub async fn run(
    config: TrainerConfig,
    plans: TaskPlans,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    check(&plans)?;
    let condition = deps.health.condition("trainer");
    let stores = (&deps.shards, &deps.registry);
    let watch = Watch::new(&config, &plans, stores, &deps.metrics);
    let watch = tokio::spawn(watch.run(shutdown.clone()));
    let mut trainer = Trainer {
        started: Utc::now(),
        holder: holder(&config.author),
        config,
        plans,
        deps,
        condition: condition.clone(),
        shutdown: shutdown.clone(),
        tasks: BTreeMap::new(),
    };
    for task in trainer.plans.tasks.keys().chain([&TaskName::default()]) {
        trainer.register(task);
    }
    let _ = trainer.deps.metrics.histogram(&metric::REFIT_SECONDS, &[]);
    let mut rounds = 0_u64;
    while !shutdown.is_cancelled() {
        match Box::pin(trainer.round()).await {
            // What else is due is better judged anew after the time that a refit takes.
            Ok(true) => continue,
            Ok(false) => condition.set_ready(),
            Err(error) => {
                tracing::warn!(%error, "cannot look at the shards, trying again");
                condition.set_unready(error.to_string());
            }
        }
        rounds += 1;
        tokio::select! {
            () = tokio::time::sleep(trainer.pause(rounds)) => {}
            () = shutdown.cancelled() => {}
        }
        // Nobody would take out a version whose promise is broken.
        if watch.is_finished() && !shutdown.is_cancelled() {
            let ended = watch.await;
            return Err(Error::Watch(format!("{ended:?}")));
        }
    }
    condition.set_unready("shutting down");
    if let Err(error) = watch.await {
        tracing::error!(%error, "the watch over the live agreement has ended");
    }
    Ok(())
}

fn check(plans: &TaskPlans) -> Result<(), Error> {
    let own = plans.tasks.iter().map(|(task, plan)| (task.as_str(), plan));
    for (task, plan) in own.chain([("task_defaults", &plans.default)]) {
        plan.fit.check().map_err(|source| Error::Plan {
            task: task.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// A name that no other process has or had.
fn holder(author: &str) -> String {
    use std::hash::BuildHasher as _;
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| author.to_owned());
    let nonce = std::hash::RandomState::new().hash_one(Utc::now());
    format!("{host}-{}-{nonce:016x}", std::process::id())
}

pub(crate) struct Trainer {
    started: DateTime<Utc>,
    /// This process among the holders of leases.
    pub(crate) holder: String,
    pub(crate) config: TrainerConfig,
    pub(crate) plans: TaskPlans,
    pub(crate) deps: Deps,
    condition: Condition,
    pub(crate) shutdown: CancellationToken,
    tasks: BTreeMap<TaskName, Known>,
}

/// What the trainer knows of a task, as of an entry of its lease.
#[derive(Clone)]
pub(crate) struct Known {
    /// The entry; 0 for none.
    seq: u64,
    pub(crate) record: Record,
    pub(crate) past: Past,
    /// How far the last refit has read.
    seen: Ends,
    /// Traces there were when drift was looked for last, and none was found.
    drift_looked_at: u64,
    /// Whether drift was found since the last refit that came to a verdict.
    drift_found: bool,
    /// Since when it waits for a refit.
    due_since: Option<DateTime<Utc>>,
}

impl Known {
    /// What makes a refit due at `now`, by the schedule or by drift that was found.
    pub(crate) fn due(
        &self,
        schedule: &Schedule,
        task: &TaskName,
        rows: u64,
        now: DateTime<Utc>,
    ) -> Option<Trigger> {
        let drifted = self.drift_found && rows > self.past.rows && rows >= schedule.min_traces;
        let due = schedule.due(task, &self.past, rows, now);
        due.or(drifted.then_some(Trigger::Drift))
    }
}

/// A task that is to be refitted.
struct Due {
    task: TaskName,
    rows: u64,
    trigger: Trigger,
    standing: Standing,
    last: Option<DateTime<Utc>>,
    /// Replicas that find the same tasks due begin at different ones.
    order: u64,
}

impl Trainer {
    /// One look at everything, and a refit of what is most due. True when there was one.
    async fn round(&mut self) -> Result<bool, StoreError> {
        let shutdown = self.shutdown.clone();
        let partitions = tokio::select! {
            partitions = self.partitions() => partitions?,
            () = shutdown.cancelled() => return Ok(false),
        };
        let standings = self.deps.leases.look().await?;
        let mut rows = BTreeMap::<TaskName, u64>::new();
        for info in partitions.iter().flat_map(|(_, shards)| shards) {
            for (task, count) in &info.rows_by_task {
                *rows.entry(task.clone()).or_default() += count;
            }
        }
        let asked = standings.iter().filter(|(_, s)| !s.requests.is_empty());
        let tasks: BTreeSet<TaskName> = rows
            .keys()
            .chain(asked.map(|(task, _)| task))
            .cloned()
            .collect();
        let (mut trouble, mut due) = (None, Vec::new());
        for task in tasks {
            if self.shutdown.is_cancelled() {
                return Ok(false);
            }
            let count = rows.get(&task).copied().unwrap_or(0);
            let standing = standings.get(&task).cloned().unwrap_or(Standing {
                last: None,
                claim: Claimable::Free,
                requests: Vec::new(),
            });
            let asked = self.is_due(&task, count, &standing, &partitions).await;
            if let Ok(found) = &asked {
                self.show_due(&task, found.is_some());
            }
            match asked {
                Ok(Some((trigger, last))) => due.push(Due {
                    order: stable_hash(&[self.holder.as_bytes(), task.as_str().as_bytes()]),
                    task,
                    rows: count,
                    trigger,
                    standing,
                    last,
                }),
                Ok(None) => {}
                // One task's trouble is not the others'.
                Err(error) => {
                    trouble.get_or_insert(error);
                }
            }
        }
        // Whose last refit is longest ago comes first, so that none waits for ever.
        due.sort_by_key(|due| (due.trigger != Trigger::Request, due.last, due.order));
        for due in due {
            if self.shutdown.is_cancelled() {
                return Ok(false);
            }
            let Due {
                task,
                rows,
                trigger,
                standing,
                ..
            } = due;
            // Trouble that another task has is not covered up by a refit.
            let ready = trouble.is_none().then(|| self.condition.clone());
            let turn = self.turn((&task, rows, trigger), &standing, &partitions, ready);
            match Box::pin(turn).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%task, %error, "its refit did not get to an end");
                    trouble.get_or_insert(error);
                }
            }
        }
        trouble.map_or(Ok(false), Err)
    }

    async fn is_due(
        &mut self,
        task: &TaskName,
        rows: u64,
        standing: &Standing,
        partitions: &[Partition],
    ) -> Result<Option<(Trigger, Option<DateTime<Utc>>)>, StoreError> {
        // Anybody may name a task in a trace. Metrics and memory are spent only
        // on one that has the traces of a refit, or that an operator asks for.
        if rows < self.plans.of(task).schedule.min_traces && standing.requests.is_empty() {
            return Ok(None);
        }
        if standing.claim == Claimable::Held {
            return Ok(None);
        }
        let known = self.known(task, standing, partitions).await?;
        let last = known.past.last;
        let unanswered = |request: &String| known.record.answer_to(request).is_none();
        if standing.requests.iter().any(unanswered) {
            return Ok(Some((Trigger::Request, last)));
        }
        if rows < self.plans.of(task).schedule.min_traces {
            return Ok(None);
        }
        let now = Utc::now();
        if known.record.not_before.is_some_and(|time| now < time) {
            return Ok(None);
        }
        let schedule = &self.plans.of(task).schedule;
        let mut trigger = known.due(schedule, task, rows, now);
        if trigger.is_none() && schedule.looks_for_drift(&known.past, known.drift_looked_at, rows) {
            let deps = &self.deps;
            let embedder = deps.embedders.of(task.as_str());
            let found = drift(&deps.shards, &deps.registry, embedder, task, partitions).await?;
            if let Some(found) = &found {
                tracing::info!(%task, found, "the newest traces are not what the active version was certified on");
            }
            // It is not looked for again while the task waits for its turn, nor when the
            // refit fails.
            if let Some(known) = self.tasks.get_mut(task) {
                match found {
                    Some(_) => known.drift_found = true,
                    None => known.drift_looked_at = rows,
                }
                trigger = known.due(schedule, task, rows, now);
            }
        }
        Ok(trigger.map(|trigger| (trigger, last)))
    }

    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let mut all = Vec::new();
        for partition in self.deps.shards.partitions().await? {
            let shards = self.deps.shards.shards(&partition).await?;
            all.push((partition, shards));
        }
        Ok(all)
    }

    /// What is known of a task. Read anew when the log of its lease has gone on.
    async fn known(
        &mut self,
        task: &TaskName,
        standing: &Standing,
        partitions: &[Partition],
    ) -> Result<Known, StoreError> {
        let seq = standing.last.as_ref().map_or(0, |last| last.seq);
        let mut known = match self.tasks.get(task).filter(|known| known.seq == seq) {
            Some(known) => known.clone(),
            None => {
                self.read(task, seq, Record::of(standing.last.as_deref()))
                    .await?
            }
        };
        // What has expired since the last refit is not there to be counted.
        known.past.rows = rows_seen(&known.seen, task, partitions);
        self.tasks.insert(task.clone(), known.clone());
        Ok(known)
    }

    /// What is known of a task: from its lease, and from the last version.
    ///
    /// The last version and not the active one: after a rollback the traces that made
    /// the version which was taken back are no reason to make it again. The lease knows of
    /// refusals as well, but not of a version whose trainer died before it could tell.
    pub(crate) async fn read(
        &mut self,
        task: &TaskName,
        seq: u64,
        record: Record,
    ) -> Result<Known, StoreError> {
        self.register(task);
        let (mut last, mut seen) = match &record.last {
            Some(refit) => (Some(refit.began), ends_of_spans(&refit.seen)),
            None => (None, Ends::new()),
        };
        if let Some(version) = self.deps.registry.last_published(task).await? {
            match self.deps.registry.manifest(task, version).await {
                Ok(manifest) => {
                    last = last.max(Some(manifest.created_at).filter(|_| {
                        record
                            .last
                            .as_ref()
                            .is_none_or(|refit| refit.version < Some(version.get()))
                    }));
                    for (partition, end) in ends_of(&manifest) {
                        let seen = seen.entry(partition).or_insert(end);
                        *seen = (*seen).max(end);
                    }
                    tracing::debug!(%task, %version, "resumed from the last version");
                }
                // It will not get better: the next refit makes a version that can be read.
                Err(error) if is_lost(&error) => {
                    tracing::warn!(%task, %version, %error, "the last version is not readable");
                }
                Err(error) => return Err(error),
            }
        }
        let ended = record.last.as_ref().map(|refit| refit.ended).max(last);
        self.show_time(&metric::REFIT_LAST_TIMESTAMP_SECONDS, task, ended);
        let before = self.tasks.get(task);
        let drift_looked_at = before.map_or(0, |known| known.drift_looked_at);
        // Of a version that was replaced it says nothing any more.
        let drift_found = before.is_some_and(|known| known.drift_found && known.past.last == last);
        let due_since = before.and_then(|known| known.due_since);
        Ok(Known {
            seq,
            record,
            past: Past {
                last,
                since: self.started,
                rows: 0,
            },
            seen,
            drift_looked_at,
            drift_found,
            due_since,
        })
    }

    /// Whether a task that was claimed is still due, as it is known now.
    pub(crate) fn still_due(
        &self,
        task: &TaskName,
        known: &mut Known,
        (trigger, rows): (Trigger, u64),
        partitions: &[Partition],
    ) -> bool {
        known.past.rows = rows_seen(&known.seen, task, partitions);
        let schedule = &self.plans.of(task).schedule;
        match trigger {
            Trigger::Request => true,
            _ => known.due(schedule, task, rows, Utc::now()).is_some(),
        }
    }

    fn register(&self, task: &TaskName) {
        let metrics = &self.deps.metrics;
        for verdict in RefitResult::VERDICTS {
            let labels = [("task", task.as_str()), ("verdict", verdict)];
            let _ = metrics.counter(&metric::REFITS_TOTAL, &labels);
        }
        for counter in [
            &metric::REFIT_TAKEOVERS_TOTAL,
            &metric::REFITS_SUPERSEDED_TOTAL,
        ] {
            let _ = metrics.counter(counter, &[("task", task.as_str())]);
        }
        if !self.tasks.contains_key(task) {
            progress::register(task, metrics);
        }
    }

    fn show_time(&self, def: &'static MetricDef, task: &TaskName, time: Option<DateTime<Utc>>) {
        let seconds = time.map_or(0.0, |time| time.timestamp_millis() as f64 / 1000.0);
        self.deps
            .metrics
            .gauge(def, &[("task", task.as_str())])
            .set(seconds);
    }

    /// Notes since when a task is due that waits for a trainer.
    pub(crate) fn show_due(&mut self, task: &TaskName, due: bool) {
        let Some(known) = self.tasks.get_mut(task) else {
            return;
        };
        let since = due.then(|| known.due_since.unwrap_or_else(Utc::now));
        if since != known.due_since {
            known.due_since = since;
            self.show_time(&metric::REFIT_DUE_SINCE_TIMESTAMP_SECONDS, task, since);
        }
    }

    /// Between two rounds: a quarter more or less, so that replicas that were started
    /// together do not stay so.
    fn pause(&self, round: u64) -> Duration {
        let draw = stable_hash(&[self.holder.as_bytes(), &round.to_le_bytes()]) % 1024;
        self.config
            .poll_interval()
            .mul_f64(0.75 + draw as f64 / 2048.0)
    }
}

/// How long a task waits after so many failures, and so many refits that were taken over
/// before they ended. A refit that takes its process down would do it again and again.
pub(crate) fn wait(first: Duration, failures: u32, takeovers: u32) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(600);
    let steps = match failures + takeovers.saturating_sub(PATIENT_TAKEOVERS) {
        0 => return None,
        steps => steps - 1,
    };
    Some(first.saturating_mul(1 << steps.min(16)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
        let second = Duration::from_secs(1);
        for (failures, takeovers, expected) in [
            (0, 0, None),
            (0, PATIENT_TAKEOVERS, None),
            (1, 0, Some(1)),
            (0, PATIENT_TAKEOVERS + 1, Some(1)),
            (4, 0, Some(8)),
            (100, 100, Some(600)),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(wait(second, failures, takeovers), expected);
        }
    }
}
