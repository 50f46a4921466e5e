//! One refit of one task: read, fit, gate.

use std::sync::Arc;

use tracer_features::embed::Embedder;
use tracer_learn::{FeatureMode, FitError, Outcome, Progress, refit, refit_from};
use tracer_store::{EmbeddingCache, ShardInfo};
use tracer_trace::{PartitionId, TaskName};

use crate::{
    cost::Told,
    earlier::Base,
    embed::embed,
    error::RefitError,
    progress::Stage,
    read::{Extent, Read, Reading},
    rows::{Rows, dataset},
};

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
    /// Whether the rows are a sample that was drawn while they were read.
    pub(crate) sampled: bool,
    /// Within so many milliseconds copies of a text with one label counted once.
    pub(crate) window: i64,
}

/// Reads all traces of a task, embeds those that need it, and fits them on a blocking
/// thread: from `previous` on where its embeddings are theirs, else in full.
pub(crate) async fn fit(
    reading: Reading<'_>,
    embedder: Option<Arc<dyn Embedder>>,
    previous: Option<Base>,
) -> Result<Fitted, RefitError> {
    let read = reading.read().await?;
    fit_read(&reading, read, embedder, previous).await
}

/// Embeds and fits what was read.
pub(crate) async fn fit_read(
    reading: &Reading<'_>,
    mut read: Read,
    embedder: Option<Arc<dyn Embedder>>,
    previous: Option<Base>,
) -> Result<Fitted, RefitError> {
    let (task, config) = (reading.task.clone(), reading.config.clone());
    // Before texts are withheld: a hash has no embedding.
    let embedder = embedder.filter(|_| config.features != FeatureMode::Lexical);
    if let Some(embedder) = &embedder {
        let identity = embedder.identity();
        let cache = reading.embeddings.map(|store| {
            let (identity, dimension) = (identity.as_str(), identity.dimension());
            let cache = EmbeddingCache::new(store.clone(), &task, identity, dimension);
            match reading.extent {
                Extent::All => cache,
                // Vectors that were made in other batches may differ in their last bits.
                Extent::Again { .. } => cache.read_only(),
            }
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
    let embedder = embedder.map(|embedder| embedder.identity().as_str().to_owned());
    let (key, reporter, window) = (
        reading.key.clone(),
        reading.reporter.clone(),
        reading.window,
    );
    let panicked = |error: tokio::task::JoinError| RefitError::Panicked(error.to_string());
    tokio::task::spawn_blocking(move || {
        let mut rows = dataset(&read.traces, read.all, &config.lexicon, &key);
        if let Some(weights) = &read.weights {
            let weights = rows.taken.iter().map(|&place| weights[place]);
            rows.data.drawn(weights.collect(), read.not_drawn);
        }
        let duplicates = read.all - read.traces.len() - read.not_drawn;
        let (not_drawn, sampled) = (read.not_drawn, read.weights.is_some());
        let told = std::mem::take(&mut read.told);
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
            sampled,
            window,
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
