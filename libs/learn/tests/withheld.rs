//! A refit on n-grams that were stored in place of texts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use tracer_features::{InputKey, LexiconConfig, Withholder};
use tracer_learn::{Dataset, Decision, Input, Outcome, Scratch, Verdict, refit_from};

mod common;

use common::{embedding, fit_one, only, phrase, topics};

/// Topics without their texts.
fn withheld(n: usize, embeddings: bool) -> Dataset {
    let plain = topics(n, 0, embeddings);
    let withholder = Withholder::new(&InputKey::new("secret"), &LexiconConfig::default());
    let mut data = Dataset::new();
    for row in 0..plain.len() {
        let label = &plain.label_names()[plain.label(row) as usize];
        let kept = withholder.withhold(plain.text(row).unwrap());
        data.push_withheld(kept, plain.embedding(row), label)
            .unwrap();
    }
    data
}

/// The pipeline is fitted and certified without a text, and says to the texts that are
/// routed exactly what the gate saw of the n-grams.
#[test]
fn what_is_certified_on_n_grams_is_what_is_served_on_texts() {
    for embeddings in [false, true] {
        let data = withheld(1000, embeddings);
        let names = ["lexical_logistic", "fused_logistic", "dense_logistic"];
        let outcome = fit_one(&data, &only(&[0.9], &names));
        assert_eq!(outcome.verdict, Verdict::Passed);
        let pipeline = outcome.pipeline.unwrap();
        assert!(embeddings || pipeline.card().needs_text);
        assert!(outcome.shadow_rows.len() > 100);
        let mut scratch = Scratch::default();
        for seen in &outcome.shadow_rows {
            let (text, dense) = (phrase(seen.row), embedding(seen.row, seen.row % 4));
            let input = Input {
                text: Some(&text),
                embedding: embeddings.then_some(dense.as_slice()),
            };
            let (label, score, foreign) = match pipeline.decide(input, &mut scratch).unwrap() {
                Decision::Handled { label, score } => (Some(label), score, false),
                Decision::Deferred {
                    label,
                    score,
                    reason,
                } => (
                    label,
                    score,
                    reason == tracer_learn::DeferReason::OutOfDistribution,
                ),
            };
            assert_eq!(
                (label, score, foreign),
                (Some(seen.predicted), seen.score, seen.foreign)
            );
        }
    }
}

/// Rows that are split otherwise stand on other sides: what an earlier pipeline learned
/// of those that certify now must not come back.
#[test]
fn a_refit_begins_anew_when_rows_are_split_otherwise() {
    let config = only(&[0.9], &["lexical_logistic"]);
    let earlier = fit_one(&topics(1000, 0, false), &config);
    let earlier = earlier.pipeline.unwrap();
    let refit = |scheme: &str| {
        let mut data = withheld(1000, false);
        data.split_by(scheme);
        let outcomes = refit_from("desk", &data, &config, &earlier, &mut |_| {});
        let outcome = outcomes.unwrap().remove(0);
        let scores = |outcome: &Outcome| -> Vec<f32> {
            outcome.shadow_rows.iter().map(|row| row.score).collect()
        };
        let mut cold = withheld(1000, false);
        cold.split_by(scheme);
        (scores(&outcome), scores(&fit_one(&cold, &config)))
    };
    let (warm, cold) = refit("v1");
    assert_eq!(warm, cold);
    // Told nothing, it takes the earlier weights up: the test can tell.
    let (warm, cold) = refit("");
    assert_ne!(warm, cold);
}

/// The hash takes the text's place: copies are one input, and stand on one side.
#[test]
fn copies_certify_once() {
    let once = withheld(1000, false);
    let mut twice = Dataset::new();
    for row in (0..once.len()).chain(0..once.len()) {
        let label = &once.label_names()[once.label(row) as usize];
        let kept = once.withheld(row).unwrap().clone();
        twice.push_withheld(kept, None, label).unwrap();
    }
    let config = only(&[0.9], &["lexical_logistic"]);
    let rows = |data: &Dataset| {
        let mut rows: Vec<usize> = fit_one(data, &config)
            .shadow_rows
            .iter()
            .map(|seen| seen.row % 1000)
            .collect();
        rows.sort_unstable();
        rows
    };
    let doubled = rows(&twice);
    let mut distinct = doubled.clone();
    distinct.dedup();
    assert_eq!(doubled, distinct);
    // The share of the shadow split falls with the rows; a copy adds none to it.
    let once = rows(&once);
    assert!(distinct.iter().all(|row| once.binary_search(row).is_ok()));
}
