//! The live agreement: what audits say of the version that serves, and the end of a
//! version whose promise they refute.
//!
//! An audited answer was served *and* given to the teacher, and the trace echoes it. For
//! each task the audits of what serves it, since it serves, go one by one through an
//! [`AgreementMonitor`]. What that has seen is in the metrics; once it has refuted that
//! the agreement is at least the target, at the version's own δ, the task is suspended by
//! an entry in its log, and every replica of the router defers.
//!
//! Every trainer watches every task: no lease is needed, because the entry is appended
//! only while what was watched still serves, and reading audits is cheap: their columns
//! are narrow, and each shard is read once. Nothing is kept but in memory. After a restart
//! the audits are read again, from the position up to which the version was fitted, or
//! from where it was resumed (`tracer_store`, `live.rs`). A refit under way does not hold
//! the watch up.

use std::collections::{BTreeMap, HashSet};

use tokio_util::sync::CancellationToken;
use tracer_features::{normalise, stable_hash};
use tracer_learn::AgreementMonitor;
use tracer_store::{LogEvent, Registry, ShardInfo, ShardLog, StoreError, Visitor};
use tracer_telemetry::{Metrics, metric};
use tracer_trace::{
    Decision, Offset, PartitionId, StoredTrace, TaskName, Trace, parquet_schema::Columns,
};

use crate::{
    TaskPlans, TrainerConfig,
    publish::{Ends, ends_of, ends_of_spans, spans},
    refit::Partition,
};

/// Shards whose audits are in memory at a time.
const SHARDS_AT_A_TIME: usize = 64;

/// Audits that are remembered to tell copies of a trace. Beyond them a copy counts again.
const REMEMBERED: usize = 1 << 20;

/// Watches all tasks.
pub(crate) struct Watch {
    config: TrainerConfig,
    plans: TaskPlans,
    shards: ShardLog,
    registry: Registry,
    metrics: Metrics,
    tasks: BTreeMap<TaskName, Watched>,
}

/// What serves a task, and its audits so far.
struct Watched {
    /// The entry of the log since which it serves.
    since: u64,
    version: u64,
    target: f64,
    delta: f64,
    monitor: AgreementMonitor,
    /// How far the audits are read.
    read: Ends,
    /// Hashes of the ids that have counted.
    seen: HashSet<u64>,
    /// Whether it was said that the promise is broken.
    told: bool,
}

impl Watch {
    pub(crate) fn new(
        config: &TrainerConfig,
        plans: &TaskPlans,
        (shards, registry): (&ShardLog, &Registry),
        metrics: &Metrics,
    ) -> Self {
        let watch = Self {
            config: config.clone(),
            plans: plans.clone(),
            shards: shards.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
            tasks: BTreeMap::new(),
        };
        for task in watch.plans.tasks.keys().chain([&TaskName::default()]) {
            watch.show(task, None);
        }
        watch
    }

