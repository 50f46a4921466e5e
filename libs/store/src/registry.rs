//! The registry: published pipeline versions and the log of their deployment.

pub(crate) mod archive;
pub(crate) mod lifecycle;
pub(crate) mod retention;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use chrono::{SubsecRound, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::Serialize;
use tracer_trace::TaskName;

use self::lifecycle::{Step, retired};
use crate::{
    error::{Result, StoreError},
    log::{Active, LogEntry, LogEvent, fence, published},
    manifest::{self, FileEntry, Manifest, PipelineVersion, REGISTRY_SCHEMA_VERSION},
    store::{Put, Store},
};

const ROOT: &str = "pipelines";
const MODEL: &str = "model.safetensors";
pub(crate) const REPORT_JSON: &str = "report.json";
pub(crate) const REPORT_HTML: &str = "report.html";
const MANIFEST: &str = "manifest.json";

/// Names tried before an author that always loses the race gives up.
const ATTEMPTS: usize = 1000;

/// Log entries that are read at the same time.
const CONCURRENCY: usize = 16;

/// The registry of a store; clones share it and its cache of log entries.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(crate) store: Store,
    /// The entries read so far of each task's log. Entries never change.
    logs: Arc<Mutex<HashMap<TaskName, Vec<LogEntry>>>>,
}

/// What a publication consists of.
#[derive(Clone, Debug)]
pub struct VersionFiles {
    /// The pipeline, as safetensors.
    pub model: Bytes,
    /// The report for programs.
    pub report_json: Bytes,
    /// The report for people.
    pub report_html: Bytes,
    /// What the fit knows of itself; see [`Manifest`] for what publication sets.
    pub manifest: Manifest,
}

/// A version that was read and checked.
#[derive(Clone, Debug)]
pub struct LoadedVersion {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its pipeline, with the size and the checksum of the manifest.
    pub model: Bytes,
}

/// For whom a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// Programs.
    Json,
    /// People.
    Html,
}

impl ReportFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Json => REPORT_JSON,
            Self::Html => REPORT_HTML,
        }
    }
}

