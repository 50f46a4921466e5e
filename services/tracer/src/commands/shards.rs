//! `tracer shards`: what the shards of the store are, and their upkeep by hand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tracer_aggregator::{MaintenanceConfig, Upkeep, upkeep};
use tracer_store::{Checksum, ShardLog, Store};
use tracer_trace::{PartitionId, TopicName};

use crate::{
    config::{Config, ConfigError},
    output,
};

/// How often the store is asked whether traces have come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `tracer shards`.
#[derive(Args, Debug)]
pub(crate) struct ShardsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the shards of every partition
    List(ListArgs),
    /// Read every row, and say whether each offset is there exactly once
    Verify(Selection),
    /// Make few large shards of many small ones, and delete those replaced long enough
    Compact(CompactArgs),
    /// Remove the traces that are older than the retention
    Expire(ExpireArgs),
}

/// Which partitions, and in which form.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Only this topic
    #[arg(long)]
    topic: Option<TopicName>,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    /// Also those that do not count: replaced, or left by a writer that was replaced
    #[arg(long)]
    all: bool,
    /// Wait until there are traces, but no longer than so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Wait for so many of them
    #[arg(long, value_name = "N", requires = "wait", default_value_t = 1)]
    rows: u64,
}

#[derive(Args, Debug)]
struct CompactArgs {
    #[command(flatten)]
    selection: Selection,
    /// Leave shards alone until they are so old [default: as configured in `[maintenance]`]
    #[arg(long, value_name = "SECONDS")]
    after: Option<u64>,
    /// Leave the last so many shards of a partition alone [default: as configured in `[maintenance]`]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Delete what was replaced so long ago [default: as configured in `[maintenance]`]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
}

#[derive(Args, Debug)]
struct ExpireArgs {
    #[command(flatten)]
    selection: Selection,
    /// Keep traces for so many days [default: as configured in `[maintenance]`]
    #[arg(long, value_name = "DAYS")]
    days: Option<u64>,
    /// Delete what was replaced so long ago [default: as configured in `[maintenance]`]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
}

impl Selection {
    async fn partitions(&self, shards: &ShardLog) -> anyhow::Result<Vec<PartitionId>> {
        let mut partitions = shards.partitions().await?;
        partitions.retain(|of| {
            self.topic.as_ref().is_none_or(|topic| of.topic == *topic)
                && self.partition.is_none_or(|number| of.partition == number)
        });
        Ok(partitions)
    }
}

/// Runs the command.
pub(crate) async fn run(args: ShardsArgs, config: Config) -> anyhow::Result<()> {
    let store = Store::open(&config.store.url, &config.store.options)
        .map_err(|error| ConfigError::new(format!("store: {error}")))?;
    let shards = ShardLog::new(store).with_embeddings(config.aggregator.embeddings);
    let mut rules = config.maintenance;
    match args.command {
        Command::List(args) => list(&args, &shards).await,
        Command::Verify(selection) => verify(&selection, &shards).await,
        Command::Compact(args) => {
            rules.retention_days = 0;
            rules.compact_after_seconds = args.after.unwrap_or(rules.compact_after_seconds);
            rules.keep_shards = args.keep.unwrap_or(rules.keep_shards);
            rules.grace_seconds = args.grace.unwrap_or(rules.grace_seconds);
            if rules.compact_rows == 0 {
                bail!(ConfigError::new(
                    "maintenance.compact_rows is 0: nothing is compacted"
                ));
            }
            maintain(&args.selection, &rules, &shards).await
        }
        Command::Expire(args) => {
            rules.compact_rows = 0;
            rules.retention_days = args.days.unwrap_or(rules.retention_days);
            rules.grace_seconds = args.grace.unwrap_or(rules.grace_seconds);
            if rules.retention_days == 0 {
                bail!(ConfigError::new(
                    "maintenance.retention_days is 0, which keeps traces for ever; --days says for how long"
                ));
            }
            maintain(&args.selection, &rules, &shards).await
        }
    }
}

/// Does once what aggregators do again and again.
async fn maintain(
    selection: &Selection,
    rules: &MaintenanceConfig,
    shards: &ShardLog,
) -> anyhow::Result<()> {
    rules
        .validate()
        .map_err(|error| ConfigError::new(error.to_string()))?;
    let mut total = Upkeep::default();
    let mut partitions = Vec::new();
    for partition in selection.partitions(shards).await? {
        let done = upkeep(rules, shards, &partition)
            .await
            .with_context(|| format!("cannot maintain {partition}"))?;
        total.add(done);
        if !selection.json {
            output::line(format_args!("{partition}: {}", Said(done)));
        }
        partitions.push(json!({
            "topic": partition.topic,
            "partition": partition.partition,
            "done": done,
        }));
    }
    if selection.json {
        output::json(&json!({ "total": total, "partitions": partitions }));
    } else {
        output::line(format_args!("in all: {}", Said(total)));
    }
    Ok(())
}

