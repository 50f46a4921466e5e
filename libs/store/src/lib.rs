//! Object storage: the shard log and the pipeline registry.
//!
//! # The contract
//!
//! Everything in the store is written once, by put-if-absent, and never
//! overwritten. A put is acknowledged when it is durable. Of any number of
//! writers that want a name exactly one gets it, and the others are told so. All
//! guarantees below follow from this; there is no lock, no transaction and
//! nothing to repair after a crash. Only a shard that another replaced is deleted, a version
//! that the log says is gone, and what is a cache (`embeddings.rs`).
//!
//! ## The shard log: every trace exactly once
//!
//! ```text
//! traces/{topic}/{partition:05}/{base_offset:020}.parquet
//! traces/{topic}/{partition:05}/{base_offset:020}-{next_offset:020}.parquet
//! traces/{topic}/{partition:05}/{base_offset:020}-{next_offset:020}.expired.parquet
//! ```
//!
//! A shard holds the traces of a contiguous range of positions of one partition.
//! It is named by the first position; its footer says which position follows the
//! last. So the store itself knows how far a partition has come: a consumer asks
//! for [`ShardLog::resume`], goes on reading there, and appends the next
//! shard under the name of that position.
//!
//! *Nothing is lost*: a consumer that dies before its put is acknowledged leaves
//! the position where it was, and the next one reads the same records again.
//!
//! *Nothing is there twice*: a consumer that was replaced without noticing wants,
//! for the records it holds, a name that its successor has taken or will find
//! taken. The one that comes second gets [`Appended::Taken`] with the position
//! that follows the shard in the store, drops what it holds and goes on there. A
//! put whose answer was lost looks the same and is treated the same.
//!
//! *Nothing is mistaken for another log*: where the writer tells it, the footer also
//! says by which record the range ends ([`LastRecord`]). A topic that was deleted and
//! created anew may be longer than the position, which is only a number; its record in
//! that place is another one.
//!
//! This needs one thing of the writer: its first shard starts at the position it
//! resumed from, and every other where the one before ended.
//!
//! The shards that count are a chain: each starts where the one before ends. Readers
//! walk it, and what follows a gap is not read: going on behind it would lose what is
//! missing. The position to resume from is found by the same walk and not from the
//! last name alone. Footers are cached, so the walk reads only new ones.
//!
//! A shard that replaces others, by compaction or because they are too old, is a new
//! object named by its whole range (`upkeep`). Of the shards that start at one
//! position the walk takes the one that reaches furthest, and a name with a range
//! before one without. What it replaces is deleted after a time of grace.
//!
//! *Nobody writes beside the log for long*: the name of a shard that was replaced and
//! deleted is free again, so a consumer that slept longer than the time of grace could
//! put a shard there. It does not count, and changes nothing: it starts inside a range
//! that was replaced, or where one starts. But its writer must be told, or it goes on
//! for ever. So every [`ShardLog::CONFIRM_EVERY`] a writer walks the shards after a
//! put, and gets [`Appended::Taken`] when its own is not among them. The time of grace
//! is longer than that, so the name of a shard near the end is never free.
//!
//! Where the log lost what was to be read next, somebody decides where to go on: a *reset*
//! and a shard without traces that seals it (`reset.rs`).
//!
//! ## The registry: what serves is a fold over a log
//!
//! ```text
//! pipelines/{task}/v{version:06}/model.safetensors, report.json, report.html, manifest.json
//! pipelines/{task}/log/{seq:020}.json
//! ```
//!
//! The first file claims a version's number and the manifest, put last, publishes
//! it. An entry in the log then makes it active. A publisher that dies on the way
//! leaves a number without a manifest, or a version that never serves; neither is
//! ever reused. The manifest has the size and SHA-256 of every file:
//! [`Registry::load`] refuses what is damaged, truncated or written by a later
//! release, so that whoever serves can keep what it has.
//!
//! What people do to versions is an entry too: [`Registry::roll_back`],
//! [`Registry::suspend`], [`Registry::resume`]. Versions that are too many are first said
//! to be gone, by an entry, and deleted long after ([`Registry::retire`]): whoever folds
//! the log never rests on one that may be missing.
//!
//! The reports of refusals stand beside it, in `refusals/` (`refusals.rs`).
//!
//! `audits/` says from where on audits tell of what was made to serve again (`live.rs`).
//!
//! ## The leases: one refit of a task at a time
//!
//! Of several trainers one has a task, by an entry in the task's own log (`lease.rs`). A
//! lease cannot keep one that sleeps from waking up. So whoever takes a task over first
//! makes active what was ready, and then puts a *fence* into the deployment log: a
//! version of an earlier epoch cannot be appended behind it.

mod embeddings;
mod error;
mod files;
mod last_record;
mod lease;
mod live;
mod log;
mod manifest;
mod probe;
mod provenance;
mod read;
mod refusals;
mod registry;
mod replay_log;
mod reset;
mod shard;
mod shard_log;
mod shard_name;
mod store;
mod upkeep;
mod verify;
mod walk;

pub use embeddings::{EmbeddingCache, Found, TextKey};
pub use error::{Result, StoreError};
pub use last_record::LastRecord;
pub use lease::{Claimable, Lease, LeaseEntry, Leases, RefitRequest, Standing};
pub use log::{Active, LogEntry, LogEvent};
pub use manifest::{
    FileEntry, InvalidPipelineVersion, Manifest, PipelineVersion, REGISTRY_SCHEMA_VERSION, Shadow,
    ShardSpan,
};
pub use probe::Probe;
pub use provenance::{CostFacts, Imported, Provenance};
pub use read::Visitor;
pub use registry::{
    LoadedVersion, Registry, ReportFormat, VersionFiles,
    archive::{Archive, ArchiveError},
    lifecycle::{Changed, before, retired},
    retention::{Retention, RetentionRule},
};
pub use replay_log::{Claim, LetterKey, ReplayLog, Replayed};
pub use reset::{Reset, Resume};
pub use shard::{ShardInfo, WrittenSpan};
pub use shard_log::{Appended, EncodedShard, ShardLog};
pub use shard_name::ShardKind;
pub use store::Store;
pub use upkeep::{Compacted, Compaction, Expired, Swept};
pub use verify::{Checksum, ListedShard, PartitionCheck};
