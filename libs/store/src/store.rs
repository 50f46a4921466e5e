//! The object store behind everything: opened by URL, and written only by
//! put-if-absent.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
    prefix::PrefixStore,
};

use crate::error::{Result, StoreError};

/// An object store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    url: Arc<str>,
}

/// The outcome of a put-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The object is there now, durably.
    Created,
    /// The name was taken: by a rival, or by this very put when an earlier answer
    /// to it was lost and it was sent again.
    Taken,
}

impl Store {
    /// Opens the store at a URL:
    ///
    /// - `file:///path`, or a path alone, absolute or relative: a directory, made
    ///   where it is missing. A put returns after fsync of the file and its directory.
    /// - `s3://bucket/prefix`: S3 or a store that speaks its protocol, conditional
    ///   puts included. `options` are `object_store`'s names for S3, such as `endpoint`,
    ///   `region` or `allow_http`; what they leave open is read from `AWS_*`.
    /// - `memory://`: an empty store that goes away with its last clone.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        let invalid = |detail: &dyn ToString| StoreError::Url {
            url: url.to_owned(),
            detail: detail.to_string(),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if scheme != "s3"
            && let Some(key) = options.keys().next()
        {
            return Err(StoreError::Option {
                key: key.clone(),
                detail: "only stores on s3:// take options".to_owned(),
            });
        }
        let inner: Arc<dyn ObjectStore> = match scheme {
            "" if rest.is_empty() => return Err(invalid(&"it is empty")),
            "" => open_directory(rest.into()).map_err(|e| invalid(&e))?,
            "file" => {
                let directory = url::Url::parse(url)
                    .map_err(|e| invalid(&e))?
                    .to_file_path()
                    .map_err(|()| invalid(&"a file URL is file:// and an absolute path"))?;
                open_directory(directory).map_err(|e| invalid(&e))?
            }
            "memory" if rest.trim_matches('/').is_empty() => Arc::new(InMemory::new()),
            "memory" => return Err(invalid(&"a memory store takes no path")),
            "s3" => open_s3(rest, options, &invalid)?,
            _ => {
                return Err(invalid(&"the scheme is none of file, s3 and memory"));
            }
        };
        Ok(Self {
            inner,
            url: url.into(),
        })
    }

    /// A store over any other implementation. It must have put-if-absent
    /// (`PutMode::Create`), and an acknowledged put must be durable.
    pub fn from_object_store(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            url: inner.to_string().into(),
            inner,
        }
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks the store for something cheap, to find out whether it can be reached.
    pub async fn check(&self) -> Result<()> {
        self.children(&Path::from("traces")).await.map(|_| ())
    }

    /// Puts an object unless its name is taken.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<Put> {
        let options = PutOptions::from(PutMode::Create);
        match self.inner.put_opts(path, bytes.into(), options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Taken),
            Err(source) => Err(access("write", path, source)),
        }
    }

    /// Reads a whole object.
    pub(crate) async fn get(&self, path: &Path) -> Result<Bytes> {
        let read = async { self.inner.get(path).await?.bytes().await };
        read.await.map_err(|source| access("read", path, source))
    }

    /// Reads a part of an object.
    pub(crate) async fn get_range(
        &self,
        path: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes> {
        let read = self.inner.get_range(path, range).await;
        read.map_err(|source| access("read", path, source))
    }

    /// Reads some parts of an object.
    pub(crate) async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let read = self.inner.get_ranges(path, ranges).await;
        read.map_err(|source| access("read", path, source))
    }

    /// Deletes an object. One that is gone already is no error.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        match self.inner.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(access("delete", path, source)),
        }
    }

    /// What is known of an object without reading it.
    pub(crate) async fn head(&self, path: &Path) -> Result<ObjectMeta> {
        let head = self.inner.head(path).await;
        head.map_err(|source| access("read", path, source))
    }

    /// All objects below a path, sorted by path; with `after`, only later ones.
    pub(crate) async fn list(&self, below: &Path, after: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let objects = match after {
            Some(after) => self.inner.list_with_offset(Some(below), after),
            None => self.inner.list(Some(below)),
        };
        let mut objects: Vec<_> = objects
            .try_collect()
            .await
            .map_err(|source| access("list", below, source))?;
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    /// The names of the folders directly below a path, sorted.
    pub(crate) async fn children(&self, below: &Path) -> Result<Vec<String>> {
        let listed = self
            .inner
            .list_with_delimiter(Some(below))
            .await
            .map_err(|source| access("list", below, source))?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|path| Some(path.filename()?.to_owned()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url).finish()
    }
}

