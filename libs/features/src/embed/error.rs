//! What can go wrong.

/// Why texts were not embedded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The queue is full.
    #[error("the embedder has too much to do")]
    Busy,
    /// The server did not answer in time.
    #[error("the embedding server at {url} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// Its address, without query or credentials.
        url: String,
        /// The time it had.
        timeout_ms: u64,
    },
    /// The server cannot be reached, or answers with an error.
    #[error("the embedding server at {url}: {detail}")]
    Server {
        /// Its address, without query or credentials.
        url: String,
        /// What happened. Never a part of the request or of the answer.
        detail: String,
    },
    /// What came is not what was asked for.
    #[error("the embedder answered with {detail}")]
    BadAnswer {
        /// What is wrong with it.
        detail: String,
    },
    /// One of the texts is refused, now and for ever. Which one, shows when they are
    /// asked about apart.
    #[error("a text cannot be embedded: {detail}")]
    Refused {
        /// Why. Never a part of a text.
        detail: String,
    },
    /// The model failed.
    #[error("the embedding model failed: {detail}")]
    Model {
        /// How.
        detail: String,
    },
}

impl EmbedError {
    /// True when the texts may be what is wrong: without one of them the others may be
    /// embedded, and asking again with all of them does not help.
    pub fn is_of_texts(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::BadAnswer { .. })
    }
}

/// Why there is no embedder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A key of the configuration cannot work.
    #[error("{key}: {problem}")]
    Setting {
        /// The key, within the embedder's table.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the model is missing, damaged, or of a kind that is not known.
    #[error("{file}: {problem}")]
    File {
        /// The file, and where it was looked for.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read this time.
    #[error("{file} cannot be read: {detail}")]
    Unreadable {
        /// The file, and where it was looked for.
        file: String,
        /// What the storage said.
        detail: String,
    },
}

impl OpenError {
    pub(super) fn setting(key: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Setting { key, problem }
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "errors and texts, as they come"
    )]
    pub(super) fn file(file: impl Into<String>, problem: impl ToString) -> Self {
        let (file, problem) = (file.into(), problem.to_string());
        Self::File { file, problem }
    }

    /// True when trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}
