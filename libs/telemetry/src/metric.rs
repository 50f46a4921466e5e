//! Every metric of Tracer, defined once: name, kind, labels and help.
//!
//! Labels are bounded: tasks come from the configuration or the registry, and
//! reasons, verdicts and kinds are fixed words. Nothing a caller sends may become
//! a label value by itself.

/// What a metric is, and for a histogram where its buckets end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number that only grows.
    Counter,
    /// An amount that only grows but is not whole, such as dollars. It is
    /// registered as a gauge, incremented, and exposed as a counter.
    FloatCounter,
    /// A value that goes up and down.
    Gauge,
    /// Observations, counted in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// The definition of one metric.
#[derive(Debug)]
pub struct MetricDef {
    /// The exposed name, with the prefix `tracer_` and the unit as suffix.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence for the operator.
    pub help: &'static str,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
}

/// Buckets for the time of one route: from 50 microseconds to 1 second.
const ROUTE_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Buckets for the time of one refit: from 100 milliseconds to 1 hour.
const REFIT_BUCKETS: &[f64] = &[
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Values of the label `kind` of the agreement metrics.
pub mod agreement {
    /// Measured on the shadow split when the pipeline was certified.
    pub const SHADOW: &str = "shadow";
    /// Measured on audited live traffic.
    pub const LIVE: &str = "live";
}

/// Routes answered.
pub const ROUTES_TOTAL: MetricDef = MetricDef {
    name: "tracer_routes_total",
    kind: Kind::Counter,
    help: "Routes answered, by decision and by the reason of a deferral (empty when handled).",
    labels: &["task", "decision", "reason"],
};

/// Time of one route.
pub const ROUTE_SECONDS: MetricDef = MetricDef {
    name: "tracer_route_seconds",
    kind: Kind::Histogram(ROUTE_BUCKETS),
    help: "Time to decide one route inside the server, in seconds.",
    labels: &[],
};

/// Share of the traffic that the active pipeline handles.
pub const COVERAGE_RATIO: MetricDef = MetricDef {
    name: "tracer_coverage_ratio",
    kind: Kind::Gauge,
    help: "Share of the latest routes of a task that were handled.",
    labels: &["task"],
};

/// Agreement with the teacher on handled inputs.
pub const TEACHER_AGREEMENT_RATIO: MetricDef = MetricDef {
    name: "tracer_teacher_agreement_ratio",
    kind: Kind::Gauge,
    help: "Share of handled inputs on which surrogate and teacher agree, on the shadow split or on audited live traffic.",
    labels: &["task", "kind"],
};

/// Lower confidence bound of the agreement.
pub const TEACHER_AGREEMENT_LOWER: MetricDef = MetricDef {
    name: "tracer_teacher_agreement_lower",
    kind: Kind::Gauge,
    help: "Lower confidence bound of the teacher agreement.",
    labels: &["task", "kind"],
};

/// Audits that the live agreement stands on.
pub const LIVE_AUDITS: MetricDef = MetricDef {
    name: "tracer_live_audits",
    kind: Kind::Gauge,
    help: "Audited answers of what serves the task, since it serves, that the live agreement stands on.",
    labels: &["task"],
};

/// What the audits say against the promise.
pub const LIVE_EVIDENCE_RATIO: MetricDef = MetricDef {
    name: "tracer_live_evidence_ratio",
    kind: Kind::Gauge,
    help: "Evidence of the audits that the live agreement is below the target, in units of what proves it: at 1 it is proven.",
    labels: &["task"],
};

/// Tasks that were taken out.
pub const SUSPENSIONS_TOTAL: MetricDef = MetricDef {
    name: "tracer_suspensions_total",
    kind: Kind::Counter,
    help: "Times that the task was suspended because its live agreement was proven to be below the target.",
    labels: &["task"],
};

/// Looks at the audits that failed.
pub const LIVE_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_live_failures_total",
    kind: Kind::Counter,
    help: "Looks at the audited traces that failed; they are tried again.",
    labels: &[],
};

