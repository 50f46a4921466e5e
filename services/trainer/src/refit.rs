//! One refit of one task: read, fit, gate.

use tracer_features::InputKey;
use tracer_learn::{FitConfig, FitError, Outcome, Pipeline, Progress, refit, refit_from};
use tracer_store::{ShardInfo, ShardLog, StoreError};
use tracer_trace::{PartitionId, TaskName};

use crate::{
    error::RefitError,
    progress::{Reporter, Stage},
    rows::{Rows, dataset, latest_by_id},
};

/// The shards of one partition, in order.
pub(crate) type Partition = (PartitionId, Vec<ShardInfo>);

/// What the learner said, and about what.
pub(crate) struct Fitted {
    pub(crate) rows: Rows,
    pub(crate) result: Result<Outcome, FitError>,
}

/// Reads all traces of a task and fits them on a blocking thread: from `previous` on,
/// or in full.
pub(crate) async fn fit(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
    config: &FitConfig,
    previous: Option<Pipeline>,
    key: &InputKey,
    reporter: &Reporter,
) -> Result<Fitted, RefitError> {
    let traces = read(shards, task, partitions).await?;
    let (task, config, key) = (task.clone(), config.clone(), key.clone());
    let reporter = reporter.clone();
    tokio::task::spawn_blocking(move || {
        let count = traces.iter().map(Vec::len).sum();
        let rows = dataset(&latest_by_id(traces), count, &config.lexicon, &key);
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
        reporter.stage(Stage::Fitting);
        let mut progress = |progress: Progress| reporter.fitting(&progress);
        let (name, data) = (task.as_str(), &rows.data);
        let outcomes = match &previous {
            Some(previous) => refit_from(name, data, &config, previous, &mut progress),
            None => refit(name, data, &config, &mut progress),
        };
        let result = outcomes.map(|mut outcomes| outcomes.swap_remove(0));
        if let Ok(outcome) = &result {
            tell_dropped(&task, outcome);
        }
        Fitted { rows, result }
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
