//! Trying what everything rests on, with objects of one's own.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use object_store::path::Path;

use crate::{Store, error::Result, store::Put};

const ROOT: &str = "probes";

/// An object that nothing else reads or writes, below `probes/`, and one that is put by
/// several at the same time. Whoever tries them deletes them again.
///
/// A store that passes has put-if-absent, by one writer after the other and by several at
/// once; that is all that [the contract](crate) asks, and no proof of it.
#[derive(Debug)]
pub struct Probe {
    store: Store,
    path: Path,
    raced: Path,
    puts: AtomicU64,
}

impl Store {
    /// Objects to try the store with.
    pub fn probe(&self) -> Probe {
        let (now, process) = (Utc::now(), std::process::id());
        let name = format!("{ROOT}/{}-{process}", now.timestamp_micros());
        Probe {
            store: self.clone(),
            raced: Path::from(format!("{name}-race")),
            path: Path::from(name),
            puts: AtomicU64::new(0),
        }
    }
}

impl Probe {
    /// So many put the same object at the same time.
    pub const RIVALS: usize = 4;

    /// Where the object is.
    pub fn path(&self) -> &str {
        self.path.as_ref()
    }

    /// Puts the object unless it is there; true when it was put. Each put has another
    /// content.
    pub async fn put(&self) -> Result<bool> {
        let content = self.puts.fetch_add(1, Ordering::Relaxed).to_string();
        let put = self.store.create(&self.path, content.into()).await?;
        Ok(put == Put::Created)
    }

    /// Whether the object is what was put first.
    pub async fn is_first(&self) -> Result<bool> {
        Ok(self.store.get(&self.path).await? == Bytes::from_static(b"0"))
    }

    /// How many of [`Probe::RIVALS`] that put an object at the same time are told that they
    /// did.
    pub async fn race(&self) -> Result<usize> {
        let rivals =
            (0..Self::RIVALS).map(|rival| self.store.create(&self.raced, rival.to_string().into()));
        let mut won = 0;
        for put in join_all(rivals).await {
            won += usize::from(put? == Put::Created);
        }
        Ok(won)
    }

    /// Whether the object is listed.
    pub async fn is_listed(&self) -> Result<bool> {
        let listed = self.store.list(&Path::from(ROOT), None).await?;
        Ok(listed.iter().any(|meta| meta.location == self.path))
    }

    /// When the store says that the object was put.
    pub async fn modified(&self) -> Result<DateTime<Utc>> {
        Ok(self.store.head(&self.path).await?.last_modified)
    }

    /// Deletes what was put; true when it is gone.
    pub async fn delete(&self) -> Result<bool> {
        self.store.delete(&self.raced).await?;
        self.store.delete(&self.path).await?;
        Ok(!self.is_listed().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn a_store_that_keeps_the_contract_passes_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        for url in ["memory://", directory.path().to_str().unwrap()] {
            let store = Store::open(url, &BTreeMap::new()).unwrap();
            let (one, other) = (store.probe(), store.probe());
            assert!(one.put().await.unwrap());
            assert!(!one.put().await.unwrap());
            assert!(one.is_first().await.unwrap());
            assert_eq!(one.race().await.unwrap(), 1);
            assert!(one.is_listed().await.unwrap());
            assert!(!other.is_listed().await.unwrap());
            let age = Utc::now() - one.modified().await.unwrap();
            assert!(age.num_seconds().abs() < 60, "{age}");
            assert!(one.delete().await.unwrap());
            let left = store.list(&Path::from(""), None).await.unwrap();
            assert!(left.is_empty(), "{left:?}");
            assert!(one.is_first().await.is_err());
        }
    }
}
