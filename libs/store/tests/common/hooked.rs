//! A store in memory that tells of every operation and fails where it is told to.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, memory::InMemory, path::Path,
};
use tracer_store::Store;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// It fails and nothing has happened.
    Fails,
    /// It is done, and reported as a failure.
    DoneAndFails,
}

/// Changes something, or only looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Change,
    Look,
}

#[derive(Clone)]
pub(crate) struct Hooked(Arc<Inner>);

struct Inner {
    memory: InMemory,
    /// The fate of the n-th operation.
    fate: Box<dyn Fn(usize, Kind) -> Fate + Send + Sync>,
    operations: AtomicUsize,
    bytes_read: AtomicU64,
}

impl Hooked {
    pub(crate) fn new(fate: impl Fn(usize, Kind) -> Fate + Send + Sync + 'static) -> Self {
        Self::over(InMemory::new(), fate)
    }

    fn over(memory: InMemory, fate: impl Fn(usize, Kind) -> Fate + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            memory,
            fate: Box::new(fate),
            operations: AtomicUsize::new(0),
            bytes_read: AtomicU64::new(0),
        }))
    }

    /// A copy of what is there now, with other fates.
    pub(crate) fn copy(&self, fate: impl Fn(usize, Kind) -> Fate + Send + Sync + 'static) -> Self {
        Self::over(self.0.memory.fork(), fate)
    }

    pub(crate) fn store(&self) -> Store {
        Store::from_object_store(Arc::new(self.clone()))
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> usize {
        self.0.operations.load(Ordering::SeqCst)
    }

    /// Bytes of objects that were asked for so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Ordering::SeqCst)
    }

    pub(crate) async fn paths(&self) -> Vec<String> {
        let listed = self
            .0
            .memory
            .list(None)
            .map(|meta| meta.unwrap().location.to_string());
        let mut paths: Vec<_> = listed.collect().await;
        paths.sort_unstable();
        paths
    }

    pub(crate) async fn remove(&self, path: &str) {
        self.0.memory.delete(&Path::from(path)).await.unwrap();
    }

    async fn next(&self, kind: Kind) -> Fate {
        // Rivals get a turn between any two operations.
        tokio::task::yield_now().await;
        let number = self.0.operations.fetch_add(1, Ordering::SeqCst);
        (self.0.fate)(number, kind)
    }
}

fn failure() -> Error {
    Error::Generic {
        store: "hooked",
        source: "it was told to fail".into(),
    }
}

async fn with_fate<T>(fate: Fate, operation: impl Future<Output = Result<T>>) -> Result<T> {
    match fate {
        Fate::Done => operation.await,
        Fate::Fails => Err(failure()),
        Fate::DoneAndFails => {
            operation.await?;
            Err(failure())
        }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hooked memory")
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(
        &self,
        to: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fate = self.next(Kind::Change).await;
        with_fate(fate, self.0.memory.put_opts(to, data, options)).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.memory.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let (fate, head) = (self.next(Kind::Look).await, options.head);
        let got = with_fate(fate, self.0.memory.get_opts(from, options)).await?;
        if !head {
            let bytes = got.range.end - got.range.start;
            self.0.bytes_read.fetch_add(bytes, Ordering::SeqCst);
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |path| {
                let this = this.clone();
                async move {
                    let (path, fate) = (path?, this.next(Kind::Change).await);
                    with_fate(fate, this.0.memory.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        futures::stream::once(async move {
            match this.next(Kind::Look).await {
                Fate::Done => this.0.memory.list(prefix.as_ref()),
                _ => futures::stream::once(async { Err(failure()) }).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.next(Kind::Look).await;
        with_fate(fate, self.0.memory.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.memory.copy_opts(from, to, options).await
    }
}
