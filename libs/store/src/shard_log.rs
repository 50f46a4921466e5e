//! The shard log: the traces of every partition, and how far each has come.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use object_store::{ObjectMeta, path::Path};
use parquet::file::metadata::ParquetMetaData;
use tracer_trace::{
    Offset, OffsetRange, PartitionId, Rows, StoredTrace, TopicName, parquet_schema::Embeddings,
};

use crate::{
    error::{Result, StoreError},
    last_record::LastRecord,
    shard::{self, Draft, Footer, ShardInfo},
    shard_name::{ShardName, folder},
    store::{Put, Store},
    walk::Walk,
};

/// Bytes of a shard's end that are read at first: enough for most footers.
const TAIL: u64 = 64 << 10;

/// Footers that are read at the same time.
pub(crate) const CONCURRENCY: usize = 16;

/// How often a put is tried whose name is taken by an object that goes away before it
/// can be read.
const PUTS: usize = 8;

/// The log of shards; clones share it and its cache of footers.
#[derive(Clone, Debug)]
pub struct ShardLog {
    store: Store,
    embeddings: Embeddings,
    confirm_every: Duration,
    fetched_whole: u64,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By folder, that of a partition, and by path.
    footers: HashMap<String, HashMap<Path, Cached>>,
    /// When a writer's position was last seen to be the end of its partition.
    confirmed: HashMap<PartitionId, Confirmed>,
}

impl Shared {
    fn cached(&self, path: &Path) -> Option<&Cached> {
        self.footers.get(folder_of(path))?.get(path)
    }
}

fn folder_of(path: &Path) -> &str {
    let path = path.as_ref();
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A footer and the object it was read from. A shard never changes, but one that was
/// deleted may be written again by a writer that does not know it.
#[derive(Clone, Debug)]
struct Cached {
    meta: ObjectMeta,
    info: Arc<ShardInfo>,
    /// It was read to the last row.
    sound: bool,
}

/// By two clocks: one may jump, the other stands still while a machine sleeps.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    monotonic: Instant,
    wall: SystemTime,
}

impl Confirmed {
    fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// A wall clock that went back tells nothing.
    fn is_older_than(&self, age: Duration) -> bool {
        self.monotonic.elapsed() >= age || self.wall.elapsed().is_ok_and(|elapsed| elapsed >= age)
    }
}

/// The outcome of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The shard is durable.
    Written(ShardInfo),
    /// A shard starts at this offset already: a rival's, or this very one, written
    /// by a put whose answer was lost. Or this one does not count, because its writer
    /// was replaced long ago. Drop the buffer and ask [`ShardLog::resume`] where to go
    /// on: it may be the seal of a reset, behind which another shift holds.
    Taken {
        /// The offset that follows the shard in the store. It may lie before the range
        /// that was to be written, where that does not follow what is there.
        next: Offset,
    },
}

/// A shard that is to be put.
#[derive(Clone, Debug)]
pub struct EncodedShard {
    path: Path,
    bytes: Bytes,
    info: ShardInfo,
}

impl ShardLog {
    /// How often a writer makes sure that its shards count, unless told otherwise.
    pub const CONFIRM_EVERY: Duration = Duration::from_secs(30);

    /// Bytes up to which a shard is fetched in one request, unless told otherwise.
    pub const FETCHED_WHOLE: u64 = 256 << 10;

