//! One task's turn: its lease, a refit, and what comes of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use tracer_store::{Claimable, Standing, StoreError};
use tracer_telemetry::{Condition, metric};
use tracer_trace::TaskName;

use crate::{
    RefitEvent, RefitResult, TaskPlan, Trigger,
    earlier::active_pipeline,
    error::RefitError,
    explain::{explain, keep_refusal},
    keeper::{Keeper, Shared},
    progress::{Reporter, Stage},
    publish::{Origin, publish, spans},
    read::{Extent, Reading},
    record::{Answer, LastRefit, Record, Running},
    refit::{Fitted, Partition, fit},
    service::{Trainer, wait},
};

/// A refit that has ended.
struct Ended {
    traces: u64,
    incremental: bool,
    result: RefitResult,
}

/// What follows a refit that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// What made it due does so still.
    Later,
    /// It was asked for, and as far as is known nothing else makes it due.
    NotByItself,
    /// Whoever has taken the task over refits it.
    Another,
}

impl Next {
    /// For the log.
    fn as_str(self) -> &'static str {
        match self {
            Self::Later => "trying again later",
            Self::NotByItself => {
                "not trying again: it was asked for, and nothing else makes it due so far"
            }
            Self::Another => "not trying again: another trainer has the task",
        }
    }
}

impl Trainer {
    /// Claims a task, refits it and gives it back. False when there was nothing to do, or
    /// somebody else was faster.
    ///
    /// `ready` is set as soon as the refit begins, which may take hours. Not before: a store
    /// that can only be read refuses the claim, and takes minutes to do so.
    pub(crate) async fn turn(
        &mut self,
        (task, rows, trigger): (&TaskName, u64, Trigger),
        standing: &Standing,
        partitions: &[Partition],
        ready: Option<Condition>,
    ) -> Result<bool, StoreError> {
        let began = Utc::now();
        let mut record = Record::of(standing.last.as_deref());
        if standing.claim == Claimable::Expired {
            self.count_takeover(&mut record);
        }
        record.running = Some(Running {
            trigger: trigger.as_str().to_owned(),
            began,
            ..Running::default()
        });
        let expires = self.config.lease();
        let leases = self.deps.leases.clone();
        let claimed = leases.claim(task, standing, &self.holder, expires, record.to_json());
        let Some(lease) = claimed.await? else {
            return Ok(false);
        };
        let (epoch, took_over) = (lease.epoch(), lease.took_over());
        let shared: Shared = Arc::new(Mutex::new(record));
        let keeper = Keeper::new(task, lease, Arc::clone(&shared), expires);
        if took_over {
            let from = standing.last.as_ref().map(|last| last.holder.as_str());
            tracing::warn!(%task, from, "its trainer has not been heard of for too long: taking over");
            let labels = [("task", task.as_str())];
            let metrics = &self.deps.metrics;
            metrics
                .counter(&metric::REFIT_TAKEOVERS_TOTAL, &labels)
                .increment(1);
        }
        // Without that the lease stays held: whoever takes it over has to settle first.
        self.settle(task, epoch, took_over).await?;

        // As it is now: a version may have been found ready, and others had their turn.
        let now = async {
            let record = locked(&shared).clone();
            let known = self.read(task, 0, record).await?;
            let log = self.deps.registry.log(task).await?;
            let seq = log.last().map_or(0, |entry| entry.seq);
            Ok::<_, StoreError>((known, leases.requests(task).await?, seq))
        };
        let (mut known, mut requests, log_seq) = match now.await {
            Ok(now) => now,
            Err(error) => {
                locked(&shared).running = None;
                keeper.release().await?;
                return Err(error);
            }
        };
        requests.retain(|request| known.record.answer_to(request).is_none());
        let trigger = match trigger {
            Trigger::Request if requests.is_empty() => Trigger::Traces,
            trigger => trigger,
        };
        let waits = known.record.not_before.is_some_and(|time| began < time) && requests.is_empty();
        if waits || !self.still_due(task, &mut known, (trigger, rows), partitions) {
            locked(&shared).running = None;
            keeper.release().await?;
            return Ok(false);
        }
        self.show_due(task, false);
        if let Some(condition) = ready {
            condition.set_ready();
        }
        let incremental = self.may_be_incremental(task, &known.record);
        let started = Instant::now();
        let mut span = self.deps.spans.root("refit");
        if let Some(span) = &mut span {
            span.set("tracer.task", task.as_str());
            span.set("tracer.trigger", trigger.as_str());
        }
        let reporter = Reporter::new(task, &self.deps.metrics, Arc::clone(&shared));
        let reporter = reporter.within(span);
        let ended = self
            .refit(
                (task, rows, trigger),
                partitions,
                incremental,
                (&keeper, &reporter),
                (epoch, log_seq),
            )
            .await;
        reporter.end(ended.as_ref().map(|ended| &ended.result));
        let Some(ended) = ended else {
            tracing::info!(%task, "refit given up for the shutdown");
            keeper.release().await?;
            return Ok(false);
        };
        let seconds = started.elapsed().as_secs_f64();
        self.note(&shared, (trigger, began), &ended, partitions, &requests);
        // A request is answered, whatever came of it: only the schedule asks again, or drift
        // that was found. What was not looked at yet makes it due once it is.
        let schedule = &self.plans.of(task).schedule;
        let due = || known.due(schedule, task, rows, Utc::now()).is_some();
        let mut next = match trigger {
            Trigger::Request if !due() => Next::NotByItself,
            _ => Next::Later,
        };
        match keeper.release().await {
            Ok(true) => self.close(task, &requests).await,
            Ok(false) => {
                next = Next::Another;
                tracing::warn!(%task, epoch, "somebody has taken the task over meanwhile");
                self.deps
                    .metrics
                    .counter(&metric::REFITS_SUPERSEDED_TOTAL, &[("task", task.as_str())])
                    .increment(1);
            }
            // Whoever takes it over finds the version, or refits again.
            Err(error) => {
                next = Next::Later;
                tracing::warn!(%task, %error, "cannot give the task back: it will expire");
            }
        }
        self.tell(task, ended, seconds, next);
        Ok(true)
    }

