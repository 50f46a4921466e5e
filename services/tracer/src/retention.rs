//! The retention of versions, beside a trainer.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracer_store::{Registry, RetentionRule, StoreError};

/// Who retires versions, in the log.
const AUTHOR: &str = "retention";

/// Looks at all tasks again and again. Several may do so at once: the log decides.
pub(crate) async fn run(
    registry: Registry,
    rule: RetentionRule,
    interval: Duration,
    shutdown: CancellationToken,
) {
    loop {
        let round = async {
            for task in registry.tasks().await? {
                // One task's trouble is not the others'.
                match registry.retire(&task, &rule, AUTHOR, false).await {
                    Ok(done) if !done.retired.is_empty() || !done.deleted.is_empty() => {
                        tracing::info!(%task, retired = ?done.retired, deleted = ?done.deleted, bytes = done.bytes, "versions were retired");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%task, %error, "versions cannot be retired, trying again later");
                    }
                }
            }
            Ok::<_, StoreError>(())
        };
        tokio::select! {
            done = round => if let Err(error) = done {
                tracing::warn!(%error, "the registry cannot be read, versions are retired later");
            },
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
