//! Where an incremental refit begins: at the version that is active.

use tracer_learn::Pipeline;
use tracer_store::{Registry, StoreError};
use tracer_trace::TaskName;

/// The active pipeline of a task. `None` when there is none, when it is suspended (what
/// it learned no longer holds), or when it cannot be read, which is logged: then only a
/// full refit helps. Errs when the store does not answer.
pub(crate) async fn active_pipeline(
    registry: &Registry,
    task: &TaskName,
) -> Result<Option<Pipeline>, StoreError> {
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
            let read = move || Pipeline::from_bytes(&loaded.model).map_err(|e| e.to_string());
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
