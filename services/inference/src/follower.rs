//! Keeps the catalog in step with the registry.
//!
//! One loop owns all changes of the catalog. It never waits for the store
//! itself: looks at the registry and loads run as jobs, at most one a task, so
//! a store that hangs on one task neither holds up the others nor a suspension
//! of theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracer_features::embed::Embedders;
use tracer_store::{Active, PipelineVersion, Registry, StoreError};
use tracer_telemetry::Condition;
use tracer_trace::TaskName;

use crate::{
    InferenceConfig, TaskPolicies,
    audit::Audit,
    catalog::{Catalog, Serving, Task},
    load::{self, LoadError},
    metrics::ServiceMetrics,
};

/// How long a version that is damaged is left alone, at most.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The same for a version that the store did not deliver: once the store is
/// back it must serve soon.
const LONGEST_STORE_RETRY: Duration = Duration::from_secs(1);

/// Predecessors that are tried when the active version fails and none serves.
const MOST_FALLBACKS: usize = 5;

pub(crate) struct Follower {
    pub(crate) config: InferenceConfig,
    pub(crate) registry: Registry,
    pub(crate) policies: TaskPolicies,
    pub(crate) embedders: Embedders,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) condition: Condition,
    /// True once everything that is published has been loaded, or tried.
    pub(crate) ready: watch::Sender<bool>,
}

/// What the loop knows of a task besides what serves.
#[derive(Debug, Default)]
struct Followed {
    /// A job of this task is under way.
    busy: bool,
    /// Its log was read, and what it names was loaded or refused.
    settled: bool,
    failure: Option<Failure>,
}

/// The latest failure to load the active version.
#[derive(Debug)]
struct Failure {
    version: PipelineVersion,
    attempts: u32,
    retry_at: Instant,
}

enum Done {
    Listed(Result<Vec<TaskName>, PollError>),
    Polled(TaskName, Result<Active, PollError>),
    Loaded(
        TaskName,
        Asked,
        Result<Arc<Serving>, LoadError>,
        Option<Arc<Serving>>,
    ),
}

/// The version that the log named when its loading began, and whether the task
/// was suspended then.
#[derive(Clone, Copy, Debug)]
struct Asked {
    version: PipelineVersion,
    suspended: bool,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no answer within {0} ms")]
    TimedOut(u128),
}

impl PollError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_refusal())
    }
}

struct State {
    tasks: BTreeMap<TaskName, Followed>,
    jobs: JoinSet<Done>,
    listing: bool,
    listed: bool,
    /// What could not be read when it was last asked for: logs of tasks, or, as
    /// `None`, the list of tasks.
    unanswered: BTreeSet<Option<TaskName>>,
}

/// What a note on the registry is about.
fn registry_of(task: Option<&TaskName>) -> String {
    match task {
        None => "the registry".to_owned(),
        Some(task) => format!("the registry of task {task}"),
    }
}

impl State {
    fn answered(&mut self, condition: &Condition, task: Option<&TaskName>) {
        condition.note(&registry_of(task), None);
        if self.unanswered.remove(&task.cloned()) {
            let task = task.map_or("(all)", TaskName::as_str);
            tracing::info!(task, "the registry can be read again");
        }
    }
}

