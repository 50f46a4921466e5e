//! The aggregator: traces from the log into shards, exactly once.
//!
//! One task owns the source and a buffer for every partition. A buffer becomes a
//! shard when it is full or old; the put runs beside the reading, one at a time for
//! each partition, so that shards follow each other without a gap. A shard starts
//! where the one before ended, whatever the offsets of its records: that is what
//! makes two aggregators want the same name for the same place, and the store lets
//! only one have it.
//!
//! Where a store or a dead-letter topic does not answer, buffers fill up, reading
//! pauses and the group membership is kept: nothing is lost and nothing grows
//! without bound. On revocation and on shutdown buffers are flushed within a
//! budget; what is not durable then is read again by whoever comes next.

mod append;
mod buffer;
mod config;
mod dead_letter;
mod failpoint;
mod maintenance;
mod metrics;
mod partition;
mod privacy;
mod reader;
mod shifted;
mod status;
mod worker;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracer_source::{LogWriter, Source, SourceError};
use tracer_store::ShardLog;
use tracer_telemetry::{Health, Metrics, Spans};
use tracer_trace::Limits;

pub use crate::{
    config::{AggregatorConfig, OnLostPosition},
    dead_letter::DeadLetter,
    maintenance::{MaintenanceConfig, Upkeep, upkeep},
    privacy::{InputPolicies, StoreInput},
};

/// Why the aggregator stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration cannot work.
    #[error("aggregator: {0}")]
    Config(String),
    /// A value of the configuration of the shards' upkeep cannot work.
    #[error("maintenance: {0}")]
    Maintenance(String),
    /// The source failed for good.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A task of the aggregator panicked.
    #[error("aggregator: a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs until `shutdown` or until the source fails; flushes before it returns.
///
/// Dead letters go to the configured topic through `dead_letters`; without a
/// writer they are counted only.
#[allow(clippy::too_many_arguments, reason = "the parts it is composed of")]
pub async fn run(
    config: AggregatorConfig,
    source: Box<dyn Source>,
    dead_letters: Option<Arc<dyn LogWriter>>,
    shards: ShardLog,
    limits: Limits,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let seen = (metrics, Spans::default());
    run_with_spans(
        config,
        source,
        dead_letters,
        shards,
        limits,
        seen,
        health,
        shutdown,
    )
    .await
}

/// [`run`], and each shard that is written is a span.
#[allow(clippy::too_many_arguments, reason = "the parts it is composed of")]
pub async fn run_with_spans(
    config: AggregatorConfig,
    source: Box<dyn Source>,
    dead_letters: Option<Arc<dyn LogWriter>>,
    shards: ShardLog,
    limits: Limits,
    (metrics, spans): (Metrics, Spans),
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    config.validate()?;
    let upkeep = config.maintenance.clone();
    let shards = shards
        .with_embeddings(config.embeddings)
        .confirming_every(upkeep.confirm_every());
    let keeper = shards.clone();
    let mut worker = worker::Worker::new(
        config,
        source,
        dead_letters,
        shards,
        limits,
        &metrics,
        &health,
    );
    worker.spans = spans;
    let maintenance = maintenance::Maintenance::new(upkeep, keeper, worker.owned(), &metrics);
    let stop = shutdown.child_token();
    let maintained = tokio::spawn(maintenance.run(stop.clone()));
    let ended = worker.run(shutdown).await;
    stop.cancel();
    maintained.await?;
    ended
}
