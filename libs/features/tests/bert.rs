//! The BERT encoder on a real model, against vectors that another implementation made.
//!
//! `tests/run bert` fetches the model. `TRACER_TEST_BERT` names its directory, and
//! `TRACER_TEST_TRACES` and `TRACER_TEST_EMBEDDINGS` a file of traces and its vectors
//! (float32, `.npy`, a row a line).

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{env, fs, sync::Arc, time::Instant};

use tracer_features::embed::{Directory, Embedder, EmbedderConfig, EmbedderKind, embed_all, open};

fn config(model: &str) -> EmbedderConfig {
    EmbedderConfig {
        kind: EmbedderKind::Bert,
        model: model.to_owned(),
        ..EmbedderConfig::default()
    }
}

async fn opened(config: &EmbedderConfig) -> Arc<dyn Embedder> {
    let files = Directory(config.model.clone().into());
    open(config, &files).await.unwrap().unwrap()
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// The texts of a file of traces.
fn texts(path: &str) -> Vec<String> {
    let text = |line: &str| {
        let trace: serde_json::Value = serde_json::from_str(line).unwrap();
        trace["input"].as_str().unwrap().to_owned()
    };
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(text)
        .collect()
}

/// The rows of a float32 matrix in C order, whose header is at the front.
fn rows(path: &str, count: usize, dimension: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let values = &bytes[bytes.len() - count * dimension * 4..];
    let values: Vec<f32> = values
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    values.chunks(dimension).map(<[f32]>::to_vec).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Asks for one text at a time, `clients` at once.
async fn one_by_one(embedder: &Arc<dyn Embedder>, texts: &[String], clients: usize) {
    let mut running = tokio::task::JoinSet::new();
    for share in texts.chunks(texts.len().div_ceil(clients)) {
        let (embedder, share) = (Arc::clone(embedder), share.to_vec());
        running.spawn(async move {
            for text in share {
                embedder.embed(vec![text]).await.unwrap();
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model and its vectors: tests/run bert"]
async fn bert_is_the_model_that_made_the_vectors() {
    let texts = texts(&variable("TRACER_TEST_TRACES"));
    let began = Instant::now();
    let embedder = opened(&config(&variable("TRACER_TEST_BERT"))).await;
    let load = began.elapsed();
    let dimension = embedder.identity().dimension();
    let expected = rows(&variable("TRACER_TEST_EMBEDDINGS"), texts.len(), dimension);

    let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let began = Instant::now();
    let embedded = embed_all(embedder.as_ref(), &inputs, |_| {}).await.unwrap();
    assert_eq!(embedded.refused, 0);
    let vectors: Vec<Vec<f32>> = embedded.vectors.into_iter().flatten().collect();
    let bulk = began.elapsed();
    let cosines: Vec<f64> = vectors
        .iter()
        .zip(&expected)
        .map(|(a, b)| cosine(a, b))
        .collect();
    let worst = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = vectors
        .concat()
        .iter()
        .zip(expected.concat())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    println!(
        "{}: {} texts, lowest cosine {worst:.8}, largest difference {largest:.1e}",
        embedder.identity(),
        texts.len()
    );
    assert!(worst >= 0.9999, "{worst}");

    let rate = |count: usize, time: std::time::Duration| count as f64 / time.as_secs_f64();
    println!(
        "loaded in {load:.2?}; in bulk {:.0} texts/s",
        rate(texts.len(), bulk)
    );
    for clients in [1, 32] {
        let some = &texts[..(32 * clients).min(texts.len()).max(64.min(texts.len()))];
        let began = Instant::now();
        one_by_one(&embedder, some, clients).await;
        println!(
            "{clients} clients, a text at a time: {:.0} texts/s",
            rate(some.len(), began.elapsed())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: tests/run bert"]
async fn bert_gives_a_text_the_same_vector_in_any_company() {
    let plain = config(&variable("TRACER_TEST_BERT"));
    let embedder = opened(&plain).await;
    let words = |count: usize| "card payment ".repeat(count);
    // Beyond the longest text: what is behind it does not count.
    let texts = vec![
        words(1),
        words(9),
        words(2_000),
        "Where is it?".to_owned(),
        words(3_000),
    ];
    let together = embedder.embed(texts.clone()).await.unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = embedder.embed(vec![text.clone()]).await.unwrap();
        assert!(cosine(vector, &alone[0]) > 0.999_999);
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
    }
    assert!(cosine(&together[2], &together[4]) > 0.999_999);
    assert!(cosine(&together[0], &together[3]) < 0.9);

    let prefixed = EmbedderConfig {
        prefix: Some("query: ".to_owned()),
        ..plain.clone()
    };
    let prefixed = opened(&prefixed).await;
    let by_hand = embedder
        .embed(vec!["query: Where is it?".to_owned()])
        .await
        .unwrap();
    let by_prefix = prefixed
        .embed(vec!["Where is it?".to_owned()])
        .await
        .unwrap();
    assert!(cosine(&by_hand[0], &by_prefix[0]) > 0.999_999);
    assert_ne!(prefixed.identity(), embedder.identity());
}
