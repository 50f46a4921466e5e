//! Spans where nobody takes them, and which there are.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracer_telemetry::{Metrics, SpanConfig, Spans, TraceContext};

fn config(endpoint: &str, sample_ratio: f64) -> SpanConfig {
    SpanConfig {
        endpoint: endpoint.to_owned(),
        sample_ratio,
        service: "test".to_owned(),
        version: "1".to_owned(),
    }
}

fn counter(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn without_an_endpoint_there_are_no_spans() {
    let spans = Spans::default();
    assert!(!spans.is_on() && spans.root("work").is_none());
    assert!(spans.request("asked", None).is_none());
}

#[test]
fn an_endpoint_that_is_none_is_named() {
    for bad in [
        "collector:4317",
        "ftp://collector",
        "http://",
        "http://a b",
        "https:/x",
    ] {
        let error = config(bad, 1.0).check().unwrap_err().to_string();
        assert!(error.contains(bad), "{error}");
    }
    for good in ["http://127.0.0.1:4317", "https://collector.example:4317"] {
        config(good, 1.0).check().unwrap();
    }
}

#[tokio::test]
async fn a_caller_decides_for_its_trace_and_the_ratio_for_others() {
    let metrics = Metrics::new();
    let (spans, _exporter) = config("http://127.0.0.1:1", 0.1).open(&metrics).unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
    let context = |flags: u8| TraceContext::parse(&format!("{parent}{flags}"), None);
    assert!(spans.request("asked", context(1).as_ref()).is_some());
    assert!(spans.request("asked", context(0).as_ref()).is_none());
    let sampled = (0..20_000).filter(|_| spans.request("asked", None).is_some());
    // The standard deviation is 42.
    let sampled = sampled.count();
    assert!((1750..2250).contains(&sampled), "{sampled}");
    for (ratio, all) in [(0.0, 0), (1.0, 100)] {
        let (spans, _exporter) = config("http://127.0.0.1:1", ratio).open(&metrics).unwrap();
        let sampled = (0..100).filter(|_| spans.request("asked", None).is_some());
        assert_eq!(sampled.count(), all);
    }
}

#[tokio::test]
async fn a_full_queue_and_a_receiver_that_is_not_there_drop_and_count() {
    let metrics = Metrics::new();
    // Nothing listens there.
    let (spans, exporter) = config("http://127.0.0.1:1", 1.0).open(&metrics).unwrap();
    let all = 10_000;
    for _ in 0..all {
        spans.root("work").unwrap().end();
    }
    let at_once = counter(&metrics, "tracer_spans_dropped_total");
    assert!(at_once > 0 && at_once < all, "{at_once}");
    let stop = CancellationToken::new();
    let running = tokio::spawn(exporter.run(stop.clone()));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(120), running)
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(counter(&metrics, "tracer_spans_dropped_total"), all);
    assert_eq!(counter(&metrics, "tracer_spans_exported_total"), 0);
}