    /// Deletes requests that were answered.
    async fn close(&self, task: &TaskName, requests: &[String]) {
        for request in requests {
            if let Err(error) = self.deps.leases.answered(task, request).await {
                tracing::warn!(%task, request, %error, "an answered request stays in the store");
            }
        }
    }

    /// A refit that takes its process down is not to do so again at once, and again.
    fn count_takeover(&self, record: &mut Record) {
        record.takeovers += 1;
        let wait = wait(
            self.config.poll_interval(),
            record.failures,
            record.takeovers,
        );
        record.not_before = wait.and_then(after);
    }

    /// Makes active what was ready, and shuts out who may not know that it was replaced.
    async fn settle(&self, task: &TaskName, epoch: u64, took_over: bool) -> Result<(), StoreError> {
        let (registry, author) = (&self.deps.registry, &self.config.author);
        for version in registry.adopt(task, author).await? {
            tracing::info!(%task, %version, "found ready, and is published");
        }
        if took_over {
            registry.fence(task, epoch, author).await?;
        }
        Ok(())
    }

    /// `None` when it is given up for the shutdown.
    async fn refit(
        &self,
        (task, rows, trigger): (&TaskName, u64, Trigger),
        partitions: &[Partition],
        may_be_incremental: bool,
        (keeper, reporter): (&Keeper, &Reporter),
        (epoch, log_seq): (u64, u64),
    ) -> Option<Ended> {
        let plan = self.plans.of(task).clone();
        let fitted = async {
            let previous = if may_be_incremental {
                active_pipeline(&self.deps.registry, task).await?
            } else {
                None
            };
            let incremental = previous.is_some();
            tracing::info!(%task, traces = rows, trigger = trigger.as_str(), incremental, epoch, "refit begins");
            let reading = Reading {
                shards: &self.deps.shards,
                embeddings: self.deps.embeddings.as_ref(),
                task,
                partitions,
                extent: Extent::All,
                config: &plan.fit,
                window: plan.dedup_window.num_milliseconds(),
                key: &self.config.input_key,
                reporter,
            };
            let embedder = self.deps.embedders.of(task.as_str()).cloned();
            fit(reading, embedder, previous).await
        };
        let fitted = tokio::select! {
            fitted = fitted => fitted,
            () = self.shutdown.cancelled() => return None,
        };
        let (traces, incremental, result) = match fitted {
            Ok(fitted) => {
                reporter.stage(Stage::Publishing);
                let (traces, incremental) = (fitted.rows.data.len() as u64, fitted.base.is_some());
                let fitted = Arc::new(fitted);
                let concluded =
                    self.conclude(task, fitted, partitions, &plan, keeper, (epoch, log_seq));
                (traces, incremental, concluded.await)
            }
            Err(error) => (rows, false, Err(error)),
        };
        let result = result.unwrap_or_else(|error| RefitResult::Failed {
            error: error.to_string(),
        });
        Some(Ended {
            traces,
            incremental,
            result,
        })
    }

