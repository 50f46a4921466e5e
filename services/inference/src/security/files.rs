//! Files that are read again when they change.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::SecurityError;

/// Most bytes of a file of certificates or tokens.
const MOST: u64 = 1 << 20;

/// A file's key in the configuration, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: &'static str,
    pub(super) file: PathBuf,
}

impl Named {
    pub(super) fn new(key: &'static str, file: &str) -> Self {
        Self {
            key,
            file: PathBuf::from(file),
        }
    }

    pub(super) fn bad(&self, problem: impl Into<String>) -> SecurityError {
        SecurityError::File {
            key: self.key,
            file: self.file.clone(),
            problem: problem.into(),
        }
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, SecurityError> {
        let contents = read(&self.file).map_err(|error| self.bad(error.to_string()))?;
        if contents.len() as u64 > MOST {
            return Err(self.bad(format!("is larger than {MOST} bytes")));
        }
        Ok(contents)
    }
}

/// Reads a byte more than is allowed at the most.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(file)?
        .take(MOST + 1)
        .read_to_end(&mut contents)?;
    Ok(contents)
}

type Use = Box<dyn FnMut(&[Vec<u8>]) -> Result<String, SecurityError> + Send>;

/// Files that belong together, what they held when they were last looked at, and what to
/// do when that changes.
///
/// The contents are compared, not the times: a rotation within the resolution of a clock,
/// or by a change of symbolic links, is seen, and a rotation that is half done is tried
/// again when its other half is there.
pub(super) struct Watched {
    what: &'static str,
    files: Vec<Named>,
    /// `None` before the first look, and where reading failed.
    seen: Option<Vec<Vec<u8>>>,
    unreadable: bool,
    replace: Use,
}

impl Watched {
    /// `replace` puts the new contents in use, and answers what they are.
    pub(super) fn new(
        what: &'static str,
        files: Vec<Named>,
        replace: impl FnMut(&[Vec<u8>]) -> Result<String, SecurityError> + Send + 'static,
    ) -> Self {
        Self {
            what,
            files,
            seen: None,
            unreadable: false,
            replace: Box::new(replace),
        }
    }

    /// Looks once. False when something could not be used that was not known before.
    pub(super) async fn look(&mut self) -> bool {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || {
            files.iter().map(Named::read).collect::<Result<Vec<_>, _>>()
        });
        let contents = match read.await {
            Ok(Ok(contents)) => contents,
            Ok(Err(error)) => {
                let new = !std::mem::replace(&mut self.unreadable, true);
                if new {
                    self.tell(&error);
                }
                return !new;
            }
            // The runtime is going down.
            Err(_) => return true,
        };
        self.unreadable = false;
        if self.seen.as_ref() == Some(&contents) {
            return true;
        }
        let first = self.seen.is_none();
        let replaced = (self.replace)(&contents);
        self.seen = Some(contents);
        match replaced {
            Ok(_) if first => true,
            Ok(now) => {
                tracing::info!(what = self.what, now, "files have changed and are in use");
                true
            }
            Err(error) => {
                self.tell(&error);
                false
            }
        }
    }

    fn tell(&self, error: &SecurityError) {
        let what = self.what;
        tracing::warn!(what, %error, "files cannot be used; what was read before stays in use");
    }
}
