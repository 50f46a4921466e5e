//! The loop.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracer_features::embed::Embedders;
use tracer_learn::FitConfig;
use tracer_store::{Registry, ShardLog, StoreError};
use tracer_telemetry::{Health, Metrics, metric};
use tracer_trace::TaskName;

use crate::{
    Error, RefitEvent, RefitResult, TaskPlans, TrainerConfig, Trigger,
    earlier::active_pipeline,
    error::RefitError,
    explain::{explain, keep_refusal},
    publish::{Ends, Origin, ends, ends_of, publish, rows_seen},
    refit::{Fitted, Partition, fit},
    schedule::Past,
};

/// The longest wait before a failed refit is tried again.
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// What the service stands on.
#[derive(Clone)]
pub struct Deps {
    /// Where the traces are.
    pub shards: ShardLog,
    /// Where versions are published.
    pub registry: Registry,
    /// What makes the embeddings of traces that come without.
    pub embedders: Embedders,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's health; the service adds the condition `trainer`.
    pub health: Health,
    /// Told of every refit that ends.
    pub events: Option<broadcast::Sender<RefitEvent>>,
}

/// Looks at the shards again and again, and refits what is due, until `shutdown`.
///
/// A refit under way is given up at the shutdown; a publication is not.
pub async fn run(
    config: TrainerConfig,
    plans: TaskPlans,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    check(&plans)?;
    let condition = deps.health.condition("trainer");
    let mut trainer = Trainer {
        started: Utc::now(),
        config,
        plans,
        deps,
        shutdown: shutdown.clone(),
        tasks: BTreeMap::new(),
    };
    for task in trainer.plans.tasks.keys().chain([&TaskName::default()]) {
        trainer.register(task);
    }
    let _ = trainer.deps.metrics.histogram(&metric::REFIT_SECONDS, &[]);
    while !shutdown.is_cancelled() {
        match trainer.round().await {
            Ok(()) => condition.set_ready(),
            Err(error) => {
                tracing::warn!(%error, "cannot look at the shards, trying again");
                condition.set_unready(error.to_string());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(trainer.config.poll_interval()) => {}
            () = shutdown.cancelled() => {}
        }
    }
    condition.set_unready("shutting down");
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

struct Trainer {
    started: DateTime<Utc>,
    config: TrainerConfig,
    plans: TaskPlans,
    deps: Deps,
    shutdown: CancellationToken,
    tasks: BTreeMap<TaskName, State>,
}

/// What the trainer knows of a task.
#[derive(Clone)]
struct State {
    past: Past,
    /// How far the last refit has read.
    seen: Ends,
    /// Refits since the last full one; `None` when the next is to be full.
    since_full: Option<u32>,
    /// Failures since the last verdict.
    failures: u32,
    /// No refit before this time.
    not_before: DateTime<Utc>,
}

impl Trainer {
    /// One look at everything.
    async fn round(&mut self) -> Result<(), StoreError> {
        let shutdown = self.shutdown.clone();
        let partitions = tokio::select! {
            partitions = self.partitions() => partitions?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let mut rows = BTreeMap::<TaskName, u64>::new();
        for info in partitions.iter().flat_map(|(_, shards)| shards) {
            for (task, count) in &info.rows_by_task {
                *rows.entry(task.clone()).or_default() += count;
            }
        }
        let mut trouble = None;
        for (task, rows) in rows {
            if self.shutdown.is_cancelled() {
                break;
            }
            // Anybody may name a task in a trace. Metrics and memory are spent only
            // on one that has the traces of a refit.
            if rows < self.plans.of(&task).schedule.min_traces {
                continue;
            }
            // One task's trouble is not the others'.
            let mut state = match self.state(&task, &partitions).await {
                Ok(state) => state,
                Err(error) => {
                    trouble.get_or_insert(error);
                    continue;
                }
            };
            // What has expired since the last refit is not there to be counted.
            state.past.rows = rows_seen(&state.seen, &task, &partitions);
            let now = Utc::now();
            let due = self.plans.of(&task).schedule.due(&state.past, rows, now);
            if let Some(trigger) = due.filter(|_| now >= state.not_before) {
                self.refit(&task, rows, trigger, &partitions, now).await;
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let mut all = Vec::new();
        for partition in self.deps.shards.partitions().await? {
            let shards = self.deps.shards.shards(&partition).await?;
            all.push((partition, shards));
        }
        Ok(all)
    }

    /// The state of a task; of one not seen before, from its last version.
    ///
    /// The last version and not the active one: after a rollback the traces that
    /// made the version which was taken back are no reason to make it again.
    async fn state(
        &mut self,
        task: &TaskName,
        partitions: &[Partition],
    ) -> Result<State, StoreError> {
        if let Some(state) = self.tasks.get(task) {
            return Ok(state.clone());
        }
        self.register(task);
        let mut seen = Ends::new();
        let mut past = Past {
            last: None,
            since: self.started,
            rows: 0,
        };
        if let Some(version) = self.deps.registry.versions(task).await?.into_iter().max() {
            match self.deps.registry.manifest(task, version).await {
                Ok(manifest) => {
                    past.last = Some(manifest.created_at);
                    seen = ends_of(&manifest);
                    past.rows = rows_seen(&seen, task, partitions);
                    tracing::info!(%task, %version, traces = past.rows, "resumed from the last version");
                }
                // It will not get better: the next refit makes a version that can be read.
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%task, %version, %error, "the last version is not readable");
                }
                Err(error) => return Err(error),
            }
        }
        let state = State {
            past,
            seen,
            since_full: None,
            failures: 0,
            not_before: self.started,
        };
        self.tasks.insert(task.clone(), state.clone());
        Ok(state)
    }

    fn register(&self, task: &TaskName) {
        for verdict in RefitResult::VERDICTS {
            let labels = [("task", task.as_str()), ("verdict", verdict)];
            let _ = self.deps.metrics.counter(&metric::REFITS_TOTAL, &labels);
        }
    }

    async fn refit(
        &mut self,
        task: &TaskName,
        rows: u64,
        trigger: Trigger,
        partitions: &[Partition],
        now: DateTime<Utc>,
    ) {
        let started = std::time::Instant::now();
        let config = self.plans.of(task).fit.clone();
        let may_be_incremental = self.may_be_incremental(task);
        let fitted = async {
            let previous = if may_be_incremental {
                active_pipeline(&self.deps.registry, task).await?
            } else {
                None
            };
            let incremental = previous.is_some();
            tracing::info!(%task, traces = rows, trigger = trigger.as_str(), incremental, "refit begins");
            let fitted = fit(
                &self.deps.shards,
                task,
                partitions,
                self.deps.embedders.of(task.as_str()).cloned(),
                &config,
                previous,
                &self.config.input_key,
            )
            .await?;
            Ok::<_, RefitError>(fitted)
        };
        let fitted = tokio::select! {
            fitted = fitted => fitted,
            () = self.shutdown.cancelled() => {
                tracing::info!(%task, "refit given up for the shutdown");
                return;
            }
        };
        let (traces, incremental, result) = match fitted {
            Ok(fitted) => (
                fitted.rows.data.len() as u64,
                fitted.base.is_some(),
                self.conclude(task, Arc::new(fitted), partitions, &config)
                    .await,
            ),
            Err(error) => (rows, false, Err(error)),
        };
        let result = result.unwrap_or_else(|error| RefitResult::Failed {
            error: error.to_string(),
        });
        let seconds = started.elapsed().as_secs_f64();
        self.remember(task, partitions, incremental, &result, now);
        log(task, traces, &result, seconds);
        let labels = [("task", task.as_str()), ("verdict", result.verdict())];
        self.deps
            .metrics
            .counter(&metric::REFITS_TOTAL, &labels)
            .increment(1);
        self.deps
            .metrics
            .histogram(&metric::REFIT_SECONDS, &[])
            .record(seconds);
        if let Some(events) = &self.deps.events {
            // An error means that nobody listens.
            let _ = events.send(RefitEvent {
                task: task.clone(),
                traces,
                incremental,
                result,
                seconds,
            });
        }
    }

    /// Publishes what passed.
    async fn conclude(
        &self,
        task: &TaskName,
        fitted: Arc<Fitted>,
        partitions: &[Partition],
        config: &FitConfig,
    ) -> Result<RefitResult, RefitError> {
        let teacher = &self.plans.of(task).teacher;
        let report = explain(&self.deps.registry, task, &fitted, config, teacher).await;
        let outcome = match &fitted.result {
            Ok(outcome) => outcome,
            Err(error) => {
                keep_refusal(&self.deps.registry, task, report).await;
                return Ok(RefitResult::Refused {
                    reason: error.to_string(),
                    shadow: None,
                    surrogate: None,
                });
            }
        };
        let pipeline = match (&outcome.verdict, &outcome.pipeline) {
            (tracer_learn::Verdict::Passed, Some(pipeline)) => pipeline,
            (tracer_learn::Verdict::Refused { reason }, _) => {
                keep_refusal(&self.deps.registry, task, report).await;
                return Ok(refused(outcome, reason.clone()));
            }
            (tracer_learn::Verdict::Passed, None) => {
                return Ok(refused(
                    outcome,
                    "the learner passed no pipeline".to_owned(),
                ));
            }
        };
        let origin = Origin {
            task,
            fitted: &fitted,
            partitions,
            config,
            author: &self.config.author,
            teacher,
        };
        let version = publish(&self.deps.registry, origin, outcome, pipeline, report).await?;
        Ok(RefitResult::Published {
            version: version.get(),
            family: outcome.family,
            surrogate: outcome.surrogate.clone(),
            shadow: outcome.shadow,
        })
    }

    /// Whether the next refit of a task may begin at the active version.
    fn may_be_incremental(&self, task: &TaskName) -> bool {
        let every = self.plans.of(task).full_refit_every.max(1);
        let since_full = self.tasks.get(task).and_then(|state| state.since_full);
        since_full.is_some_and(|since| since + 1 < every)
    }

    fn remember(
        &mut self,
        task: &TaskName,
        partitions: &[Partition],
        incremental: bool,
        result: &RefitResult,
        now: DateTime<Utc>,
    ) {
        let Some(state) = self.tasks.get_mut(task) else {
            return;
        };
        if let RefitResult::Failed { .. } = result {
            // The same traces are tried again, after a wait that doubles.
            let first = TimeDelta::from_std(self.config.poll_interval()).unwrap_or(LONGEST_WAIT);
            let wait = first
                .checked_mul(1 << state.failures.min(16))
                .unwrap_or(LONGEST_WAIT);
            state.not_before = Utc::now() + wait.min(LONGEST_WAIT);
            state.failures += 1;
        } else {
            state.past.last = Some(now);
            state.seen = ends(partitions);
            state.failures = 0;
            state.since_full = match result {
                // What the earlier candidates can no longer do, others may.
                RefitResult::Refused { .. } => None,
                _ if incremental => state.since_full.map(|since| since + 1),
                _ => Some(0),
            };
        }
    }
}

fn refused(outcome: &tracer_learn::Outcome, reason: String) -> RefitResult {
    RefitResult::Refused {
        reason,
        shadow: Some(outcome.shadow),
        surrogate: Some(outcome.surrogate.clone()),
    }
}

fn log(task: &TaskName, traces: u64, result: &RefitResult, seconds: f64) {
    match result {
        RefitResult::Published {
            version,
            family,
            surrogate,
            shadow,
        } => tracing::info!(
            %task, version, traces, %family, surrogate, seconds,
            coverage = shadow.coverage, agreement = shadow.agreement, agreement_lower = shadow.agreement_lower,
            "refit passed and is published"
        ),
        RefitResult::Refused { reason, .. } => {
            tracing::info!(%task, traces, seconds, reason, "refit refused, the active version stays");
        }
        RefitResult::Failed { error } => {
            tracing::error!(%task, traces, seconds, error, "refit failed, trying again later");
        }
    }
}
