//! The metrics registry that is handed to every part.

use std::{fmt, sync::Arc};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::metric::{self, Kind, MetricDef};

/// A registry of metrics; clones share it.
///
/// A handle registers its series at once, so the series is exposed with 0 before
/// anything happens: an alert on a rate needs that first point. Handles are cheap
/// to keep and lock-free to update; asking for the same series again gives the
/// same one.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for def in metric::ALL {
            if let Kind::Histogram(buckets) = def.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(def.name.to_owned()), buckets)
                    .expect("the buckets of a metric definition are not empty");
            }
        }
        Self {
            recorder: Arc::new(builder.build_recorder()),
        }
    }

    /// The counter with these label values.
    pub fn counter(&self, def: &'static MetricDef, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(def.kind, Kind::Counter, "{}", def.name);
        self.recorder
            .describe_counter(def.name.into(), None, def.help.into());
        self.recorder.register_counter(&key(def, labels), &METADATA)
    }

    /// The gauge, or the counter of a fractional amount, with these label values.
    pub fn gauge(&self, def: &'static MetricDef, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert!(
            matches!(def.kind, Kind::Gauge | Kind::FloatCounter),
            "{} is not a gauge",
            def.name
        );
        self.recorder
            .describe_gauge(def.name.into(), None, def.help.into());
        self.recorder.register_gauge(&key(def, labels), &METADATA)
    }

    /// The histogram with these label values.
    pub fn histogram(&self, def: &'static MetricDef, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(
            matches!(def.kind, Kind::Histogram(_)),
            "{} is not a histogram",
            def.name
        );
        self.recorder
            .describe_histogram(def.name.into(), None, def.help.into());
        self.recorder
            .register_histogram(&key(def, labels), &METADATA)
    }

    /// All series in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = self.recorder.handle().render();
        for def in metric::ALL {
            if def.kind == Kind::FloatCounter {
                let from = format!("# TYPE {} gauge", def.name);
                let to = format!("# TYPE {} counter", def.name);
                text = text.replacen(&from, &to, 1);
            }
        }
        text
    }

    /// Folds the observations of histograms into their buckets. They wait in memory
    /// until a scrape or this; [`crate::serve_http`] calls it regularly, so memory
    /// stays bounded when nobody scrapes.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> = Metadata::new("tracer", Level::INFO, None);

fn key(def: &'static MetricDef, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        labels.iter().map(|(name, _)| name).eq(def.labels),
        "{} takes the labels {:?}, not {labels:?}",
        def.name,
        def.labels
    );
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(def.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_series_is_present_with_zero() {
        let metrics = Metrics::new();
        let _ = metrics.counter(
            &metric::ROUTES_TOTAL,
            &[("task", "t"), ("decision", "handled"), ("reason", "")],
        );
        let _ = metrics.gauge(&metric::PIPELINE_VERSION, &[("task", "t")]);
        let _ = metrics.histogram(&metric::ROUTE_SECONDS, &[]);
        let text = metrics.render();
        for line in [
            "# TYPE tracer_routes_total counter",
            r#"tracer_routes_total{task="t",decision="handled",reason=""} 0"#,
            r#"tracer_pipeline_version{task="t"} 0"#,
            r#"tracer_route_seconds_bucket{le="0.00005"} 0"#,
            "tracer_route_seconds_count 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.contains("# HELP tracer_pipeline_version The pipeline version"));
    }

    #[test]
    fn the_same_series_is_the_same_counter_and_registries_are_apart() {
        let (metrics, other) = (Metrics::new(), Metrics::new());
        for m in [&metrics, &metrics.clone(), &other] {
            m.counter(&metric::SHARDS_WRITTEN_TOTAL, &[]).increment(2);
        }
        assert!(metrics.render().contains("tracer_shards_written_total 4\n"));
        assert!(other.render().contains("tracer_shards_written_total 2\n"));
    }

    #[test]
    fn registering_again_keeps_a_gauge() {
        let metrics = Metrics::new();
        metrics
            .gauge(&metric::PIPELINE_VERSION, &[("task", "t")])
            .set(7.0);
        let _ = metrics.gauge(&metric::PIPELINE_VERSION, &[("task", "t")]);
        assert!(
            metrics
                .render()
                .contains(r#"tracer_pipeline_version{task="t"} 7"#)
        );
    }

    #[test]
    fn observations_survive_the_upkeep() {
        let metrics = Metrics::new();
        let seconds = metrics.histogram(&metric::REFIT_SECONDS, &[]);
        seconds.record(0.3);
        metrics.upkeep();
        seconds.record(7.0);
        let text = metrics.render();
        assert!(
            text.contains(r#"tracer_refit_seconds_bucket{le="0.5"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"tracer_refit_seconds_bucket{le="+Inf"} 2"#),
            "{text}"
        );
        assert!(text.contains("tracer_refit_seconds_count 2"), "{text}");
    }

    #[test]
    fn dollars_are_a_counter_with_cents() {
        let metrics = Metrics::new();
        let saved = metrics.gauge(&metric::TEACHER_COST_SAVED_DOLLARS_TOTAL, &[("task", "t")]);
        saved.increment(0.25);
        saved.increment(0.5);
        let text = metrics.render();
        assert!(text.contains("# TYPE tracer_teacher_cost_saved_dollars_total counter"));
        assert!(text.contains(r#"tracer_teacher_cost_saved_dollars_total{task="t"} 0.75"#));
    }
}
