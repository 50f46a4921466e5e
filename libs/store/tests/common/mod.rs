//! The same tests on every store.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_macros)]

pub(crate) mod hooked;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;
use tracer_store::{Manifest, Store, VersionFiles};
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, Trace};

/// A store of its own for one test.
pub(crate) struct Place {
    url: String,
    options: BTreeMap<String, String>,
    first: Store,
    pub(crate) directory: Option<TempDir>,
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self::at("memory://".into(), BTreeMap::new(), None)
    }

    pub(crate) fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store", directory.path().display());
        Self::at(url, BTreeMap::new(), Some(directory))
    }

    pub(crate) fn s3() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let endpoint = std::env::var("TRACER_TEST_S3")
            .expect("TRACER_TEST_S3 is the endpoint of an S3 server: tests/run s3");
        let bucket =
            std::env::var("TRACER_TEST_S3_BUCKET").unwrap_or_else(|_| "tracer-tests".into());
        let started = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let url = format!("s3://{bucket}/{started}/{}-{next}", std::process::id());
        let options = [("endpoint", endpoint.as_str()), ("allow_http", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self::at(url, options.into(), None)
    }

    fn at(url: String, options: BTreeMap<String, String>, directory: Option<TempDir>) -> Self {
        let first = Store::open(&url, &options).unwrap();
        Self {
            url,
            options,
            first,
            directory,
        }
    }

    /// The store, as another process would open it where that is possible.
    pub(crate) fn open(&self) -> Store {
        if self.url == "memory://" {
            return self.first.clone();
        }
        Store::open(&self.url, &self.options).unwrap()
    }
}

/// Runs each contract, an async function of a [`Place`], on every store.
#[macro_export]
macro_rules! on_every_store {
    ($($contract:ident),* $(,)?) => {
        $(mod $contract {
            use std::sync::Arc;

            use super::common::Place;

            #[tokio::test(flavor = "multi_thread")]
            async fn on_memory() {
                super::$contract(Arc::new(Place::memory())).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_file() {
                super::$contract(Arc::new(Place::file())).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs an S3 server: tests/run s3"]
            async fn on_s3() {
                super::$contract(Arc::new(Place::s3())).await;
            }
        })*
    };
}

pub(crate) fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

pub(crate) fn partition(number: i32) -> PartitionId {
    PartitionId::new("traces".parse().unwrap(), number)
}

pub(crate) fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange::new(Offset(start), Offset(end)).unwrap()
}

pub(crate) fn trace(offset: u64, of: &str) -> StoredTrace {
    StoredTrace {
        offset,
        trace: Trace {
            id: format!("id-{offset}"),
            task: task(of),
            input: Some(format!("where is my card, request {offset}")),
            withheld: None,
            embedding: offset
                .is_multiple_of(2)
                .then(|| vec![offset as f32, 0.5, -1.0]),
            embedder: None,
            teacher: format!("label-{}", offset % 3),
            ground_truth: None,
            timestamp: None,
            metadata: BTreeMap::new(),
            routing: None,
        },
    }
}

/// Traces at every position of a range, of the tasks `a` and `b` in turn.
pub(crate) fn traces(range: OffsetRange) -> Vec<StoredTrace> {
    (range.start.get()..range.end.get())
        .map(|offset| trace(offset, if offset.is_multiple_of(2) { "b" } else { "a" }))
        .collect()
}

pub(crate) fn version_files(model: &str) -> VersionFiles {
    VersionFiles {
        model: model.to_owned().into(),
        report_json: "{}".into(),
        report_html: "<p>report</p>".into(),
        manifest: Manifest {
            family: "l2d".into(),
            target_agreement: 0.95,
            ..Manifest::default()
        },
    }
}
