//! From traces to the bytes of a shard.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use object_store::path::Path;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use tracer_trace::{
    Offset, OffsetRange, PartitionId, Rows, TaskName,
    parquet_schema::{Embeddings, Layout, SCHEMA_VERSION},
};

use super::{
    BARE_KEY, BASE_KEY, LAST_KEY, NEXT_KEY, PARTITION_KEY, ROWS_KEY, SCHEMA_KEY, ShardInfo,
    TOPIC_KEY, WRITTEN_KEY, WrittenSpan,
};
use crate::{
    error::{Result, StoreError},
    last_record::LastRecord,
    shard_name::ShardName,
};

/// Rows a row group holds at most: little more than the rows that a shard is written at by
/// default, so that one of a single task is one group, or has a small second one.
const ROW_GROUP: usize = 20 * 1024;

/// Rows that stand in memory as columns at a time. The writer takes 12 bytes for each
/// value of an embedding beside the value itself, until it has encoded the batch.
const BATCH: usize = 2 * 1024;

/// A task with so many rows has row groups of its own: a reader of another task does
/// not fetch them. Tasks with fewer share groups, which would else be very small.
const OWN_GROUP: usize = 1024;

/// What is to become a shard.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) partition: PartitionId,
    pub(crate) name: ShardName,
    pub(crate) range: OffsetRange,
    pub(crate) last_record: Option<LastRecord>,
    pub(crate) written: Option<WrittenSpan>,
    pub(crate) bare: Vec<OffsetRange>,
    pub(crate) embeddings: Embeddings,
}

/// Encodes a shard. Blocking: it sorts, encodes and compresses.
pub(crate) fn encode(draft: Draft, rows: &Rows) -> Result<(Bytes, ShardInfo)> {
    let path = draft.name.path(&draft.partition);
    check(&path, &draft, rows)?;
    let order = rows.sorted();
    let rows_by_task = rows.by_task();
    let failed = |e: &dyn ToString| StoreError::encode(&path, &e.to_string());
    let unfit = |source| StoreError::Schema {
        path: path.to_string(),
        source,
    };
    let layout = Layout::of(rows, draft.embeddings);
    let properties = properties(&draft, &layout, &rows_by_task).map_err(|e| failed(&e))?;
    let mut writer = ArrowWriter::try_new(Vec::new(), layout.schema(), Some(properties))
        .map_err(|e| failed(&e))?;
    for group in groups(rows_by_task.values().map(|rows| *rows as usize)) {
        for part in order[group].chunks(BATCH) {
            let batch = layout.to_batch(rows, part).map_err(unfit)?;
            writer.write(&batch).map_err(|e| failed(&e))?;
        }
        writer.flush().map_err(|e| failed(&e))?;
    }
    let unpacked = writer
        .flushed_row_groups()
        .iter()
        .map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0))
        .sum();
    let bytes = Bytes::from(writer.into_inner().map_err(|e| failed(&e))?);
    let info = ShardInfo {
        partition: draft.partition,
        range: draft.range,
        kind: draft.name.kind(),
        path: path.to_string(),
        size: bytes.len() as u64,
        unpacked,
        rows_by_task,
        last_record: draft.last_record,
        written: draft.written,
        bare: draft.bare,
    };
    Ok((bytes, info))
}

