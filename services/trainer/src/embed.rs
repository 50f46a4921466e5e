//! Embeddings of traces that come without one.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracer_features::embed::{EmbedError, Embedder, embed_all};
use tracer_trace::{TaskName, Trace};

/// How often a long embedding says where it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Gives every trace an embedding of this embedder: one that was sent stays where it is
/// this embedder's, any other is made anew of the text, and is gone where there is none.
/// A text that comes several times is embedded once. One that the embedder refuses for good
/// has no embedding: a refit that failed for it would fail for ever.
pub(crate) async fn embed(
    task: &TaskName,
    embedder: &dyn Embedder,
    traces: &mut [Trace],
) -> Result<(), EmbedError> {
    let identity = embedder.identity();
    let mut places = HashMap::new();
    let mut texts = Vec::new();
    let mut wanted = vec![None; traces.len()];
    for (trace, wanted) in traces.iter().zip(&mut wanted) {
        let text = trace
            .input
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        if let Some(text) = text.filter(|_| !is_from(trace, embedder)) {
            *wanted = Some(*places.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            }));
        }
    }
    let (began, mut said) = (Instant::now(), Instant::now());
    let vectors = embed_all(embedder, &texts, |done| {
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            tracing::info!(%task, done, total = texts.len(), "embedding traces");
        }
    });
    let embedded = vectors.await?;
    if let Some(error) = &embedded.refusal {
        tracing::warn!(%task, %identity, texts = embedded.refused, %error, "texts that the embedder refuses have no embedding");
    }
    if !texts.is_empty() {
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(%task, %identity, texts = texts.len(), seconds, "traces are embedded");
    }
    drop((texts, places));
    for (trace, wanted) in traces.iter_mut().zip(wanted) {
        match wanted {
            Some(place) => {
                trace.embedding = embedded.vectors.get(place).cloned().flatten();
                let made = trace.embedding.is_some();
                trace.embedder = made.then(|| identity.as_str().to_owned());
            }
            None if !is_from(trace, embedder) => trace.embedding = None,
            None => {}
        }
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
    use std::sync::Mutex;

    use tracer_features::embed::Identity;

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
        embed(&TaskName::default(), &fake, &mut traces)
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
        embed(&TaskName::default(), &fake(), &mut traces)
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
        let error = embed(&TaskName::default(), &fake(), &mut traces).await;
        assert!(matches!(error, Err(EmbedError::Model { .. })));
        assert!(traces[0].embedding.is_none());
    }
}
