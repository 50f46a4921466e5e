//! From the bytes of a shard to traces.

use std::{collections::BTreeMap, io::Read, ops::Range, sync::Arc};

use bytes::{Buf as _, Bytes};
use object_store::path::Path;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
            RowSelector,
        },
    },
    errors::{ParquetError, Result as ParquetResult},
    file::{
        metadata::ParquetMetaData,
        reader::{ChunkReader, Length},
    },
};
use tracer_trace::{
    Offset, StoredTrace, TaskName,
    parquet_schema::{Columns, traces_of},
};

use super::{ShardInfo, bytes_of, info, total};
use crate::error::{Result, StoreError};

/// Rows that are decoded at a time.
const BATCH: usize = 8 * 1024;

/// What is wanted of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The rows of one task, or all.
    pub(crate) task: Option<&'a TaskName>,
    pub(crate) columns: Columns,
}

/// Where decoded rows go, some thousand at a time.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Vec<StoredTrace>);

/// Decodes what is wanted of a whole file. Blocking.
pub(crate) fn decode(
    shard: &ShardInfo,
    bytes: Bytes,
    wanted: Wanted<'_>,
    sink: Sink<'_>,
) -> Result<()> {
    let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default())
        .map_err(|e| StoreError::damaged(&shard.path, &e))?;
    let path = Path::from(shard.path.as_str());
    // Its own footer rules.
    let found = info(&path, bytes.len() as u64, metadata.metadata())?;
    check_range(shard, &found)?;
    let shard = found;
    let groups = (0..metadata.metadata().num_row_groups()).collect();
    let skip = match wanted.task {
        Some(task) => before(&shard, task),
        None => 0,
    };
    rows(&shard, bytes, metadata, (groups, skip), wanted, sink)
}

/// Whether what was found under a name is what was listed there. A name whose shard was
/// replaced and deleted is free, and a writer that knows nothing of that may have put
/// another shard there, which ends elsewhere: the one that was listed is gone.
pub(crate) fn check_range(listed: &ShardInfo, found: &ShardInfo) -> Result<()> {
    if listed.range == found.range {
        return Ok(());
    }
    Err(StoreError::NotFound {
        path: listed.path.clone(),
    })
}

/// The part of a file that holds the rows of one task.
pub(crate) struct Part {
    metadata: Arc<ParquetMetaData>,
    groups: Vec<usize>,
    /// Rows of other tasks at the beginning of the first group.
    skip: u64,
    /// What must be read of the file.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// Which part of a shard holds the rows of a task. Rows are sorted by task, so they
/// are a single run; groups without any of them are left out, and so are other columns.
pub(crate) fn part(
    shard: &ShardInfo,
    metadata: ParquetMetaData,
    task: &TaskName,
    columns: Columns,
) -> Result<Part> {
    let first = before(shard, task);
    let end = first + shard.rows_by_task.get(task).copied().unwrap_or(0);
    let (mut groups, mut ranges, mut skip) = (Vec::new(), Vec::new(), 0);
    let mut start = 0_u64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let next = start.saturating_add(group.num_rows().max(0) as u64);
        if start < end && next > first {
            if groups.is_empty() {
                skip = first.saturating_sub(start);
            }
            groups.push(index);
            for column in group.columns() {
                let path = column.column_path().parts();
                if !path.first().is_some_and(|root| columns.has(root)) {
                    continue;
                }
                let range = bytes_of(column).filter(|range| range.end <= shard.size);
                ranges.push(range.ok_or_else(|| {
                    StoreError::damaged(&shard.path, "a column is outside the file")
                })?);
            }
        }
        start = next;
    }
    Ok(Part {
        metadata: Arc::new(metadata),
        groups,
        skip,
        ranges: joined(ranges),
    })
}

/// Decodes the rows of a task from what was read of its part. Blocking.
pub(crate) fn decode_part(
    shard: &ShardInfo,
    part: Part,
    read: Vec<Bytes>,
    wanted: Wanted<'_>,
    sink: Sink<'_>,
) -> Result<()> {
    let metadata = ArrowReaderMetadata::try_new(part.metadata, ArrowReaderOptions::default())
        .map_err(|e| StoreError::damaged(&shard.path, &e))?;
    let file = Parts {
        length: shard.size,
        parts: part.ranges.into_iter().zip(read).collect(),
    };
    let groups = (part.groups, part.skip);
    rows(shard, file, metadata, groups, wanted, sink)
}