/// The promised agreement.
pub const TARGET_AGREEMENT_RATIO: MetricDef = MetricDef {
    name: "tracer_target_agreement_ratio",
    kind: Kind::Gauge,
    help: "The teacher agreement promised for the task.",
    labels: &["task"],
};

/// The version that serves.
pub const PIPELINE_VERSION: MetricDef = MetricDef {
    name: "tracer_pipeline_version",
    kind: Kind::Gauge,
    help: "The pipeline version that serves the task; 0 when none does.",
    labels: &["task"],
};

/// Whether the task is suspended.
pub const PIPELINE_SUSPENDED: MetricDef = MetricDef {
    name: "tracer_pipeline_suspended",
    kind: Kind::Gauge,
    help: "1 when the task's pipeline is suspended and everything is deferred, else 0.",
    labels: &["task"],
};

/// Traces read from the source.
pub const TRACES_CONSUMED_TOTAL: MetricDef = MetricDef {
    name: "tracer_traces_consumed_total",
    kind: Kind::Counter,
    help: "Traces read from the source and decoded.",
    labels: &[],
};

/// Payloads that were not valid traces.
pub const TRACES_REJECTED_TOTAL: MetricDef = MetricDef {
    name: "tracer_traces_rejected_total",
    kind: Kind::Counter,
    help: "Payloads that are not valid traces, by the reason of the rejection.",
    labels: &["reason"],
};

/// Spans that are no calls of a classifier.
pub const SPANS_SKIPPED_TOTAL: MetricDef = MetricDef {
    name: "tracer_spans_skipped_total",
    kind: Kind::Counter,
    help: "Spans of OpenTelemetry that were passed over, by the reason why they are no traces.",
    labels: &["reason"],
};

/// Shards written.
pub const SHARDS_WRITTEN_TOTAL: MetricDef = MetricDef {
    name: "tracer_shards_written_total",
    kind: Kind::Counter,
    help: "Shards of traces written to the object store.",
    labels: &[],
};

/// Compactions done.
pub const COMPACTIONS_TOTAL: MetricDef = MetricDef {
    name: "tracer_compactions_total",
    kind: Kind::Counter,
    help: "Shards that were made of several smaller ones.",
    labels: &[],
};

/// Shards that were compacted.
pub const SHARDS_COMPACTED_TOTAL: MetricDef = MetricDef {
    name: "tracer_shards_compacted_total",
    kind: Kind::Counter,
    help: "Shards that were replaced by a larger one.",
    labels: &[],
};

/// Traces that were removed by age.
pub const TRACES_EXPIRED_TOTAL: MetricDef = MetricDef {
    name: "tracer_traces_expired_total",
    kind: Kind::Counter,
    help: "Traces that became older than the retention and are no longer read.",
    labels: &[],
};

/// Objects of shards that were deleted.
pub const SHARDS_DELETED_TOTAL: MetricDef = MetricDef {
    name: "tracer_shards_deleted_total",
    kind: Kind::Counter,
    help: "Replaced shards that were deleted from the object store.",
    labels: &[],
};

/// Their bytes.
pub const SHARD_BYTES_DELETED_TOTAL: MetricDef = MetricDef {
    name: "tracer_shard_bytes_deleted_total",
    kind: Kind::Counter,
    help: "Bytes of the replaced shards that were deleted from the object store.",
    labels: &[],
};

/// Upkeep of shards that failed.
pub const MAINTENANCE_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_maintenance_failures_total",
    kind: Kind::Counter,
    help: "Rounds of compaction and retention that a partition's shards failed; they are tried again.",
    labels: &[],
};

/// Records not consumed yet.
pub const CONSUMER_LAG: MetricDef = MetricDef {
    name: "tracer_consumer_lag",
    kind: Kind::Gauge,
    help: "Distance from the position of the consumer to the end of the partition: records in Kafka, bytes in a spool.",
    labels: &["topic", "partition"],
};

