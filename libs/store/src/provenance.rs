//! What a manifest tells of where a version comes from, and of what it saves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracer_trace::TokenUsage;

use crate::manifest::PipelineVersion;

/// What it takes to make a version again, besides its configuration and the ranges of its
/// shards: from the same of all of it come the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The revision of the code; empty where the build did not know it.
    pub revision: String,
    /// SHA-256 of the lock file that the build's libraries were taken from.
    pub lock_sha256: String,
    /// The versions of those libraries that compute.
    pub libraries: BTreeMap<String, String>,
    /// The vector instructions that the numerics used: others round otherwise.
    pub instructions: String,
    /// Traces of the task that were read.
    pub traces: u64,
    /// Within so many milliseconds copies of a text with one label counted once.
    pub dedup_window_ms: i64,
    /// Whether the rows are a sample that was drawn while the traces were read.
    pub sampled: bool,
    /// Rows that were made of them.
    pub rows: u64,
    /// SHA-256 over those rows, in their order.
    pub rows_sha256: String,
    /// The task's embedder, by its identity, that made the embeddings of the traces that
    /// came without one of its own; none where all were taken as they came.
    pub embedder: Option<String>,
    /// The version that an incremental refit began at; none of a full one.
    pub base: Option<PipelineVersion>,
    /// SHA-256 of that version's model.
    pub base_sha256: Option<String>,
}

/// Where a version was published first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// Its number there.
    pub version: PipelineVersion,
    /// When it was published there.
    pub created_at: DateTime<Utc>,
    /// Who published it there.
    pub author: String,
    /// SHA-256 of its manifest there.
    pub manifest_sha256: String,
}

/// What a version saves, in dollars and calls of the teacher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostFacts {
    /// Dollars that one call costs, on average.
    pub call_dollars: f64,
    /// What the traces tell of the tokens of a call.
    pub usage: Option<TokenUsage>,
    /// The share of the calls that is expected to be saved: the shadow coverage, audits
    /// taken off.
    pub saved_share: f64,
    /// Calls a day, as the traces of late came; none where their times do not tell.
    pub calls_per_day: Option<f64>,
    /// Calls saved until it was published, by all versions before, estimated from the
    /// audits among the traces: one that was drawn with probability p stands for 1/p
    /// handled requests.
    pub calls_saved: f64,
    /// From when on those were counted.
    pub since: Option<DateTime<Utc>>,
}
