//! How far a refit is, in the log, in metrics and in its lease.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracer_learn::Progress;
use tracer_telemetry::{Metrics, OpenSpan, metric};
use tracer_trace::TaskName;

use crate::{RefitResult, embed::Made, keeper::Shared};

/// How often a long refit says where it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Where embeddings come from, as a metric's label has it.
const FROM_CACHE: &str = "cache";
const FROM_EMBEDDER: &str = "embedder";

/// What a refit is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Reading,
    Fitting,
    Publishing,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Reading, Self::Fitting, Self::Publishing];

    /// What its span is called.
    fn span(self) -> &'static str {
        match self {
            Self::Reading => "refit reading",
            Self::Fitting => "refit fitting",
            Self::Publishing => "refit publishing",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Fitting => "fitting",
            Self::Publishing => "publishing",
        }
    }
}

/// Tells how far one refit is. Clones tell of the same one.
#[derive(Clone)]
pub(crate) struct Reporter {
    task: TaskName,
    metrics: Metrics,
    record: Shared,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Of the refit, and of its stage, where spans are exported.
    spans: Option<(OpenSpan, OpenSpan)>,
    stage: Stage,
    since: Instant,
    said: Instant,
}

impl Reporter {
    pub(crate) fn new(task: &TaskName, metrics: &Metrics, record: Shared) -> Self {
        let now = Instant::now();
        let state = State {
            spans: None,
            stage: Stage::Reading,
            since: now,
            said: now,
        };
        let reporter = Self {
            task: task.clone(),
            metrics: metrics.clone(),
            record,
            state: Arc::new(Mutex::new(state)),
        };
        reporter.stage(Stage::Reading);
        reporter
    }

    /// Its stages are parts of a span.
    pub(crate) fn within(self, span: Option<OpenSpan>) -> Self {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.spans = span.map(|span| {
                let stage = span.child(state.stage.span());
                (span, stage)
            });
        }
        self
    }

    /// A stage begins.
    pub(crate) fn stage(&self, stage: Stage) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.stage, state.since) = (stage, Instant::now());
            if let Some((refit, under_way)) = &mut state.spans {
                // The one before ends here.
                *under_way = refit.child(stage.span());
            }
        }
        for one in Stage::ALL {
            self.gauge(one, f64::from(u8::from(one == stage)));
        }
        self.tell(stage, "", 0, 0, None);
        tracing::debug!(task = %self.task, stage = stage.as_str(), "refit");
    }

    /// A step of the stage is done.
    pub(crate) fn step(&self, step: &str, done: u64, total: u64) {
        let (stage, elapsed, speak) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let speak = state.said.elapsed() >= PROGRESS_EVERY;
            if speak {
                state.said = Instant::now();
            }
            (state.stage, state.since.elapsed().as_secs_f64(), speak)
        };
        let eta = eta(elapsed, done, total);
        self.tell(stage, step, done, total, eta);
        let (task, stage) = (&self.task, stage.as_str());
        if speak {
            tracing::info!(%task, stage, step, done, total, eta_seconds = eta, "refit");
        } else {
            tracing::debug!(%task, stage, step, done, total, eta_seconds = eta, "refit");
        }
    }

    /// For the learner.
    pub(crate) fn fitting(&self, progress: &Progress) {
        self.step(&progress.stage, progress.done as u64, progress.total as u64);
    }

    /// Texts got their embeddings.
    pub(crate) fn embedded(&self, made: Made) {
        for (from, texts) in [(FROM_CACHE, made.found), (FROM_EMBEDDER, made.made)] {
            let labels = [("task", self.task.as_str()), ("from", from)];
            let counter = self
                .metrics
                .counter(&metric::REFIT_EMBEDDINGS_TOTAL, &labels);
            counter.increment(texts as u64);
        }
    }

    fn tell(&self, stage: Stage, step: &str, done: u64, total: u64, eta: Option<f64>) {
        {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            let running = record.running.get_or_insert_default();
            stage.as_str().clone_into(&mut running.stage);
            step.clone_into(&mut running.step);
            (running.done, running.total, running.eta_seconds) = (done, total, eta);
        }
        let labels = [("task", self.task.as_str())];
        let share = if total == 0 {
            0.0
        } else {
            done as f64 / total as f64
        };
        self.metrics
            .gauge(&metric::REFIT_PROGRESS_RATIO, &labels)
            .set(share);
        self.metrics
            .gauge(&metric::REFIT_ETA_SECONDS, &labels)
            .set(eta.unwrap_or(0.0));
    }

    fn gauge(&self, stage: Stage, value: f64) {
        let labels = [("task", self.task.as_str()), ("stage", stage.as_str())];
        self.metrics.gauge(&metric::REFIT_STAGE, &labels).set(value);
    }

    /// The refit has ended, one way or another; `None` where it was given up.
    pub(crate) fn end(&self, result: Option<&RefitResult>) {
        let spans = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.spans.take()
        };
        if let Some((mut refit, stage)) = spans {
            stage.end();
            let verdict = result.map_or("given_up", RefitResult::verdict);
            refit.set("tracer.verdict", verdict);
            if let Some(version) = result.and_then(RefitResult::version) {
                refit.set("tracer.version", version);
            }
            if let Some(RefitResult::Failed { error }) = result {
                refit.fail(error.as_str());
            }
        }
        register(&self.task, &self.metrics);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.running = None;
    }
}

