//! `tracer aggregator reset`: where a partition that stands still goes on.

use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tracer_source::{KafkaInspector, Offset, OffsetRange, PartitionId, SourceConfig, TopicName};
use tracer_store::{LastRecord, Resume, ShardLog, Store};

use crate::{
    config::{Config, ConfigError},
    output,
};

/// Decides where reading of a partition goes on, when its log lost what was to be read.
#[derive(Args, Debug)]
pub(crate) struct ResetArgs {
    /// Topic of the partition
    #[arg(long, value_name = "TOPIC")]
    topic: TopicName,
    /// Number of the partition
    #[arg(long, value_name = "N")]
    partition: i32,
    /// Where to go on: at the oldest record there is, or at this offset of the log
    #[arg(long, value_name = "beginning|OFFSET")]
    to: To,
    /// Why, for those who ask later
    #[arg(long, default_value = "not said")]
    reason: String,
    /// Who decides it [default: the user of this process]
    #[arg(long)]
    author: Option<String>,
    /// Go back in a log that still has what was read: those traces are stored twice
    #[arg(long)]
    force: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Beginning,
    Offset(Offset),
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "beginning" {
            return Ok(Self::Beginning);
        }
        let offset = text.parse();
        offset
            .map(|offset| Self::Offset(Offset(offset)))
            .map_err(|_| "it is neither \"beginning\" nor an offset".to_owned())
    }
}

/// Runs the command.
pub(crate) async fn run(args: ResetArgs, config: Config) -> anyhow::Result<()> {
    let SourceConfig::Kafka(kafka) = &config.source else {
        bail!(ConfigError::new("source.kind: a reset is for \"kafka\""));
    };
    let store = Store::open(&config.store.url, &config.store.options)
        .map_err(|error| ConfigError::new(format!("store: {error}")))?;
    let shards = ShardLog::new(store);
    let partition = PartitionId::new(args.topic.clone(), args.partition);
    let resume = shards.resume(&partition).await?;
    let Some(position) = resume.position() else {
        bail!("nothing has been stored of {partition}: it is read from its beginning anyway");
    };
    let (config, of, last) = (kafka.clone(), partition.clone(), last(&resume));
    let seen = tokio::task::spawn_blocking(move || look(&config, &of, last.as_ref()));
    let (available, same) = seen
        .await?
        .with_context(|| format!("cannot look at {partition} in Kafka at {}", kafka.brokers))?;
    let offset = match args.to {
        To::Beginning => available.start,
        To::Offset(offset) if offset < available.start || offset > available.end => {
            bail!("the log has {available} of {partition}, and not {offset}")
        }
        To::Offset(offset) => offset,
    };
    let at = position.get().saturating_sub(resume.shift);
    if same && offset.get() < at && !args.force {
        bail!(
            "the log of {partition} still has the record that was stored last, at {}: to go back \
             from {at} to {offset} stores {} records twice; --force does it all the same",
            at - 1,
            at - offset.get()
        );
    }
    if same && offset.get() == at {
        bail!("{partition} goes on at offset {at} anyway");
    }
    let author = args
        .author
        .unwrap_or_else(|| std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned()));
    let reset = shards
        .reset(&partition, offset, &author, &args.reason)
        .await?;
    if args.json {
        output::json(&json!({
            "topic": args.topic.as_str(),
            "partition": args.partition,
            "offset": reset.offset.get(),
            "position": reset.next.get(),
            "shift": reset.shift(),
            "before": reset.position.get(),
        }));
    } else {
        output::line(format_args!(
            "{partition} goes on at offset {} of the log, which is position {} in the store (it stood at {}). \
             Running aggregators notice it within seconds.",
            reset.offset, reset.next, reset.position
        ));
    }
    Ok(())
}

/// The record that the shards end by, with its offset in the log.
fn last(resume: &Resume) -> Option<(Offset, LastRecord)> {
    let record = resume.last.as_ref()?.last_record.clone()?;
    let offset = Offset(record.offset.get().checked_sub(resume.shift)?);
    Some((offset, record))
}

/// What the log has, and whether it still has the record that was read last.
fn look(
    kafka: &tracer_source::KafkaConfig,
    partition: &PartitionId,
    last: Option<&(Offset, LastRecord)>,
) -> anyhow::Result<(OffsetRange, bool)> {
    let inspector = KafkaInspector::open(kafka)?;
    let available = inspector.available(partition)?;
    let Some((offset, expected)) = last.filter(|(offset, _)| available.contains(*offset)) else {
        return Ok((available, false));
    };
    let record = inspector.record(partition, *offset)?;
    let same = record.is_some_and(|record| {
        record.offset == *offset
            && LastRecord::of(expected.offset, record.timestamp_ms, &record.payload) == *expected
    });
    Ok((available, same))
}
