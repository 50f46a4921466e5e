//! From a published version to a warm pipeline.

use std::sync::Arc;
use tracer_store::{
    LoadedVersion, LogEntry, LogEvent, Manifest, PipelineVersion, Registry, StoreError,
};

use chrono::{DateTime, Utc};
use tracer_learn::{Input, ModelError, Pipeline, Scratch};
use tracer_proto::v1;
use tracer_trace::TaskName;

use crate::catalog::Serving;

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the model cannot be read: {0}")]
    Model(#[from] ModelError),
    #[error("the model is of task {0:?}")]
    OtherTask(String),
    #[error("the model has no labels")]
    NoLabels,
    #[error("the model fails on a plain input: {0}")]
    Warm(String),
    #[error("loading was given up after {0} ms")]
    TimedOut(u128),
    #[error("loading panicked")]
    Panicked,
}

impl LoadError {
    /// True when trying again gives the same answer.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Store(error) => error.is_refusal(),
            Self::TimedOut(_) => false,
            Self::Model(_)
            | Self::OtherTask(_)
            | Self::NoLabels
            | Self::Warm(_)
            | Self::Panicked => true,
        }
    }
}

/// Downloads, checks, decodes and warms one version. The CPU-bound part runs
/// on a blocking thread.
pub(crate) async fn version(
    registry: &Registry,
    task: &TaskName,
    version: PipelineVersion,
) -> Result<Arc<Serving>, LoadError> {
    let loaded = registry.load(task, version).await?;
    let task = task.clone();
    tokio::task::spawn_blocking(move || build(&task, version, &loaded).map(Arc::new))
        .await
        .map_err(|_| LoadError::Panicked)?
}

fn build(
    task: &TaskName,
    version: PipelineVersion,
    loaded: &LoadedVersion,
) -> Result<Serving, LoadError> {
    let pipeline = Pipeline::from_bytes(&loaded.model)?;
    if pipeline.card().task != task.as_str() {
        return Err(LoadError::OtherTask(pipeline.card().task.clone()));
    }
    if pipeline.labels().is_empty() {
        return Err(LoadError::NoLabels);
    }
    warm(&pipeline)?;
    Ok(Serving {
        version: version.0,
        threshold: pipeline.card().threshold,
        embedding_dimension: pipeline.card().embedding_dimension,
        embedder: loaded.manifest.embedder.clone(),
        usage: (loaded.manifest.cost.as_ref()).and_then(|cost| cost.usage),
        description: describe(task, version, &pipeline, &loaded.manifest),
        pipeline,
    })
}

/// Touches the weights once, and finds out whether they decide at all, before
/// a request has to.
fn warm(pipeline: &Pipeline) -> Result<(), LoadError> {
    let dimension = pipeline.card().embedding_dimension;
    let embedding: Option<Vec<f32>> = dimension.map(|d| vec![1.0 / (d.max(1) as f32).sqrt(); d]);
    let mut scratch = Scratch::default();
    for text in [
        "where is my order",
        "I would like to change my address, please",
    ] {
        let input = Input {
            text: Some(text),
            embedding: embedding.as_deref(),
        };
        pipeline
            .decide(input, &mut scratch)
            .map_err(|error| LoadError::Warm(error.to_string()))?;
    }
    Ok(())
}

fn describe(
    task: &TaskName,
    version: PipelineVersion,
    pipeline: &Pipeline,
    manifest: &Manifest,
) -> v1::Pipeline {
    let card = pipeline.card();
    v1::Pipeline {
        task: task.as_str().to_owned(),
        version: version.0,
        family: card.family.to_string(),
        surrogate: card.surrogate.clone(),
        target_agreement: card.target_agreement,
        delta: card.delta,
        threshold: f64::from(card.threshold),
        shadow_coverage: card.shadow.coverage,
        shadow_agreement: card.shadow.agreement,
        shadow_agreement_lower: card.shadow.agreement_lower,
        shadow_rows: card.shadow.n as u64,
        training_traces: card.training_traces as u64,
        labels: pipeline.labels().to_vec(),
        embedding_dimension: card.embedding_dimension.unwrap_or(0) as u32,
        embedder: manifest.embedder.clone().unwrap_or_default(),
        published_at: Some(timestamp(manifest.created_at)),
        suspended: false,
        needs_text: card.needs_text,
    }
}

fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: time.timestamp_subsec_nanos() as i32,
    }
}

/// The versions that may stand in for `failed`, the latest first: those that were
/// active before and made way for a newer one. One that was suspended when it was
/// last active, or that was taken back, is not to serve again by accident.
pub(crate) fn predecessors(log: &[LogEntry], failed: PipelineVersion) -> Vec<PipelineVersion> {
    let mut left: Vec<(PipelineVersion, bool)> = Vec::new();
    let mut active = None;
    let mut suspended = false;
    for entry in log {
        let (next, trusted) = match &entry.event {
            LogEvent::Published { version } => (*version, !suspended),
            LogEvent::RolledBack { to_version } => (*to_version, false),
            LogEvent::Suspended { .. } => {
                suspended = true;
                continue;
            }
            LogEvent::Resumed => {
                suspended = false;
                continue;
            }
            LogEvent::Retired { .. } | LogEvent::Fenced { .. } => continue,
        };
        suspended = false;
        if let Some(was) = active.replace(next)
            && was != next
        {
            left.retain(|(version, _)| *version != was);
            left.push((was, trusted));
        }
    }
    let trusted = left.into_iter().rev().filter(|(_, trusted)| *trusted);
    trusted
        .map(|(version, _)| version)
        .filter(|version| *version != failed)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: impl IntoIterator<Item = LogEvent>) -> Vec<LogEntry> {
        let entry = |(i, event): (usize, LogEvent)| LogEntry {
            schema_version: 1,
            seq: i as u64 + 1,
            at: DateTime::default(),
            author: "test".to_owned(),
            nonce: i.to_string(),
            event,
            reason: None,
        };
        events.into_iter().enumerate().map(entry).collect()
    }

    fn published(version: u64) -> LogEvent {
        LogEvent::Published {
            version: PipelineVersion(version),
        }
    }

    fn back(version: u64) -> LogEvent {
        LogEvent::RolledBack {
            to_version: PipelineVersion(version),
        }
    }

    fn suspended() -> LogEvent {
        LogEvent::Suspended {
            reason: String::new(),
        }
    }

    #[test]
    fn only_a_version_that_made_way_in_trust_stands_in() {
        use LogEvent::Resumed;
        for (events, failed, expected) in [
            (vec![], 1, vec![]),
            (vec![published(1)], 1, vec![]),
            (
                vec![published(1), published(2), published(3)],
                3,
                vec![2, 1],
            ),
            // 2 was taken back; 1 made way for it, and again for 3.
            (vec![published(1), published(2), back(1)], 1, vec![]),
            (
                vec![published(1), published(2), back(1), published(3)],
                3,
                vec![1],
            ),
            (vec![published(1), suspended(), published(2)], 2, vec![]),
            (
                vec![published(1), suspended(), Resumed, published(2)],
                2,
                vec![1],
            ),
            // The suspension of the failed one says nothing of the one before.
            (vec![published(1), published(2), suspended()], 2, vec![1]),
        ] {
            let versions = predecessors(&log(events.clone()), PipelineVersion(failed));
            let versions: Vec<u64> = versions.into_iter().map(|version| version.0).collect();
            assert_eq!(versions, expected, "{events:?}");
        }
    }
}
