//! Embeddings that were made of texts, kept so that no later refit makes them again.
//!
//! ```text
//! embeddings/{task}/{hash of the embedder's identity}/{sha256}.safetensors
//! ```
//!
//! It is a cache: nothing rests on it, and whatever is missing or damaged in it is made anew.
//! So its objects are the only ones of the store that may go at any time. Each is a *part*,
//! named by the SHA-256 of its bytes: a damaged one is told by its name, and whoever keeps the
//! same vectors twice writes one object.
//!
//! A trainer that embeds new texts adds a part. [`EmbeddingCache::tidy`] writes the
//! small ones together, and drops vectors that nobody asks for any more.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use ring::digest::{SHA256, digest};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tracer_trace::TaskName;

use crate::{
    Store,
    error::{Result, StoreError},
};

const ROOT: &str = "embeddings";
const KEYS: &str = "keys";
const VECTORS: &str = "vectors";
const KEY_BYTES: usize = 16;

/// Bytes of the vectors of one part.
const PART_BYTES: usize = 32 << 20;

/// No part is as large; what is is not read.
const MAX_BYTES: u64 = 4 * PART_BYTES as u64;

/// So many small parts stay beside each other.
const SMALL_PARTS: usize = 16;

/// What nobody asks for stays so long: the vectors of texts that are gone, and what another
/// embedder made, which may be the earlier or the later one of a change that is under way.
const UNUSED_STAY: Duration = Duration::from_hours(7 * 24);

/// Stands for a text: 128 bits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextKey([u8; KEY_BYTES]);

impl TextKey {
    /// The key of a text, byte for byte.
    pub fn of(text: &str) -> Self {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..KEY_BYTES]);
        Self(key)
    }
}

/// The vectors that one embedder made for one task.
#[derive(Clone, Debug)]
pub struct EmbeddingCache {
    store: Store,
    /// Everything of the task.
    above: Path,
    folder: Path,
    dimension: usize,
    read_only: bool,
}

/// What was found of what was asked for.
#[derive(Debug, Default)]
pub struct Found {
    /// The vectors, by the keys of their texts.
    pub vectors: HashMap<TextKey, Vec<f32>>,
    /// Parts that are damaged, and are not used.
    pub damaged: usize,
    parts: Vec<Part>,
}

/// One object of the cache.
#[derive(Debug)]
struct Part {
    path: Path,
    rows: usize,
    used: Vec<TextKey>,
    written: DateTime<Utc>,
}

impl EmbeddingCache {
    /// The cache of a task and of the embedder of this identity, with so many values a vector.
    pub fn new(store: Store, task: &TaskName, identity: &str, dimension: usize) -> Self {
        let above = Path::from(format!("{ROOT}/{task}"));
        Self {
            folder: above
                .clone()
                .join(hex(&digest(&SHA256, identity.as_bytes()).as_ref()[..8])),
            above,
            store,
            dimension,
            read_only: false,
        }
    }

    /// One that is left as it is.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    /// Vectors that fit into one part.
    pub fn part_rows(&self) -> usize {
        (PART_BYTES / (self.dimension.max(1) * size_of::<f32>())).max(1)
    }

    /// Looks for some texts' vectors. One part is in memory at a time, and what was asked for.
    pub async fn find(&self, wanted: &HashSet<TextKey>) -> Result<Found> {
        let mut found = Found::default();
        if wanted.is_empty() {
            return Ok(found);
        }
        for meta in self.store.list(&self.folder, None).await? {
            let bytes = if meta.size > MAX_BYTES {
                Err(StoreError::damaged(
                    &meta.location,
                    "it is larger than any part",
                ))
            } else {
                self.store.get(&meta.location).await
            };
            let (path, dimension) = (meta.location.clone(), self.dimension);
            let read = match bytes {
                Ok(bytes) => blocking(move || read(&path, &bytes, dimension)).await,
                Err(error) => Err(error),
            };
            let mut part = Part {
                path: meta.location,
                rows: 0,
                used: Vec::new(),
                written: meta.last_modified,
            };
            match read {
                Ok(rows) => {
                    part.rows = rows.len();
                    for (key, vector) in rows {
                        if wanted.contains(&key) && !found.vectors.contains_key(&key) {
                            found.vectors.insert(key, vector);
                            part.used.push(key);
                        }
                    }
                }
                // Written together with others meanwhile.
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%error, "kept embeddings are damaged, and are made anew");
                    found.damaged += 1;
                }
                Err(error) => return Err(error),
            }
            found.parts.push(part);
        }
        Ok(found)
    }

    /// Keeps some vectors. Those of another dimension are not.
    pub async fn keep(&self, vectors: &[(TextKey, &[f32])]) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.write(vectors).await.map(|_| ())
    }

    /// Writes the parts together that are small or of which less than half was asked for,
    /// deletes those that are damaged, and after a week all that nobody asks for.
    pub async fn tidy(&self, found: &Found) -> Result<()> {
        self.tidy_before(found, Utc::now() - UNUSED_STAY).await
    }

    async fn tidy_before(&self, found: &Found, before: DateTime<Utc>) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let full = self.part_rows();
        let is_small = |part: &&Part| part.rows * 2 < full;
        let many = found.parts.iter().filter(is_small).count() > SMALL_PARTS;
        let (mut replaced, mut kept) = (Vec::new(), Vec::new());
        for part in &found.parts {
            let unused = part.rows - part.used.len();
            let is_old = unused > 0 && part.written < before;
            if unused * 2 > part.rows || part.rows == 0 || is_old || (many && is_small(&part)) {
                replaced.push(&part.path);
                let vectors = part.used.iter();
                kept.extend(
                    vectors.filter_map(|key| Some((*key, found.vectors.get(key)?.as_slice()))),
                );
            }
        }
        kept.sort_unstable_by_key(|(key, _)| *key);
        let written = self.write(&kept).await?;
        for path in replaced {
            if !written.contains(path) {
                self.store.delete(path).await?;
            }
        }
        self.drop_others(before).await
    }

    /// Deletes what other embedders of the task made before a time.
    async fn drop_others(&self, before: DateTime<Utc>) -> Result<()> {
        for meta in self.store.list(&self.above, None).await? {
            if !meta.location.prefix_matches(&self.folder) && meta.last_modified < before {
                self.store.delete(&meta.location).await?;
            }
        }
        Ok(())
    }

    /// Writes parts, and answers their paths.
    async fn write(&self, vectors: &[(TextKey, &[f32])]) -> Result<Vec<Path>> {
        let mut written = Vec::new();
        for part in vectors.chunks(self.part_rows()) {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (key, vector) in part.iter().filter(|(_, v)| v.len() == self.dimension) {
                keys.extend_from_slice(&key.0);
                values.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
            }
            if keys.is_empty() {
                continue;
            }
            let (folder, dimension) = (self.folder.clone(), self.dimension);
            let (path, bytes) =
                blocking(move || encode(&folder, &keys, &values, dimension)).await?;
            self.store.create(&path, bytes).await?;
            written.push(path);
        }
        Ok(written)
    }
}

