//! One shard, as its name and its footer tell.

mod decode;
mod encode;

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use parquet::{
    errors::ParquetError,
    file::metadata::{
        ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
    },
};
use serde::{Deserialize, Serialize};
use tracer_trace::{Offset, OffsetRange, PartitionId, TaskName, parquet_schema::SCHEMA_VERSION};

use crate::{
    error::{Result, StoreError},
    last_record::LastRecord,
    shard_name::{ShardKind, ShardName},
};

pub(crate) use decode::{Part, Wanted, check_range, decode, decode_part, part};
pub(crate) use encode::{Draft, encode};

pub(crate) const SCHEMA_KEY: &str = "tracer.schema_version";
pub(crate) const TOPIC_KEY: &str = "tracer.topic";
pub(crate) const PARTITION_KEY: &str = "tracer.partition";
pub(crate) const BASE_KEY: &str = "tracer.base_offset";
pub(crate) const NEXT_KEY: &str = "tracer.next_offset";
pub(crate) const ROWS_KEY: &str = "tracer.rows_by_task";
/// Not in every shard: readers that do not know it pass over it.
pub(crate) const LAST_KEY: &str = "tracer.last_record";
/// Only in shards that replace others.
pub(crate) const WRITTEN_KEY: &str = "tracer.written";
/// Only in shards that replace some without rows.
pub(crate) const BARE_KEY: &str = "tracer.bare_ranges";

/// One shard, as its footer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Where its traces come from.
    pub partition: PartitionId,
    /// The positions it covers.
    pub range: OffsetRange,
    /// How it came to be.
    pub kind: ShardKind,
    /// Its path in the store.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The bytes of its columns before they were compressed, as its footer tells.
    pub unpacked: u64,
    /// How many rows each task has, in the order of the file.
    pub rows_by_task: BTreeMap<TaskName, u64>,
    /// The last record of the range, where its writer told.
    pub last_record: Option<LastRecord>,
    /// When the shards that it replaces were written; `None` for one that replaces none.
    pub written: Option<WrittenSpan>,
    /// The ranges of the shards without rows that it replaces, as they were written: a
    /// range that somebody passed on purpose is known again after a compaction.
    pub bare: Vec<OffsetRange>,
}

impl ShardInfo {
    /// The ranges of shards that were written without rows and without a last record: its
    /// own, or those that it replaces. A shard of rejected records alone has no rows
    /// either, but its writer tells by which record it ends.
    pub fn bare_ranges(&self) -> Vec<OffsetRange> {
        if self.kind == ShardKind::Written && self.rows() == 0 && self.last_record.is_none() {
            return vec![self.range];
        }
        self.bare.clone()
    }

    /// Rows of all tasks.
    pub fn rows(&self) -> u64 {
        total(self.rows_by_task.values())
    }
}

/// When the first and the last of some shards were written, by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenSpan {
    /// The first.
    pub first: DateTime<Utc>,
    /// The last.
    pub last: DateTime<Utc>,
}

impl WrittenSpan {
    /// The span of both.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// What row groups hold before compression, by their footers. It is what they take in
/// memory but for labels and tasks, which are told apart by a dictionary, some hundred bytes
/// a row, and embeddings of 16 bits, which take twice as much.
pub(crate) fn unpacked(groups: &[RowGroupMetaData]) -> u64 {
    groups.iter().fold(0, |sum: u64, group| {
        sum.saturating_add(u64::try_from(group.total_byte_size()).unwrap_or(0))
    })
}

/// A sum that a damaged footer cannot make overflow.
pub(crate) fn total<'a>(rows: impl IntoIterator<Item = &'a u64>) -> u64 {
    rows.into_iter()
        .fold(0, |sum: u64, rows| sum.saturating_add(*rows))
}

/// What the end of a file says.
pub(crate) enum Footer {
    /// The shard.
    Whole(Box<(ShardInfo, ParquetMetaData)>),
    /// That many bytes from the end are needed.
    Needs(u64),
}

/// Reads the footer from the last bytes of a shard of `size` bytes.
pub(crate) fn read_footer(path: &Path, size: u64, tail: &Bytes) -> Result<Footer> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(tail, size) {
        Ok(()) => {}
        Err(ParquetError::NeedMoreData(bytes)) if bytes as u64 <= size => {
            return Ok(Footer::Needs(bytes as u64));
        }
        Err(error) => return Err(StoreError::damaged(path, &error)),
    }
    let metadata = reader.finish().map_err(|e| StoreError::damaged(path, &e))?;
    let info = info(path, size, &metadata)?;
    Ok(Footer::Whole(Box::new((info, metadata))))
}