/// Rows of the tasks before this one.
fn before(shard: &ShardInfo, task: &TaskName) -> u64 {
    total(shard.rows_by_task.range(..task).map(|(_, rows)| rows))
}

fn rows<T: ChunkReader + 'static>(
    shard: &ShardInfo,
    file: T,
    metadata: ArrowReaderMetadata,
    (groups, skip): (Vec<usize>, u64),
    Wanted { task, columns }: Wanted<'_>,
    sink: Sink<'_>,
) -> Result<()> {
    let damaged = |e: &dyn ToString| StoreError::damaged(&shard.path, &e.to_string());
    let schema = metadata.metadata().file_metadata().schema_descr_ptr();
    let leaves =
        (0..schema.num_columns()).filter(|&leaf| columns.has(schema.get_column_root(leaf).name()));
    let projection = ProjectionMask::leaves(&schema, leaves);
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_batch_size(BATCH)
        .with_projection(projection)
        .with_row_groups(groups);
    let (mut expected, mut drop) = (shard.rows(), 0);
    if let Some(task) = task {
        expected = shard.rows_by_task.get(task).copied().unwrap_or(0);
        // The rows before are decoded for nothing: where the reader of Parquet skips some, a
        // damaged page holds it up for ever, or leads it beyond its end.
        drop = skip as usize;
        let selection = vec![RowSelector::select(drop.saturating_add(expected as usize))];
        builder = builder.with_row_selection(RowSelection::from(selection));
    }
    // Whoever reads one task trusts the counts of the others: they are checked where all
    // rows are seen.
    let (mut found, mut by_task) = (0, BTreeMap::<TaskName, u64>::new());
    for batch in builder.build().map_err(|e| damaged(&e))? {
        let batch = batch.map_err(|e| damaged(&e))?;
        let others = drop.min(batch.num_rows());
        drop -= others;
        let batch = batch.slice(others, batch.num_rows() - others);
        let rows = traces_of(&batch, columns).map_err(|source| StoreError::Schema {
            path: shard.path.clone(),
            source,
        })?;
        found += rows.len() as u64;
        if let Some(row) = rows.iter().find(|row| {
            task.is_some_and(|task| row.trace.task != *task)
                || !shard.range.contains(Offset(row.offset))
        }) {
            return Err(damaged(&format!(
                "the row at offset {} is not where it belongs",
                row.offset
            )));
        }
        if task.is_none() {
            for run in rows.chunk_by(|one, next| one.trace.task == next.trace.task) {
                *by_task.entry(run[0].trace.task.clone()).or_default() += run.len() as u64;
            }
        }
        sink(rows);
    }
    if found != expected {
        return Err(damaged(&format!("it has {found} of {expected} rows")));
    }
    let stated = shard.rows_by_task.iter().filter(|(_, rows)| **rows > 0);
    if task.is_none() && !stated.eq(&by_task) {
        return Err(damaged(&"its tasks have other rows than its footer counts"));
    }
    Ok(())
}

/// Ranges that touch each other as one, in order.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Some parts of a file, to be read as if it were whole.
struct Parts {
    length: u64,
    parts: Vec<(Range<u64>, Bytes)>,
}

impl Parts {
    fn at(&self, start: u64) -> ParquetResult<Bytes> {
        self.parts
            .iter()
            .find(|(range, _)| range.contains(&start))
            .and_then(|(range, bytes)| {
                let skip = usize::try_from(start - range.start).ok()?;
                (skip <= bytes.len()).then(|| bytes.slice(skip..))
            })
            .ok_or_else(|| ParquetError::EOF(format!("byte {start} was not read")))
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Parts {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(self.at(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.at(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!(
                "{length} bytes from byte {start} on were not read"
            )));
        }
        Ok(bytes.slice(..length))
    }
}
