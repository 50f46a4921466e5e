//! A stored pipeline and what it said when it was stored: the same on every machine,
//! within 1e-5, and in every later version that reads the file.
//!
//! After a change of the layout that no longer reads the old one, write it anew:
//!
//! ```sh
//! cargo test -p tracer-learn --test golden -- --ignored
//! ```

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::{fs, path::PathBuf};

use common::{embedding, fit_one, only, phrase, topics, word};
use serde_json::{Value, json};
use tracer_features::LexiconConfig;
use tracer_learn::{Decision, FitConfig, Input, Pipeline, Scratch};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn probes() -> Vec<(String, Vec<f32>)> {
    (0..60)
        .map(|i| match i % 3 {
            0 => (phrase(i * 7), embedding(i, i * 7 % 4)),
            1 => (phrase(i), embedding(i, (i + 1) % 4)),
            _ => (word(i * 12_345), embedding(i, 5)),
        })
        .collect()
}

fn told(pipeline: &Pipeline, text: &str, embedding: &[f32], scratch: &mut Scratch) -> Value {
    let input = Input {
        text: Some(text),
        embedding: Some(embedding),
    };
    let (decision, label, score) = match pipeline.decide(input, scratch).unwrap() {
        Decision::Handled { label, score } => ("handled".to_owned(), Some(label), score),
        Decision::Deferred {
            reason,
            label,
            score,
        } => (format!("{reason:?}"), label, score),
    };
    json!({
        "text": text,
        "embedding": embedding,
        "decision": decision,
        "label": label.map(|label| &pipeline.labels()[label]),
        "score": score,
        "probabilities": pipeline.probabilities(scratch),
    })
}

#[test]
fn a_stored_pipeline_says_what_it_said() {
    let bytes = fs::read(file("pipeline.safetensors")).unwrap();
    let pipeline = Pipeline::from_bytes(&bytes).unwrap();
    let expected: Vec<Value> =
        serde_json::from_slice(&fs::read(file("told.json")).unwrap()).unwrap();
    assert_eq!(expected.len(), probes().len());
    let mut scratch = Scratch::default();
    let number = |value: &Value| value.as_f64().unwrap();
    for (i, expected) in expected.iter().enumerate() {
        let text = expected["text"].as_str().unwrap();
        let embedding: Vec<f32> = serde_json::from_value(expected["embedding"].clone()).unwrap();
        let told = told(&pipeline, text, &embedding, &mut scratch);
        for key in ["decision", "label"] {
            assert_eq!(told[key], expected[key], "{key} of input {i}");
        }
        let list = |value: &Value| value["probabilities"].as_array().unwrap().clone();
        let pairs = list(&told).into_iter().zip(list(expected));
        for (told, expected) in pairs.chain([(told["score"].clone(), expected["score"].clone())]) {
            let difference = (number(&told) - number(&expected)).abs();
            assert!(difference <= 1e-5, "input {i}: {told}, was {expected}");
        }
    }
}

#[test]
#[ignore = "writes the files that the other test reads"]
fn write_what_it_says() {
    let settings = FitConfig {
        lexicon: LexiconConfig {
            max_features: 200,
            ..LexiconConfig::default()
        },
        ..only(&[0.9], &["dense_logistic", "lexical_logistic", "mlp_1"])
    };
    let pipeline = fit_one(&topics(1200, 15, true), &settings)
        .pipeline
        .unwrap();
    assert!(pipeline.card().needs_text && pipeline.card().embedding_dimension.is_some());
    let mut scratch = Scratch::default();
    let told: Vec<Value> = probes()
        .iter()
        .map(|(text, embedding)| told(&pipeline, text, embedding, &mut scratch))
        .collect();
    fs::create_dir_all(file("")).unwrap();
    fs::write(file("pipeline.safetensors"), pipeline.to_bytes()).unwrap();
    fs::write(file("told.json"), serde_json::to_vec(&told).unwrap()).unwrap();
}
