//! Embeddings of traces that come without one.

use std::{collections::HashMap, time::Instant};

use tracer_features::embed::{EmbedError, Embedder, embed_all};
use tracer_store::{EmbeddingCache, TextKey};
use tracer_trace::{TaskName, Trace};

/// Gives every trace an embedding of this embedder: one that was sent stays where it is
/// this embedder's, any other is made of the text, and is gone where there is none.
/// A text that comes several times is embedded once, and with a cache once for all refits.
/// One that the embedder refuses for good has no embedding: a refit that failed for it would
/// fail for ever. `progress` is told how many texts are done, of how many.
pub(crate) async fn embed(
    task: &TaskName,
    embedder: &dyn Embedder,
    cache: Option<&EmbeddingCache>,
    traces: &mut [Trace],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Made, EmbedError> {
    let identity = embedder.identity();
    let mut texts = HashMap::new();
    let wanted: Vec<Option<TextKey>> = traces
        .iter()
        .map(|trace| {
            let text = trace.input.as_deref();
            let text = text.filter(|text| !text.trim().is_empty() && !is_from(trace, embedder))?;
            let key = TextKey::of(text);
            texts.insert(key, text);
            Some(key)
        })
        .collect();
    let mut vectors = match cache {
        Some(cache) => find(task, cache, &texts).await,
        None => HashMap::new(),
    };
    let mut missing: Vec<(TextKey, &str)> = texts
        .into_iter()
        .filter(|(key, _)| !vectors.contains_key(key))
        .collect();
    // Texts of a length side by side make batches without filling.
    missing.sort_unstable_by_key(|&(key, text)| (text.len(), key));
    let made = Made {
        found: vectors.len(),
        made: missing.len(),
    };
    make(task, embedder, cache, &missing, &mut vectors, progress).await?;
    drop(missing);
    for (trace, wanted) in traces.iter_mut().zip(wanted) {
        match wanted {
            Some(key) => {
                trace.embedding = vectors.get(&key).cloned();
                let made = trace.embedding.is_some();
                trace.embedder = made.then(|| identity.as_str().to_owned());
            }
            None if !is_from(trace, embedder) => trace.embedding = None,
            None => {}
        }
    }
    Ok(made)
}

/// Where the embeddings of texts came from, in texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// In the cache.
    pub(crate) found: usize,
    /// Given to the embedder.
    pub(crate) made: usize,
}

/// What the cache has. A refit does without it rather than fail.
async fn find(
    task: &TaskName,
    cache: &EmbeddingCache,
    texts: &HashMap<TextKey, &str>,
) -> HashMap<TextKey, Vec<f32>> {
    let found = match cache.find(&texts.keys().copied().collect()).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%task, %error, "kept embeddings cannot be read, and are made anew");
            return HashMap::new();
        }
    };
    if let Err(error) = cache.tidy(&found).await {
        tracing::warn!(%task, %error, "kept embeddings are not tidied");
    }
    found.vectors
}

/// Embeds some texts, each a text of its own. What is made is kept on the way: a refit that
/// is taken over goes on behind it.
async fn make(
    task: &TaskName,
    embedder: &dyn Embedder,
    cache: Option<&EmbeddingCache>,
    missing: &[(TextKey, &str)],
    vectors: &mut HashMap<TextKey, Vec<f32>>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), EmbedError> {
    let identity = embedder.identity();
    let began = Instant::now();
    let (mut refused, mut refusal) = (0, None);
    let part = cache.map_or(missing.len(), EmbeddingCache::part_rows);
    for (number, part_of) in missing.chunks(part.max(1)).enumerate() {
        let texts: Vec<&str> = part_of.iter().map(|(_, text)| *text).collect();
        let before = number * part;
        let embedded = embed_all(embedder, &texts, |done| {
            progress(before + done, missing.len());
        });
        let embedded = embedded.await?;
        refused += embedded.refused;
        refusal = refusal.or(embedded.refusal);
        let keys = part_of.iter().map(|(key, _)| *key);
        let made: Vec<(TextKey, Vec<f32>)> = keys
            .zip(embedded.vectors)
            .filter_map(|(key, vector)| Some((key, vector?)))
            .collect();
        if let Some(cache) = cache {
            let rows: Vec<_> = made
                .iter()
                .map(|(key, row)| (*key, row.as_slice()))
                .collect();
            if let Err(error) = cache.keep(&rows).await {
                tracing::warn!(%task, %error, "embeddings are not kept, the next refit makes them again");
            }
        }
        vectors.extend(made);
    }
    if let Some(error) = &refusal {
        tracing::warn!(%task, %identity, texts = refused, %error, "texts that the embedder refuses have no embedding");
    }
    if !missing.is_empty() {
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(%task, %identity, texts = missing.len(), seconds, "traces are embedded");
    }
    Ok(())
}