/// Whether the log lost the position of a partition.
pub const CONSUMER_POSITION_LOST: MetricDef = MetricDef {
    name: "tracer_consumer_position_lost",
    kind: Kind::Gauge,
    help: "1 when the log no longer has the position to read from and the partition stands still, else 0.",
    labels: &["topic", "partition"],
};

/// Decisions where a partition goes on.
pub const CONSUMER_RESETS_TOTAL: MetricDef = MetricDef {
    name: "tracer_consumer_resets_total",
    kind: Kind::Counter,
    help: "Partitions that stood still and went on where somebody decided it.",
    labels: &["topic", "partition"],
};

/// Records read ahead.
pub const CONSUMER_QUEUE_RECORDS: MetricDef = MetricDef {
    name: "tracer_consumer_queue_records",
    kind: Kind::Gauge,
    help: "Records that the Kafka client has read ahead.",
    labels: &[],
};

/// Bytes read ahead.
pub const CONSUMER_QUEUE_BYTES: MetricDef = MetricDef {
    name: "tracer_consumer_queue_bytes",
    kind: Kind::Gauge,
    help: "Bytes of the records that the Kafka client has read ahead.",
    labels: &[],
};

/// Whether the log can be read at all.
pub const CONSUMER_FAILING: MetricDef = MetricDef {
    name: "tracer_consumer_failing",
    kind: Kind::Gauge,
    help: "1 while the log does not answer, refuses the connection, denies a topic or the group, or lacks a topic, else 0.",
    labels: &[],
};

/// Texts that refits needed embeddings of.
pub const REFIT_EMBEDDINGS_TOTAL: MetricDef = MetricDef {
    name: "tracer_refit_embeddings_total",
    kind: Kind::Counter,
    help: "Texts that refits needed embeddings of, by whether they were kept from earlier or given to the embedder.",
    labels: &["task", "from"],
};

/// Refits done.
pub const REFITS_TOTAL: MetricDef = MetricDef {
    name: "tracer_refits_total",
    kind: Kind::Counter,
    help: "Refits, by the verdict of the parity gate.",
    labels: &["task", "verdict"],
};

/// When the last refit ended.
pub const REFIT_LAST_TIMESTAMP_SECONDS: MetricDef = MetricDef {
    name: "tracer_refit_last_timestamp_seconds",
    kind: Kind::Gauge,
    help: "When the last refit of the task that came to a verdict ended, in seconds since 1970; 0 before the first.",
    labels: &["task"],
};

/// Since when a refit is due.
pub const REFIT_DUE_SINCE_TIMESTAMP_SECONDS: MetricDef = MetricDef {
    name: "tracer_refit_due_since_timestamp_seconds",
    kind: Kind::Gauge,
    help: "Since when a refit of the task is due that no trainer has begun, in seconds since 1970; 0 when none is.",
    labels: &["task"],
};

/// Time of one refit.
pub const REFIT_SECONDS: MetricDef = MetricDef {
    name: "tracer_refit_seconds",
    kind: Kind::Histogram(REFIT_BUCKETS),
    help: "Time of one refit of one task, in seconds.",
    labels: &[],
};

/// What a refit is at.
pub const REFIT_STAGE: MetricDef = MetricDef {
    name: "tracer_refit_stage",
    kind: Kind::Gauge,
    help: "1 for the stage that a refit under way is at (reading, fitting, publishing), else 0.",
    labels: &["task", "stage"],
};

/// How far it is.
pub const REFIT_PROGRESS_RATIO: MetricDef = MetricDef {
    name: "tracer_refit_progress_ratio",
    kind: Kind::Gauge,
    help: "Share of the stage's steps that are done; 0 when no refit is under way.",
    labels: &["task"],
};

