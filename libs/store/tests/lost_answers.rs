//! A put that was done, but whose answer was lost and which was sent again: the
//! store says that the name is taken, by the writer itself.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use common::{partition, range, task, traces, version_files};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use tracer_store::{Appended, LogEvent, PipelineVersion, Registry, ShardLog, Store};
use tracer_trace::Offset;

/// Sends the put after `wait` others twice, and answers as the second one was.
#[derive(Debug)]
struct Repeating {
    inner: InMemory,
    wait: AtomicUsize,
}

impl fmt::Display for Repeating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a memory that loses an answer")
    }
}

#[async_trait]
impl ObjectStore for Repeating {
    async fn put_opts(
        &self,
        to: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if self.wait.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.inner
                .put_opts(to, data.clone(), options.clone())
                .await?;
        }
        self.inner.put_opts(to, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn losing_answer(number: usize) -> Store {
    Store::from_object_store(Arc::new(Repeating {
        inner: InMemory::new(),
        wait: AtomicUsize::new(number),
    }))
}

#[tokio::test]
async fn a_shard_whose_answer_was_lost_is_there_once() {
    let log = ShardLog::new(losing_answer(0));
    let first = range(0, 8);
    let taken = log
        .append(&partition(0), first, traces(first))
        .await
        .unwrap();
    assert_eq!(taken, Appended::Taken { next: Offset(8) });
    assert_eq!(
        log.resume(&partition(0)).await.unwrap().position(),
        Some(Offset(8))
    );
    let shards = log.shards(&partition(0)).await.unwrap();
    assert_eq!((shards.len(), shards[0].rows()), (1, 8));
}

#[tokio::test]
async fn an_entry_whose_answer_was_lost_is_there_once() {
    let registry = Registry::new(losing_answer(0));
    let entry = registry
        .append(&task("t"), LogEvent::Resumed, "operator")
        .await
        .unwrap();
    assert_eq!(registry.log(&task("t")).await.unwrap(), [entry]);
}

/// Whichever put of a publication loses its answer, the publication is made once.
#[tokio::test]
async fn a_publication_survives_every_lost_answer() {
    // model, two reports, manifest, log entry
    for lost in 0..5 {
        let registry = Registry::new(losing_answer(lost));
        let version = registry
            .publish(&task("t"), version_files("m"), "trainer")
            .await
            .unwrap();
        // Only the first file cannot be told from a rival's: its number is given up.
        assert_eq!(version, PipelineVersion(if lost == 0 { 2 } else { 1 }));
        assert_eq!(registry.versions(&task("t")).await.unwrap(), [version]);
        assert_eq!(registry.log(&task("t")).await.unwrap().len(), 1);
        assert!(registry.load(&task("t"), version).await.is_ok());
    }
}