impl Registry {
    /// The registry of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            logs: Arc::default(),
        }
    }

    /// The tasks for which something was published or logged, sorted.
    pub async fn tasks(&self) -> Result<Vec<TaskName>> {
        let names = self.store.children(&Path::from(ROOT)).await?;
        Ok(names
            .iter()
            .filter_map(|name| TaskName::new(name).ok())
            .collect())
    }

    /// The published versions of a task, oldest first.
    pub async fn versions(&self, task: &TaskName) -> Result<Vec<PipelineVersion>> {
        let files = self.version_files(task).await?;
        let published = files.into_iter().filter(|(_, file)| file == MANIFEST);
        Ok(published.map(|(version, _)| version).collect())
    }

    /// The version that a publication would get now.
    pub async fn next_version(&self, task: &TaskName) -> Result<PipelineVersion> {
        // An abandoned publication left files without a manifest: its number is gone.
        let files = self.version_files(task).await?;
        let last = files.last().map_or(0, |(version, _)| version.get());
        Ok(PipelineVersion(last.saturating_add(1)))
    }

    /// Publishes a version under the next free number and returns that number.
    ///
    /// The files go first, the manifest last, then the log entry that makes the
    /// version active. Whoever loses the race for a number takes the next one.
    ///
    /// Where the manifest names the epoch of a lease, the version is published only while
    /// no later epoch was fenced off, else the error is [`StoreError::Superseded`]. The
    /// log itself decides that: the entry is put under the number that follows all that
    /// were read, and there was no fence among them.
    pub async fn publish(
        &self,
        task: &TaskName,
        files: VersionFiles,
        author: &str,
    ) -> Result<PipelineVersion> {
        let contents: [(&str, Bytes); 3] = [
            (MODEL, files.model),
            (REPORT_JSON, files.report_json),
            (REPORT_HTML, files.report_html),
        ];
        let mut manifest = Manifest {
            schema_version: REGISTRY_SCHEMA_VERSION,
            task: task.clone(),
            author: author.to_owned(),
            created_at: Utc::now().trunc_subsecs(6),
            files: contents
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), FileEntry::of(bytes)))
                .collect(),
            ..files.manifest
        };
        let mut version = self.next_version(task).await?;
        for _ in 0..ATTEMPTS {
            manifest.version = version;
            self.not_fenced(task, &manifest).await?;
            if self
                .put_version(task, version, &contents, &manifest)
                .await?
            {
                self.append_published(task, &manifest, author).await?;
                return Ok(version);
            }
            version = self
                .next_version(task)
                .await?
                .max(PipelineVersion(version.get().saturating_add(1)));
        }
        Err(contended(&version_folder(task, version)))
    }

    async fn not_fenced(&self, task: &TaskName, manifest: &Manifest) -> Result<()> {
        if manifest.epoch.is_none() && manifest.log_seq.is_none() {
            return Ok(());
        }
        may_publish(task, manifest, &self.log(task).await?)
    }

    /// Makes a version active whose manifest is there, unless that was done before: by its
    /// publisher, or by one that took the task over and found it ready.
    async fn append_published(
        &self,
        task: &TaskName,
        manifest: &Manifest,
        author: &str,
    ) -> Result<()> {
        let version = manifest.version;
        self.append_when(task, author, None, |entries| {
            if published(entries).any(|known| known == version) {
                return Ok(Step::Nothing);
            }
            may_publish(task, manifest, entries)?;
            Ok(Step::Append(LogEvent::Published { version }))
        })
        .await?;
        Ok(())
    }

    /// Shuts out whoever had the task before `epoch`: what they have not published yet
    /// they never will. To be called after [`Registry::adopt`].
    pub async fn fence(&self, task: &TaskName, epoch: u64, author: &str) -> Result<()> {
        self.append_when(task, author, None, |entries| {
            superseded(task, epoch, entries)?;
            if fence(entries) == epoch {
                return Ok(Step::Nothing);
            }
            Ok(Step::Append(LogEvent::Fenced { epoch }))
        })
        .await?;
        Ok(())
    }

    /// Finishes the publications that a trainer left half done, with everything in place
    /// but for the log entry: the version has passed the gate, and is not to be lost.
    /// Answers the versions that were made active so.
    pub async fn adopt(&self, task: &TaskName, author: &str) -> Result<Vec<PipelineVersion>> {
        let entries = self.log(task).await?;
        let last = published(&entries).max().unwrap_or_default();
        let mut adopted = Vec::new();
        for version in self.versions(task).await? {
            if version <= last {
                continue;
            }
            let manifest = match self.manifest(task, version).await {
                Err(error) if error.is_refusal() => continue,
                read => read?,
            };
            // What an operator left half done is the operator's.
            if manifest.epoch.is_none() {
                continue;
            }
            match self.append_published(task, &manifest, author).await {
                Ok(()) => adopted.push(version),
                // Its publisher was replaced before it was ready, or others have decided.
                Err(StoreError::Superseded { .. } | StoreError::Overtaken { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(adopted)
    }

    /// The latest version that was made active, whatever became of it.
    pub async fn last_published(&self, task: &TaskName) -> Result<Option<PipelineVersion>> {
        Ok(published(&self.log(task).await?).max())
    }

    /// Puts all files of a version; false when somebody else has the number.
    async fn put_version(
        &self,
        task: &TaskName,
        version: PipelineVersion,
        contents: &[(&str, Bytes)],
        manifest: &Manifest,
    ) -> Result<bool> {
        let folder = version_folder(task, version);
        let last = folder.clone().join(MANIFEST);
        let manifest = to_json(&last, manifest)?;
        // The first file claims the number. Losing it, even to the lost answer of
        // this same put, costs no more than a number.
        let mut claimed = false;
        for (name, bytes) in contents {
            let path = folder.clone().join(*name);
            let put = self.store.create(&path, bytes.clone()).await?;
            if put == Put::Taken && !(claimed && self.store.get(&path).await? == *bytes) {
                return Ok(false);
            }
            claimed = true;
        }
        let put = self.store.create(&last, manifest.clone()).await?;
        Ok(put == Put::Created || self.store.get(&last).await? == manifest)
    }

    /// The deployment log of a task, oldest entry first.
    pub async fn log(&self, task: &TaskName) -> Result<Vec<LogEntry>> {
        let mut entries = self.cached(task);
        let folder = log_folder(task);
        let after = entries.last().map(|entry| entry_path(task, entry.seq));
        let new = self.store.list(&folder, after.as_ref()).await?;
        if new.is_empty() {
            return Ok(entries);
        }
        let new: Vec<LogEntry> = futures::stream::iter(new)
            .map(|meta| async move { self.read_entry(&meta.location).await })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        for entry in new {
            // An entry is appended after its predecessor was seen, so a hole means
            // that one was taken away, and the fold would be another.
            let expected = entries.last().map_or(1, |last| last.seq.saturating_add(1));
            if entry.seq != expected {
                let missing = entry_path(task, expected);
                return Err(StoreError::damaged(
                    &missing,
                    "the entry is missing, but later ones are there",
                ));
            }
            entries.push(entry);
        }
        self.remember(task, &entries);
        Ok(entries)
    }

    /// Appends an event to a task's log and returns its entry.
    ///
    /// A rollback to a version that was never published is refused.
    pub async fn append(&self, task: &TaskName, event: LogEvent, author: &str) -> Result<LogEntry> {
        if let LogEvent::RolledBack { to_version } = &event {
            self.manifest(task, *to_version).await?;
        }
        let entry = self
            .append_when(task, author, None, |_| Ok(Step::Append(event.clone())))
            .await?;
        Ok(entry.expect("nothing forbids it"))
    }

    /// What serves the task now: the fold of its log.
    pub async fn active(&self, task: &TaskName) -> Result<Active> {
        Ok(Active::fold(&self.log(task).await?))
    }

    /// The manifest of a published version.
    pub async fn manifest(&self, task: &TaskName, version: PipelineVersion) -> Result<Manifest> {
        let path = version_folder(task, version).join(MANIFEST);
        let json = match self.store.get(&path).await {
            Err(error @ StoreError::NotFound { .. }) => {
                return Err(self.gone(task, version).await.unwrap_or(error));
            }
            read => read?,
        };
        let manifest: Manifest = manifest::parse(&path, &json)?;
        if manifest.task != *task || manifest.version != version {
            return Err(StoreError::damaged(
                &path,
                &format!(
                    "it is the manifest of {} {}",
                    manifest.task, manifest.version
                ),
            ));
        }
        Ok(manifest)
    }

    /// Reads a published version and checks it against its manifest.
    pub async fn load(&self, task: &TaskName, version: PipelineVersion) -> Result<LoadedVersion> {
        let manifest = self.manifest(task, version).await?;
        let model = self.file(&manifest, MODEL).await?;
        Ok(LoadedVersion { manifest, model })
    }

    /// The report of a published version, checked against its manifest. One that is larger
    /// than `most` bytes is not read.
    pub async fn bounded_report(
        &self,
        task: &TaskName,
        version: PipelineVersion,
        format: ReportFormat,
        most: u64,
    ) -> Result<Bytes> {
        let manifest = self.manifest(task, version).await?;
        let name = format.name();
        let bytes = manifest.files.get(name).map_or(0, |file| file.bytes);
        let path = version_folder(task, version).join(name);
        if bytes > most || self.store.head(&path).await?.size > most {
            return Err(StoreError::TooLarge {
                path: path.to_string(),
                most,
            });
        }
        self.file(&manifest, name).await
    }

    /// The report of a published version, checked against its manifest.
    pub async fn report(
        &self,
        task: &TaskName,
        version: PipelineVersion,
        format: ReportFormat,
    ) -> Result<Bytes> {
        let manifest = self.manifest(task, version).await?;
        self.file(&manifest, format.name()).await
    }

    async fn file(&self, manifest: &Manifest, name: &str) -> Result<Bytes> {
        let folder = version_folder(&manifest.task, manifest.version);
        let path = folder.clone().join(name);
        let Some(entry) = manifest.files.get(name) else {
            let detail = format!("it does not list {name}");
            return Err(StoreError::damaged(&folder.join(MANIFEST), &detail));
        };
        let bytes = match self.store.get(&path).await {
            // The manifest came after the file, so the file was there.
            Err(StoreError::NotFound { path }) => {
                let gone = self.gone(&manifest.task, manifest.version).await;
                let detail = "its manifest lists it, but it is missing";
                return Err(gone.unwrap_or_else(|| StoreError::damaged(&path, detail)));
            }
            read => read?,
        };
        entry.check(&path, &bytes)?;
        Ok(bytes)
    }

    /// What is to be said of a version whose files are missing because it was retired.
    async fn gone(&self, task: &TaskName, version: PipelineVersion) -> Option<StoreError> {
        let log = self.log(task).await.ok()?;
        retired(&log)
            .contains(&version)
            .then(|| StoreError::Retired {
                task: task.to_string(),
                version: version.get(),
            })
    }

    async fn read_entry(&self, path: &Path) -> Result<LogEntry> {
        let entry: LogEntry = manifest::parse(path, &self.store.get(path).await?)?;
        let name = format!("{:020}.json", entry.seq);
        if path.filename() != Some(name.as_str()) {
            return Err(StoreError::damaged(
                path,
                &format!("it is entry {}", entry.seq),
            ));
        }
        Ok(entry)
    }

    /// Every version that has a file, with the file's name, in order.
    async fn version_files(&self, task: &TaskName) -> Result<Vec<(PipelineVersion, String)>> {
        let folder = Path::from(format!("{ROOT}/{task}"));
        // "log" sorts before "v…", so this skips the log.
        let after = folder.clone().join("log~");
        let listed = self.store.list(&folder, Some(&after)).await?;
        let mut files: Vec<_> = listed
            .iter()
            .filter_map(|meta| {
                let mut parts = meta.location.prefix_match(&folder)?;
                let version = parts.next()?.as_ref().strip_prefix('v')?.parse().ok()?;
                Some((PipelineVersion(version), parts.next()?.as_ref().to_owned()))
            })
            .collect();
        files.sort_unstable();
        Ok(files)
    }

    fn cached(&self, task: &TaskName) -> Vec<LogEntry> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(task).cloned().unwrap_or_default()
    }

    fn remember(&self, task: &TaskName, entries: &[LogEntry]) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = logs.entry(task.clone()).or_default();
        if known.len() < entries.len() {
            *known = entries.to_vec();
        }
    }
}

fn version_folder(task: &TaskName, version: PipelineVersion) -> Path {
    Path::from(format!("{ROOT}/{task}/{version}"))
}

fn log_folder(task: &TaskName) -> Path {
    Path::from(format!("{ROOT}/{task}/log"))
}

fn entry_path(task: &TaskName, seq: u64) -> Path {
    Path::from(format!("{ROOT}/{task}/log/{seq:020}.json"))
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<Bytes> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| StoreError::encode(path, &e))?;
    json.push(b'\n');
    Ok(json.into())
}

