//! The handles of the service's metrics, registered before the first request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram};
use tracer_proto::v1::DeferReason;
use tracer_telemetry::{Metrics, metric};
use tracer_trace::{TaskName, TeacherPrice, TokenUsage};

use crate::{TaskPolicy, coverage::Coverage};

/// The `task` label of tasks that nobody configured or published.
const UNKNOWN: &str = "unknown";

/// The `reason` label of errors, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    InvalidTask,
    MissingInput,
    InputTooLarge,
    RequestIdTooLarge,
    BadEmbedding,
    WrongDimension,
    BatchTooLarge,
    InvalidTrace,
    NoWriter,
    LogUnavailable,
    NoPipeline,
    Internal,
    BadTopK,
    Overloaded,
    DeadlineExceeded,
    Unauthenticated,
    PermissionDenied,
}

impl Rejection {
    const ALL: [(Self, &'static str); 17] = [
        (Self::InvalidTask, "invalid_task"),
        (Self::MissingInput, "missing_input"),
        (Self::InputTooLarge, "input_too_large"),
        (Self::RequestIdTooLarge, "request_id_too_large"),
        (Self::BadEmbedding, "bad_embedding"),
        (Self::WrongDimension, "wrong_dimension"),
        (Self::BatchTooLarge, "batch_too_large"),
        (Self::InvalidTrace, "invalid_trace"),
        (Self::NoWriter, "no_writer"),
        (Self::LogUnavailable, "log_unavailable"),
        (Self::NoPipeline, "no_pipeline"),
        (Self::Internal, "internal"),
        (Self::BadTopK, "bad_top_k"),
        (Self::Overloaded, "overloaded"),
        (Self::DeadlineExceeded, "deadline_exceeded"),
        (Self::Unauthenticated, "unauthenticated"),
        (Self::PermissionDenied, "permission_denied"),
    ];

    /// The word under which it is counted.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Every reason of a deferral and its label.
const REASONS: [(DeferReason, &str); 7] = [
    (DeferReason::NoPipeline, "no_pipeline"),
    (DeferReason::LowScore, "low_score"),
    (DeferReason::OutOfDistribution, "out_of_distribution"),
    (DeferReason::Suspended, "suspended"),
    (DeferReason::NoEmbedding, "no_embedding"),
    (DeferReason::NoText, "no_text"),
    (DeferReason::EmbedderMismatch, "embedder_mismatch"),
];

/// Metrics without a task, and the maker of those with one.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    registry: Metrics,
    rejected: [Counter; Rejection::ALL.len()],
    unknown: Counter,
    seconds: Histogram,
    pub(crate) embed: EmbedMetrics,
    pub(crate) poll_failures: Counter,
    pub(crate) recorded: Counter,
    pub(crate) in_flight: Gauge,
}

/// Metrics of embedding.
#[derive(Debug)]
pub(crate) struct EmbedMetrics {
    pub(crate) seconds: Histogram,
    pub(crate) failures: Counter,
}

impl ServiceMetrics {
    pub(crate) fn new(registry: Metrics) -> Self {
        Self {
            rejected: Rejection::ALL.map(|(_, reason)| {
                registry.counter(&metric::REQUESTS_REJECTED_TOTAL, &[("reason", reason)])
            }),
            unknown: deferred(&registry, UNKNOWN, "no_pipeline"),
            seconds: registry.histogram(&metric::ROUTE_SECONDS, &[]),
            embed: EmbedMetrics {
                seconds: registry.histogram(&metric::EMBED_SECONDS, &[]),
                failures: registry.counter(&metric::EMBED_FAILURES_TOTAL, &[]),
            },
            poll_failures: registry.counter(&metric::REGISTRY_POLL_FAILURES_TOTAL, &[]),
            recorded: registry.counter(&metric::TRACES_RECORDED_TOTAL, &[]),
            in_flight: registry.gauge(&metric::REQUESTS_IN_FLIGHT, &[]),
            registry,
        }
    }

    pub(crate) fn reject(&self, reason: Rejection) {
        self.rejected[reason as usize].increment(1);
    }

    /// Counts routes of a task that is not known: all deferred.
    pub(crate) fn unknown(&self, routes: usize) {
        self.unknown.increment(routes as u64);
    }

    /// Observes the time of `routes` that took `elapsed` together.
    pub(crate) fn observe(&self, routes: usize, elapsed: Duration) {
        if routes > 0 {
            self.seconds
                .record_many(elapsed.as_secs_f64() / routes as f64, routes);
        }
    }

    /// Registers every series of a task.
    pub(crate) fn task(
        &self,
        task: &TaskName,
        policy: TaskPolicy,
        window: u32,
    ) -> Arc<TaskMetrics> {
        Arc::new(TaskMetrics::new(
            &self.registry,
            task.as_str(),
            policy,
            window,
        ))
    }
}

fn deferred(registry: &Metrics, task: &str, reason: &str) -> Counter {
    routes(registry, task, "deferred", reason)
}

fn routes(registry: &Metrics, task: &str, decision: &str, reason: &str) -> Counter {
    let labels = [("task", task), ("decision", decision), ("reason", reason)];
    registry.counter(&metric::ROUTES_TOTAL, &labels)
}

/// The metrics of one task.
#[derive(Debug)]
pub(crate) struct TaskMetrics {
    handled: Counter,
    deferred: [Counter; REASONS.len()],
    coverage: Gauge,
    window: Coverage,
    calls_saved: Counter,
    cost_saved: Gauge,
    price: TeacherPrice,
    /// Dollars of one call of the teacher, as the bits of an f64.
    call_dollars: AtomicU64,
    pub(crate) version: Gauge,
    pub(crate) suspended: Gauge,
    pub(crate) target_agreement: Gauge,
    pub(crate) shadow_agreement: Gauge,
    pub(crate) shadow_agreement_lower: Gauge,
    pub(crate) load_failures: Counter,
}

/// What a request did, summed up before it touches the shared counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    handled: u32,
    audited: u32,
    deferred: [u32; REASONS.len()],
}

