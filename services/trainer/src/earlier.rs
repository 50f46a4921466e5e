//! Where an incremental refit begins: at the version that is active.

use tracer_learn::Pipeline;
use tracer_store::{Registry, StoreError};
use tracer_trace::TaskName;

/// A pipeline that was published, and whose vectors it stands on.
pub(crate) struct Earlier {
    pub(crate) pipeline: Pipeline,
    /// The embedder that its manifest names.
    pub(crate) embedder: Option<String>,
}

impl Earlier {
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
) -> Result<Option<Earlier>, StoreError> {
    let active = registry.active(task).await?;
    let Some(version) = active.version.filter(|_| !active.suspended) else {
        return Ok(None);
    };
    let loaded = match registry.load(task, version).await {
        Err(error) if error.is_refusal() => Err(error.to_string()),
        loaded => Ok(loaded?),
    };
    let read = match loaded {
        Ok(loaded) => {
            // As much work as a megabyte of parsing: not on this thread.
            let read = move || {
                let pipeline = Pipeline::from_bytes(&loaded.model).map_err(|e| e.to_string())?;
                let embedder = loaded.manifest.embedder;
                Ok(Earlier { pipeline, embedder })
            };
            tokio::task::spawn_blocking(read)
                .await
                .unwrap_or_else(|panic| Err(panic.to_string()))
        }
        Err(error) => Err(error),
    };
    Ok(read
        .inspect_err(|error| {
            tracing::warn!(%task, %version, error, "the active version cannot be read, the refit is a full one");
        })
        .ok())
}