fn properties(
    draft: &Draft,
    layout: &Layout,
    rows_by_task: &BTreeMap<TaskName, u64>,
) -> Result<WriterProperties, Box<dyn std::error::Error>> {
    let schema = layout.schema();
    let sorting = ["task", "offset"]
        .map(|column| {
            schema.index_of(column).map(|index| SortingColumn {
                column_idx: index as i32,
                descending: false,
                nulls_first: false,
            })
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let pairs = [
        (SCHEMA_KEY, Some(SCHEMA_VERSION.to_string())),
        (TOPIC_KEY, Some(draft.partition.topic.to_string())),
        (PARTITION_KEY, Some(draft.partition.partition.to_string())),
        (BASE_KEY, Some(draft.range.start.to_string())),
        (NEXT_KEY, Some(draft.range.end.to_string())),
        (ROWS_KEY, Some(serde_json::to_string(rows_by_task)?)),
        (
            LAST_KEY,
            draft.last_record.as_ref().map(ToString::to_string),
        ),
        (
            WRITTEN_KEY,
            draft
                .written
                .as_ref()
                .map(serde_json::to_string)
                .transpose()?,
        ),
    ];
    let bare = if draft.bare.is_empty() {
        None
    } else {
        Some(serde_json::to_string(&draft.bare)?)
    };
    let pairs = pairs
        .into_iter()
        .chain([(BARE_KEY, bare)])
        .filter_map(|(key, value)| Some(KeyValue::new(key.to_owned(), value?)))
        .collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        // A row group has a page or two of a column: those of the column say it all.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(sorting))
        .set_key_value_metadata(Some(pairs));
    // Free text and ids are looked for by no range, and no value comes twice: statistics
    // and a dictionary would only cost.
    for text in ["id", "input", "metadata"] {
        let column = ColumnPath::from(text);
        properties = properties
            .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
            .set_column_dictionary_enabled(column, false);
    }
    // These grow from row to row: the differences take a few bits.
    for growing in ["offset", "timestamp"] {
        let column = ColumnPath::from(growing);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for (column, splits) in layout.float_columns() {
        // Nothing repeats, so a dictionary only costs; and with the bytes of equal
        // weight side by side floats compress better.
        let column = ColumnPath::new(column.map(str::to_owned).to_vec());
        properties = properties
            .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
            .set_column_dictionary_enabled(column.clone(), false);
        if splits {
            properties = properties.set_column_encoding(column, Encoding::BYTE_STREAM_SPLIT);
        }
    }
    Ok(properties.build())
}

/// The row groups of runs of rows, each of one task.
fn groups(runs: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut close = |start: &mut usize, end: usize| {
        while *start < end {
            let next = (*start + ROW_GROUP).min(end);
            groups.push(*start..next);
            *start = next;
        }
    };
    for run in runs {
        let own = run >= OWN_GROUP;
        if own || end - start + run > ROW_GROUP {
            close(&mut start, end);
        }
        end += run;
        if own {
            close(&mut start, end);
        }
    }
    close(&mut start, end);
    groups
}

/// A shard must cover at least one position, and only its own rows.
fn check(path: &Path, draft: &Draft, rows: &Rows) -> Result<()> {
    let range = draft.range;
    let invalid = |detail: String| StoreError::InvalidShard {
        path: path.to_string(),
        detail,
    };
    if range.is_empty() {
        return Err(invalid(format!("its range {range} is empty")));
    }
    if let Some(last) = draft
        .last_record
        .as_ref()
        .filter(|last| !range.contains(last.offset))
    {
        return Err(invalid(format!(
            "its last record at {} is outside its range {range}",
            last.offset
        )));
    }
    match rows
        .offsets()
        .find(|offset| !range.contains(Offset(*offset)))
    {
        Some(offset) => Err(invalid(format!(
            "the row at offset {offset} is outside its range {range}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(runs: &[usize]) -> Vec<usize> {
        let groups = groups(runs.iter().copied());
        let mut next = 0;
        for group in &groups {
            assert_eq!(group.start, next);
            next = group.end;
        }
        assert_eq!(next, runs.iter().sum::<usize>());
        groups.iter().map(Range::len).collect()
    }

    #[test]
    fn large_tasks_have_row_groups_of_their_own() {
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[5]), [5]);
        assert_eq!(lengths(&[5, 7, 3]), [15]);
        assert_eq!(lengths(&[5, OWN_GROUP, 3, 4]), [5, OWN_GROUP, 7]);
        assert_eq!(lengths(&[ROW_GROUP + 1]), [ROW_GROUP, 1]);
        assert_eq!(lengths(&[1000; 21]), [20_000, 1000]);
    }
}