/// What was done, in words.
struct Said(Upkeep);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Upkeep {
            expired,
            compacted,
            deleted,
        } = self.0;
        write!(
            f,
            "{} shards became {} ({} traces), {} traces expired, {} objects deleted ({} bytes)",
            compacted.replaced,
            compacted.made,
            compacted.rows,
            expired.rows,
            deleted.deleted,
            deleted.bytes
        )
    }
}

async fn list(args: &ListArgs, shards: &ShardLog) -> anyhow::Result<()> {
    if let Some(seconds) = args.wait {
        let patience = Duration::from_secs(seconds);
        wait_for_rows(&args.selection, shards, args.rows, patience).await?;
    }
    let mut partitions = Vec::new();
    for partition in args.selection.partitions(shards).await? {
        let mut listed = shards.list(&partition).await?;
        listed.retain(|shard| args.all || shard.counts);
        if !args.selection.json {
            output::line(format_args!("{partition}: {} shards", listed.len()));
            for shard in &listed {
                let next = shard
                    .next_offset
                    .map_or("?".to_owned(), |next| next.to_string());
                let rows: u64 = shard.rows_by_task.values().sum();
                let note = if shard.counts { "" } else { ", does not count" };
                output::line(format_args!(
                    "  [{}, {next})  {rows} rows  {} bytes  {}  {}{note}",
                    shard.base_offset,
                    shard.bytes,
                    shard.kind,
                    shard.modified.format("%Y-%m-%d %H:%M:%S"),
                ));
            }
        }
        partitions.push(json!({
            "topic": partition.topic,
            "partition": partition.partition,
            "shards": listed,
        }));
    }
    if args.selection.json {
        output::json(&json!({ "partitions": partitions }));
    }
    Ok(())
}

/// Looks at least once, and ends with what went wrong when it looked last. A look that fails
/// is not the end: the store may just come up.
async fn wait_for_rows(
    selection: &Selection,
    shards: &ShardLog,
    wanted: u64,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let looked = rows(selection, shards).await;
        let left = deadline.saturating_duration_since(Instant::now());
        match looked {
            Ok(rows) if rows >= wanted => return Ok(()),
            Ok(rows) if left.is_zero() => bail!(
                "{rows} of {wanted} traces have come into the store within {} seconds",
                patience.as_secs()
            ),
            Err(error) if left.is_zero() => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_EVERY.min(left)).await,
        }
    }
}

/// Traces that count.
async fn rows(selection: &Selection, shards: &ShardLog) -> anyhow::Result<u64> {
    let mut rows = 0;
    for partition in selection.partitions(shards).await? {
        let listed = shards.list(&partition).await?;
        let counted = listed.iter().filter(|shard| shard.counts);
        rows += counted.flat_map(|s| s.rows_by_task.values()).sum::<u64>();
    }
    Ok(rows)
}

async fn verify(selection: &Selection, shards: &ShardLog) -> anyhow::Result<()> {
    let (mut rows, mut checksum, mut broken) = (0, Checksum::default(), 0);
    let mut checks = Vec::new();
    for partition in selection.partitions(shards).await? {
        let check = shards
            .verify(&partition)
            .await
            .with_context(|| format!("cannot verify {partition}"))?;
        rows += check.rows;
        checksum.merge(check.checksum);
        broken += usize::from(!check.is_whole());
        if !selection.json {
            let offset = |offset: Option<tracer_trace::Offset>| {
                offset.map_or("none".to_owned(), |offset| offset.to_string())
            };
            output::line(format_args!(
                "{partition}: offsets {} to {}, {} shards, {} rows, {} duplicates, {} gaps, checksum {}",
                offset(check.first_offset),
                offset(check.next_offset),
                check.shards,
                check.rows,
                check.duplicates,
                check.gaps.len(),
                check.checksum,
            ));
            for gap in &check.gaps {
                output::line(format_args!("  gap: {gap}"));
            }
            for problem in &check.problems {
                output::line(format_args!("  {problem}"));
            }
        }
        checks.push(check);
    }
    if selection.json {
        output::json(&json!({
            "whole": broken == 0,
            "rows": rows,
            "checksum": checksum,
            "partitions": checks,
        }));
    } else {
        output::line(format_args!("{rows} rows, checksum {checksum}"));
    }
    if broken > 0 {
        bail!("{broken} of {} partitions are not whole", checks.len());
    }
    Ok(())
}
