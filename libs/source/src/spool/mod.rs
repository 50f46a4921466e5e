//! The spool: a directory of append-only JSONL files, a log for one machine.
//!
//! `{path}/{topic}/{partition:05}.jsonl` is one partition, a line one record. An
//! offset is the byte position at which a line starts, so a position can be sought
//! without an index. Only whole lines are records: what follows the last newline
//! is a write in progress, or the remains of a writer that died.

mod scan;
mod source;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use scan::scan;
pub use source::SpoolSource;
pub use writer::SpoolWriter;

use crate::PartitionId;

fn partition_path(root: &Path, partition: &PartitionId) -> PathBuf {
    root.join(partition.topic.as_str())
        .join(format!("{:05}.jsonl", partition.partition))
}
