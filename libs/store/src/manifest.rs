//! The manifest of a pipeline version: what it is, what it promises, what it was
//! made from, and the checksums of its files.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracer_trace::{Offset, TaskName, TopicName};

use crate::{
    error::{Result, StoreError},
    last_record::hex,
    provenance::{CostFacts, Imported, Provenance},
};

/// The version of the manifest's and the log's JSON that this release writes, and
/// the latest it reads.
pub const REGISTRY_SCHEMA_VERSION: u32 = 1;

/// The number of a published pipeline of a task: 1, 2, 3 …
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PipelineVersion(pub u64);

impl PipelineVersion {
    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PipelineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{:06}", self.0)
    }
}

/// A text that is not a pipeline version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid pipeline version {0:?}: it is a number from 1, with or without a leading 'v'")]
pub struct InvalidPipelineVersion(String);

impl FromStr for PipelineVersion {
    type Err = InvalidPipelineVersion;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = s.strip_prefix('v').unwrap_or(s);
        match digits.parse() {
            Ok(number) if number > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self(number))
            }
            _ => Err(InvalidPipelineVersion(s.to_owned())),
        }
    }
}

/// What the parity gate measured on the shadow split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Share of inputs handled.
    pub coverage: f64,
    /// Agreement with the teacher on the handled ones.
    pub agreement: f64,
    /// Its lower bound at confidence 1 − δ.
    pub agreement_lower: f64,
    /// Inputs of the split.
    pub n: u64,
}

/// A range of positions that a pipeline was fitted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpan {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: i32,
    /// The first position.
    pub start: Offset,
    /// The position after the last one.
    pub end: Offset,
}

/// The size and the checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// The manifest of a pipeline version.
///
/// Whoever publishes fills in what the fit knows and takes the rest from
/// [`Manifest::default`]: publication sets `schema_version`, `task`, `version`,
/// `created_at`, `author` and `files`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this JSON.
    pub schema_version: u32,
    /// The task.
    pub task: TaskName,
    /// The version within the task.
    pub version: PipelineVersion,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// Who published it.
    pub author: String,
    /// The family: `global`, `l2d` or `rsb`.
    pub family: String,
    /// The surrogate that was selected.
    pub surrogate: String,
    /// The agreement promised, α.
    pub target_agreement: f64,
    /// The probability with which the promise may fail, δ.
    pub delta: f64,
    /// The threshold on the acceptor's score, τ.
    pub threshold: f64,
    /// What the parity gate measured.
    pub shadow: Shadow,
    /// Traces it was fitted on, the shadow split not counted.
    pub training_traces: u64,
    /// Labels it can answer.
    pub labels: u64,
    /// The dimension of embeddings it wants; none when it reads text alone.
    pub embedding_dimension: Option<usize>,
    /// The model that made those embeddings, where it is known.
    pub embedder: Option<String>,
    /// The traces that were in the store when it was fitted.
    pub shards: Vec<ShardSpan>,
    /// The files of the version, without the manifest.
    pub files: BTreeMap<String, FileEntry>,
    /// The release that fitted it.
    pub code_version: String,
    /// The configuration of the fit.
    pub config: serde_json::Value,
    /// The seed of the fit.
    pub seed: u64,
    /// What else it takes to make it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// What it saves, as far as was known when it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostFacts>,
    /// Where it was published first; none of a version that was fitted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// The epoch of the lease under which it was published; none of one that somebody
    /// published without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The last entry of the deployment log when its refit began. It does not serve where the
    /// task was suspended or rolled back since: that is for reasons it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_seq: Option<u64>,
}

/// Parses JSON of the registry, and refuses what a later release wrote: it may
/// mean something this one would ignore.
pub(crate) fn parse<T: DeserializeOwned>(path: &impl ToString, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    let damaged = |error| StoreError::damaged(path, &error);
    let Versioned {
        schema_version: found,
    } = serde_json::from_slice(bytes).map_err(damaged)?;
    if found > REGISTRY_SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_string(),
            found,
            supported: REGISTRY_SCHEMA_VERSION,
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

impl FileEntry {
    /// Describes a file.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(digest.as_ref()),
        }
    }

    /// Checks a file against its description.
    pub(crate) fn check(&self, path: &impl ToString, bytes: &[u8]) -> Result<()> {
        if self.bytes != bytes.len() as u64 {
            return Err(StoreError::damaged(
                path,
                &format!(
                    "it has {} bytes, its manifest says {}",
                    bytes.len(),
                    self.bytes
                ),
            ));
        }
        if Self::of(bytes).sha256 != self.sha256 {
            return Err(StoreError::damaged(
                path,
                "its SHA-256 is not the one in its manifest",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_people_write_them() {
        for text in ["7", "v7", "v000007"] {
            assert_eq!(text.parse(), Ok(PipelineVersion(7)));
        }
        for text in ["", "v", "0", "-1", "+1", "7a"] {
            assert!(text.parse::<PipelineVersion>().is_err(), "{text:?}");
        }
        assert_eq!(PipelineVersion(7).to_string(), "v000007");
    }

    #[test]
    fn checksums_are_sha256() {
        // FIPS 180-2, appendix B.1.
        let entry = FileEntry::of(b"abc");
        assert_eq!(
            entry.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(entry.check(&"x", b"abc").is_ok());
        assert!(entry.check(&"x", b"abd").is_err());
        assert!(entry.check(&"x", b"ab").is_err());
    }
}
