//! One shard: its name, its footer, its rows as Parquet.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use object_store::path::Path;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
            RowSelector,
        },
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, SortingColumn},
        properties::WriterProperties,
    },
    schema::types::ColumnPath,
};
use tracer_trace::{
    Offset, OffsetRange, PartitionId, StoredTrace, TaskName,
    parquet_schema::{SCHEMA_VERSION, from_batch, schema, to_batch},
};

use crate::{
    error::{Result, StoreError},
    last_record::LastRecord,
};

const SCHEMA_KEY: &str = "tracer.schema_version";
const TOPIC_KEY: &str = "tracer.topic";
const PARTITION_KEY: &str = "tracer.partition";
const BASE_KEY: &str = "tracer.base_offset";
const NEXT_KEY: &str = "tracer.next_offset";
const ROWS_KEY: &str = "tracer.rows_by_task";
/// Not in every shard: readers that do not know it pass over it.
const LAST_KEY: &str = "tracer.last_record";

/// The floats of an embedding: nothing repeats, so a dictionary only costs, and
/// with the bytes of equal weight side by side they compress better.
const EMBEDDING: [&str; 3] = ["embedding", "list", "item"];

/// Rows a row group holds at most; a reader of one task skips whole groups.
const ROW_GROUP: usize = 16 * 1024;

/// One shard, as its footer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Where its traces come from.
    pub partition: PartitionId,
    /// The positions it covers.
    pub range: OffsetRange,
    /// Its path in the store.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many rows each task has, in the order of the file.
    pub rows_by_task: BTreeMap<TaskName, u64>,
    /// The last record of the range, where its writer told.
    pub last_record: Option<LastRecord>,
}

impl ShardInfo {
    /// Rows of all tasks.
    pub fn rows(&self) -> u64 {
        total(self.rows_by_task.values())
    }
}

/// A sum that a damaged footer cannot make overflow.
fn total<'a>(rows: impl IntoIterator<Item = &'a u64>) -> u64 {
    rows.into_iter()
        .fold(0, |sum: u64, rows| sum.saturating_add(*rows))
}

/// The folder of a partition's shards.
pub(crate) fn folder(partition: &PartitionId) -> Path {
    Path::from(format!(
        "traces/{}/{:05}",
        partition.topic, partition.partition
    ))
}

/// The path of the shard that starts at an offset.
pub(crate) fn path(partition: &PartitionId, base: Offset) -> Path {
    Path::from(format!(
        "traces/{}/{:05}/{:020}.parquet",
        partition.topic,
        partition.partition,
        base.get()
    ))
}

/// The offset a shard's name gives; `None` for anything that is not a shard.
pub(crate) fn base_of(path: &Path) -> Option<Offset> {
    let digits = path.filename()?.strip_suffix(".parquet")?;
    let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok().map(Offset)).flatten()
}

/// Encodes a shard. Blocking: it sorts, encodes and compresses.
pub(crate) fn encode(
    partition: &PartitionId,
    range: OffsetRange,
    mut rows: Vec<StoredTrace>,
    last_record: Option<&LastRecord>,
) -> Result<(Bytes, BTreeMap<TaskName, u64>)> {
    let path = path(partition, range.start);
    check(&path, range, &rows, last_record)?;
    rows.sort_by(|a, b| (&a.trace.task, a.offset).cmp(&(&b.trace.task, b.offset)));
    let mut rows_by_task = BTreeMap::<TaskName, u64>::new();
    for row in &rows {
        *rows_by_task.entry(row.trace.task.clone()).or_default() += 1;
    }

    let footer = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let counts = serde_json::to_string(&rows_by_task).map_err(|e| StoreError::encode(&path, &e))?;
    let embedding = ColumnPath::new(EMBEDDING.map(str::to_owned).to_vec());
    let schema = schema();
    let sorting = ["task", "offset"]
        .map(|column| {
            schema.index_of(column).map(|index| SortingColumn {
                column_idx: index as i32,
                descending: false,
                nulls_first: false,
            })
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| StoreError::encode(&path, &e))?;
    let mut pairs = vec![
        footer(SCHEMA_KEY, SCHEMA_VERSION.to_string()),
        footer(TOPIC_KEY, partition.topic.to_string()),
        footer(PARTITION_KEY, partition.partition.to_string()),
        footer(BASE_KEY, range.start.to_string()),
        footer(NEXT_KEY, range.end.to_string()),
        footer(ROWS_KEY, counts),
    ];
    pairs.extend(last_record.map(|last| footer(LAST_KEY, last.to_string())));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_column_dictionary_enabled(embedding.clone(), false)
        .set_column_encoding(embedding, Encoding::BYTE_STREAM_SPLIT)
        .set_sorting_columns(Some(sorting))
        .set_key_value_metadata(Some(pairs))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))
        .map_err(|e| StoreError::encode(&path, &e))?;
    for chunk in rows.chunks(ROW_GROUP) {
        let batch = to_batch(chunk).map_err(|source| StoreError::Schema {
            path: path.to_string(),
            source,
        })?;
        writer
            .write(&batch)
            .map_err(|e| StoreError::encode(&path, &e))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|e| StoreError::encode(&path, &e))?;
    Ok((bytes.into(), rows_by_task))
}

