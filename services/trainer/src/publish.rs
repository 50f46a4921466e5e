//! From a passed outcome to a published version.

use bytes::Bytes;
use tracer_learn::{FitConfig, Outcome, Pipeline};
use tracer_store::{Manifest, PipelineVersion, Registry, Shadow, ShardSpan, VersionFiles};
use tracer_trace::{PartitionId, TaskName};

use crate::{error::RefitError, refit::Partition, rows::Rows};

/// What a version is besides its pipeline.
pub(crate) struct Origin<'a> {
    pub(crate) task: &'a TaskName,
    pub(crate) rows: &'a Rows,
    pub(crate) partitions: &'a [Partition],
    pub(crate) config: &'a FitConfig,
    pub(crate) author: &'a str,
}

/// Publishes and answers the version's number.
pub(crate) async fn publish(
    registry: &Registry,
    origin: Origin<'_>,
    outcome: &Outcome,
    pipeline: &Pipeline,
) -> Result<PipelineVersion, RefitError> {
    let report = tracer_explain::report(
        origin.task.as_str(),
        &origin.rows.data,
        outcome,
        origin.config.delta,
    );
    let files = VersionFiles {
        model: Bytes::from(pipeline.to_bytes()),
        report_json: Bytes::from(report.json),
        report_html: Bytes::from(report.html),
        manifest: manifest(&origin, outcome, pipeline),
    };
    Ok(registry.publish(origin.task, files, origin.author).await?)
}

fn manifest(origin: &Origin<'_>, outcome: &Outcome, pipeline: &Pipeline) -> Manifest {
    let card = pipeline.card();
    Manifest {
        family: card.family.as_str().to_owned(),
        surrogate: card.surrogate.clone(),
        target_agreement: card.target_agreement,
        delta: card.delta,
        threshold: f64::from(card.threshold),
        shadow: Shadow {
            coverage: outcome.shadow.coverage,
            agreement: outcome.shadow.agreement,
            agreement_lower: outcome.shadow.agreement_lower,
            n: outcome.shadow.n as u64,
        },
        training_traces: outcome.training_traces as u64,
        labels: pipeline.labels().len() as u64,
        embedding_dimension: card.embedding_dimension,
        embedder: card.embedding_dimension.and(origin.rows.embedder.clone()),
        shards: spans(origin.partitions),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config: serde_json::to_value(origin.config).unwrap_or_default(),
        seed: origin.config.seed,
        ..Manifest::default()
    }
}

/// What the refit has read: a span for each partition with shards.
fn spans(partitions: &[Partition]) -> Vec<ShardSpan> {
    partitions
        .iter()
        .filter_map(|(partition, shards)| {
            Some(ShardSpan {
                topic: partition.topic.clone(),
                partition: partition.partition,
                start: shards.first()?.range.start,
                end: shards.last()?.range.end,
            })
        })
        .collect()
}

/// How many traces of a task a version has seen, of those that are there now.
pub(crate) fn rows_seen(manifest: &Manifest, task: &TaskName, partitions: &[Partition]) -> u64 {
    let end = |partition: &PartitionId| {
        let spans = manifest.shards.iter();
        let own = spans
            .filter(|span| span.topic == partition.topic && span.partition == partition.partition);
        own.map(|span| span.end).max()
    };
    partitions
        .iter()
        .filter_map(|(partition, shards)| Some((end(partition)?, shards)))
        .flat_map(|(end, shards)| shards.iter().filter(move |shard| shard.range.end <= end))
        .filter_map(|shard| shard.rows_by_task.get(task))
        .sum()
}
