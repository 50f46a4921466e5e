//! `tracer replay`: sends a file of traces to the source.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, IsTerminal as _, stderr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::Array2;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracer_source::{KafkaConfig, LogWriter, Message, SourceConfig, SpoolConfig};
use tracer_telemetry::shutdown_on_signal;
use tracer_trace::{Format, Limits, Origin, TopicName, decode, to_json_line};

use crate::{
    config::{Config, ConfigError},
    files::read_embeddings,
    output,
};

/// Records sent in one go when no rate is asked for.
const BATCH: usize = 500;

/// Batches a second when one is.
const BATCHES_A_SECOND: f64 = 20.0;

/// Rejected lines that are said one by one; the rest is only counted.
const SAID: usize = 20;

/// Sends a file of traces, one JSON object a line, to the source.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// File of traces
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Send to Kafka at these bootstrap servers, whatever is configured
    #[arg(long, value_name = "ADDR", conflicts_with = "spool")]
    kafka: Option<String>,
    /// Send to the spool in this directory, whatever is configured
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Topic to send to [default: the first one configured]
    #[arg(long)]
    topic: Option<TopicName>,
    /// Traces a second at the most, such as 200 or 200/s [default: as fast as they are taken]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Pass over this many traces first
    #[arg(long, default_value_t = 0, value_name = "N")]
    skip: usize,
    /// Send this many traces at the most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Embeddings to send with the traces: float32, C order, a row a line
    #[arg(long, value_name = "NPY")]
    embeddings: Option<PathBuf>,
    /// Fail on the first invalid line instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    text.strip_suffix("/s")
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|rate: &f64| *rate > 0.0 && rate.is_finite())
        .ok_or_else(|| "a rate is a positive number of traces a second".to_owned())
}

/// Runs the command.
pub(crate) async fn run(args: ReplayArgs, config: Config) -> anyhow::Result<()> {
    let file =
        File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let embeddings = args
        .embeddings
        .as_deref()
        .map(read_embeddings)
        .transpose()?;
    let source = destination(&args, config.source);
    let topic = args.topic.clone().unwrap_or_else(|| source.write_topic());
    let writer = source
        .open_writer()
        .map_err(|error| ConfigError::new(format!("source: {error}")))?;
    let mut replay = Replay {
        pace: Pace {
            rate: args.rate,
            started: Instant::now(),
            sent: 0,
        },
        waiting: Vec::new(),
        invalid: 0,
        embeddings,
        limits: config.limits,
        writer: writer.as_ref(),
        topic: &topic,
        args: &args,
    };
    let started = Instant::now();
    let progress = progress(bytes, args.json);
    let interrupted = replay
        .send(BufReader::new(file), &progress, &shutdown_on_signal())
        .await?;
    progress.finish_and_clear();
    let (sent, invalid, seconds) = (
        replay.pace.sent,
        replay.invalid,
        started.elapsed().as_secs_f64(),
    );
    if args.json {
        output::json(
            &json!({ "sent": sent, "invalid": invalid, "topic": topic.as_str(), "seconds": seconds }),
        );
    } else {
        output::line(format_args!(
            "{sent} traces sent to topic {topic} in {seconds:.1} s, {invalid} invalid lines left out"
        ));
    }
    if sent == 0 && invalid > 0 && !interrupted {
        bail!("no line of {} is a trace", args.file.display());
    }
    if interrupted {
        bail!(
            "interrupted; --skip {} goes on from there",
            args.skip + sent + invalid
        );
    }
    Ok(())
}

fn destination(args: &ReplayArgs, configured: SourceConfig) -> SourceConfig {
    match (&args.kafka, &args.spool, configured) {
        (Some(brokers), _, SourceConfig::Kafka(kafka)) => SourceConfig::Kafka(KafkaConfig {
            brokers: brokers.clone(),
            ..kafka
        }),
        (Some(brokers), _, SourceConfig::Spool(spool)) => SourceConfig::Kafka(KafkaConfig {
            brokers: brokers.clone(),
            topics: spool.topics,
            ..KafkaConfig::default()
        }),
        (None, Some(path), SourceConfig::Spool(spool)) => SourceConfig::Spool(SpoolConfig {
            path: path.clone(),
            ..spool
        }),
        (None, Some(path), SourceConfig::Kafka(kafka)) => SourceConfig::Spool(SpoolConfig {
            path: path.clone(),
            topics: kafka.topics,
            ..SpoolConfig::default()
        }),
        (None, None, configured) => configured,
    }
}

struct Replay<'a> {
    pace: Pace,
    waiting: Vec<Message>,
    invalid: usize,
    embeddings: Option<Array2<f32>>,
    limits: Limits,
    writer: &'a dyn LogWriter,
    topic: &'a TopicName,
    args: &'a ReplayArgs,
}

