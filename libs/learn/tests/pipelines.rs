//! Pipelines of every kind, as bytes and back; bytes that are no pipeline.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use common::{config, embedding, fit_one, only, phrase, push, topics, word};
use serde_json::Value;
use tracer_features::LexiconConfig;
use tracer_learn::{
    Dataset, Decision, DeferReason, Family, FitConfig, FitError, Input, ModelError, Pipeline,
    Scratch, Verdict, refit,
};

const KINDS: [&str; 10] = [
    "dense_logistic",
    "lexical_logistic",
    "fused_logistic",
    "dense_sgd",
    "lexical_sgd",
    "mlp_1",
    "mlp_2",
    "decision_tree",
    "random_forest",
    "extra_trees",
];

/// Inputs like and unlike those of [`topics`].
fn probes() -> Vec<(String, Vec<f32>)> {
    (0..120)
        .map(|i| match i % 3 {
            0 => (phrase(i * 7), embedding(i, i * 7 % 4)),
            1 => (phrase(i), embedding(i, (i + 1) % 4)),
            _ => (word(i * 12_345), embedding(i, 5)),
        })
        .collect()
}

fn decisions(pipeline: &Pipeline) -> Vec<Decision> {
    let mut scratch = Scratch::default();
    probes()
        .iter()
        .map(|(text, embedding)| {
            let input = Input {
                text: Some(text),
                embedding: Some(embedding),
            };
            pipeline.decide(input, &mut scratch).unwrap()
        })
        .collect()
}

#[test]
fn every_candidate_can_stand_alone_and_comes_back_from_its_bytes() {
    let data = topics(400, 0, true);
    for kind in KINDS {
        let settings = FitConfig {
            dense_c: vec![10.0],
            lexical_c: vec![10.0],
            ..only(&[0.8], &[kind])
        };
        let outcome = fit_one(&data, &settings);
        assert_eq!(outcome.surrogate, kind);
        assert_eq!(outcome.candidates.len(), 1);
        assert_eq!(outcome.verdict, Verdict::Passed, "{kind}");
        let pipeline = outcome.pipeline.unwrap();
        let again = Pipeline::from_bytes(&pipeline.to_bytes()).unwrap();
        assert_eq!(again.card(), pipeline.card());
        assert_eq!(again.to_bytes(), pipeline.to_bytes(), "{kind}");
        assert_eq!(decisions(&again), decisions(&pipeline), "{kind}");
        assert_eq!(
            pipeline.card().needs_text,
            !kind.starts_with("dense")
                && (kind.starts_with("lexical") || kind.starts_with("fused"))
        );
    }
}

#[test]
fn every_family_comes_back_from_its_bytes() {
    let mut families = Vec::new();
    for (wrong, cascade) in [(0, true), (11, false), (11, true)] {
        let settings = FitConfig {
            cascade,
            ..config(&[0.93])
        };
        let Some(pipeline) = fit_one(&mixed(1200, wrong), &settings).pipeline else {
            continue;
        };
        families.push(pipeline.card().family);
        let again = Pipeline::from_bytes(&pipeline.to_bytes()).unwrap();
        assert_eq!(again.card(), pipeline.card());
        assert_eq!(decisions(&again), decisions(&pipeline));
    }
    assert!(
        families.contains(&Family::Global) && families.contains(&Family::L2d),
        "{families:?}"
    );
}

/// [`topics`], and between them texts on which the teacher says anything.
fn mixed(n: usize, wrong: usize) -> Dataset {
    let mut data = topics(n, 0, true);
    for i in 0..if wrong > 0 { n / 4 } else { 0 } {
        let text = format!("help me {}", word(i * i));
        push(
            &mut data,
            &text,
            Some(&embedding(i, 4)),
            common::TOPICS[i * i / 7 % 4].0,
        );
    }
    data
}