/// Errs when a version may not be made active behind these entries.
fn may_publish(task: &TaskName, manifest: &Manifest, entries: &[LogEntry]) -> Result<()> {
    if let Some(epoch) = manifest.epoch {
        superseded(task, epoch, entries)?;
    }
    manifest
        .log_seq
        .map_or(Ok(()), |seen| overtaken(task, seen, entries))
}

/// Errs when a task was suspended or rolled back after the entry `seen`.
fn overtaken(task: &TaskName, seen: u64, entries: &[LogEntry]) -> Result<()> {
    let later = entries.iter().rev().take_while(|entry| entry.seq > seen);
    let mut decided = later.filter(|entry| {
        matches!(
            entry.event,
            LogEvent::Suspended { .. } | LogEvent::RolledBack { .. }
        )
    });
    match decided.next() {
        Some(entry) => Err(StoreError::Overtaken {
            task: task.to_string(),
            seq: entry.seq,
        }),
        None => Ok(()),
    }
}

fn superseded(task: &TaskName, epoch: u64, entries: &[LogEntry]) -> Result<()> {
    let by = fence(entries);
    if by > epoch {
        return Err(StoreError::Superseded {
            task: task.to_string(),
            epoch,
            by,
        });
    }
    Ok(())
}

fn contended(path: &Path) -> StoreError {
    StoreError::Contended {
        path: path.to_string(),
        attempts: ATTEMPTS,
    }
}