/// How long it may still take.
pub const REFIT_ETA_SECONDS: MetricDef = MetricDef {
    name: "tracer_refit_eta_seconds",
    kind: Kind::Gauge,
    help: "Seconds to the end of the stage, if the steps to come take as long as those before.",
    labels: &["task"],
};

/// Refits taken over.
pub const REFIT_TAKEOVERS_TOTAL: MetricDef = MetricDef {
    name: "tracer_refit_takeovers_total",
    kind: Kind::Counter,
    help: "Tasks taken over from a trainer that was not heard of any more.",
    labels: &["task"],
};

/// Refits that came too late.
pub const REFITS_SUPERSEDED_TOTAL: MetricDef = MetricDef {
    name: "tracer_refits_superseded_total",
    kind: Kind::Counter,
    help: "Refits at whose end another trainer had taken the task over.",
    labels: &["task"],
};

/// Teacher calls that were not needed.
pub const TEACHER_CALLS_SAVED_TOTAL: MetricDef = MetricDef {
    name: "tracer_teacher_calls_saved_total",
    kind: Kind::Counter,
    help: "Handled routes that needed no teacher call.",
    labels: &["task"],
};

/// Dollars that were not spent on the teacher.
pub const TEACHER_COST_SAVED_DOLLARS_TOTAL: MetricDef = MetricDef {
    name: "tracer_teacher_cost_saved_dollars_total",
    kind: Kind::FloatCounter,
    help: "Cost of the teacher calls that were not needed, in dollars.",
    labels: &["task"],
};

/// Requests answered with an error.
pub const REQUESTS_REJECTED_TOTAL: MetricDef = MetricDef {
    name: "tracer_requests_rejected_total",
    kind: Kind::Counter,
    help: "Requests answered with an error, by the reason.",
    labels: &["reason"],
};

/// Work under way.
pub const REQUESTS_IN_FLIGHT: MetricDef = MetricDef {
    name: "tracer_requests_in_flight",
    kind: Kind::Gauge,
    help: "Requests under way, a large one counted as several, as of the last quarter of a second; the bound is inference.max_in_flight.",
    labels: &[],
};

/// What runs.
pub const BUILD_INFO: MetricDef = MetricDef {
    name: "tracer_build_info",
    kind: Kind::Gauge,
    help: "Always 1; the release and the revision that run are its labels.",
    labels: &["version", "revision"],
};

/// Spans that were exported.
pub const SPANS_EXPORTED_TOTAL: MetricDef = MetricDef {
    name: "tracer_spans_exported_total",
    kind: Kind::Counter,
    help: "Spans of our own that a receiver of OTLP has taken.",
    labels: &[],
};

/// Spans that were not.
pub const SPANS_DROPPED_TOTAL: MetricDef = MetricDef {
    name: "tracer_spans_dropped_total",
    kind: Kind::Counter,
    help: "Spans of our own that were dropped because the queue was full or the receiver did not take them.",
    labels: &[],
};

/// Versions that could not be loaded.
pub const PIPELINE_LOAD_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_pipeline_load_failures_total",
    kind: Kind::Counter,
    help: "Attempts to load a pipeline version that failed; the version before it kept serving.",
    labels: &["task"],
};

/// Looks at the registry that failed.
pub const REGISTRY_POLL_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_registry_poll_failures_total",
    kind: Kind::Counter,
    help: "Looks at the registry that failed; what was loaded kept serving.",
    labels: &[],
};

/// Traces published through `Record`.
pub const TRACES_RECORDED_TOTAL: MetricDef = MetricDef {
    name: "tracer_traces_recorded_total",
    kind: Kind::Counter,
    help: "Traces published to the source through Record.",
    labels: &[],
};

/// Files of certificates and tokens that could not be used.
pub const SECURITY_RELOAD_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_security_reload_failures_total",
    kind: Kind::Counter,
    help: "Changes of the files of certificates or tokens that could not be used; what was read before stayed in use.",
    labels: &[],
};