/// A part, and the path that its bytes give it.
fn encode(folder: &Path, keys: &[u8], values: &[u8], dimension: usize) -> Result<(Path, Bytes)> {
    let rows = keys.len() / KEY_BYTES;
    let refused = |error: safetensors::SafeTensorError| StoreError::encode(folder, &error);
    let keys = TensorView::new(Dtype::U8, vec![rows, KEY_BYTES], keys).map_err(refused)?;
    let values = TensorView::new(Dtype::F32, vec![rows, dimension], values).map_err(refused)?;
    let bytes = safetensors::serialize([(KEYS, keys), (VECTORS, values)], None).map_err(refused)?;
    let name = format!("{}.safetensors", hex(digest(&SHA256, &bytes).as_ref()));
    Ok((folder.clone().join(name), bytes.into()))
}

/// The rows of a part.
fn read(path: &Path, bytes: &[u8], dimension: usize) -> Result<Vec<(TextKey, Vec<f32>)>> {
    let damaged = |detail: &dyn fmt::Display| StoreError::damaged(path, &detail.to_string());
    let name = format!("{}.safetensors", hex(digest(&SHA256, bytes).as_ref()));
    if path.filename() != Some(name.as_str()) {
        return Err(damaged(&"its bytes are not those it is named by"));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
    let keys = file.tensor(KEYS).map_err(|error| damaged(&error))?;
    let vectors = file.tensor(VECTORS).map_err(|error| damaged(&error))?;
    let rows = keys.data().len() / KEY_BYTES;
    if (keys.dtype(), keys.shape()) != (Dtype::U8, &[rows, KEY_BYTES])
        || (vectors.dtype(), vectors.shape()) != (Dtype::F32, &[rows, dimension])
    {
        return Err(damaged(&"its tensors have other shapes"));
    }
    let (keys, _) = keys.data().as_chunks::<KEY_BYTES>();
    let values = vectors
        .data()
        .chunks_exact(dimension.max(1) * size_of::<f32>());
    Ok(keys
        .iter()
        .zip(values)
        .map(|(key, row)| {
            let (values, _) = row.as_chunks();
            (
                TextKey(*key),
                values
                    .iter()
                    .map(|&value| f32::from_le_bytes(value))
                    .collect(),
            )
        })
        .collect())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string succeeds.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hashing and parsing tens of megabytes is not for a thread that serves others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const DIMENSION: usize = 3;

    fn store() -> Store {
        Store::open("memory://", &BTreeMap::new()).unwrap()
    }

    fn cache(store: &Store, identity: &str) -> EmbeddingCache {
        EmbeddingCache::new(store.clone(), &TaskName::default(), identity, DIMENSION)
    }

    fn vector(number: usize) -> Vec<f32> {
        vec![number as f32, -0.1, f32::MIN_POSITIVE]
    }

    fn key(number: usize) -> TextKey {
        TextKey::of(&format!("text {number}"))
    }

    async fn keep(cache: &EmbeddingCache, numbers: std::ops::Range<usize>) {
        let vectors: Vec<_> = numbers
            .map(|number| (key(number), vector(number)))
            .collect();
        let rows: Vec<_> = vectors
            .iter()
            .map(|(key, vector)| (*key, vector.as_slice()))
            .collect();
        cache.keep(&rows).await.unwrap();
    }

    async fn find(cache: &EmbeddingCache, numbers: std::ops::Range<usize>) -> Found {
        cache.find(&numbers.map(key).collect()).await.unwrap()
    }

    async fn parts(store: &Store) -> Vec<Path> {
        let listed = store.list(&Path::from(ROOT), None).await.unwrap();
        listed.into_iter().map(|meta| meta.location).collect()
    }

    #[tokio::test]
    async fn what_was_kept_is_found_bit_for_bit_and_by_its_embedder_alone() {
        let store = store();
        let small = cache(&store, "small");
        keep(&small, 0..5).await;
        keep(&small, 5..8).await;
        // The same again is the same object.
        keep(&small, 5..8).await;
        assert_eq!(parts(&store).await.len(), 2);
        let found = find(&small, 3..20).await;
        let expected: HashMap<_, _> = (3..8).map(|number| (key(number), vector(number))).collect();
        assert_eq!(found.vectors, expected);
        assert!(find(&cache(&store, "large"), 0..8).await.vectors.is_empty());
        let other = TaskName::new("other").unwrap();
        let other = EmbeddingCache::new(store.clone(), &other, "small", DIMENSION);
        assert!(find(&other, 0..8).await.vectors.is_empty());
    }

    #[tokio::test]
    async fn vectors_of_another_dimension_are_not_kept() {
        let (store, short) = (store(), [1.0, 2.0]);
        let small = cache(&store, "small");
        small.keep(&[(key(0), &short)]).await.unwrap();
        assert!(parts(&store).await.is_empty());
    }

    #[tokio::test]
    async fn a_damaged_part_is_not_used_and_goes() {
        let store = store();
        let small = cache(&store, "small");
        keep(&small, 0..5).await;
        let path = parts(&store).await.remove(0);
        let mut bytes = store.get(&path).await.unwrap().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        store.delete(&path).await.unwrap();
        store.create(&path, bytes.into()).await.unwrap();
        // One that has its name rightly, and something else in it.
        let junk = Bytes::from_static(b"junk");
        let name = format!("{}.safetensors", hex(digest(&SHA256, &junk).as_ref()));
        store
            .create(&small.folder.clone().join(name), junk)
            .await
            .unwrap();
        keep(&small, 7..8).await;
        let found = find(&small, 0..8).await;
        assert_eq!((found.vectors.len(), found.damaged), (1, 2));
        small.tidy(&found).await.unwrap();
        assert_eq!(parts(&store).await.len(), 1);
    }

    #[tokio::test]
    async fn small_parts_become_one_and_what_nobody_asks_for_goes() {
        let store = store();
        let small = cache(&store, "small");
        for number in 0..=SMALL_PARTS {
            keep(&small, number * 2..number * 2 + 2).await;
        }
        assert_eq!(parts(&store).await.len(), SMALL_PARTS + 1);
        let all = 0..(SMALL_PARTS + 1) * 2;
        for _ in 0..2 {
            let found = find(&small, all.clone()).await;
            assert_eq!(found.vectors.len(), all.len());
            small.tidy(&found).await.unwrap();
            assert_eq!(
                parts(&store).await.len(),
                1,
                "a second time changes nothing"
            );
        }
        // Most of it is asked for: it stays whole.
        small.tidy(&find(&small, 4..all.end).await).await.unwrap();
        assert_eq!(find(&small, all.clone()).await.vectors.len(), all.len());
        // After a week, what is not goes all the same.
        let found = find(&small, 4..all.end).await;
        let later = Utc::now() + Duration::from_secs(1);
        small.tidy_before(&found, later).await.unwrap();
        assert_eq!(find(&small, all.clone()).await.vectors.len(), all.len() - 4);
        small.tidy(&find(&small, 4..8).await).await.unwrap();
        let left = find(&small, all).await;
        assert_eq!(left.vectors.len(), 4);
        assert_eq!(parts(&store).await.len(), 1);
    }

    #[tokio::test]
    async fn one_that_is_only_read_stays_as_it_is() {
        let store = store();
        let small = cache(&store, "small");
        keep(&small, 0..5).await;
        let reader = small.read_only();
        let found = find(&reader, 0..1).await;
        assert_eq!(found.vectors.len(), 1);
        reader.tidy(&found).await.unwrap();
        keep(&reader, 5..9).await;
        assert_eq!(find(&reader, 0..9).await.vectors.len(), 5);
    }

    #[tokio::test]
    async fn what_another_embedder_made_stays_for_a_while() {
        let store = store();
        keep(&cache(&store, "large"), 0..3).await;
        let small = cache(&store, "small");
        keep(&small, 0..3).await;
        small.tidy(&find(&small, 0..3).await).await.unwrap();
        assert_eq!(parts(&store).await.len(), 2);
        let later = Utc::now() + Duration::from_secs(1);
        small.drop_others(later).await.unwrap();
        assert_eq!(parts(&store).await.len(), 1);
        assert_eq!(find(&small, 0..3).await.vectors.len(), 3);
    }
}
