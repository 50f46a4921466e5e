//! The aggregator's metrics, registered before the first record.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge};
use tracer_source::PartitionId;
use tracer_telemetry::{
    Metrics,
    metric::{
        CONSUMER_FAILING, CONSUMER_LAG, CONSUMER_POSITION_LOST, CONSUMER_QUEUE_BYTES,
        CONSUMER_QUEUE_RECORDS, CONSUMER_RESETS_TOTAL, SHARDS_WRITTEN_TOTAL, SPANS_SKIPPED_TOTAL,
        TRACES_CONSUMED_TOTAL, TRACES_REJECTED_TOTAL,
    },
};
use tracer_trace::{DecodeError, SkipReason};

pub(crate) struct AggregatorMetrics {
    metrics: Metrics,
    pub(crate) consumed: Counter,
    pub(crate) shards: Counter,
    pub(crate) queue_records: Gauge,
    pub(crate) queue_bytes: Gauge,
    pub(crate) source_failing: Gauge,
    rejected: BTreeMap<&'static str, Counter>,
    skipped: [Counter; SkipReason::ALL.len()],
}

/// The metrics of one partition.
pub(crate) struct PartitionMetrics {
    pub(crate) lag: Gauge,
    pub(crate) lost: Gauge,
    pub(crate) resets: Counter,
}

impl AggregatorMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let rejected = DecodeError::REASONS
            .iter()
            .map(|reason| {
                let counter = metrics.counter(&TRACES_REJECTED_TOTAL, &[("reason", reason)]);
                (*reason, counter)
            })
            .collect();
        Self {
            consumed: metrics.counter(&TRACES_CONSUMED_TOTAL, &[]),
            shards: metrics.counter(&SHARDS_WRITTEN_TOTAL, &[]),
            queue_records: metrics.gauge(&CONSUMER_QUEUE_RECORDS, &[]),
            queue_bytes: metrics.gauge(&CONSUMER_QUEUE_BYTES, &[]),
            source_failing: metrics.gauge(&CONSUMER_FAILING, &[]),
            rejected,
            skipped: SkipReason::ALL.map(|reason| {
                metrics.counter(&SPANS_SKIPPED_TOTAL, &[("reason", reason.as_str())])
            }),
            metrics: metrics.clone(),
        }
    }

    pub(crate) fn rejected(&self, reason: &'static str, count: u64) {
        if let Some(counter) = self.rejected.get(reason) {
            counter.increment(count);
        }
    }

    /// Spans passed over, in the order of [`SkipReason::ALL`].
    pub(crate) fn skipped(&self, counts: &[u64; SkipReason::ALL.len()]) {
        for (counter, count) in self.skipped.iter().zip(counts) {
            if *count > 0 {
                counter.increment(*count);
            }
        }
    }

    pub(crate) fn partition(&self, partition: &PartitionId) -> PartitionMetrics {
        let number = partition.partition.to_string();
        let labels = [
            ("topic", partition.topic.as_str()),
            ("partition", number.as_str()),
        ];
        PartitionMetrics {
            lag: self.metrics.gauge(&CONSUMER_LAG, &labels),
            lost: self.metrics.gauge(&CONSUMER_POSITION_LOST, &labels),
            resets: self.metrics.counter(&CONSUMER_RESETS_TOTAL, &labels),
        }
    }
}
