//! The shard log: the traces of every partition, and how far each has come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, TopicName};

use crate::{
    error::{Result, StoreError},
    last_record::LastRecord,
    shard::{self, Footer, ShardInfo},
    store::{Put, Store},
};

/// Bytes of a shard's end that are read at first: enough for most footers.
const TAIL: u64 = 64 << 10;

/// Footers that are read at the same time.
const CONCURRENCY: usize = 16;

/// The log of shards; clones share it and its cache of footers.
#[derive(Clone, Debug)]
pub struct ShardLog {
    store: Store,
    footers: Arc<Mutex<HashMap<object_store::path::Path, Cached>>>,
}

/// A footer and the object it was read from. A shard never changes, but a
/// compacted one may come to stand under the same name.
#[derive(Clone, Debug)]
struct Cached {
    meta: ObjectMeta,
    info: Arc<ShardInfo>,
}

/// The outcome of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The shard is durable.
    Written(ShardInfo),
    /// A shard starts at this offset already: a rival's, or this very one, written
    /// by a put whose answer was lost. Drop the buffer and go on at `next`.
    Taken {
        /// The offset that follows the shard in the store.
        next: Offset,
    },
}

impl ShardLog {
    /// The shard log of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            footers: Arc::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The offset at which to go on reading a partition: the end of what is
    /// covered. `None` when it has no shard yet.
    pub async fn resume_position(&self, partition: &PartitionId) -> Result<Option<Offset>> {
        Ok(self.last(partition).await?.map(|shard| shard.range.end))
    }

    /// The last shard of a partition that counts: the position at which to go on
    /// reading is the end of its range. `None` when there is none yet.
    pub async fn last(&self, partition: &PartitionId) -> Result<Option<ShardInfo>> {
        Ok(self.shards(partition).await?.pop())
    }

    /// Writes the shard that covers `range`, durably. `rows` are the traces that
    /// were decoded from it, in any order; there may be none, so that a range of
    /// rejected records is passed as well.
    ///
    /// `range.start` must be where the writer resumed or where its last shard
    /// ended. That is what makes a rival's shard and this one want the same name.
    pub async fn append(
        &self,
        partition: &PartitionId,
        range: OffsetRange,
        rows: Vec<StoredTrace>,
    ) -> Result<Appended> {
        self.append_until(partition, range, rows, None).await
    }

    /// [`ShardLog::append`], and tells by which record the range ends.
    pub async fn append_until(
        &self,
        partition: &PartitionId,
        range: OffsetRange,
        rows: Vec<StoredTrace>,
        last_record: Option<LastRecord>,
    ) -> Result<Appended> {
        let path = shard::path(partition, range.start);
        let (of, last) = (partition.clone(), last_record.clone());
        let (bytes, rows_by_task) = blocking(&path, move || {
            shard::encode(&of, range, rows, last.as_ref())
        })
        .await?;
        let size = bytes.len() as u64;
        match self.store.create(&path, bytes).await? {
            Put::Created => Ok(Appended::Written(ShardInfo {
                partition: partition.clone(),
                range,
                path: path.to_string(),
                size,
                rows_by_task,
                last_record,
            })),
            Put::Taken => {
                let meta = self.store.head(&path).await?;
                let next = self.footer(meta).await?.range.end;
                tracing::info!(%path, %next, "the shard is in the store already");
                Ok(Appended::Taken { next })
            }
        }
    }

    /// The partitions that have shards, sorted.
    pub async fn partitions(&self) -> Result<Vec<PartitionId>> {
        let root = object_store::path::Path::from("traces");
        let mut partitions = Vec::new();
        for topic in self.store.children(&root).await? {
            let Ok(name) = TopicName::new(&topic) else {
                continue;
            };
            let numbers = self
                .store
                .children(&root.clone().join(topic.as_str()))
                .await?;
            partitions.extend(
                numbers.iter().filter_map(|number| {
                    Some(PartitionId::new(name.clone(), number.parse().ok()?))
                }),
            );
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The shards of a partition that count, by offset. One that starts before the
    /// end of what is covered so far does not: a compacted shard holds its rows.
    pub async fn shards(&self, partition: &PartitionId) -> Result<Vec<ShardInfo>> {
        let listed = self.store.list(&shard::folder(partition), None).await?;
        let footers: Vec<Arc<ShardInfo>> = futures::stream::iter(
            listed
                .into_iter()
                .filter(|meta| shard::base_of(&meta.location).is_some())
                .map(|meta| self.footer(meta)),
        )
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;

        let mut covered = Offset::ZERO;
        let mut shards = Vec::with_capacity(footers.len());
        for info in footers {
            if info.range.start >= covered {
                covered = info.range.end;
                shards.push(ShardInfo::clone(&info));
            }
        }
        Ok(shards)
    }

    /// The traces of a shard, of one task or of all, sorted by task and offset.
    pub async fn read(
        &self,
        info: &ShardInfo,
        task: Option<&TaskName>,
    ) -> Result<Vec<StoredTrace>> {
        if task.is_some_and(|task| !info.rows_by_task.contains_key(task)) {
            return Ok(Vec::new());
        }
        let path = object_store::path::Path::from(info.path.as_str());
        let bytes = self.store.get(&path).await?;
        let (info, task) = (info.clone(), task.cloned());
        blocking(&path, move || shard::decode(&info, bytes, task.as_ref())).await
    }

    async fn footer(&self, meta: ObjectMeta) -> Result<Arc<ShardInfo>> {
        if let Some(info) = self.cached(&meta) {
            return Ok(info);
        }
        let path = &meta.location;
        if meta.size == 0 {
            return Err(StoreError::damaged(path, "it is empty"));
        }
        let mut wanted = TAIL.min(meta.size);
        let info = loop {
            let tail = self
                .store
                .get_range(path, meta.size - wanted..meta.size)
                .await?;
            match shard::read_footer(path, meta.size, &tail)? {
                Footer::Whole(info) => break Arc::new(info),
                // It can only grow: a footer that asks for less than it got is no footer.
                Footer::Needs(bytes) if bytes > wanted => wanted = bytes,
                Footer::Needs(_) => {
                    return Err(StoreError::damaged(path, "its footer is not whole"));
                }
            }
        };
        let cached = Cached {
            meta: meta.clone(),
            info: Arc::clone(&info),
        };
        self.footers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(meta.location, cached);
        Ok(info)
    }

    fn cached(&self, meta: &ObjectMeta) -> Option<Arc<ShardInfo>> {
        let footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = footers.get(&meta.location)?;
        (cached.meta == *meta).then(|| Arc::clone(&cached.info))
    }
}

/// Runs what computes for long apart from the threads that wait.
async fn blocking<T: Send + 'static>(
    path: &object_store::path::Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::encode(path, &error)))
}