    /// Looks again and again, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let failures = self.metrics.counter(&metric::LIVE_FAILURES_TOTAL, &[]);
        loop {
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "cannot look at the audits, trying again");
                failures.increment(1);
            }
            tokio::select! {
                () = tokio::time::sleep(self.config.poll_interval()) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One look at all tasks. The first trouble is told at the end: one task's is not the
    /// others'.
    async fn look(&mut self) -> Result<(), StoreError> {
        let tasks = self.registry.tasks().await?;
        if tasks.is_empty() {
            return Ok(());
        }
        let (partitions, unreadable) = self.partitions().await?;
        let (all_are_there, mut trouble) = (unreadable.is_none(), unreadable);
        for task in tasks {
            let looked = self.task(&task, &partitions, all_are_there);
            if let Err(error) = looked.await {
                tracing::debug!(%task, %error, "cannot look at its audits");
                trouble.get_or_insert(error);
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// The partitions that can be read, and why one cannot.
    async fn partitions(&self) -> Result<(Vec<Partition>, Option<StoreError>), StoreError> {
        let (mut all, mut trouble) = (Vec::new(), None);
        for partition in self.shards.partitions().await? {
            match self.shards.shards(&partition).await {
                Ok(shards) => all.push((partition, shards)),
                Err(error) => {
                    tracing::debug!(%partition, %error, "its audits cannot be read");
                    trouble.get_or_insert(error);
                }
            }
        }
        Ok((all, trouble))
    }

    async fn task(
        &mut self,
        task: &TaskName,
        partitions: &[Partition],
        all_are_there: bool,
    ) -> Result<(), StoreError> {
        let Some((active, since)) = self.registry.serving(task).await? else {
            // What led to a suspension stays to be seen.
            if !self.tasks.contains_key(task) {
                self.show(task, None);
            }
            return Ok(());
        };
        let version = active.version.unwrap_or_default();
        if self.tasks.get(task).map(|watched| watched.since) != Some(since.seq) {
            let manifest = match self.registry.manifest(task, version).await {
                // It serves nowhere either.
                Err(error) if error.is_refusal() => return Ok(()),
                read => read?,
            };
            let read = if matches!(since.event, LogEvent::Published { .. }) {
                ends_of(&manifest)
            } else if !all_are_there {
                // Where a partition cannot be read, nobody knows where its audits of before end.
                return Ok(());
            } else {
                let now = spans(partitions);
                ends_of_spans(&self.registry.audits_since(task, since.seq, now).await?)
            };
            let (target, delta) = (manifest.target_agreement, manifest.delta);
            let open = |share: f64| share > 0.0 && share < 1.0;
            if !open(target) || !open(delta) {
                tracing::warn!(%task, %version, target, delta, "its manifest promises nothing that audits could refute");
                return Ok(());
            }
            let watched = Watched {
                since: since.seq,
                version: version.get(),
                target,
                delta,
                monitor: AgreementMonitor::new(target, delta),
                read,
                seen: HashSet::new(),
                told: false,
            };
            self.tasks.insert(task.clone(), watched);
        }
        let Some(watched) = self.tasks.get_mut(task) else {
            return Ok(());
        };
        let read = watched.read_on(&self.shards, task, partitions).await;
        self.show(task, self.tasks.get(task));
        // What was read is enough to judge by.
        self.judge(task).await?;
        read
    }

    /// Suspends a task whose promise is broken.
    async fn judge(&mut self, task: &TaskName) -> Result<(), StoreError> {
        let Some(watched) = self.tasks.get_mut(task) else {
            return Ok(());
        };
        if !watched.monitor.refuted() {
            return Ok(());
        }
        let reason = watched.reason();
        if !self.plans.of(task).auto_suspend {
            if !std::mem::replace(&mut watched.told, true) {
                tracing::warn!(%task, reason, "the promise is broken, but auto_suspend is off: it serves on");
            }
            return Ok(());
        }
        let author = &self.config.author;
        let suspended = self
            .registry
            .suspend_since(task, watched.since, &reason, author);
        if suspended.await? {
            tracing::warn!(%task, version = watched.version, reason, "suspended: everything is deferred to the teacher");
            self.metrics
                .counter(&metric::SUSPENSIONS_TOTAL, &[("task", task.as_str())])
                .increment(1);
        }
        Ok(())
    }

    /// The task's metrics: zeros where nothing was watched yet.
    fn show(&self, task: &TaskName, watched: Option<&Watched>) {
        let labels = [("task", task.as_str())];
        let live = [("task", task.as_str()), ("kind", metric::agreement::LIVE)];
        let _ = self.metrics.counter(&metric::SUSPENSIONS_TOTAL, &labels);
        let monitor = watched.map(|watched| &watched.monitor);
        let of = |value: fn(&AgreementMonitor) -> f64| monitor.map_or(0.0, value);
        for (def, labels, value) in [
            (
                &metric::TEACHER_AGREEMENT_RATIO,
                &live[..],
                of(|monitor| monitor.agreement().unwrap_or(0.0)),
            ),
            (
                &metric::TEACHER_AGREEMENT_LOWER,
                &live[..],
                of(AgreementMonitor::agreement_lower),
            ),
            (
                &metric::LIVE_AUDITS,
                &labels[..],
                of(|monitor| monitor.audits() as f64),
            ),
            (
                &metric::LIVE_EVIDENCE_RATIO,
                &labels[..],
                of(AgreementMonitor::evidence),
            ),
        ] {
            self.metrics.gauge(def, labels).set(value);
        }
    }
}

impl Watched {
    /// Takes in the audits that have come since.
    async fn read_on(
        &mut self,
        shards: &ShardLog,
        task: &TaskName,
        partitions: &[Partition],
    ) -> Result<(), StoreError> {
        let mut trouble = None;
        for (partition, infos) in partitions {
            let read = self.read_partition(shards, task, partition, infos).await;
            if let Err(error) = read {
                trouble.get_or_insert(error);
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn read_partition(
        &mut self,
        shards: &ShardLog,
        task: &TaskName,
        partition: &PartitionId,
        infos: &[ShardInfo],
    ) -> Result<(), StoreError> {
        let from = self.read.get(partition).copied().unwrap_or_default();
        let new: Vec<ShardInfo> = infos
            .iter()
            .filter(|info| info.range.end > from)
            .cloned()
            .collect();
        for infos in new.chunks(SHARDS_AT_A_TIME) {
            let Some(last) = infos.last() else { continue };
            let audits = Audits {
                version: self.version,
                from: self.read.get(partition).copied().unwrap_or_default(),
                found: Vec::new(),
            };
            let has = |info: &&ShardInfo| info.rows_by_task.contains_key(task);
            let audits = if infos.iter().any(|info| has(&info)) {
                let visited = shards.visit(infos, Some(task), Columns::Auditing, audits);
                visited.await?
            } else {
                audits
            };
            for (id, agrees) in audits.found {
                if self.seen.len() >= REMEMBERED {
                    self.seen.clear();
                }
                if self.seen.insert(id) {
                    self.monitor.observe(agrees);
                }
            }
            self.read.insert(partition.clone(), last.range.end);
        }
        Ok(())
    }

    fn reason(&self) -> String {
        format!(
            "live agreement: the teacher agrees with {} of {} audited answers of version {}, which refutes the promised {} at level {}",
            self.monitor.agreements(),
            self.monitor.audits(),
            self.version,
            self.target,
            self.delta
        )
    }
}

/// Picks the audits of one version from a position on.
struct Audits {
    version: u64,
    from: Offset,
    /// The hash of the trace's id, and whether the teacher agrees.
    found: Vec<(u64, bool)>,
}

impl Visitor for Audits {
    fn see(&mut self, rows: Vec<StoredTrace>) {
        for StoredTrace { offset, trace } in rows {
            if offset >= self.from.get()
                && let Some(agrees) = audit(&trace, self.version)
            {
                self.found
                    .push((stable_hash(&[trace.id.as_bytes()]), agrees));
            }
        }
    }
}

/// Whether the teacher agrees, if this is an audited answer of the version.
fn audit(trace: &Trace, version: u64) -> Option<bool> {
    let routing = trace.routing.as_ref()?;
    let audited = routing.audit
        && routing.pipeline_version == version
        && routing.decision == Decision::Handled
        && routing.propensity > 0.0;
    let label = routing.label.as_deref().filter(|_| audited)?;
    Some(normalise(label) == normalise(&trace.teacher))
}