/// A shard must cover at least one position, and only its own rows.
fn check(
    path: &Path,
    range: OffsetRange,
    rows: &[StoredTrace],
    last_record: Option<&LastRecord>,
) -> Result<()> {
    let invalid = |detail: String| StoreError::InvalidShard {
        path: path.to_string(),
        detail,
    };
    if range.is_empty() {
        return Err(invalid(format!("its range {range} is empty")));
    }
    if let Some(last) = last_record.filter(|last| !range.contains(last.offset)) {
        return Err(invalid(format!(
            "its last record at {} is outside its range {range}",
            last.offset
        )));
    }
    match rows.iter().find(|row| !range.contains(Offset(row.offset))) {
        Some(row) => Err(invalid(format!(
            "the row at offset {} is outside its range {range}",
            row.offset
        ))),
        None => Ok(()),
    }
}

/// What the end of a file says.
pub(crate) enum Footer {
    /// The shard.
    Whole(ShardInfo),
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
    info(path, size, &metadata).map(Footer::Whole)
}

fn info(path: &Path, size: u64, metadata: &ParquetMetaData) -> Result<ShardInfo> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let value = |key: &str| {
        pairs
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == key))
            .and_then(|pair| pair.value.as_deref())
            .ok_or_else(|| StoreError::damaged(path, &format!("its footer has no {key}")))
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
    if *path != self::path(&partition, base) {
        return Err(StoreError::damaged(
            path,
            &format!("its footer says it is {partition} from offset {base}"),
        ));
    }
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
    let last_record = value(LAST_KEY)
        .ok()
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
    let rows = metadata.file_metadata().num_rows();
    let info = ShardInfo {
        partition,
        range,
        path: path.to_string(),
        size,
        rows_by_task,
        last_record,
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

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    path: &Path,
    key: &str,
    text: &str,
) -> Result<T> {
    text.parse()
        .map_err(|e| StoreError::damaged(path, &format!("{key} is {text:?}: {e}")))
}

/// Decodes the rows of one task, or of all. Blocking.
pub(crate) fn decode(
    info: &ShardInfo,
    bytes: Bytes,
    task: Option<&TaskName>,
) -> Result<Vec<StoredTrace>> {
    let damaged = |e: &dyn ToString| StoreError::damaged(&info.path, &e.to_string());
    let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default())
        .map_err(|e| damaged(&e))?;
    // The object may have been replaced since `info` was read; its own footer rules.
    let path = Path::from(info.path.as_str());
    let info = self::info(&path, bytes.len() as u64, &Arc::clone(metadata.metadata()))?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
    let mut expected = info.rows();
    if let Some(task) = task {
        // Rows are sorted by task, so those of one task are a single run.
        let before = total(info.rows_by_task.range(..task).map(|(_, rows)| rows));
        expected = info.rows_by_task.get(task).copied().unwrap_or(0);
        builder = builder.with_row_selection(RowSelection::from(vec![
            RowSelector::skip(before as usize),
            RowSelector::select(expected as usize),
        ]));
    }
    // A damaged footer may promise any number.
    let mut rows = Vec::with_capacity((expected as usize).min(ROW_GROUP));
    for batch in builder.build().map_err(|e| damaged(&e))? {
        let batch = batch.map_err(|e| damaged(&e))?;
        rows.extend(from_batch(&batch).map_err(|source| StoreError::Schema {
            path: info.path.clone(),
            source,
        })?);
    }
    if rows.len() as u64 != expected {
        return Err(damaged(&format!(
            "it has {} of {expected} rows",
            rows.len()
        )));
    }
    if let Some(row) = rows.iter().find(|row| {
        task.is_some_and(|task| row.trace.task != *task) || !info.range.contains(Offset(row.offset))
    }) {
        return Err(damaged(&format!(
            "the row at offset {} is not where it belongs",
            row.offset
        )));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_offsets_do() {
        let partition = PartitionId::new("traces".parse().unwrap(), 3);
        let first = path(&partition, Offset(9));
        assert_eq!(
            first.as_ref(),
            "traces/traces/00003/00000000000000000009.parquet"
        );
        assert!(first < path(&partition, Offset(10)));
        assert_eq!(
            base_of(&path(&partition, Offset(u64::MAX))),
            Some(Offset(u64::MAX))
        );
        for other in [
            "9.parquet",
            "0000000000000000000x.parquet",
            "00000000000000000009.tmp",
        ] {
            assert_eq!(base_of(&Path::from(other)), None, "{other}");
        }
    }
}