#[test]
fn a_candidate_that_cannot_be_fitted_is_left_out() {
    // One row has another label than all others: without its fold there is one class,
    // and trees have nothing to tell apart. The first fold or a later one, or the shadow.
    let (mut failures, mut one_class) = (0, 0);
    for number in 0..12 {
        let mut data = Dataset::new();
        for i in 0..400 {
            push(&mut data, &phrase(i), Some(&embedding(i, i % 4)), "usual");
        }
        push(
            &mut data,
            &format!("unheard of {}", word(number)),
            Some(&embedding(1, 5)),
            "rare",
        );
        let kinds = ["dense_logistic", "decision_tree", "extra_trees"];
        match refit("desk", &data, &only(&[0.9], &kinds), &mut |_| {}) {
            Ok(outcomes) => {
                let candidates = &outcomes[0].candidates;
                assert_eq!(outcomes[0].verdict, Verdict::Passed);
                let trees = candidates.iter().filter(|c| c.name.contains("tree"));
                for tree in trees.clone().filter(|c| c.macro_f1.is_none()) {
                    let why = tree.dropped.as_ref().unwrap();
                    assert!(why.contains("one label"), "{why}");
                    failures += 1;
                }
                assert!(trees.count() >= 2, "{candidates:?}");
                assert_eq!(outcomes[0].surrogate, "dense_logistic");
            }
            Err(FitError::OneClass { .. }) => {
                one_class += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        }
        // With nothing else to try there is no surrogate: a refusal that says why.
        let trees = only(&[0.9], &["decision_tree", "extra_trees"]);
        let error = refit("desk", &data, &trees, &mut |_| {}).unwrap_err();
        let FitError::NoCandidate(why) = &error else {
            panic!("{error}")
        };
        assert!(why.contains("tree: ") && why.contains("one label"), "{why}");
        assert_eq!(error.reason(), "no_candidate");
    }
    assert!(failures >= 8 && one_class >= 1, "{failures} {one_class}");
}

/// Anybody may send one embedding that is no embedding.
#[test]
fn one_embedding_out_of_all_proportion_spoils_nothing() {
    for size in [1e6, 1e12, 1e25, f32::MAX] {
        let mut data = topics(600, 0, true);
        for i in 0..10 {
            let text = format!("lost my card {}", word(i * 99_991));
            push(
                &mut data,
                &text,
                Some(&[size, -size, 0.0, 0.0, size, 0.0]),
                "card_lost",
            );
        }
        let outcome = fit_one(&data, &only(&[0.9], &["dense_logistic"]));
        assert_eq!(
            outcome.verdict,
            Verdict::Passed,
            "{size}: {:?}",
            outcome.shadow
        );
        assert!(outcome.candidates[0].macro_f1.unwrap() > 0.99, "{size}");
        assert!((1..=10).contains(&outcome.left_out), "{}", outcome.left_out);
        // Those in the shadow split count, as whatever the pipeline makes of them.
        assert_eq!(
            outcome.training_traces + outcome.shadow.n + outcome.left_out,
            610
        );
    }
}

#[test]
fn no_candidate_for_the_features_there_are_is_refused() {
    let data = topics(400, 0, false);
    let error = refit("desk", &data, &only(&[0.9], &["mlp_1"]), &mut |_| {}).unwrap_err();
    assert_eq!(error, FitError::NoCandidate("the pool is empty".to_owned()));
    let unknown = only(&[0.9], &["gpt"]);
    let error = refit("desk", &data, &unknown, &mut |_| {}).unwrap_err();
    assert!(matches!(error, FitError::Setting(_)) && error.to_string().contains("gpt"));
}

#[test]
fn the_guard_defers_what_is_foreign_and_a_budget_of_nothing_turns_it_off() {
    let data = topics(1200, 0, true);
    let foreign = |budget: f64| {
        let settings = FitConfig {
            ood_budget: budget,
            ..config(&[0.9])
        };
        let outcome = fit_one(&data, &settings);
        assert_eq!(outcome.verdict, Verdict::Passed);
        let deferred = outcome.shadow_rows.iter().filter(|row| row.foreign).count();
        let pipeline = outcome.pipeline.unwrap();
        let mut scratch = Scratch::default();
        let mut count = 0;
        for i in 0..100 {
            let text = format!("qwxz vjkq {} zzyx", word(i * 99_991).repeat(2));
            let x: Vec<f32> = (0..6)
                .map(|j| if j == 5 { -1.0 } else { 0.01 * (i % 7) as f32 })
                .collect();
            let input = Input {
                text: Some(&text),
                embedding: Some(&x),
            };
            let decision = pipeline.decide(input, &mut scratch).unwrap();
            count += usize::from(matches!(
                decision,
                Decision::Deferred {
                    reason: DeferReason::OutOfDistribution,
                    label: Some(_),
                    ..
                }
            ));
        }
        (count, deferred, outcome.budgets)
    };
    let (count, deferred, budgets) = foreign(0.05);
    assert!(count >= 90, "{count} of 100");
    assert!(deferred <= 240 / 5, "{deferred} of about 240");
    assert!(budgets.is_sorted_by(|a, b| a.budget < b.budget && a.foreign <= b.foreign));
    assert_eq!(budgets[0].foreign, 0.0);
    let (count, deferred, budgets) = foreign(0.0);
    assert_eq!((count, deferred, budgets.len()), (0, 0, 0));
}

/// What the guard defers is never handled, were the gate ever so generous: neither in
/// the certificate nor on the frontier.
#[test]
fn what_is_certified_is_what_is_handled() {
    for (budget, wrong) in [(0.0, 0), (0.05, 0), (0.3, 0), (0.3, 13), (0.05, 1)] {
        let data = if wrong == 1 {
            mixed(1200, 1)
        } else {
            topics(1200, wrong, true)
        };
        let settings = FitConfig {
            ood_budget: budget,
            ..config(&[0.8, 0.9])
        };
        for outcome in common::fit(&data, &settings) {
            let rows = &outcome.shadow_rows;
            let handled = rows.iter().filter(|row| row.handled);
            let right = handled.clone().filter(|row| row.agrees).count();
            let (n, handled) = (rows.len() as f64, handled.count() as f64);
            let shadow = outcome.shadow;
            assert!(
                (shadow.coverage - handled / n).abs() < 1e-9,
                "{shadow:?} {handled}"
            );
            assert!((shadow.agreement - right as f64 / handled.max(1.0)).abs() < 1e-9);
            assert!(outcome.threshold >= 0.0, "{}", outcome.threshold);
            let most = rows.iter().filter(|row| !row.foreign).count() as f64 / n;
            assert!(budget == 0.0 || most < 1.0);
            assert!(
                outcome
                    .frontier
                    .iter()
                    .all(|point| point.coverage <= most + 1e-9)
            );
            assert!(
                outcome
                    .targets
                    .iter()
                    .all(|point| point.shadow.coverage <= most + 1e-9)
            );
        }
    }
}

#[test]
fn no_more_is_fitted_than_the_cap_allows() {
    let data = topics(3000, 0, true);
    let settings = FitConfig {
        max_fit_traces: 800,
        ..only(&[0.9], &["dense_logistic", "lexical_logistic"])
    };
    let outcome = fit_one(&data, &settings);
    assert_eq!(outcome.verdict, Verdict::Passed);
    // Poisson sampling: the size varies by its square root.
    assert!(
        (680..=920).contains(&outcome.training_traces),
        "{}",
        outcome.training_traces
    );
    assert!(
        (140..=260).contains(&outcome.shadow.n),
        "{}",
        outcome.shadow.n
    );
    let used = outcome.training_traces + outcome.shadow.n;
    assert_eq!(used + outcome.not_sampled, 3000);
    // The gate's rows are drawn alike: they weigh the same, and its bound is the exact one.
    assert_eq!(
        outcome.shadow.n_effective,
        outcome.shadow.n as f64 * outcome.shadow.coverage
    );
}

#[test]
fn the_whole_pool_gives_the_same_bytes_whatever_the_threads() {
    let data = mixed(500, 1);
    let settings = FitConfig {
        finalists: 10,
        race_margin: 1.0,
        ..config(&[0.8])
    };
    let bytes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outcome = pool.install(|| fit_one(&data, &settings));
        (
            outcome.candidates.clone(),
            outcome.pipeline.unwrap().to_bytes(),
        )
    };
    assert!(bytes(1) == bytes(3));
}

