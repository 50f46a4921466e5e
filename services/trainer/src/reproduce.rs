//! Making a version again, from the traces it was made of.

use std::sync::Arc;

use tracer_features::{
    InputKey,
    embed::{EmbedError, Embedder},
};
use tracer_learn::{FitConfig, FitError, Verdict};
use tracer_store::{
    Manifest, PipelineVersion, Provenance, Registry, ShardKind, ShardLog, StoreError,
};
use tracer_telemetry::Metrics;
use tracer_trace::{OffsetRange, PartitionId, TaskName};

use crate::{
    earlier::{Base, read_base},
    error::RefitError,
    facts::{here, rows_sha256, sha256},
    keeper::Shared,
    progress::Reporter,
    read::{Extent, Reading},
    refit::{Fitted, Partition, fit_read},
};

/// A version that was made again.
#[derive(Clone, Debug)]
pub struct Reproduced {
    /// SHA-256 of the model as it was published.
    pub published_sha256: String,
    /// SHA-256 of the one made now.
    pub sha256: String,
    /// The model made now.
    pub model: Vec<u8>,
    /// What is not as it was when the version was published, whether it mattered or not.
    pub differences: Vec<String>,
}

impl Reproduced {
    /// Whether it has the same bytes.
    pub fn is_identical(&self) -> bool {
        self.sha256 == self.published_sha256
    }
}

/// Why a version could not be made again.
#[derive(Debug, thiserror::Error)]
pub enum ReproduceError {
    /// The store does not answer, or has no such version.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was fitted on traces of another store.
    #[error("version {0} was imported: it can be reproduced where it was fitted")]
    Imported(u64),
    /// Some of the traces are gone.
    #[error("the traces it was fitted on are not all there: {0}")]
    Gone(String),
    /// The version that an incremental refit began at is gone, or is damaged.
    #[error("it began at version {base}, which cannot be read: {detail}")]
    Base {
        /// That version.
        base: u64,
        /// Why it cannot be read.
        detail: String,
    },
    /// The embedder that made its embeddings is not there.
    #[error("its embeddings were made by the embedder {then}, and the task has {} now", now.as_deref().unwrap_or("none"))]
    Embedder {
        /// The identity of that embedder.
        then: String,
        /// That of the task's embedder now.
        now: Option<String>,
    },
    /// The embedder fails.
    #[error("the traces cannot be embedded: {0}")]
    Embed(EmbedError),
    /// Its configuration is of another release.
    #[error("its configuration cannot be read by this release: {0}")]
    Config(serde_json::Error),
    /// The learner, or the gate, says no to what it passed once.
    #[error("the refit did not pass this time: {reason}{}", listed(.differences))]
    Refused {
        /// Why.
        reason: String,
        /// What is not as it was.
        differences: Vec<String>,
    },
    /// A bug.
    #[error("it cannot be fitted: {0}")]
    Failed(String),
}

fn listed(differences: &[String]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    format!("; {}", differences.join("; "))
}

/// Fits a version anew on exactly the traces, with the configuration and from the version
/// that its manifest names. Publishes nothing.
///
/// `embedder` is the task's as it is now: one with the identity that made the version's
/// embeddings is needed, and where they were taken from the traces none is used.
pub async fn reproduce(
    shards: &ShardLog,
    registry: &Registry,
    task: &TaskName,
    version: PipelineVersion,
    embedder: Option<Arc<dyn Embedder>>,
    key: &InputKey,
) -> Result<Reproduced, ReproduceError> {
    let published = registry.load(task, version).await?;
    let manifest = published.manifest;
    if manifest.imported.is_some() {
        return Err(ReproduceError::Imported(version.get()));
    }
    let config: FitConfig =
        serde_json::from_value(manifest.config.clone()).map_err(ReproduceError::Config)?;
    // Versions of earlier releases do not tell all of it, but may come out the same.
    let then = manifest.provenance.clone();
    let embedder = embedder_of(then.as_ref(), embedder)?;
    let base = match then.as_ref().and_then(|then| then.base) {
        None => None,
        Some(base) => Some(base_of(registry, task, base).await?),
    };
    let found = find(shards, &manifest).await?;
    let reading = Reading {
        shards,
        embeddings: Some(shards.store()),
        task,
        partitions: &found.partitions,
        extent: Extent::Again {
            ranges: &found.ranges,
            sampled: then.as_ref().map(|then| then.sampled),
        },
        config: &config,
        window: then.as_ref().map_or(0, |then| then.dedup_window_ms),
        key,
        // Nobody asks how far it is, but the log.
        reporter: &Reporter::new(task, &Metrics::new(), Shared::default()),
    };
    let read = reading.read().await?;
    if let Some(then) = &then {
        found.are_all(read.all as u64, then.traces)?;
    }
    let base_sha256 = base.as_ref().map(|base| base.sha256.clone());
    let fitted = fit_read(&reading, read, embedder, base)
        .await
        .map_err(|error| match error {
            RefitError::Store(error) => ReproduceError::Store(error),
            RefitError::Embed(error) => ReproduceError::Embed(error),
            error => ReproduceError::Failed(error.to_string()),
        })?;
    let differences = differences(&manifest, then.as_ref(), &fitted, base_sha256.as_ref());
    let model = model(fitted.result).map_err(|reason| ReproduceError::Refused {
        reason,
        differences: differences.clone(),
    })?;
    Ok(Reproduced {
        published_sha256: sha256(&published.model),
        sha256: sha256(&model),
        model,
        differences,
    })
}