    /// The shard log of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            embeddings: Embeddings::default(),
            confirm_every: Self::CONFIRM_EVERY,
            fetched_whole: Self::FETCHED_WHOLE,
            shared: Arc::default(),
        }
    }

    /// Up to how many bytes a shard is fetched in one request, whatever is wanted of it. Of a
    /// larger one only the parts that are wanted are.
    #[must_use]
    pub fn with_fetched_whole(mut self, bytes: u64) -> Self {
        self.fetched_whole = bytes;
        self
    }

    pub(crate) fn fetched_whole(&self) -> u64 {
        self.fetched_whole
    }

    /// The store that the shards are in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How embeddings are stored in shards that are written from now on.
    #[must_use]
    pub fn with_embeddings(mut self, embeddings: Embeddings) -> Self {
        self.embeddings = embeddings;
        self
    }

    /// How often a writer makes sure that its shards count. It must be well below the
    /// time for which replaced shards are kept.
    #[must_use]
    pub fn confirming_every(mut self, period: Duration) -> Self {
        self.confirm_every = period;
        self
    }

    pub(crate) fn embeddings(&self) -> Embeddings {
        self.embeddings
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
        let rows = Arc::new(rows.iter().collect::<Rows>());
        let shard = self.encode(partition, range, rows, last_record).await?;
        self.put(&shard).await
    }

    /// The first half of [`ShardLog::append_until`]: makes the bytes of a shard. The store
    /// is not asked.
    pub async fn encode(
        &self,
        partition: &PartitionId,
        range: OffsetRange,
        rows: Arc<Rows>,
        last_record: Option<LastRecord>,
    ) -> Result<EncodedShard> {
        let name = ShardName::written(range.start);
        let path = name.path(partition);
        let draft = Draft {
            partition: partition.clone(),
            name,
            range,
            last_record,
            written: None,
            bare: Vec::new(),
            embeddings: self.embeddings,
        };
        let (bytes, info) = blocking(&path, move || shard::encode(draft, &rows)).await?;
        Ok(EncodedShard { path, bytes, info })
    }

    /// The second half: makes it durable. It may be tried again.
    pub async fn put(&self, shard: &EncodedShard) -> Result<Appended> {
        let EncodedShard { path, bytes, info } = shard;
        let partition = &info.partition;
        let put = self.put_or_find(path, bytes.clone(), info.clone());
        let appended = put.await?;
        if !self.must_confirm(partition) {
            return Ok(appended);
        }
        let walk = match self.walk(partition).await {
            Ok(walk) => walk,
            Err(error) => {
                // The shard is durable. The next one asks again.
                tracing::debug!(%partition, %error, "cannot confirm that the shard counts");
                return Ok(appended);
            }
        };
        self.confirm(partition);
        let end = walk.end().unwrap_or_default();
        if walk.chain.iter().any(|link| link.meta.location == *path) {
            return Ok(appended);
        }
        tracing::warn!(%path, %end, "this shard does not count: its writer was replaced long ago");
        Ok(Appended::Taken { next: end })
    }

    async fn put_or_find(&self, path: &Path, bytes: Bytes, info: ShardInfo) -> Result<Appended> {
        let mut puts = 1;
        loop {
            if self.store.create(path, bytes.clone()).await? == Put::Created {
                return Ok(Appended::Written(info));
            }
            let found = async { self.footer(self.store.head(path).await?).await };
            match found.await {
                Ok(found) => {
                    let next = found.range.end;
                    tracing::info!(%path, %next, "the shard is in the store already");
                    return Ok(Appended::Taken { next });
                }
                // It was replaced, and deleted just now.
                Err(StoreError::NotFound { .. }) if puts < PUTS => puts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Once in a while a writer looks whether its shards count. The name of a shard
    /// that was replaced long ago is free again, so a writer that woke up from a long
    /// sleep would go on beside the log, and never be told.
    fn must_confirm(&self, partition: &PartitionId) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared
            .confirmed
            .get(partition)
            .is_none_or(|confirmed| confirmed.is_older_than(self.confirm_every))
    }

    pub(crate) fn confirm(&self, partition: &PartitionId) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.confirmed.insert(partition.clone(), Confirmed::now());
    }

    /// The partitions that have shards, sorted.
    pub async fn partitions(&self) -> Result<Vec<PartitionId>> {
        let root = Path::from("traces");
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

    /// The shards of a partition that count, by offset: each starts where the one
    /// before ends.
    pub async fn shards(&self, partition: &PartitionId) -> Result<Vec<ShardInfo>> {
        let Walk { chain, .. } = self.walk(partition).await?;
        Ok(chain
            .into_iter()
            .map(|link| ShardInfo::clone(&link.info))
            .collect())
    }

    pub(crate) async fn footer(&self, meta: ObjectMeta) -> Result<Arc<ShardInfo>> {
        if let Some(info) = self.cached(&meta) {
            return Ok(info);
        }
        let (info, _) = self.read_footer(&meta.location, meta.size).await?;
        let info = Arc::new(info);
        let cached = Cached {
            meta: meta.clone(),
            info: Arc::clone(&info),
            sound: false,
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared
            .footers
            .entry(folder_of(&meta.location).to_owned())
            .or_default()
            .insert(meta.location, cached);
        Ok(info)
    }

    pub(crate) async fn read_footer(
        &self,
        path: &Path,
        size: u64,
    ) -> Result<(ShardInfo, ParquetMetaData)> {
        if size == 0 {
            return Err(StoreError::damaged(path, "it is empty"));
        }
        let mut wanted = TAIL.min(size);
        loop {
            let tail = self.store.get_range(path, size - wanted..size).await?;
            match shard::read_footer(path, size, &tail)? {
                Footer::Whole(whole) => return Ok(*whole),
                // It can only grow: a footer that asks for less than it got is no footer.
                Footer::Needs(bytes) if bytes > wanted => wanted = bytes,
                Footer::Needs(_) => {
                    return Err(StoreError::damaged(path, "its footer is not whole"));
                }
            }
        }
    }

    fn cached(&self, meta: &ObjectMeta) -> Option<Arc<ShardInfo>> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = shared.cached(&meta.location)?;
        (cached.meta == *meta).then(|| Arc::clone(&cached.info))
    }

    /// Whether this very object was read to the last row before.
    pub(crate) fn is_sound(&self, meta: &ObjectMeta) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = shared.cached(&meta.location);
        cached.is_some_and(|cached| cached.sound && cached.meta == *meta)
    }

    /// Remembers that this very object was read to the last row.
    pub(crate) fn sound(&self, meta: &ObjectMeta) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = shared.footers.get_mut(folder_of(&meta.location));
        if let Some(cached) = folder.and_then(|folder| folder.get_mut(&meta.location)) {
            cached.sound |= cached.meta == *meta;
        }
    }

    /// Forgets the footers of shards that are no longer there.
    pub(crate) fn forget_all_but(
        &self,
        partition: &PartitionId,
        listed: &[(ShardName, ObjectMeta)],
    ) {
        let listed: HashSet<&Path> = listed.iter().map(|(_, meta)| &meta.location).collect();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(footers) = shared.footers.get_mut(folder(partition).as_ref()) {
            footers.retain(|path, _| listed.contains(path));
        }
    }
}

/// Runs what computes for long apart from the threads that wait.
pub(crate) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::encode(path, &error)))
}