/// The JSON header of a pipeline: the text that the safetensors metadata holds.
fn header(bytes: &[u8]) -> (usize, Value) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let outer: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (length, outer)
}

/// The same tensors under another header.
fn forged(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (length, mut outer) = header(bytes);
    let held = &mut outer["__metadata__"]["tracer.pipeline"];
    let mut inner: Value = serde_json::from_str(held.as_str().unwrap()).unwrap();
    change(&mut inner);
    *held = Value::String(inner.to_string());
    let mut text = outer.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let size = (text.len() as u64).to_le_bytes();
    [&size[..], &text, &bytes[8 + length..]].concat()
}

/// Every place in a JSON value, the first of an array's only: the others are alike.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate().take(1) {
                places(value, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

/// Pipelines with every part there is, small enough to be read thousands of times.
fn pipelines() -> Vec<Vec<u8>> {
    let small = |kinds: &[&str]| FitConfig {
        dense_c: vec![10.0],
        lexical_c: vec![10.0],
        race_margin: 1.0,
        lexicon: LexiconConfig {
            bucket_bits: 8,
            ..LexiconConfig::default()
        },
        ..only(&[0.8], kinds)
    };
    let data = mixed(500, 1);
    let mut all: Vec<Vec<u8>> = ["fused_logistic", "lexical_logistic", "decision_tree"]
        .iter()
        .map(|kind| fit_one(&data, &small(&[kind])).pipeline.unwrap().to_bytes())
        .collect();
    let cascade = FitConfig {
        targets: vec![0.93],
        ..small(&["dense_logistic"])
    };
    all.extend(fit_one(&data, &cascade).pipeline.map(|p| p.to_bytes()));
    all
}

/// Whatever stands in the header, reading it is a pipeline or an error, and a pipeline
/// decides: neither panics.
#[test]
fn a_forged_header_is_refused_or_served_but_never_a_panic() {
    let hostile: Vec<Value> = [
        "null",
        "-1",
        "0",
        "1",
        "0.5",
        "2",
        "65535",
        "4294967297",
        "18446744073709551615",
        "1e308",
        "-1e308",
        "\"\"",
        "[]",
        "{}",
        "[0]",
        "true",
        "\"global\"",
        "\"mlp\"",
        "\"forest\"",
        "\"fused\"",
        "\"foreignness\"",
        "\"least_component\"",
        "[\"dense\",\"dense\",\"lexical\",\"fused\",\"mlp\",\"forest\"]",
    ]
    .iter()
    .map(|json| serde_json::from_str(json).unwrap())
    .collect();
    let (mut read, mut refused) = (0, 0);
    for bytes in pipelines() {
        let (_, outer) = header(&bytes);
        let held = outer["__metadata__"]["tracer.pipeline"].as_str().unwrap();
        let inner: Value = serde_json::from_str(held).unwrap();
        let mut all = Vec::new();
        places(&inner, "", &mut all);
        assert!(all.len() > 40, "{}", all.len());
        for place in &all {
            for value in &hostile {
                let forgery = forged(&bytes, |header| {
                    *header.pointer_mut(place).unwrap() = value.clone();
                });
                match Pipeline::from_bytes(&forgery) {
                    Ok(pipeline) => {
                        read += 1;
                        let mut scratch = Scratch::default();
                        for (text, embedding) in probes().iter().take(3) {
                            let input = Input {
                                text: Some(text),
                                embedding: Some(embedding),
                            };
                            let _ = pipeline.decide(input, &mut scratch);
                        }
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} {refused}");
}

#[test]
fn a_damaged_guard_is_refused() {
    let bytes = pipelines().remove(0);
    assert!(Pipeline::from_bytes(&forged(&bytes, |_| {})).is_ok());
    let changes: [(&str, &str); 8] = [
        ("/guard/chosen/threshold", "null"),
        ("/guard/chosen/budget", "1.0"),
        ("/guard/chosen/budget", "-0.1"),
        ("/guard/component_scales", "[]"),
        ("/guard/component_scales", "[1.0, 1.0]"),
        ("/guard/dimension", "7"),
        ("/guard/novelty/unknown", "0.0"),
        ("/guard/sweep/1/threshold", "null"),
    ];
    for (place, value) in changes {
        let forgery = forged(&bytes, |header| {
            *header.pointer_mut(place).unwrap() = serde_json::from_str(value).unwrap();
        });
        let error = Pipeline::from_bytes(&forgery).unwrap_err();
        assert!(matches!(error, ModelError::Damaged(_)), "{place}: {error}");
        assert!(error.to_string().contains("guard"), "{place}: {error}");
    }
    // A prototype of zeros has no direction.
    let (length, outer) = header(&bytes);
    let span = &outer["guard.codes"]["data_offsets"];
    let at = |i: usize| 8 + length + span[i].as_u64().unwrap() as usize;
    let mut zeros = bytes.clone();
    zeros[at(0)..at(1)].fill(0);
    let error = Pipeline::from_bytes(&zeros).unwrap_err();
    assert!(error.to_string().contains("no direction"), "{error}");
}

#[test]
fn a_version_that_wraps_around_is_newer() {
    let bytes = pipelines().remove(0);
    let forgery = forged(&bytes, |header| {
        header["schema_version"] = ((1_u64 << 32) + 2).into();
    });
    let error = Pipeline::from_bytes(&forgery).unwrap_err();
    assert!(matches!(error, ModelError::NewerSchema { .. }), "{error}");
}
