//! From a passed outcome to a published version.

use std::collections::BTreeMap;

use bytes::Bytes;
use tracer_explain::Files;
use tracer_learn::{FitConfig, Outcome, Pipeline};
use tracer_store::{Manifest, PipelineVersion, Registry, Shadow, ShardSpan, VersionFiles};
use tracer_trace::{Offset, PartitionId, TaskName};

use crate::{
    Teacher,
    error::RefitError,
    facts::provenance,
    refit::{Fitted, Partition},
};

/// What a version is besides its pipeline.
pub(crate) struct Origin<'a> {
    pub(crate) task: &'a TaskName,
    pub(crate) fitted: &'a Fitted,
    pub(crate) partitions: &'a [Partition],
    pub(crate) config: &'a FitConfig,
    pub(crate) author: &'a str,
    pub(crate) teacher: &'a Teacher,
    /// Of the lease under which it is published.
    pub(crate) epoch: u64,
    /// The last entry of the deployment log when the refit began.
    pub(crate) log_seq: u64,
}

/// Publishes and answers the version's number.
pub(crate) async fn publish(
    registry: &Registry,
    origin: Origin<'_>,
    outcome: &Outcome,
    pipeline: &Pipeline,
    report: Files,
) -> Result<PipelineVersion, RefitError> {
    let files = VersionFiles {
        model: Bytes::from(pipeline.to_bytes()),
        report_json: Bytes::from(report.json),
        report_html: Bytes::from(report.html),
        manifest: manifest(&origin, outcome, pipeline),
    };
    Ok(registry.publish(origin.task, files, origin.author).await?)
}

fn manifest(origin: &Origin<'_>, outcome: &Outcome, pipeline: &Pipeline) -> Manifest {
    let (card, Fitted { rows, told, .. }) = (pipeline.card(), origin.fitted);
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
        embedder: card.embedding_dimension.and(rows.embedder.clone()),
        shards: spans(origin.partitions),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config: serde_json::to_value(origin.config).unwrap_or_default(),
        seed: origin.config.seed,
        provenance: Some(provenance(origin.fitted)),
        cost: Some(told.cost(origin.teacher, outcome.shadow.coverage)),
        epoch: Some(origin.epoch),
        log_seq: Some(origin.log_seq),
        ..Manifest::default()
    }
}

/// What the refit has read: a span for each partition with shards.
pub(crate) fn spans(partitions: &[Partition]) -> Vec<ShardSpan> {
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

/// How far each partition has been read.
pub(crate) type Ends = BTreeMap<PartitionId, Offset>;

/// How far a version has read the partitions of this store: one of another store none.
pub(crate) fn ends_of(manifest: &Manifest) -> Ends {
    if manifest.imported.is_some() {
        return Ends::new();
    }
    ends_of_spans(&manifest.shards)
}

/// Where some spans end.
pub(crate) fn ends_of_spans(spans: &[ShardSpan]) -> Ends {
    spans
        .iter()
        .map(|span| {
            let partition = PartitionId::new(span.topic.clone(), span.partition);
            (partition, span.end)
        })
        .collect()
}

/// Where the partitions end now.
#[cfg(test)]
fn ends(partitions: &[Partition]) -> Ends {
    let last =
        |(partition, shards): &Partition| Some((partition.clone(), shards.last()?.range.end));
    partitions.iter().filter_map(last).collect()
}

/// How many traces of a task a refit has seen that read so far, of those that are there
/// now: what has expired since does not count. Of a shard that was compacted and reaches
/// beyond that, the part before it counts as if its traces were spread evenly.
pub(crate) fn rows_seen(seen: &Ends, task: &TaskName, partitions: &[Partition]) -> u64 {
    let mut rows = 0;
    for (partition, shards) in partitions {
        let Some(end) = seen.get(partition) else {
            continue;
        };
        for shard in shards.iter().filter(|shard| shard.range.start < *end) {
            let all = shard.rows_by_task.get(task).copied().unwrap_or(0);
            let length = shard.range.end.get() - shard.range.start.get();
            let part = end.get().min(shard.range.end.get()) - shard.range.start.get();
            let seen = u128::from(all) * u128::from(part) / u128::from(length.max(1));
            rows += seen as u64;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_store::{ShardInfo, ShardKind};
    use tracer_trace::OffsetRange;

    use super::*;

    fn shard(start: u64, end: u64, rows: u64) -> ShardInfo {
        ShardInfo {
            partition: PartitionId::new("t".parse().unwrap(), 0),
            range: OffsetRange {
                start: Offset(start),
                end: Offset(end),
            },
            kind: ShardKind::Written,
            path: String::new(),
            size: 0,
            unpacked: 0,
            rows_by_task: BTreeMap::from([(TaskName::default(), rows)]),
            last_record: None,
            written: None,
            bare: Vec::new(),
        }
    }

    #[test]
    fn what_was_seen_stays_seen_when_shards_are_replaced() {
        let of = |shards: Vec<ShardInfo>| vec![(shards[0].partition.clone(), shards)];
        let task = TaskName::default();
        let before = of(vec![shard(0, 50, 50), shard(50, 100, 50)]);
        let seen = ends(&before);
        assert_eq!(rows_seen(&seen, &task, &before), 100);
        // More has come, and was compacted with what was there.
        let joined = of(vec![shard(0, 200, 200)]);
        assert_eq!(rows_seen(&seen, &task, &joined), 100);
        // The first shard has expired.
        let expired = of(vec![
            shard(0, 50, 0),
            shard(50, 100, 50),
            shard(100, 200, 100),
        ]);
        assert_eq!(rows_seen(&seen, &task, &expired), 50);
        assert_eq!(rows_seen(&Ends::new(), &task, &expired), 0);
    }
}
