//! `tracer fit --reproduce`: a published version, made again.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use serde_json::json;
use tracer_store::{PipelineVersion, Registry, ShardLog};
use tracer_trace::TaskName;
use tracer_trainer::reproduce;

use super::deployment::store;
use crate::{config::Config, embedders::open_of, environment, output};

/// Fits the version anew, compares, and says what differs. Other bytes are a failure.
pub(crate) async fn run(
    task: &TaskName,
    version: PipelineVersion,
    out: Option<&Path>,
    as_json: bool,
    config: &Config,
) -> anyhow::Result<()> {
    let store = store(config)?;
    let key = config
        .inputs(std::env::var(environment::INPUT_SECRET).ok())?
        .key;
    let registry = Registry::new(store.clone());
    let manifest = registry.manifest(task, version).await?;
    // A model is opened for a version alone whose embeddings it made.
    let embedded = manifest
        .provenance
        .is_some_and(|then| then.embedder.is_some());
    let embedder = if embedded {
        open_of(config, task, &store).await?
    } else {
        None
    };
    let shards = ShardLog::new(store);
    let made = reproduce(&shards, &registry, task, version, embedder, &key)
        .await
        .with_context(|| {
            format!(
                "version {} of task {task} cannot be made again",
                version.get()
            )
        })?;
    if let Some(out) = out {
        let path = out.join("model.safetensors");
        fs::create_dir_all(out)
            .and_then(|()| fs::write(&path, &made.model))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let identical = made.is_identical();
    if as_json {
        output::json(&json!({
            "task": task,
            "version": version,
            "identical": identical,
            "published_sha256": made.published_sha256,
            "sha256": made.sha256,
            "bytes": made.model.len(),
            "differences": made.differences,
        }));
    } else if identical {
        output::line(format_args!(
            "version {} of task {task}: the same {} bytes, SHA-256 {}",
            version.get(),
            made.model.len(),
            made.sha256
        ));
        for difference in &made.differences {
            output::line(format_args!("  although {difference}"));
        }
    }
    if identical {
        return Ok(());
    }
    if made.differences.is_empty() {
        bail!(
            "version {} of task {task} came out otherwise: SHA-256 {} and not {}, although nothing that is recorded differs",
            version.get(),
            made.sha256,
            made.published_sha256
        );
    }
    bail!(
        "version {} of task {task} came out otherwise: SHA-256 {} and not {}. What differs: {}",
        version.get(),
        made.sha256,
        made.published_sha256,
        made.differences.join("; ")
    );
}