pub(crate) fn info(path: &Path, size: u64, metadata: &ParquetMetaData) -> Result<ShardInfo> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let optional = |key: &str| {
        pairs
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == key))
            .and_then(|pair| pair.value.as_deref())
    };
    let value = |key: &str| {
        optional(key).ok_or_else(|| StoreError::damaged(path, &format!("its footer has no {key}")))
    };
    let found = parsed::<u32>(path, SCHEMA_KEY, value(SCHEMA_KEY)?)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_string(),
            found,
            supported: SCHEMA_VERSION,
        });
    }
    let base = Offset(parsed(path, BASE_KEY, value(BASE_KEY)?)?);
    let next = Offset(parsed(path, NEXT_KEY, value(NEXT_KEY)?)?);
    let partition = PartitionId::new(
        parsed(path, TOPIC_KEY, value(TOPIC_KEY)?)?,
        parsed(path, PARTITION_KEY, value(PARTITION_KEY)?)?,
    );
    let name = ShardName::of(path)
        .filter(|name| name.base == base && name.end().is_none_or(|end| end == next))
        .filter(|name| *path == name.path(&partition))
        .ok_or_else(|| {
            let says = format!("its footer says it is {partition} from offset {base} to {next}");
            StoreError::damaged(path, &says)
        })?;
    let range = OffsetRange::new(base, next)
        .filter(|range| !range.is_empty())
        .ok_or_else(|| {
            StoreError::damaged(
                path,
                &format!("its next offset {next} is not after its base"),
            )
        })?;
    let rows_by_task: BTreeMap<TaskName, u64> = serde_json::from_str(value(ROWS_KEY)?)
        .map_err(|e| StoreError::damaged(path, &format!("{ROWS_KEY}: {e}")))?;
    let last_record = optional(LAST_KEY)
        .map(|text| parsed::<LastRecord>(path, LAST_KEY, text))
        .transpose()?;
    if let Some(last) = last_record
        .as_ref()
        .filter(|last| !range.contains(last.offset))
    {
        let detail = format!(
            "its last record at {} is outside its range {range}",
            last.offset
        );
        return Err(StoreError::damaged(path, &detail));
    }
    let written = optional(WRITTEN_KEY)
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| StoreError::damaged(path, &format!("{WRITTEN_KEY}: {e}")))?;
    let bare = optional(BARE_KEY)
        .map_or(Ok(Vec::new()), serde_json::from_str)
        .map_err(|e| StoreError::damaged(path, &format!("{BARE_KEY}: {e}")))?;
    check_groups(path, size, metadata)?;
    let rows = metadata.file_metadata().num_rows();
    let info = ShardInfo {
        partition,
        range,
        kind: name.kind(),
        path: path.to_string(),
        size,
        unpacked: unpacked(metadata.row_groups()),
        rows_by_task,
        last_record,
        written,
        bare,
    };
    if i64::try_from(info.rows()) != Ok(rows) {
        return Err(StoreError::damaged(
            path,
            &format!(
                "its footer counts {} rows by task, but it has {rows}",
                info.rows()
            ),
        ));
    }
    Ok(info)
}

/// What the reader of Parquet takes for granted of a footer, and panics without.
fn check_groups(path: &Path, size: u64, metadata: &ParquetMetaData) -> Result<()> {
    let mut rows = Some(0_i64);
    for group in metadata.row_groups() {
        rows = rows
            .filter(|_| group.num_rows() >= 0)
            .and_then(|rows| rows.checked_add(group.num_rows()));
        for column in group.columns() {
            if bytes_of(column).is_none_or(|range| range.end > size) {
                return Err(StoreError::damaged(path, "a column is outside the file"));
            }
        }
    }
    let stated = metadata.file_metadata().num_rows();
    if rows == Some(stated) {
        return Ok(());
    }
    let detail = format!("its row groups have other rows than the {stated} of its footer");
    Err(StoreError::damaged(path, &detail))
}

/// Where a column's pages are; `None` when the footer says nonsense.
fn bytes_of(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = column
        .dictionary_page_offset()
        .unwrap_or_else(|| column.data_page_offset());
    let start = u64::try_from(start).ok()?;
    let length = u64::try_from(column.compressed_size()).ok()?;
    Some(start..start.checked_add(length)?)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    path: &Path,
    key: &str,
    text: &str,
) -> Result<T> {
    text.parse()
        .map_err(|e| StoreError::damaged(path, &format!("{key} is {text:?}: {e}")))
}
