//! A version in one file: a tar archive with its files, its manifest, and the checksums of
//! all of them as `sha256sum -c` reads them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Cursor, Read as _},
};

use bytes::Bytes;
use tracer_trace::TaskName;

use super::{MANIFEST, MODEL, REPORT_HTML, REPORT_JSON, Registry, VersionFiles, version_folder};
use crate::{
    error::{Result, StoreError},
    manifest::{self, FileEntry, Manifest, PipelineVersion},
    provenance::Imported,
};

const SUMS: &str = "SHA256SUMS";

/// The files of an archive, in their order.
const FILES: [&str; 4] = [MANIFEST, MODEL, REPORT_JSON, REPORT_HTML];

/// Why an archive is refused. Nothing of it is published then.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no tar archive, or is cut off.
    #[error("it cannot be read: {0}")]
    Tar(#[from] std::io::Error),
    /// A file that does not belong there.
    #[error("it holds {0:?}, which is no file of a version")]
    Foreign(String),
    /// A file is there twice.
    #[error("it holds {0} twice")]
    Twice(String),
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The files are larger than any version.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The checksums are damaged.
    #[error("{SUMS}: {0}")]
    Sums(String),
    /// A file is not what its checksum says, or of a later release.
    #[error(transparent)]
    File(#[from] StoreError),
}

/// An exported version whose checksums were checked.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The manifest it was published with.
    pub manifest: Manifest,
    /// SHA-256 of that manifest.
    pub manifest_sha256: String,
    files: BTreeMap<String, Bytes>,
}

impl Archive {
    /// Reads an archive and checks everything that can be checked without the learner:
    /// its files, their checksums, the schema of the manifest. `most` bounds the bytes of
    /// all files together.
    pub fn read(bytes: &[u8], most: u64) -> Result<Self, ArchiveError> {
        let mut files = BTreeMap::new();
        let mut left = most;
        for entry in tar::Archive::new(Cursor::new(bytes)).entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let belongs = FILES.contains(&name.as_str()) || name == SUMS;
            if !belongs || !entry.header().entry_type().is_file() {
                return Err(ArchiveError::Foreign(name));
            }
            let size = entry.size();
            left = left.checked_sub(size).ok_or(ArchiveError::TooLarge(most))?;
            let mut file = Vec::new();
            entry.read_to_end(&mut file)?;
            if file.len() as u64 != size {
                let cut = std::io::Error::other(format!("{name} is cut off"));
                return Err(ArchiveError::Tar(cut));
            }
            if files.insert(name.clone(), Bytes::from(file)).is_some() {
                return Err(ArchiveError::Twice(name));
            }
        }
        let sums = files.remove(SUMS).ok_or(ArchiveError::Missing(SUMS))?;
        let sums = sums_of(&sums)?;
        for name in FILES {
            let file = files.get(name).ok_or(ArchiveError::Missing(name))?;
            let expected = sums
                .get(name)
                .ok_or_else(|| ArchiveError::Sums(format!("{name} is not listed")))?;
            if FileEntry::of(file).sha256 != *expected {
                return Err(StoreError::damaged(&name, "its SHA-256 is not the one listed").into());
            }
        }
        let json = files
            .remove(MANIFEST)
            .ok_or(ArchiveError::Missing(MANIFEST))?;
        let manifest: Manifest = manifest::parse(&MANIFEST, &json)?;
        for (name, file) in &files {
            let Some(entry) = manifest.files.get(name) else {
                let detail = format!("it does not list {name}");
                return Err(StoreError::damaged(&MANIFEST, &detail).into());
            };
            entry.check(name, file)?;
        }
        Ok(Self {
            manifest_sha256: FileEntry::of(&json).sha256,
            manifest,
            files,
        })
    }

    /// The pipeline, as safetensors.
    pub fn model(&self) -> &Bytes {
        &self.files[MODEL]
    }
}

impl Registry {
    /// A published version as one file, each of its files checked first.
    pub async fn export(&self, task: &TaskName, version: PipelineVersion) -> Result<Vec<u8>> {
        let manifest = self.manifest(task, version).await?;
        let path = version_folder(task, version).join(MANIFEST);
        let mut files = vec![(MANIFEST, self.store.get(&path).await?)];
        for name in [MODEL, REPORT_JSON, REPORT_HTML] {
            files.push((name, self.file(&manifest, name).await?));
        }
        let mut sums = String::new();
        for (name, bytes) in &files {
            // Writing to a String cannot fail.
            let _ = writeln!(sums, "{}  {name}", FileEntry::of(bytes).sha256);
        }
        files.push((SUMS, sums.into()));
        let time = manifest.created_at.timestamp().max(0) as u64;
        pack(&files, time).map_err(|error| StoreError::encode(&path, &error))
    }

    /// Publishes what an archive holds under the next free number, with its origin.
    pub async fn import(
        &self,
        task: &TaskName,
        archive: &Archive,
        author: &str,
    ) -> Result<PipelineVersion> {
        let from = &archive.manifest;
        let imported = Imported {
            version: from.version,
            created_at: from.created_at,
            author: from.author.clone(),
            manifest_sha256: archive.manifest_sha256.clone(),
        };
        let file = |name: &str| archive.files[name].clone();
        let files = VersionFiles {
            model: file(MODEL),
            report_json: file(REPORT_JSON),
            report_html: file(REPORT_HTML),
            manifest: Manifest {
                imported: Some(imported),
                // Leases, log entries and offsets are of the store they were taken in.
                epoch: None,
                log_seq: None,
                shards: Vec::new(),
                ..from.clone()
            },
        };
        self.publish(task, files, author).await
    }
}

fn sums_of(text: &[u8]) -> Result<BTreeMap<String, String>, ArchiveError> {
    let text = std::str::from_utf8(text).map_err(|e| ArchiveError::Sums(e.to_string()))?;
    text.lines()
        .map(|line| {
            let (sum, name) = line
                .split_once("  ")
                .ok_or_else(|| ArchiveError::Sums(format!("{line:?} is no checksum")))?;
            Ok((name.to_owned(), sum.to_owned()))
        })
        .collect()
}

fn pack(files: &[(&str, Bytes)], time: u64) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(time);
        archive.append_data(&mut header, name, bytes.as_ref())?;
    }
    archive.into_inner()
}