impl Follower {
    /// Follows until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut state = State {
            tasks: BTreeMap::new(),
            jobs: JoinSet::new(),
            listing: false,
            listed: false,
            unanswered: BTreeSet::new(),
        };
        let configured = self.policies.tasks.keys().cloned();
        for task in configured.chain([TaskName::default()]) {
            self.know(&mut state, &task);
        }
        let mut tick = tokio::time::interval(self.config.poll_interval());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(done) = state.jobs.join_next() => match done {
                    Ok(done) => self.finish(&mut state, done),
                    // A job cannot be told from another once it panicked, so
                    // all of them start over.
                    Err(error) if error.is_panic() => {
                        tracing::error!(%error, "a look at the registry panicked");
                        state.jobs.abort_all();
                        state.listing = false;
                        state.tasks.values_mut().for_each(|followed| followed.busy = false);
                    }
                    // One of those that were aborted.
                    Err(_) => {}
                },
                _ = tick.tick() => self.look(&mut state),
            }
        }
    }

    /// Registers a task: its metrics are there before its first pipeline.
    fn know(&self, state: &mut State, name: &TaskName) {
        if state.tasks.contains_key(name) {
            return;
        }
        let policy = self.policies.of(name);
        let window = self.config.coverage_window;
        self.catalog.put(Task {
            name: name.clone(),
            serving: None,
            suspended: false,
            embedder: self.embedders.of(name.as_str()).cloned(),
            audit: Arc::new(Audit::new(
                policy.audit_rate,
                self.config.audit_seed,
                name.as_str(),
            )),
            metrics: self.metrics.task(name, policy, window),
        });
        state.tasks.insert(name.clone(), Followed::default());
    }

    /// Starts a job for everything that has none.
    fn look(&self, state: &mut State) {
        if !state.listing {
            state.listing = true;
            let registry = self.registry.clone();
            let timeout = self.config.store_timeout();
            state.jobs.spawn(async move {
                let listed = tokio::time::timeout(timeout, registry.tasks()).await;
                Done::Listed(answer(listed, timeout))
            });
        }
        let idle: Vec<TaskName> = state
            .tasks
            .iter()
            .filter(|(_, followed)| !followed.busy)
            .map(|(task, _)| task.clone())
            .collect();
        for task in idle {
            self.poll(state, task);
        }
    }

    fn poll(&self, state: &mut State, task: TaskName) {
        if let Some(followed) = state.tasks.get_mut(&task) {
            followed.busy = true;
        }
        let registry = self.registry.clone();
        let timeout = self.config.store_timeout();
        state.jobs.spawn(async move {
            let active = tokio::time::timeout(timeout, registry.active(&task)).await;
            Done::Polled(task, answer(active, timeout))
        });
    }

    fn load(&self, state: &mut State, task: TaskName, asked: Asked, fall_back: bool) {
        let registry = self.registry.clone();
        let timeout = self.config.store_timeout();
        state.jobs.spawn(async move {
            let load = async {
                let loaded = load::version(&registry, &task, asked.version).await;
                let fallback = match &loaded {
                    Err(_) if fall_back => predecessor(&registry, &task, asked.version).await,
                    _ => None,
                };
                (loaded, fallback)
            };
            let (loaded, fallback) = tokio::time::timeout(timeout, load)
                .await
                .unwrap_or((Err(LoadError::TimedOut(timeout.as_millis())), None));
            Done::Loaded(task, asked, loaded, fallback)
        });
    }

    fn finish(&self, state: &mut State, done: Done) {
        match done {
            Done::Listed(Ok(tasks)) => {
                state.listing = false;
                state.listed = true;
                state.answered(&self.condition, None);
                for task in tasks {
                    if !state.tasks.contains_key(&task) {
                        tracing::info!(%task, "found a task");
                        self.know(state, &task);
                        self.poll(state, task);
                    }
                }
            }
            Done::Listed(Err(error)) => {
                state.listing = false;
                self.unanswered(state, None, &error);
            }
            Done::Polled(task, Ok(active)) => {
                state.answered(&self.condition, Some(&task));
                self.apply(state, task, &active);
            }
            Done::Polled(task, Err(error)) => {
                if let Some(followed) = state.tasks.get_mut(&task) {
                    followed.busy = false;
                    // A damaged log stays damaged: it must not keep the other
                    // tasks of this replica from serving.
                    followed.settled |= error.is_refusal();
                }
                self.unanswered(state, Some(&task), &error);
            }
            Done::Loaded(task, asked, loaded, fallback) => {
                self.loaded(state, &task, asked, loaded, fallback);
            }
        }
        self.settle(state);
    }

    /// Brings a task to what its log says.
    fn apply(&self, state: &mut State, name: TaskName, active: &Active) {
        let snapshot = self.catalog.load();
        let (Some(task), Some(followed)) =
            (snapshot.get(name.as_str()), state.tasks.get_mut(&name))
        else {
            return;
        };
        let serving = task.serving.as_ref().map(|serving| serving.version);
        let Some(version) = active.version else {
            // A log only grows: one that is empty again is a store that lost
            // its contents, or another one mounted in its place.
            if serving.is_some() && followed.failure.is_none() {
                tracing::warn!(task = %name, "the registry has no version any more; the loaded one keeps serving");
            }
            followed.busy = false;
            followed.settled = true;
            return;
        };
        // A suspension holds at once. Its end holds for the version that the log
        // names: the one that was suspended must not serve again while its
        // successor is loaded, nor when that one cannot be.
        if active.suspended || serving == Some(version.0) {
            self.suspend(task, active.suspended);
        }
        if serving == Some(version.0) {
            followed.failure = None;
            self.condition.note(&version_of(&name), None);
        }
        let wait = followed
            .failure
            .as_ref()
            .is_some_and(|failure| failure.version == version && Instant::now() < failure.retry_at);
        if serving == Some(version.0) || wait {
            followed.busy = false;
            followed.settled = true;
            return;
        }
        let asked = Asked {
            version,
            suspended: active.suspended,
        };
        self.load(state, name, asked, serving.is_none());
    }

    fn suspend(&self, task: &Task, suspended: bool) {
        if task.suspended != suspended {
            tracing::info!(task = %task.name, suspended, "the task's state changed");
            self.put(Task {
                suspended,
                ..Task::clone(task)
            });
        }
    }

    /// Replaces a task, and says of it what the metrics say.
    fn put(&self, task: Task) {
        let suspended = if task.suspended { 1.0 } else { 0.0 };
        task.metrics.suspended.set(suspended);
        self.catalog.put(task);
    }

    fn loaded(
        &self,
        state: &mut State,
        name: &TaskName,
        asked: Asked,
        loaded: Result<Arc<Serving>, LoadError>,
        fallback: Option<Arc<Serving>>,
    ) {
        let Asked { version, suspended } = asked;
        let Some(followed) = state.tasks.get_mut(name) else {
            return;
        };
        followed.busy = false;
        followed.settled = true;
        match loaded {
            Ok(serving) => {
                followed.failure = None;
                self.condition.note(&version_of(name), None);
                self.swap(name, serving, suspended);
            }
            Err(error) => {
                let attempts = match &followed.failure {
                    Some(failure) if failure.version == version => failure.attempts + 1,
                    _ => 1,
                };
                let longest = if error.is_refusal() {
                    LONGEST_RETRY
                } else {
                    LONGEST_STORE_RETRY
                };
                let wait = self.config.poll_interval() * 2_u32.saturating_pow(attempts.min(16));
                followed.failure = Some(Failure {
                    version,
                    attempts,
                    retry_at: Instant::now() + wait.min(longest),
                });
                self.refused(name, version, attempts, &error);
                if let Some(serving) = fallback {
                    self.swap(name, serving, suspended);
                }
                self.note_failure(name, version, &error);
            }
        }
    }

    /// The moment of a publication: requests from here on see the new version.
    fn swap(&self, name: &TaskName, serving: Arc<Serving>, suspended: bool) {
        let snapshot = self.catalog.load();
        let Some(task) = snapshot.get(name.as_str()) else {
            return;
        };
        let (version, was) = (
            serving.version,
            task.serving.as_ref().map(|old| old.version),
        );
        let (description, metrics) = (&serving.description, &task.metrics);
        metrics.version.set(version as f64);
        metrics.priced_by(serving.usage.as_ref());
        metrics.target_agreement.set(description.target_agreement);
        metrics.shadow_agreement.set(description.shadow_agreement);
        metrics
            .shadow_agreement_lower
            .set(description.shadow_agreement_lower);
        if task.embeds_otherwise(&serving) {
            let fitted_on = serving
                .embedder
                .as_deref()
                .unwrap_or("one that is not known");
            tracing::warn!(task = %name, version, fitted_on, "the task's embedder is another than the pipeline's: texts without embeddings are deferred until a refit");
        }
        self.put(Task {
            serving: Some(serving),
            suspended,
            ..Task::clone(task)
        });
        tracing::info!(task = %name, version, was = was.unwrap_or(0), "a version serves");
    }

    fn refused(&self, name: &TaskName, version: PipelineVersion, attempts: u32, error: &LoadError) {
        let snapshot = self.catalog.load();
        let Some(task) = snapshot.get(name.as_str()) else {
            return;
        };
        task.metrics.load_failures.increment(1);
        let serving = task.serving.as_ref().map_or(0, |serving| serving.version);
        let version = version.0;
        if attempts == 1 {
            tracing::error!(task = %name, version, serving, %error, "a version cannot be loaded; the one before it keeps serving");
        } else {
            tracing::debug!(task = %name, version, serving, attempts, %error, "a version still cannot be loaded");
        }
    }

    /// Says on `/readyz` what the metric counts.
    fn note_failure(&self, name: &TaskName, version: PipelineVersion, error: &LoadError) {
        let snapshot = self.catalog.load();
        let serving = snapshot
            .get(name.as_str())
            .and_then(|task| task.serving.as_ref());
        let instead = match serving {
            Some(serving) => format!("version {} keeps serving", serving.version),
            None => "no version serves".to_owned(),
        };
        let detail = format!(
            "version {} cannot be loaded ({error}); {instead}",
            version.0
        );
        self.condition.note(&version_of(name), Some(detail));
    }

    fn unanswered(&self, state: &mut State, task: Option<&TaskName>, error: &PollError) {
        self.metrics.poll_failures.increment(1);
        if !*self.ready.borrow() {
            self.condition
                .set_unready(format!("the registry cannot be read: {error}"));
        }
        let subject = registry_of(task);
        let detail = format!("cannot be read ({error}); what is loaded keeps serving");
        self.condition.note(&subject, Some(detail));
        if state.unanswered.insert(task.cloned()) {
            let task = task.map_or("(all)", TaskName::as_str);
            tracing::warn!(task, %error, "the registry cannot be read; what is loaded keeps serving");
        }
    }

    /// Ready once, ready until shutdown: a replica that serves an older version
    /// is worth more than none, and all replicas would leave together.
    fn settle(&self, state: &State) {
        let settled = state.listed && state.tasks.values().all(|followed| followed.settled);
        if settled && !*self.ready.borrow() {
            self.condition.set_ready();
            self.ready.send_replace(true);
        }
    }
}

/// What a note on a version is about.
fn version_of(task: &TaskName) -> String {
    format!("task {task}")
}

fn answer<T>(
    answered: Result<Result<T, StoreError>, tokio::time::error::Elapsed>,
    timeout: Duration,
) -> Result<T, PollError> {
    match answered {
        Ok(answer) => answer.map_err(PollError::Store),
        Err(_) => Err(PollError::TimedOut(timeout.as_millis())),
    }
}

/// After a restart nothing serves yet: the latest version before the one that
/// fails is what other replicas keep serving.
async fn predecessor(
    registry: &Registry,
    task: &TaskName,
    failed: PipelineVersion,
) -> Option<Arc<Serving>> {
    let log = registry.log(task).await.ok()?;
    for version in load::predecessors(&log, failed)
        .into_iter()
        .take(MOST_FALLBACKS)
    {
        if let Ok(serving) = load::version(registry, task, version).await {
            return Some(serving);
        }
    }
    None
}