/// The embedder to use: none, or the one that was used then.
fn embedder_of(
    then: Option<&Provenance>,
    now: Option<Arc<dyn Embedder>>,
) -> Result<Option<Arc<dyn Embedder>>, ReproduceError> {
    let Some(then) = then.and_then(|then| then.embedder.as_ref()) else {
        return Ok(None);
    };
    match now {
        Some(now) if now.identity().as_str() == then => Ok(Some(now)),
        now => Err(ReproduceError::Embedder {
            then: then.clone(),
            now: now.map(|now| now.identity().to_string()),
        }),
    }
}

async fn base_of(
    registry: &Registry,
    task: &TaskName,
    version: PipelineVersion,
) -> Result<Base, ReproduceError> {
    let unreadable = |detail: String| ReproduceError::Base {
        base: version.get(),
        detail,
    };
    match read_base(registry, task, version).await {
        Ok(Ok(base)) => Ok(base),
        Ok(Err(detail)) => Err(unreadable(detail)),
        Err(error @ StoreError::NotFound { .. }) => Err(unreadable(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn model(result: Result<tracer_learn::Outcome, FitError>) -> Result<Vec<u8>, String> {
    let outcome = result.map_err(|error| error.to_string())?;
    match (outcome.verdict, outcome.pipeline) {
        (Verdict::Passed, Some(pipeline)) => Ok(pipeline.to_bytes()),
        (Verdict::Refused { reason }, _) => Err(reason),
        (Verdict::Passed, None) => Err("the learner passed no pipeline".to_owned()),
    }
}

/// Where the traces of a version are now, however their shards are cut by now.
struct Found {
    partitions: Vec<Partition>,
    /// The range of each partition that the version was fitted on.
    ranges: Vec<OffsetRange>,
    /// Ranges of them whose traces are gone on purpose, in words.
    expired: Vec<String>,
}

async fn find(shards: &ShardLog, manifest: &Manifest) -> Result<Found, ReproduceError> {
    let mut found = Found {
        partitions: Vec::with_capacity(manifest.shards.len()),
        ranges: Vec::with_capacity(manifest.shards.len()),
        expired: Vec::new(),
    };
    let mut missing = Vec::new();
    for span in &manifest.shards {
        let partition = PartitionId::new(span.topic.clone(), span.partition);
        let mut infos = shards.shards(&partition).await?;
        infos.retain(|info| info.range.end > span.start && info.range.start < span.end);
        // They are a chain: only its ends can be missing.
        let start = infos.first().map_or(span.end, |info| info.range.start);
        let end = infos.last().map_or(span.start, |info| info.range.end);
        if start > span.start || end < span.end {
            missing.push(format!(
                "offsets {} to {} of {partition} (the store has {})",
                span.start,
                span.end,
                if infos.is_empty() {
                    "none of them".to_owned()
                } else {
                    format!("{start} to {end}")
                },
            ));
            continue;
        }
        let gone = infos.iter().filter(|info| info.kind == ShardKind::Expired);
        found.expired.extend(gone.map(|info| {
            let OffsetRange { start, end } = info.range;
            format!("offsets {start} to {end} of {partition} have expired")
        }));
        found.ranges.push(OffsetRange {
            start: span.start,
            end: span.end,
        });
        found.partitions.push((partition, infos));
    }
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(ReproduceError::Gone(missing.join("; ")))
    }
}

impl Found {
    /// Errs when there were more traces than are read now.
    fn are_all(&self, read: u64, then: u64) -> Result<(), ReproduceError> {
        if read >= then {
            return Ok(());
        }
        let why = if self.expired.is_empty() {
            "no range of them has expired: they are lost".to_owned()
        } else {
            self.expired.join("; ")
        };
        Err(ReproduceError::Gone(format!(
            "{} of {then} are missing; {why}",
            then - read,
        )))
    }
}

/// What is not as it was, in words.
fn differences(
    manifest: &Manifest,
    then: Option<&Provenance>,
    fitted: &Fitted,
    base_sha256: Option<&String>,
) -> Vec<String> {
    let mut differences = Vec::new();
    let release = env!("CARGO_PKG_VERSION");
    if manifest.code_version != release {
        differences.push(format!(
            "it was fitted by release {}, this is {release}",
            manifest.code_version
        ));
    }
    let Some(then) = then else {
        differences.push("its manifest does not tell by which code and rows it was made".into());
        return differences;
    };
    let now = here();
    if then.rows_sha256 != rows_sha256(&fitted.rows.data) {
        differences.push(format!(
            "the rows are others: {} of {} traces then, {} of {} now",
            then.rows,
            then.traces,
            fitted.rows.data.len(),
            fitted.rows.read,
        ));
    }
    if then.base_sha256.as_ref() != base_sha256 {
        differences.push("the version that it began at has another model now".into());
    }
    let mut other = |what: &str, then: &str, now: &str| {
        if then != now {
            let known = |text: &str| if text.is_empty() { "unknown" } else { text }.to_owned();
            differences.push(format!("{what}: {} then, {} now", known(then), known(now)));
        }
    };
    other("revision of the code", &then.revision, &now.revision);
    other("vector instructions", &then.instructions, &now.instructions);
    let names = then.libraries.keys().chain(now.libraries.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let of = |all: &Provenance| all.libraries.get(name).cloned().unwrap_or_default();
        other(&format!("library {name}"), &of(then), &of(&now));
    }
    other("lock file", &then.lock_sha256, &now.lock_sha256);
    differences
}
