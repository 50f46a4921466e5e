//! Why a refit did not come to a verdict, and why the service stops.

use tracer_features::embed::EmbedError;
use tracer_store::StoreError;

/// Why the service could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plan no refit can follow.
    #[error("task {task}: {source}")]
    Plan {
        /// The task, or `task_defaults`.
        task: String,
        /// What is wrong.
        source: tracer_learn::InvalidSetting,
    },
    /// The watch over the live agreement has ended: nobody would suspend a task.
    #[error("the watch over the live agreement has ended: {0}")]
    Watch(String),
}

/// Why one refit did not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the traces cannot be embedded: {0}")]
    Embed(#[from] EmbedError),
    #[error("the refit panicked: {0}")]
    Panicked(String),
    #[error("another trainer has taken the task over meanwhile: nothing is published")]
    Superseded,
}