impl Tally {
    pub(crate) fn handled(&mut self, audit: bool) {
        self.handled += 1;
        self.audited += u32::from(audit);
    }

    pub(crate) fn deferred(&mut self, reason: DeferReason) {
        // The numbers of the contract start at 1, in the order of `REASONS`.
        if let Some(count) = self.deferred.get_mut((reason as usize).wrapping_sub(1)) {
            *count += 1;
        }
    }
}

impl TaskMetrics {
    fn new(registry: &Metrics, task: &str, policy: TaskPolicy, window: u32) -> Self {
        let labels = [("task", task)];
        let shadow = [("task", task), ("kind", metric::agreement::SHADOW)];
        let target_agreement = registry.gauge(&metric::TARGET_AGREEMENT_RATIO, &labels);
        target_agreement.set(policy.target_agreement);
        Self {
            handled: routes(registry, task, "handled", ""),
            deferred: REASONS.map(|(_, reason)| deferred(registry, task, reason)),
            coverage: registry.gauge(&metric::COVERAGE_RATIO, &labels),
            window: Coverage::new(window),
            calls_saved: registry.counter(&metric::TEACHER_CALLS_SAVED_TOTAL, &labels),
            cost_saved: registry.gauge(&metric::TEACHER_COST_SAVED_DOLLARS_TOTAL, &labels),
            price: policy.teacher,
            call_dollars: AtomicU64::new(policy.teacher.of_a_call(None).to_bits()),
            version: registry.gauge(&metric::PIPELINE_VERSION, &labels),
            suspended: registry.gauge(&metric::PIPELINE_SUSPENDED, &labels),
            target_agreement,
            shadow_agreement: registry.gauge(&metric::TEACHER_AGREEMENT_RATIO, &shadow),
            shadow_agreement_lower: registry.gauge(&metric::TEACHER_AGREEMENT_LOWER, &shadow),
            load_failures: registry.counter(&metric::PIPELINE_LOAD_FAILURES_TOTAL, &labels),
        }
    }

    /// What a call costs from now on, by what the traces of a version told.
    pub(crate) fn priced_by(&self, usage: Option<&TokenUsage>) {
        let dollars = self.price.of_a_call(usage);
        self.call_dollars.store(dollars.to_bits(), Relaxed);
    }

    /// Counts the routes of one request.
    pub(crate) fn count(&self, tally: &Tally) {
        let mut total = tally.handled;
        for (counter, count) in self.deferred.iter().zip(tally.deferred) {
            if count > 0 {
                counter.increment(u64::from(count));
                total += count;
            }
        }
        if tally.handled > 0 {
            self.handled.increment(u64::from(tally.handled));
            let saved = tally.handled - tally.audited;
            self.calls_saved.increment(u64::from(saved));
            self.cost_saved
                .increment(f64::from(saved) * f64::from_bits(self.call_dollars.load(Relaxed)));
        }
        if total > 0 {
            self.coverage.set(self.window.count(total, tally.handled));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_the_order_of_their_numbers() {
        for (index, (reason, name)) in REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, index + 1, "{name}");
            let expected = format!("DEFER_REASON_{}", name.to_uppercase());
            assert_eq!(reason.as_str_name(), expected);
        }
        assert!(DeferReason::try_from(REASONS.len() as i32 + 1).is_err());
        for (index, (rejection, name)) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection as usize, index, "{name}");
        }
    }

    #[test]
    fn counts_and_saves() {
        let registry = Metrics::new();
        let service = ServiceMetrics::new(registry.clone());
        let policy = TaskPolicy {
            teacher: TeacherPrice {
                call_dollars: 0.25,
                output_dollars_per_million: 1e6,
                ..TeacherPrice::default()
            },
            target_agreement: 0.9,
            ..TaskPolicy::default()
        };
        let task = service.task(&TaskName::new("t").unwrap(), policy, 100);
        let text = registry.render();
        for line in [
            r#"tracer_routes_total{task="t",decision="handled",reason=""} 0"#,
            r#"tracer_routes_total{task="t",decision="deferred",reason="suspended"} 0"#,
            r#"tracer_routes_total{task="unknown",decision="deferred",reason="no_pipeline"} 0"#,
            r#"tracer_requests_rejected_total{reason="bad_embedding"} 0"#,
            r#"tracer_teacher_agreement_ratio{task="t",kind="shadow"} 0"#,
            r#"tracer_target_agreement_ratio{task="t"} 0.9"#,
            "tracer_requests_in_flight 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }

        let mut tally = Tally::default();
        tally.handled(true);
        tally.handled(false);
        tally.handled(false);
        tally.deferred(DeferReason::LowScore);
        task.count(&tally);
        let text = registry.render();
        for line in [
            r#"tracer_routes_total{task="t",decision="handled",reason=""} 3"#,
            r#"tracer_routes_total{task="t",decision="deferred",reason="low_score"} 1"#,
            r#"tracer_coverage_ratio{task="t"} 0.75"#,
            r#"tracer_teacher_calls_saved_total{task="t"} 2"#,
            r#"tracer_teacher_cost_saved_dollars_total{task="t"} 0.5"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }

        // A version's traces tell how many tokens a call has.
        task.priced_by(Some(&TokenUsage {
            traces: 10,
            output_tokens: 0.75,
            ..TokenUsage::default()
        }));
        task.count(&tally);
        let line = r#"tracer_teacher_cost_saved_dollars_total{task="t"} 2.5"#;
        let text = registry.render();
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}