impl Replay<'_> {
    /// Sends the file's lines; true when the shutdown came first.
    async fn send(
        &mut self,
        mut file: BufReader<File>,
        progress: &ProgressBar,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let batch = self.pace.batch();
        let limit = self.args.limit.unwrap_or(usize::MAX);
        let mut line = Vec::new();
        // Blank lines have no embedding and do not count; invalid ones do.
        let (mut number, mut row) = (0, 0);
        while self.pace.sent + self.waiting.len() < limit {
            if shutdown.is_cancelled() {
                return Ok(true);
            }
            line.clear();
            let read = file.read_until(b'\n', &mut line);
            let read = read.with_context(|| format!("cannot read {}", self.args.file.display()))?;
            if read == 0 {
                break;
            }
            progress.inc(read as u64);
            number += 1;
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            row += 1;
            if row <= self.args.skip {
                continue;
            }
            match self.message(text, number, row - 1) {
                Ok(message) => self.waiting.push(message),
                Err(error) if self.args.strict => {
                    return Err(error.context(format!("{}:{number}", self.args.file.display())));
                }
                Err(error) => self.leave_out(number, &error, progress),
            }
            if self.waiting.len() >= batch {
                self.flush().await?;
            }
        }
        self.flush().await?;
        if let Some(matrix) = &self.embeddings
            && self.args.limit.is_none()
            && matrix.nrows() != row
        {
            bail!(
                "the embeddings have {} rows, the file has {row} traces",
                matrix.nrows()
            );
        }
        Ok(false)
    }

    /// The record of a line: as it stands, unless an embedding is to be added.
    fn message(&self, text: &[u8], number: usize, row: usize) -> anyhow::Result<Message> {
        let origin = Origin {
            topic: self.topic.as_str(),
            partition: 0,
            offset: number as u64,
            timestamp_ms: None,
        };
        let mut trace = decode(text, &origin, Format::Json, &self.limits)?;
        let Some(matrix) = &self.embeddings else {
            return Ok(Message::new(Bytes::copy_from_slice(text)));
        };
        if row >= matrix.nrows() {
            bail!(
                "there is no row {row} in the embeddings, they have {}",
                matrix.nrows()
            );
        }
        let values = matrix.row(row).to_vec();
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            bail!("column {column} of its embedding is not finite");
        }
        if trace.id == origin.derived_id() {
            // It gets the id of its place in the log, as without an embedding.
            trace.id.clear();
        }
        trace.embedding = Some(values);
        Ok(Message::new(to_json_line(&trace)))
    }

    fn leave_out(&mut self, number: usize, error: &anyhow::Error, progress: &ProgressBar) {
        self.invalid += 1;
        let file = self.args.file.display();
        match self.invalid {
            1..=SAID => {
                progress
                    .suspend(|| output::say(format_args!("{file}:{number}: left out: {error}")));
            }
            n if n == SAID + 1 => {
                progress.suspend(|| output::say("further invalid lines are only counted"));
            }
            _ => {}
        }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.pace.wait().await;
        let batch = std::mem::take(&mut self.waiting);
        let count = batch.len();
        self.writer
            .append_batch(self.topic, batch)
            .await
            .context("cannot send")?;
        self.pace.sent += count;
        Ok(())
    }
}

/// Keeps to a rate over the whole run: a batch that was late is made up for.
struct Pace {
    rate: Option<f64>,
    started: Instant,
    sent: usize,
}

impl Pace {
    fn batch(&self) -> usize {
        self.rate.map_or(BATCH, |rate| {
            ((rate / BATCHES_A_SECOND) as usize).clamp(1, BATCH)
        })
    }

    async fn wait(&self) {
        if let Some(rate) = self.rate {
            sleep_until(self.started + Duration::from_secs_f64(self.sent as f64 / rate)).await;
        }
    }
}

/// A bar over the file's bytes on a terminal, nothing elsewhere.
fn progress(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {elapsed} {eta} left") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit_or_none() {
        assert_eq!(rate("250"), Ok(250.0));
        assert_eq!(rate("0.5/s"), Ok(0.5));
        for bad in ["0", "-1/s", "fast", "inf", "5/m"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_over_the_whole_run() {
        let mut pace = Pace {
            rate: Some(200.0),
            started: Instant::now(),
            sent: 0,
        };
        let batch = pace.batch();
        while pace.sent < 1000 {
            pace.wait().await;
            pace.sent += batch;
        }
        pace.wait().await;
        assert_eq!(pace.started.elapsed().as_secs_f64().round(), 5.0);
    }

    #[test]
    fn flags_replace_what_is_configured() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ReplayArgs,
        }
        let destination = |flags: &[&str], configured| {
            let line = [&["replay", "f.jsonl"], flags].concat();
            destination(&Line::parse_from(line).args, configured)
        };
        let kafka = destination(&["--kafka", "b:1"], SourceConfig::default());
        assert!(matches!(kafka, SourceConfig::Kafka(kafka) if kafka.brokers == "b:1"));
        let spool = destination(
            &["--spool", "d"],
            SourceConfig::Kafka(KafkaConfig::default()),
        );
        assert!(matches!(spool, SourceConfig::Spool(spool) if spool.path.ends_with("d")));
        assert_eq!(
            destination(&[], SourceConfig::default()),
            SourceConfig::default()
        );
    }
}
