//! Where an incremental refit begins: at the version that is active.

use tracer_learn::Pipeline;
use tracer_store::{PipelineVersion, Registry, StoreError};
use tracer_trace::TaskName;

use crate::facts::sha256;

/// A version that a refit begins at.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) version: PipelineVersion,
    pub(crate) pipeline: Pipeline,
    /// Of its model.
    pub(crate) sha256: String,
    /// The embedder that its manifest names.
    pub(crate) embedder: Option<String>,
}

impl Base {
    /// Whether its weights of an embedding mean something for the vectors of this
    /// embedder: those of another one may have as many values.
    pub(crate) fn stands_on(&self, embedder: Option<&str>) -> bool {
        self.pipeline.card().embedding_dimension.is_none() || self.embedder.as_deref() == embedder
    }
}

/// The active pipeline of a task. `None` when there is none, when it is suspended (what
/// it learned no longer holds), or when it cannot be read, which is logged: then only a
/// full refit helps. Errs when the store does not answer.
pub(crate) async fn active_pipeline(
    registry: &Registry,
    task: &TaskName,
) -> Result<Option<Base>, StoreError> {
    let active = registry.active(task).await?;
    let Some(version) = active.version.filter(|_| !active.suspended) else {
        return Ok(None);
    };
    let read = read_base(registry, task, version).await?;
    Ok(read
        .inspect_err(|error| {
            tracing::warn!(%task, %version, error, "the active version cannot be read, the refit is a full one");
        })
        .ok())
}

/// A version to begin at, or why it cannot be read. Errs when the store does not answer.
pub(crate) async fn read_base(
    registry: &Registry,
    task: &TaskName,
    version: PipelineVersion,
) -> Result<Result<Base, String>, StoreError> {
    let loaded = match registry.load(task, version).await {
        Err(error) if error.is_refusal() => return Ok(Err(error.to_string())),
        loaded => loaded?,
    };
    // As much work as a megabyte of parsing: not on this thread.
    let read = move || {
        let pipeline = Pipeline::from_bytes(&loaded.model).map_err(|e| e.to_string())?;
        Ok(Base {
            version,
            pipeline,
            sha256: sha256(&loaded.model),
            embedder: loaded.manifest.embedder,
        })
    };
    Ok(tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|panic| Err(panic.to_string())))
}
