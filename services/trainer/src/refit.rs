//! One refit of one task: read, fit, gate.

use std::sync::Arc;

use tracer_features::embed::Embedder;
use tracer_learn::{FeatureMode, FitError, Outcome, Progress, refit, refit_from};
use tracer_store::{EmbeddingCache, ShardInfo};
use tracer_trace::{PartitionId, TaskName};

use crate::{
    earlier::Earlier,
    embed::embed,
    error::RefitError,
    progress::Stage,
    read::Reading,
    rows::{Rows, dataset},
};

/// The shards of one partition, in order.
pub(crate) type Partition = (PartitionId, Vec<ShardInfo>);

/// What the learner said, and about what.
pub(crate) struct Fitted {
    pub(crate) rows: Rows,
    /// Whether the refit began at an earlier pipeline.
    pub(crate) incremental: bool,
    pub(crate) result: Result<Outcome, FitError>,
}

/// Reads all traces of a task, embeds those that need it, and fits them on a blocking
/// thread: from `previous` on where its embeddings are theirs, else in full.
pub(crate) async fn fit(
    reading: Reading<'_>,
    embedder: Option<Arc<dyn Embedder>>,
    previous: Option<Earlier>,
) -> Result<Fitted, RefitError> {
    let (task, config) = (reading.task.clone(), reading.config.clone());
    let mut read = reading.read().await?;
    // Before texts are withheld: a hash has no embedding.
    if let Some(embedder) = embedder.filter(|_| config.features != FeatureMode::Lexical) {
        let identity = embedder.identity();
        let cache = reading.embeddings.map(|store| {
            EmbeddingCache::new(
                store.clone(),
                &task,
                identity.as_str(),
                identity.dimension(),
            )
        });
        let progress = |done, total| {
            reading
                .reporter
                .step("embedding", done as u64, total as u64);
        };
        let traces = &mut read.traces;
        let made = embed(&task, embedder.as_ref(), cache.as_ref(), traces, &progress).await?;
        reading.reporter.embedded(made);
    }
    let (key, reporter) = (reading.key.clone(), reading.reporter.clone());
    let panicked = |error: tokio::task::JoinError| RefitError::Panicked(error.to_string());
    tokio::task::spawn_blocking(move || {
        let mut rows = dataset(&read.traces, read.all, &config.lexicon, &key);
        if let Some(weights) = &read.weights {
            let weights = rows.taken.iter().map(|&place| weights[place]);
            rows.data.drawn(weights.collect(), read.not_drawn);
        }
        let duplicates = read.all - read.traces.len() - read.not_drawn;
        let not_drawn = read.not_drawn;
        drop(read);
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
        tracing::debug!(%task, traces = rows.read, duplicates, not_drawn, "traces are read");
        reporter.stage(Stage::Fitting);
        let mut progress = |progress: Progress| reporter.fitting(&progress);
        let (name, data) = (task.as_str(), &rows.data);
        let previous = previous.filter(|earlier| {
            let stands = earlier.stands_on(rows.embedder.as_deref());
            if !stands {
                tracing::info!(%task, embedder = rows.embedder, "the active version stands on another embedder, the refit is a full one");
            }
            stands
        });
        let incremental = previous.is_some();
        let outcomes = match &previous {
            Some(previous) => refit_from(name, data, &config, &previous.pipeline, &mut progress),
            None => refit(name, data, &config, &mut progress),
        };
        let result = outcomes.map(|mut outcomes| outcomes.swap_remove(0));
        if let Ok(outcome) = &result {
            tell_dropped(&task, outcome);
        }
        Fitted {
            rows,
            incremental,
            result,
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
