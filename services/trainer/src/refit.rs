//! One refit of one task: read, fit, gate.

use std::time::{Duration, Instant};

use tracer_learn::{FitConfig, FitError, Outcome, Progress, refit};
use tracer_store::{ShardInfo, ShardLog, StoreError};
use tracer_trace::{PartitionId, TaskName};

use crate::{
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
}

/// Reads all traces of a task and fits them on a blocking thread.
pub(crate) async fn fit(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
    config: &FitConfig,
) -> Result<Fitted, RefitError> {
    let traces = read(shards, task, partitions).await?;
    let (task, config) = (task.clone(), config.clone());
    tokio::task::spawn_blocking(move || {
        let count = traces.iter().map(Vec::len).sum();
        let rows = dataset(&latest_by_id(traces), count);
        if rows.other_dimension > 0 {
            tracing::warn!(
                %task,
                traces = rows.other_dimension,
                left_out = rows.left_out,
                "embeddings of another dimension than most are not used"
            );
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
        let result = refit(task.as_str(), &rows.data, &config, &mut progress).map(|mut outcomes| outcomes.swap_remove(0));
        Fitted { rows, result }
    })
    .await
    .map_err(|error| RefitError::Panicked(error.to_string()))
}

async fn read(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
) -> Result<Vec<Vec<tracer_trace::StoredTrace>>, StoreError> {
    let mut all = Vec::with_capacity(partitions.len());
    for (_, infos) in partitions {
        let mut traces = Vec::new();
        for info in infos
            .iter()
            .filter(|info| info.rows_by_task.contains_key(task))
        {
            traces.extend(shards.read(info, Some(task)).await?);
        }
        all.push(traces);
    }
    Ok(all)
}
