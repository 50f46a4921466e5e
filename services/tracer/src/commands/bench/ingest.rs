//! `tracer bench ingest`: a backlog of its own, drained by a bare consumer and by the
//! aggregator, one after the other and again.

mod backlog;
mod bare;
mod child;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tracer_source::{KafkaConfig, SourceConfig, TopicName};

use self::{backlog::Backlog, child::Ingested};
use crate::{config::Config, output};

/// Drains a backlog with a bare consumer and with the aggregator.
#[derive(Args, Debug)]
pub(crate) struct IngestArgs {
    /// Bootstrap servers, host:port; how to log in is configured in [source]
    #[arg(long, value_name = "ADDR")]
    kafka: String,
    /// JSON traces without an embedding
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    traces: usize,
    /// JSON traces with an embedding; 0 for none
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    embedded: usize,
    /// Dimensions of the embeddings
    #[arg(long, default_value_t = 384, value_name = "N")]
    dimensions: usize,
    /// Partitions of the topics
    #[arg(long, default_value_t = 4, value_name = "N")]
    partitions: i32,
    /// How often each side drains the backlog; the medians are told
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// What was measured of one backlog.
struct Measured {
    traces: usize,
    bytes: usize,
    /// Traces a second, sorted.
    bare: Vec<f64>,
    ingest: Vec<f64>,
    peak_rss_mib: f64,
    /// CPU seconds of the aggregator for one drain, of both modes: the least.
    cpu_seconds: f64,
}

/// Runs the command.
pub(crate) async fn run(
    args: IngestArgs,
    config: Config,
    file: Option<PathBuf>,
) -> anyhow::Result<()> {
    let base = match config.source {
        SourceConfig::Kafka(kafka) => kafka,
        SourceConfig::Spool(_) => KafkaConfig::default(),
    };
    let base = KafkaConfig {
        brokers: args.kafka.clone(),
        patterns: Vec::new(),
        ..base
    };
    let text = measure(&args, &base, file.as_ref(), args.traces, None).await?;
    let mut document = document(&text);
    let mut lines = vec![line("text", &text)];
    if args.embedded > 0 {
        let dimensions = Some(args.dimensions);
        let embedded = measure(&args, &base, file.as_ref(), args.embedded, dimensions).await?;
        document["embeddings"] = self::document(&embedded);
        let name = format!("{} floats", args.dimensions);
        lines.push(line(&name, &embedded));
    }
    if args.json {
        output::json(&document);
    } else {
        output::line(format_args!(
            "{:<12} {:>9} {:>7} {:>12} {:>12} {:>6} {:>9} {:>9}",
            "backlog", "traces", "bytes", "bare /s", "ingest /s", "share", "CPU µs", "peak MiB"
        ));
        for line in lines {
            output::line(line);
        }
    }
    Ok(())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn document(measured: &Measured) -> Value {
    json!({
        "traces": measured.traces,
        "bytes_per_trace": measured.bytes as f64 / measured.traces as f64,
        "bare": { "traces_per_s": median(&measured.bare), "rounds": measured.bare },
        "ingest": {
            "traces_per_s": median(&measured.ingest),
            "rounds": measured.ingest,
            "peak_rss_mib": measured.peak_rss_mib,
            "cpu_us_per_trace": 1e6 * measured.cpu_seconds / measured.traces as f64,
        },
    })
}

fn line(name: &str, measured: &Measured) -> String {
    let (bare, ingest) = (median(&measured.bare), median(&measured.ingest));
    format!(
        "{name:<12} {:>9} {:>7.0} {bare:>12.0} {ingest:>12.0} {:>6.2} {:>9.2} {:>9.0}",
        measured.traces,
        measured.bytes as f64 / measured.traces as f64,
        ingest / bare,
        1e6 * measured.cpu_seconds / measured.traces as f64,
        measured.peak_rss_mib,
    )
}

async fn measure(
    args: &IngestArgs,
    base: &KafkaConfig,
    file: Option<&PathBuf>,
    traces: usize,
    dimensions: Option<usize>,
) -> anyhow::Result<Measured> {
    let name = format!("tracer-bench-{}", unique());
    let kafka = KafkaConfig {
        topics: vec![TopicName::new(&name)?],
        group: name.clone(),
        ..base.clone()
    };
    let backlog = Backlog::create(&kafka, &name, args.partitions)
        .await
        .with_context(|| format!("cannot create a topic at {}", kafka.brokers))?;
    let measured = drain(args, &kafka, file, &backlog, traces, dimensions).await;
    // Whatever happened, nothing is left behind.
    let deleted = backlog.delete().await;
    let measured = measured?;
    deleted.with_context(|| format!("cannot delete the topic {name}"))?;
    Ok(measured)
}

async fn drain(
    args: &IngestArgs,
    kafka: &KafkaConfig,
    file: Option<&PathBuf>,
    backlog: &Backlog,
    traces: usize,
    dimensions: Option<usize>,
) -> anyhow::Result<Measured> {
    output::say(format_args!("writing {traces} traces to {}", backlog.topic));
    let bytes = backlog.fill(traces, dimensions).await?;
    let mut measured = Measured {
        traces,
        bytes,
        bare: Vec::new(),
        ingest: Vec::new(),
        peak_rss_mib: 0.0,
        cpu_seconds: f64::INFINITY,
    };
    for round in 0..args.rounds.max(1) {
        let bare = bare::drain(kafka, &backlog.topic, args.partitions, traces).await?;
        output::say(format_args!("round {}: bare {bare:.0} traces/s", round + 1));
        let Ingested {
            traces_per_s,
            peak_rss_mib,
            cpu_seconds,
        } = child::drain(kafka, file, round, traces).await?;
        output::say(format_args!(
            "round {}: ingest {traces_per_s:.0} traces/s, {cpu_seconds:.2} s of CPU, {peak_rss_mib:.0} MiB",
            round + 1
        ));
        measured.bare.push(bare);
        measured.ingest.push(traces_per_s);
        measured.peak_rss_mib = measured.peak_rss_mib.max(peak_rss_mib);
        measured.cpu_seconds = measured.cpu_seconds.min(cpu_seconds);
    }
    measured.bare.sort_by(f64::total_cmp);
    measured.ingest.sort_by(f64::total_cmp);
    Ok(measured)
}

/// A name that nobody else has.
fn unique() -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    format!(
        "{:x}-{:x}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    )
}
