//! One refit of one task: read, fit, gate.

use std::time::{Duration, Instant};

use tracer_features::InputKey;
use tracer_learn::{FitConfig, FitError, Outcome, Progress, refit, refit_from};
use tracer_store::{ShardInfo, ShardLog, StoreError};
use tracer_trace::{PartitionId, StoredTrace, TaskName};

use crate::{
    cost::Told,
    earlier::Base,
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
    /// The version it began at.
    pub(crate) base: Option<Base>,
    /// What the traces tell of what they cost.
    pub(crate) told: Told,
}

/// Reads all traces of a task and fits them on a blocking thread: from `previous` on,
/// or in full.
pub(crate) async fn fit(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
    config: &FitConfig,
    previous: Option<Base>,
    key: &InputKey,
) -> Result<Fitted, RefitError> {
    let traces = read(shards, task, partitions).await?;
    fit_traces(task, traces, config, previous, key).await
}

/// Fits what was read, a list for each partition.
pub(crate) async fn fit_traces(
    task: &TaskName,
    traces: Vec<Vec<StoredTrace>>,
    config: &FitConfig,
    previous: Option<Base>,
    key: &InputKey,
) -> Result<Fitted, RefitError> {
    let (task, config, key) = (task.clone(), config.clone(), key.clone());
    tokio::task::spawn_blocking(move || {
        let count = traces.iter().map(Vec::len).sum();
        let latest = latest_by_id(traces);
        let told = Told::of(&latest);
        let rows = dataset(&latest, count, &config.lexicon, &key);
        drop(latest);
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
            base: previous,
            told,
        }
    })
    .await
    .map_err(|error| RefitError::Panicked(error.to_string()))
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
