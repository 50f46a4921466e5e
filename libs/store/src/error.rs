//! What can go wrong with the store.

use tracer_trace::parquet_schema::SchemaError;

/// Why an operation of the store failed. Each names the object it is about.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL of the store can't be used.
    #[error("invalid store URL {url:?}: {detail}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// An option of the store is unknown or has a bad value.
    #[error("invalid store option {key:?}: {detail}")]
    Option {
        /// The option's key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no such object.
    #[error("{path}: not found in the store")]
    NotFound {
        /// The object's path.
        path: String,
    },
    /// The store did not do what it was asked.
    #[error("{path}: cannot {operation}: {source}")]
    Access {
        /// What was attempted, such as `read` or `list`.
        operation: &'static str,
        /// The object's path.
        path: String,
        /// The store's answer.
        source: object_store::Error,
    },
    /// The object is there, but not what it should be: truncated, altered or not ours.
    #[error("{path}: damaged: {detail}")]
    Damaged {
        /// The object's path.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The object was written by a later release.
    #[error(
        "{path}: has schema version {found}, but this release reads up to {supported}: upgrade Tracer to read it"
    )]
    NewerSchema {
        /// The object's path.
        path: String,
        /// The version found.
        found: u32,
        /// The latest version this release reads.
        supported: u32,
    },
    /// The rows of a shard can't be turned into columns or back.
    #[error("{path}: {source}")]
    Schema {
        /// The shard's path.
        path: String,
        /// The offending column.
        source: SchemaError,
    },
    /// A shard was asked for that breaks the shard log's rules.
    #[error("{path}: invalid shard: {detail}")]
    InvalidShard {
        /// The shard's path.
        path: String,
        /// The broken rule.
        detail: String,
    },
    /// Every name tried was taken by somebody else.
    #[error("{path}: lost the race for a free name {attempts} times")]
    Contended {
        /// The last path tried.
        path: String,
        /// How many were tried.
        attempts: usize,
    },
    /// What was asked of a task's versions cannot be done.
    #[error("task {task}: {detail}")]
    Deployment {
        /// The task.
        task: String,
        /// Why not.
        detail: String,
    },
    /// A version is gone: there were too many, and the log says so.
    #[error("version {version} of task {task} is gone: it was retired")]
    Retired {
        /// The task.
        task: String,
        /// The version.
        version: u64,
    },
    /// An object is larger than whoever asked for it takes.
    #[error("{path}: larger than {most} bytes")]
    TooLarge {
        /// The object's path.
        path: String,
        /// The most that was asked for.
        most: u64,
    },
    /// Whoever wants to publish has been replaced: a later epoch was fenced off.
    #[error(
        "{task}: the publisher's lease, of epoch {epoch}, was taken over: epoch {by} has the task"
    )]
    Superseded {
        /// The task.
        task: String,
        /// The publisher's epoch.
        epoch: u64,
        /// The later one.
        by: u64,
    },
    /// What serves was changed by hand, or for its live agreement, while a version was made.
    #[error("{task}: entry {seq} suspended it or rolled it back after the refit had begun")]
    Overtaken {
        /// The task.
        task: String,
        /// The entry in the deployment log.
        seq: u64,
    },
    /// The encoder failed.
    #[error("{path}: cannot encode: {detail}")]
    Encode {
        /// The object's path.
        path: String,
        /// The encoder's words.
        detail: String,
    },
}

impl StoreError {
    /// True when the error says that an object is damaged, too new, or gone for good:
    /// retrying gives the same answer.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::NewerSchema { .. }
                | Self::Schema { .. }
                | Self::Retired { .. }
        )
    }

    pub(crate) fn damaged(path: &impl ToString, detail: &(impl ToString + ?Sized)) -> Self {
        Self::Damaged {
            path: path.to_string(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn encode(path: &impl ToString, detail: &(impl ToString + ?Sized)) -> Self {
        Self::Encode {
            path: path.to_string(),
            detail: detail.to_string(),
        }
    }
}

/// The result of an operation of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
