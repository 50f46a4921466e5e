//! One refit of one task: read, fit, gate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracer_features::{InputKey, embed::Embedder};
use tracer_learn::{FeatureMode, FitConfig, FitError, Outcome, Progress, refit, refit_from};
use tracer_store::{ShardInfo, ShardLog, StoreError};
use tracer_trace::{PartitionId, StoredTrace, TaskName};

use crate::{
    cost::Told,
    earlier::Base,
    embed::embed,
    error::RefitError,
    rows::{Rows, dataset, latest_by_id},
};

/// How often a long refit says where it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The shards of one partition, in order.
pub(crate) type Partition = (PartitionId, Vec<ShardInfo>);

/// What the learner said, and about what.
pub(crate) struct Fitted {
    pub(crate) rows: Rows,
    pub(crate) result: Result<Outcome, FitError>,
    /// The task's embedder, by its identity: it made the embeddings of the traces that
    /// came without one of its own.
    pub(crate) embedder: Option<String>,
    /// The version it began at, when it is incremental.
    pub(crate) base: Option<Base>,
    /// What the traces tell of what they cost.
    pub(crate) told: Told,
}

/// Reads all traces of a task, embeds those that need it, and fits them on a blocking
/// thread: from `previous` on where its embeddings are theirs, else in full.
pub(crate) async fn fit(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
    embedder: Option<Arc<dyn Embedder>>,
    config: &FitConfig,
    previous: Option<Base>,
    key: &InputKey,
) -> Result<Fitted, RefitError> {
    let traces = read(shards, task, partitions).await?;
    fit_traces(task, traces, embedder, config, previous, key).await
}

/// Embeds and fits what was read, a list for each partition.
pub(crate) async fn fit_traces(
    task: &TaskName,
    traces: Vec<Vec<StoredTrace>>,
    embedder: Option<Arc<dyn Embedder>>,
    config: &FitConfig,
    previous: Option<Base>,
    key: &InputKey,
) -> Result<Fitted, RefitError> {
    let count = traces.iter().map(Vec::len).sum();
    let panicked = |error: tokio::task::JoinError| RefitError::Panicked(error.to_string());
    let latest = tokio::task::spawn_blocking(|| latest_by_id(traces));
    let mut traces = latest.await.map_err(panicked)?;
    // Before texts are withheld: a hash has no embedding.
    let embedder = embedder.filter(|_| config.features != FeatureMode::Lexical);
    if let Some(embedder) = &embedder {
        embed(task, embedder.as_ref(), &mut traces).await?;
    }
    let embedder = embedder.map(|embedder| embedder.identity().as_str().to_owned());
    let (task, config, key) = (task.clone(), config.clone(), key.clone());
    tokio::task::spawn_blocking(move || {
        let told = Told::of(&traces);
        let rows = dataset(&traces, count, &config.lexicon, &key);
        drop(traces);
        if rows.other_embedder > 0 {
            tracing::warn!(
                %task,
                traces = rows.other_embedder,
                embedder = rows.embedder,
                "embeddings of another embedder than most are not used"
            );
        }
        if rows.other_dimension > 0 {
            tracing::warn!(
                %task,
                traces = rows.other_dimension,
                left_out = rows.left_out,
                "embeddings of another dimension than most are not used"
            );
        }
        if rows.other_scheme > 0 {
            tracing::warn!(%task, traces = rows.other_scheme, "inputs withheld under another secret than most, or in another way, are not used");
        }
        let distinct = rows.data.len() + rows.left_out;
        tracing::debug!(%task, traces = rows.read, duplicates = rows.read - distinct, "traces are read");
        let mut said = Instant::now();
        let mut progress = |progress: Progress| {
            tracing::debug!(%task, stage = progress.stage, done = progress.done, total = progress.total, "refit");
            if said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                tracing::info!(%task, stage = progress.stage, done = progress.done, total = progress.total, "refit");
            }
        };
        let (name, data) = (task.as_str(), &rows.data);
        let previous = previous.filter(|base| {
            let stands = base.stands_on(rows.embedder.as_deref());
            if !stands {
                tracing::info!(%task, embedder = rows.embedder, "the active version stands on another embedder, the refit is a full one");
            }
            stands
        });
        let outcomes = match &previous {
            Some(base) => refit_from(name, data, &config, &base.pipeline, &mut progress),
            None => refit(name, data, &config, &mut progress),
        };
        let result = outcomes.map(|mut outcomes| outcomes.swap_remove(0));
        if let Ok(outcome) = &result {
            tell_dropped(&task, outcome);
        }
        Fitted {
            rows,
            result,
            embedder,
            base: previous,
            told,
        }
    })
    .await
    .map_err(panicked)
}

/// Every candidate that is out of the race, and why.
fn tell_dropped(task: &TaskName, outcome: &Outcome) {
    for candidate in &outcome.candidates {
        if let Some(reason) = &candidate.dropped {
            tracing::info!(%task, candidate = candidate.name, macro_f1 = candidate.macro_f1, reason, "candidate left out");
        }
    }
}

async fn read(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
) -> Result<Vec<Vec<tracer_trace::StoredTrace>>, StoreError> {
    let mut all = Vec::with_capacity(partitions.len());
    for (_, infos) in partitions {
        // Some may be replaced since they were listed, by compaction or by age.
        all.push(shards.read_all(infos, Some(task)).await?);
    }
    Ok(all)
}