/// Nothing is under way.
pub(crate) fn register(task: &TaskName, metrics: &Metrics) {
    let labels = [("task", task.as_str())];
    for moment in [
        &metric::REFIT_LAST_TIMESTAMP_SECONDS,
        &metric::REFIT_DUE_SINCE_TIMESTAMP_SECONDS,
    ] {
        let _ = metrics.gauge(moment, &labels);
    }
    for idle in [&metric::REFIT_PROGRESS_RATIO, &metric::REFIT_ETA_SECONDS] {
        metrics.gauge(idle, &labels).set(0.0);
    }
    for stage in Stage::ALL {
        let labels = [("task", task.as_str()), ("stage", stage.as_str())];
        metrics.gauge(&metric::REFIT_STAGE, &labels).set(0.0);
    }
    for from in [FROM_CACHE, FROM_EMBEDDER] {
        let labels = [("task", task.as_str()), ("from", from)];
        let _ = metrics.counter(&metric::REFIT_EMBEDDINGS_TOTAL, &labels);
    }
}

/// Seconds to the end, if the steps to come take as long as those before.
fn eta(elapsed: f64, done: u64, total: u64) -> Option<f64> {
    (done > 0).then(|| elapsed * total.saturating_sub(done) as f64 / done as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn the_rest_is_expected_to_take_as_long_as_what_was() {
        assert_eq!(eta(10.0, 0, 5), None);
        assert_eq!(eta(10.0, 2, 5), Some(15.0));
        assert_eq!(eta(10.0, 5, 5), Some(0.0));
        assert_eq!(eta(10.0, 6, 5), Some(0.0));
    }

    #[test]
    fn progress_is_in_metrics_and_in_the_record_until_the_end() {
        let (task, metrics, record) = (TaskName::default(), Metrics::new(), Shared::default());
        let reporter = Reporter::new(&task, &metrics, Arc::clone(&record));
        reporter.stage(Stage::Fitting);
        reporter.step("dense_logistic", 3, 4);
        let text = metrics.render();
        for line in [
            r#"tracer_refit_stage{task="default",stage="fitting"} 1"#,
            r#"tracer_refit_stage{task="default",stage="reading"} 0"#,
            r#"tracer_refit_progress_ratio{task="default"} 0.75"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let running = record.lock().unwrap().running.clone().unwrap();
        assert_eq!(
            (running.stage.as_str(), running.step.as_str(), running.done),
            ("fitting", "dense_logistic", 3)
        );
        reporter.end(None);
        assert_eq!(*record.lock().unwrap(), Record::default());
        assert!(
            metrics
                .render()
                .contains(r#"tracer_refit_stage{task="default",stage="fitting"} 0"#)
        );
    }
}
