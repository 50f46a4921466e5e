//! Reading traces out of shards: what is wanted of them, and as much at a time as is bearable.

use std::{collections::VecDeque, ops::Range};

use object_store::path::Path;
use tracer_trace::{
    Offset, OffsetRange, PartitionId, StoredTrace, TaskName, parquet_schema::Columns,
};

use crate::{
    error::{Result, StoreError},
    shard::{self, ShardInfo, Wanted},
    shard_log::{ShardLog, blocking},
};

/// How often a partition is listed anew while its shards are read.
const LISTINGS: usize = 32;

impl ShardLog {
    /// The traces of a shard, of one task or of all, sorted by task and offset. Of a
    /// task only the row groups that hold it are fetched.
    ///
    /// [`StoreError::NotFound`] says that the shard was replaced since it was listed:
    /// [`ShardLog::read_all`] finds what replaced it. So it does where another shard has
    /// the name by now: a late writer's, of another range.
    pub async fn read(
        &self,
        info: &ShardInfo,
        task: Option<&TaskName>,
    ) -> Result<Vec<StoredTrace>> {
        let collect = Collect::default();
        let collected = self.read_into(info, task, Columns::All, collect).await?;
        Ok(collected.rows)
    }

    /// The traces of some shards that follow each other in a partition, in their order.
    /// Where one was replaced since it was listed, what stands in its place is read,
    /// and no position beyond: the view is that of the listing, less what has expired.
    /// However late it comes, and without any time of grace, it misses nothing: what it
    /// counts as covered is the range of what it has read.
    pub async fn read_all(
        &self,
        shards: &[ShardInfo],
        task: Option<&TaskName>,
    ) -> Result<Vec<StoredTrace>> {
        let collect = Collect::default();
        let collected = self.visit(shards, task, Columns::All, collect).await?;
        Ok(collected.rows)
    }

    /// [`ShardLog::read_all`] for more traces than fit into memory: a visitor is shown them
    /// some thousand at a time, and is given back at the end. It works on a thread that may
    /// be busy for long.
    pub async fn visit<V: Visitor>(
        &self,
        shards: &[ShardInfo],
        task: Option<&TaskName>,
        columns: Columns,
        visitor: V,
    ) -> Result<V> {
        let all = OffsetRange {
            start: Offset(0),
            end: Offset(u64::MAX),
        };
        self.visit_within(shards, all, task, columns, visitor).await
    }

    /// [`ShardLog::visit`] of the positions of a range alone, however the shards are cut.
    pub async fn visit_within<V: Visitor>(
        &self,
        shards: &[ShardInfo],
        range: OffsetRange,
        task: Option<&TaskName>,
        columns: Columns,
        mut visitor: V,
    ) -> Result<V> {
        let Some(mut cursor) = Cursor::over(shards, range) else {
            return Ok(visitor);
        };
        while let Some((info, positions)) = cursor.next(self).await? {
            let fetched = match self.fetch(&info, task, columns).await {
                Err(StoreError::NotFound { .. }) if cursor.may_list() => {
                    cursor.gone();
                    continue;
                }
                fetched => fetched?,
            };
            if let Some(fetched) = fetched {
                let (back, shown) = fetched
                    .show(task, columns, Some(positions), visitor)
                    .await?;
                visitor = back;
                match shown {
                    // Found out before a row was shown.
                    Err(StoreError::NotFound { .. }) if cursor.may_list() => {
                        cursor.gone();
                        continue;
                    }
                    shown => shown?,
                }
            }
            cursor.read(&info);
        }
        Ok(visitor)
    }

    async fn read_into<V: Visitor>(
        &self,
        info: &ShardInfo,
        task: Option<&TaskName>,
        columns: Columns,
        visitor: V,
    ) -> Result<V> {
        match self.fetch(info, task, columns).await? {
            Some(fetched) => {
                let (visitor, shown) = fetched.show(task, columns, None, visitor).await?;
                shown.map(|()| visitor)
            }
            None => Ok(visitor),
        }
    }

    /// Fetches the bytes that are wanted of a shard; `None` when it has no such rows.
    async fn fetch(
        &self,
        info: &ShardInfo,
        task: Option<&TaskName>,
        columns: Columns,
    ) -> Result<Option<Fetched>> {
        if task.is_some_and(|task| !info.rows_by_task.contains_key(task)) {
            return Ok(None);
        }
        let path = Path::from(info.path.as_str());
        let prunes = info.rows_by_task.len() > 1 || columns != Columns::All;
        if info.size > self.fetched_whole()
            && prunes
            && let Some(task) = task
        {
            let fetched = self.fetch_part(info, &path, task, columns).await;
            return match fetched {
                // Another shard under the name is not damaged for being of another size.
                Err(error) if self.store().head(&path).await?.size != info.size => {
                    tracing::debug!(%path, %error, "another shard has the name by now");
                    Err(StoreError::NotFound {
                        path: info.path.clone(),
                    })
                }
                fetched => fetched.map(Some),
            };
        }
        let bytes = self.store().get(&path).await?;
        Ok(Some(Fetched::Whole(Box::new(info.clone()), bytes)))
    }