fn access(operation: &'static str, path: &Path, source: object_store::Error) -> StoreError {
    let path = path.to_string();
    match source {
        object_store::Error::NotFound { .. } => StoreError::NotFound { path },
        source => StoreError::Access {
            operation,
            path,
            source,
        },
    }
}

fn open_directory(directory: PathBuf) -> std::io::Result<Arc<dyn ObjectStore>> {
    let directory = std::path::absolute(directory)?;
    create_durably(&directory)?;
    let store = LocalFileSystem::new_with_prefix(&directory)?.with_fsync(true);
    Ok(Arc::new(store))
}

/// Makes a directory and its parents, each recorded on disk in the one above: an
/// object is not durable in a directory that is not.
fn create_durably(directory: &std::path::Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    create_durably(parent)?;
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::File::open(parent)?.sync_all(),
    }
}

fn open_s3(
    rest: &str,
    options: &BTreeMap<String, String>,
    invalid: &dyn Fn(&dyn ToString) -> StoreError,
) -> Result<Arc<dyn ObjectStore>> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(invalid(&"it names no bucket"));
    }
    // TLS takes the provider of the process. An error means that one is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    for (key, value) in options {
        let parsed = AmazonS3ConfigKey::from_str(&key.to_ascii_lowercase()).map_err(|error| {
            StoreError::Option {
                key: key.clone(),
                detail: error.to_string(),
            }
        })?;
        if parsed == AmazonS3ConfigKey::ConditionalPut {
            return Err(StoreError::Option {
                key: key.clone(),
                detail: "it cannot be changed: everything rests on put-if-absent".to_owned(),
            });
        }
        builder = builder.with_config(parsed, value);
    }
    let store = builder.build().map_err(|error| invalid(&error))?;
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| invalid(&error))?;
    if prefix.as_ref().is_empty() {
        Ok(Arc::new(store))
    } else {
        Ok(Arc::new(PrefixStore::new(store, prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Store> {
        Store::open(url, &BTreeMap::new())
    }

    #[tokio::test]
    async fn a_name_is_given_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b c");
        let as_url = url::Url::from_file_path(&path).unwrap().to_string();
        for (url, reopens) in [
            ("memory://", false),
            (path.to_str().unwrap(), true),
            (&as_url, true),
        ] {
            let store = open(url).unwrap();
            let name = Path::from(format!("x/{}.json", url.len()));
            assert_eq!(
                store.create(&name, "one".into()).await.unwrap(),
                Put::Created
            );
            assert_eq!(store.create(&name, "two".into()).await.unwrap(), Put::Taken);
            let again = if reopens { open(url).unwrap() } else { store };
            assert_eq!(again.get(&name).await.unwrap(), "one");
            assert!(again.check().await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_neither_listed_nor_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path().to_str().unwrap()).unwrap();
        std::fs::create_dir(directory.path().join("x")).unwrap();
        for leftover in ["x/1.json#1", "x/1.json#2"] {
            std::fs::write(directory.path().join(leftover), "tor").unwrap();
        }
        let name = Path::from("x/1.json");
        assert!(store.list(&Path::from("x"), None).await.unwrap().is_empty());
        assert_eq!(
            store.create(&name, "whole".into()).await.unwrap(),
            Put::Created
        );
        let listed = store.list(&Path::from("x"), None).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(store.get(&name).await.unwrap(), "whole");
    }

    #[test]
    fn bad_urls_and_options_are_named() {
        for url in [
            "",
            "ftp://x",
            "s3://",
            "memory://x",
            "file://host/x",
            "s3://b/x//y",
        ] {
            let error = open(url).unwrap_err();
            assert!(matches!(error, StoreError::Url { .. }), "{url}: {error}");
        }
        let options = BTreeMap::from([("colour".to_owned(), "red".to_owned())]);
        for url in ["s3://bucket", "memory://"] {
            let error = Store::open(url, &options).unwrap_err().to_string();
            assert!(error.contains("colour"), "{error}");
        }
        let options = BTreeMap::from([("conditional_put".to_owned(), "disabled".to_owned())]);
        let error = Store::open("s3://bucket", &options).unwrap_err();
        assert!(error.to_string().contains("conditional_put"), "{error}");
        let options = BTreeMap::from([("region".to_owned(), "eu-central-1".to_owned())]);
        assert!(Store::open("s3://bucket/a/b", &options).is_ok());
    }
}
