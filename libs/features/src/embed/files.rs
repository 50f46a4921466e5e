//! Where the files of a model are.

use std::path::PathBuf;

use async_trait::async_trait;

use super::OpenError;

/// A model's files: a directory, a path in an object store.
#[async_trait]
pub trait ModelFiles: Send + Sync {
    /// Reads a file, `None` where there is none. One of more than `most` bytes is an error.
    async fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError>;

    /// A file's name with its place, for messages.
    fn place(&self, name: &str) -> String;
}

/// A directory of this machine.
#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

#[async_trait]
impl ModelFiles for Directory {
    async fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let path = self.0.join(name);
        let unreadable = |error: &std::io::Error| OpenError::file(self.place(name), error);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.len() > most => Err(too_large(self, name, most)),
            Ok(_) => tokio::fs::read(&path)
                .await
                .map(Some)
                .map_err(|error| unreadable(&error)),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
            Err(error) => Err(unreadable(&error)),
        }
    }

    fn place(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// Whether a name is that of a file or folder below the model, wherever the model is: as a
/// path and as an address. Names come out of files of the model.
pub(super) fn is_plain(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(known);
    name.split('/').all(plain)
}

/// Most bytes of a small file of settings.
pub(super) const SETTINGS: u64 = 4 << 20;
/// Most bytes of a tokenizer.
pub(super) const TOKENIZER: u64 = 256 << 20;
/// Most bytes of weights.
pub(super) const WEIGHTS: u64 = 8 << 30;

pub(super) fn too_large(files: &dyn ModelFiles, name: &str, most: u64) -> OpenError {
    OpenError::file(files.place(name), format!("larger than {most} bytes"))
}

/// Reads a file that must be there.
pub(super) async fn needed(
    files: &dyn ModelFiles,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, OpenError> {
    let found = files.read(name, most).await?;
    found.ok_or_else(|| OpenError::file(files.place(name), "there is no such file"))
}

/// Reads a JSON file; `None` where there is none.
pub(super) async fn json<T: serde::de::DeserializeOwned>(
    files: &dyn ModelFiles,
    name: &str,
) -> Result<Option<T>, OpenError> {
    let Some(bytes) = files.read(name, SETTINGS).await? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed
        .map(Some)
        .map_err(|e| OpenError::file(files.place(name), e))
}