/// Whether a trace's embedding is the embedder's own.
fn is_from(trace: &Trace, embedder: &dyn Embedder) -> bool {
    let identity = embedder.identity();
    let dimension = trace.embedding.as_ref().map(Vec::len);
    trace.embedder.as_deref() == Some(identity.as_str()) && dimension == Some(identity.dimension())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, sync::Mutex};

    use tracer_features::embed::Identity;
    use tracer_store::Store;

    /// A text becomes its length, twice.
    #[derive(Debug)]
    struct Fake {
        identity: Identity,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl Embedder for Fake {
        fn identity(&self) -> &Identity {
            &self.identity
        }

        async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
            if texts.iter().any(|text| text == "refused") {
                let detail = "no".to_owned();
                return Err(EmbedError::Refused { detail });
            }
            if texts.iter().any(|text| text == "fail") {
                let detail = "no".to_owned();
                return Err(EmbedError::Model { detail });
            }
            let vectors = texts
                .iter()
                .map(|text| vec![text.len() as f32; 2])
                .collect();
            self.asked.lock().unwrap().extend(texts);
            Ok(vectors)
        }

        fn bulk_size(&self) -> usize {
            2
        }
    }

    fn fake() -> Fake {
        Fake {
            identity: Identity::named("fake", 2),
            asked: Mutex::default(),
        }
    }

    fn trace(text: Option<&str>, embedding: Option<(&str, Vec<f32>)>) -> Trace {
        let (embedder, embedding) = embedding.unzip();
        Trace {
            id: String::new(),
            task: TaskName::default(),
            input: text.map(str::to_owned),
            withheld: None,
            embedder: embedder
                .filter(|name: &&str| !name.is_empty())
                .map(str::to_owned),
            embedding,
            teacher: "x".to_owned(),
            ground_truth: None,
            timestamp: None,
            metadata: std::collections::BTreeMap::new(),
            routing: None,
        }
    }

    #[tokio::test]
    async fn what_is_not_the_embedders_own_is_made_anew() {
        let own = || Some(("fake", vec![9.0, 9.0]));
        let mut traces = vec![
            trace(Some("a"), None),
            trace(Some("bbb"), own()),
            trace(Some("cc"), Some(("other", vec![9.0, 9.0]))),
            trace(Some("a"), Some(("", vec![9.0, 9.0]))),
            trace(Some("dddd"), Some(("fake", vec![9.0]))),
            trace(None, own()),
            trace(None, Some(("other", vec![9.0, 9.0]))),
            trace(Some("  "), Some(("other", vec![9.0, 9.0]))),
        ];
        let fake = fake();
        embed(&TaskName::default(), &fake, None, &mut traces, &|_, _| ())
            .await
            .unwrap();
        assert_eq!(*fake.asked.lock().unwrap(), ["a", "cc", "dddd"]);
        let first = |trace: &Trace| trace.embedding.as_ref().map(|vector| vector[0]);
        let firsts: Vec<Option<f32>> = traces.iter().map(first).collect();
        let expected = [
            Some(1.0),
            Some(9.0),
            Some(2.0),
            Some(1.0),
            Some(4.0),
            Some(9.0),
            None,
            None,
        ];
        assert_eq!(firsts, expected);
        let all = traces.iter().filter(|trace| trace.embedding.is_some());
        assert!(
            all.into_iter()
                .all(|trace| trace.embedder.as_deref() == Some("fake"))
        );
    }

    #[tokio::test]
    async fn a_text_that_is_refused_has_no_embedding_and_the_others_have() {
        let mut traces = vec![
            trace(Some("a"), None),
            trace(Some("refused"), Some(("other", vec![9.0, 9.0]))),
            trace(Some("cc"), None),
            trace(Some("refused"), None),
        ];
        embed(&TaskName::default(), &fake(), None, &mut traces, &|_, _| ())
            .await
            .unwrap();
        let made: Vec<Option<Vec<f32>>> = traces.iter().map(|t| t.embedding.clone()).collect();
        let expected = [Some(vec![1.0, 1.0]), None, Some(vec![2.0, 2.0]), None];
        assert_eq!(made, expected);
        assert_eq!(traces[1].embedder, None);
    }

    #[tokio::test]
    async fn a_failure_is_the_refits() {
        let mut traces = vec![trace(Some("a"), None), trace(Some("fail"), None)];
        let error = embed(&TaskName::default(), &fake(), None, &mut traces, &|_, _| ()).await;
        assert!(matches!(error, Err(EmbedError::Model { .. })));
        assert!(traces[0].embedding.is_none());
    }

    #[tokio::test]
    async fn what_was_made_is_not_made_again() {
        let store = Store::open("memory://", &BTreeMap::new()).unwrap();
        let task = TaskName::default();
        let cache = EmbeddingCache::new(store.clone(), &task, "fake", 2);
        let mut traces = vec![trace(Some("a"), None), trace(Some("refused"), None)];
        let first = fake();
        let made = embed(&task, &first, Some(&cache), &mut traces, &|_, _| ()).await;
        assert_eq!(made.unwrap(), Made { found: 0, made: 2 });
        let mut again = vec![
            trace(Some("a"), None),
            trace(Some("bb"), None),
            trace(Some("refused"), None),
        ];
        let second = fake();
        let made = embed(&task, &second, Some(&cache), &mut again, &|_, _| ()).await;
        // What is refused is asked for again: another release of the model may take it.
        assert_eq!(made.unwrap(), Made { found: 1, made: 2 });
        assert_eq!(*second.asked.lock().unwrap(), ["bb"]);
        assert_eq!(again[0].embedding, traces[0].embedding);
        assert_eq!(again[1].embedding, Some(vec![2.0, 2.0]));
        assert_eq!(again[2].embedding, None);
    }

    /// A store that only fails.
    #[tokio::test]
    async fn a_cache_that_fails_costs_a_refit_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        // A file stands where the folder would be.
        std::fs::write(directory.path().join("embeddings"), "in the way").unwrap();
        let task = TaskName::default();
        let cache = EmbeddingCache::new(store, &task, "fake", 2);
        let mut traces = vec![trace(Some("a"), None)];
        let made = embed(&task, &fake(), Some(&cache), &mut traces, &|_, _| ()).await;
        assert_eq!(made.unwrap(), Made { found: 0, made: 1 });
        assert_eq!(traces[0].embedding, Some(vec![1.0, 1.0]));
    }
}