    async fn fetch_part(
        &self,
        info: &ShardInfo,
        path: &Path,
        task: &TaskName,
        columns: Columns,
    ) -> Result<Fetched> {
        let (found, metadata) = self.read_footer(path, info.size).await?;
        shard::check_range(info, &found)?;
        let part = shard::part(&found, metadata, task, columns)?;
        let read = self.store().get_ranges(path, &part.ranges).await?;
        Ok(Fetched::Part(Box::new((found, part, read))))
    }
}

/// Is shown traces, some thousand at a time.
pub trait Visitor: Send + 'static {
    /// Takes some traces in, in the order of their offsets.
    fn see(&mut self, rows: Vec<StoredTrace>);
}

#[derive(Default)]
struct Collect {
    rows: Vec<StoredTrace>,
}

impl Visitor for Collect {
    fn see(&mut self, mut rows: Vec<StoredTrace>) {
        self.rows.append(&mut rows);
    }
}

/// The bytes of a shard, or those of a part of it.
enum Fetched {
    Whole(Box<ShardInfo>, bytes::Bytes),
    Part(Box<(ShardInfo, shard::Part, Vec<bytes::Bytes>)>),
}

impl Fetched {
    /// Decodes and shows the rows, those at some positions alone if they are named. The
    /// visitor comes back whatever came of it.
    async fn show<V: Visitor>(
        self,
        task: Option<&TaskName>,
        columns: Columns,
        positions: Option<Range<Offset>>,
        mut visitor: V,
    ) -> Result<(V, Result<()>)> {
        let path = match &self {
            Self::Whole(info, _) => Path::from(info.path.as_str()),
            Self::Part(part) => Path::from(part.0.path.as_str()),
        };
        let task = task.cloned();
        blocking(&path, move || {
            let mut sink = |mut rows: Vec<StoredTrace>| {
                if let Some(positions) = &positions {
                    rows.retain(|row| positions.contains(&Offset(row.offset)));
                }
                visitor.see(rows);
            };
            let task = task.as_ref();
            let shown = match self {
                Self::Whole(info, bytes) => {
                    // One task has the whole file: there are no rows of others to pass over.
                    let task = task.filter(|_| info.rows_by_task.len() > 1);
                    shard::decode(&info, bytes, Wanted { task, columns }, &mut sink)
                }
                Self::Part(part) => {
                    let (info, part, read) = *part;
                    shard::decode_part(&info, part, read, Wanted { task, columns }, &mut sink)
                }
            };
            Ok((visitor, shown))
        })
        .await
    }
}

/// Goes over the shards of a listing, and over what replaced them since.
struct Cursor {
    partition: PartitionId,
    covered: Offset,
    end: Offset,
    wanted: VecDeque<ShardInfo>,
    listings: usize,
}

impl Cursor {
    fn over(shards: &[ShardInfo], range: OffsetRange) -> Option<Self> {
        let (first, last) = (shards.first()?, shards.last()?);
        Some(Self {
            partition: first.partition.clone(),
            covered: first.range.start.max(range.start),
            end: last.range.end.min(range.end),
            wanted: shards.to_vec().into(),
            listings: 0,
        })
    }

    /// The shard to read next, and the positions that are wanted of it.
    async fn next(&mut self, log: &ShardLog) -> Result<Option<(ShardInfo, Range<Offset>)>> {
        while self.covered < self.end {
            if let Some(info) = self.wanted.pop_front() {
                return Ok(Some((info, self.covered..self.end)));
            }
            self.listings += 1;
            let walk = log.walk(&self.partition).await?;
            if walk.end().is_none_or(|walked| walked <= self.covered) {
                break;
            }
            let chain = walk.chain.iter().map(|link| &link.info);
            self.wanted = chain
                .filter(|info| info.range.end > self.covered && info.range.start < self.end)
                .map(|info| ShardInfo::clone(info))
                .collect();
            if self.wanted.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    fn read(&mut self, info: &ShardInfo) {
        self.covered = self.covered.max(info.range.end);
    }

    fn may_list(&self) -> bool {
        self.listings < LISTINGS
    }

    /// A shard is no longer there: what stands in its place is looked for.
    fn gone(&mut self) {
        self.wanted.clear();
    }
}