/// Time of embedding the texts of one request.
pub const EMBED_SECONDS: MetricDef = MetricDef {
    name: "tracer_embed_seconds",
    kind: Kind::Histogram(ROUTE_BUCKETS),
    help: "Time to embed the texts of one request, in seconds.",
    labels: &[],
};

/// Requests of whose texts some could not be embedded.
pub const EMBED_FAILURES_TOTAL: MetricDef = MetricDef {
    name: "tracer_embed_failures_total",
    kind: Kind::Counter,
    help: "Requests some of whose texts could not be embedded and were deferred where the pipeline needs an embedding.",
    labels: &[],
};

/// All of them.
pub const ALL: &[&MetricDef] = &[
    &ROUTES_TOTAL,
    &ROUTE_SECONDS,
    &COVERAGE_RATIO,
    &TEACHER_AGREEMENT_RATIO,
    &TEACHER_AGREEMENT_LOWER,
    &LIVE_AUDITS,
    &LIVE_EVIDENCE_RATIO,
    &SUSPENSIONS_TOTAL,
    &LIVE_FAILURES_TOTAL,
    &TARGET_AGREEMENT_RATIO,
    &PIPELINE_VERSION,
    &PIPELINE_SUSPENDED,
    &TRACES_CONSUMED_TOTAL,
    &TRACES_REJECTED_TOTAL,
    &SPANS_SKIPPED_TOTAL,
    &SHARDS_WRITTEN_TOTAL,
    &COMPACTIONS_TOTAL,
    &SHARDS_COMPACTED_TOTAL,
    &TRACES_EXPIRED_TOTAL,
    &SHARDS_DELETED_TOTAL,
    &SHARD_BYTES_DELETED_TOTAL,
    &MAINTENANCE_FAILURES_TOTAL,
    &CONSUMER_LAG,
    &CONSUMER_POSITION_LOST,
    &CONSUMER_RESETS_TOTAL,
    &CONSUMER_QUEUE_RECORDS,
    &CONSUMER_QUEUE_BYTES,
    &CONSUMER_FAILING,
    &REFITS_TOTAL,
    &REFIT_EMBEDDINGS_TOTAL,
    &REFIT_LAST_TIMESTAMP_SECONDS,
    &REFIT_DUE_SINCE_TIMESTAMP_SECONDS,
    &REFIT_SECONDS,
    &REFIT_STAGE,
    &REFIT_PROGRESS_RATIO,
    &REFIT_ETA_SECONDS,
    &REFIT_TAKEOVERS_TOTAL,
    &REFITS_SUPERSEDED_TOTAL,
    &TEACHER_CALLS_SAVED_TOTAL,
    &TEACHER_COST_SAVED_DOLLARS_TOTAL,
    &REQUESTS_REJECTED_TOTAL,
    &REQUESTS_IN_FLIGHT,
    &BUILD_INFO,
    &SPANS_EXPORTED_TOTAL,
    &SPANS_DROPPED_TOTAL,
    &PIPELINE_LOAD_FAILURES_TOTAL,
    &REGISTRY_POLL_FAILURES_TOTAL,
    &TRACES_RECORDED_TOTAL,
    &SECURITY_RELOAD_FAILURES_TOTAL,
    &EMBED_SECONDS,
    &EMBED_FAILURES_TOTAL,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for def in ALL {
            assert!(seen.insert(def.name), "{} is defined twice", def.name);
            assert!(def.name.starts_with("tracer_"), "{}", def.name);
            assert!(def.help.ends_with('.'), "{}", def.name);
            let counts = matches!(def.kind, Kind::Counter | Kind::FloatCounter);
            assert_eq!(def.name.ends_with("_total"), counts, "{}", def.name);
            if let Kind::Histogram(buckets) = def.kind {
                assert!(def.name.ends_with("_seconds"));
                assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