    /// Publishes what passed.
    async fn conclude(
        &self,
        task: &TaskName,
        fitted: Arc<Fitted>,
        partitions: &[Partition],
        TaskPlan {
            fit: config,
            teacher,
            ..
        }: &TaskPlan,
        keeper: &Keeper,
        (epoch, log_seq): (u64, u64),
    ) -> Result<RefitResult, RefitError> {
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
        // Saves the work where it is lost anyway. What decides is the fence.
        if !keeper.still_holds().await? {
            return Err(RefitError::Superseded);
        }
        let origin = Origin {
            task,
            fitted: &fitted,
            partitions,
            config,
            author: &self.config.author,
            teacher,
            epoch,
            log_seq,
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
    fn may_be_incremental(&self, task: &TaskName, record: &Record) -> bool {
        let every = self.plans.of(task).full_refit_every.max(1);
        // Another release may have other candidates.
        let last = record.last.as_ref();
        last.filter(|last| last.code_version == env!("CARGO_PKG_VERSION"))
            .and_then(|last| last.since_full)
            .is_some_and(|since| since + 1 < every)
    }

    /// Writes down what came of a refit, for whoever has the task next.
    fn note(
        &self,
        shared: &Shared,
        (trigger, began): (Trigger, DateTime<Utc>),
        ended: &Ended,
        partitions: &[Partition],
        requests: &[String],
    ) {
        let mut record = locked(shared);
        record.running = None;
        let result = &ended.result;
        if let RefitResult::Failed { .. } = result {
            // The same traces are tried again, after a wait that doubles.
            record.failures += 1;
            let wait = wait(self.config.poll_interval(), record.failures, 0);
            record.not_before = wait.and_then(after);
        } else {
            let before = record.last.as_ref().and_then(|last| last.since_full);
            record.last = Some(LastRefit {
                began,
                ended: Utc::now(),
                trigger: trigger.as_str().to_owned(),
                verdict: result.verdict().to_owned(),
                version: result.version(),
                reason: result.reason().map(str::to_owned),
                traces: ended.traces,
                since_full: match result {
                    // What the earlier candidates can no longer do, others may.
                    RefitResult::Refused { .. } => None,
                    _ if ended.incremental => before.map(|since| since + 1),
                    _ => Some(0),
                },
                code_version: env!("CARGO_PKG_VERSION").to_owned(),
                seen: spans(partitions),
            });
            (record.failures, record.takeovers, record.not_before) = (0, 0, None);
        }
        for request in requests {
            record.answer(Answer {
                request: request.clone(),
                verdict: result.verdict().to_owned(),
                version: result.version(),
                reason: result.reason().map(str::to_owned),
            });
        }
    }

    fn tell(&self, task: &TaskName, ended: Ended, seconds: f64, next: Next) {
        let Ended {
            traces,
            incremental,
            result,
        } = ended;
        log(task, traces, &result, seconds, next);
        let labels = [("task", task.as_str()), ("verdict", result.verdict())];
        let metrics = &self.deps.metrics;
        metrics.counter(&metric::REFITS_TOTAL, &labels).increment(1);
        metrics
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
}

fn locked(shared: &Shared) -> MutexGuard<'_, Record> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn after(wait: std::time::Duration) -> Option<DateTime<Utc>> {
    Utc::now().checked_add_signed(TimeDelta::from_std(wait).ok()?)
}

fn refused(outcome: &tracer_learn::Outcome, reason: String) -> RefitResult {
    RefitResult::Refused {
        reason,
        shadow: Some(outcome.shadow),
        surrogate: Some(outcome.surrogate.clone()),
    }
}

fn log(task: &TaskName, traces: u64, result: &RefitResult, seconds: f64, next: Next) {
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
            let next = next.as_str();
            tracing::error!(%task, traces, seconds, error, "refit failed, {next}");
        }
    }
}
