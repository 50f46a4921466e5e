//! Many inputs at a time decide as each does alone, bit for bit, and as the refit
//! scored them.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use common::{config, embedding, only, phrase, topics, word};
use tracer_learn::{
    Dataset, DecideError, Decision, DeferReason, Family, FitConfig, Input, Pipeline, Scratch, refit,
};

/// What was decided of an input, to the bit, with the probabilities.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    decision: Result<Decision, DecideError>,
    score: Option<u32>,
    probabilities: Vec<u32>,
}

fn told(decision: Result<Decision, DecideError>, probabilities: &[f32]) -> Told {
    let score = match decision {
        Ok(Decision::Handled { score, .. } | Decision::Deferred { score, .. }) => {
            Some(score.to_bits())
        }
        Err(_) => None,
    };
    Told {
        decision,
        score,
        probabilities: probabilities.iter().map(|p| p.to_bits()).collect(),
    }
}

/// An input was scored when the surrogate had a label for it.
fn was_scored(decision: Result<Decision, DecideError>) -> bool {
    match decision {
        Ok(Decision::Handled { .. }) => true,
        Ok(Decision::Deferred { label, .. }) => label.is_some(),
        Err(_) => false,
    }
}

fn one_by_one(pipeline: &Pipeline, inputs: &[Input<'_>]) -> Vec<Told> {
    let mut scratch = Scratch::default();
    let decide = |input: &Input<'_>| {
        let decision = pipeline.decide(*input, &mut scratch);
        let probabilities = if was_scored(decision) {
            pipeline.probabilities(&scratch)
        } else {
            &[]
        };
        told(decision, probabilities)
    };
    inputs.iter().map(decide).collect()
}

fn together(pipeline: &Pipeline, inputs: &[Input<'_>], scratch: &mut Scratch) -> Vec<Told> {
    let mut all = Vec::new();
    pipeline.decide_batch(
        inputs.iter().copied(),
        scratch,
        |decision, probabilities| {
            all.push(told(decision, probabilities));
        },
    );
    all
}

/// Inputs of every kind: like the traces and unlike them, with parts missing, of the
/// wrong shape, and with numbers that are none.
fn probes(n: usize) -> Vec<(Option<String>, Option<Vec<f32>>)> {
    (0..n)
        .map(|i| {
            let text = if i % 3 == 1 {
                word(i * 12_345)
            } else {
                phrase(i)
            };
            let vector = embedding(i, if i % 5 == 1 { 5 } else { i % 4 });
            match i % 23 {
                3 => (None, Some(vector)),
                5 => (Some(text), None),
                7 => (Some("  ".to_owned()), None),
                9 => (Some(text), Some(vec![1.0; 3])),
                11 => (Some(text), Some(vec![1.0, 0.0, f32::NAN, 0.0, 0.0, 0.0])),
                13 => (Some(text), Some(vec![f32::MAX; 6])),
                15 => (Some(text.to_uppercase() + " naïve café"), Some(vector)),
                _ => (Some(text), Some(vector)),
            }
        })
        .collect()
}

fn inputs(probes: &[(Option<String>, Option<Vec<f32>>)]) -> Vec<Input<'_>> {
    let mut inputs = Vec::new();
    for (text, embedding) in probes {
        inputs.push(Input {
            text: text.as_deref(),
            embedding: embedding.as_deref(),
        });
    }
    inputs
}

/// Topics, and between them texts on which the teacher says anything.
fn mixed(n: usize) -> Dataset {
    let mut data = topics(n, 0, true);
    for i in 0..n / 4 {
        let text = format!("help me {}", word(i * i));
        let label = common::TOPICS[i * i / 7 % 4].0;
        common::push(&mut data, &text, Some(&embedding(i, 4)), label);
    }
    data
}

fn fitted(data: &Dataset, config: &FitConfig) -> Pipeline {
    let outcome = refit("desk", data, config, &mut |_| {}).unwrap().remove(0);
    let verdict = outcome.verdict;
    outcome.pipeline.unwrap_or_else(|| panic!("{verdict:?}"))
}

#[test]
fn a_batch_decides_as_each_input_alone() {
    let data = mixed(600);
    let pipelines: Vec<Pipeline> = [
        "dense_logistic",
        "lexical_logistic",
        "fused_logistic",
        "mlp_1",
        "mlp_2",
        "decision_tree",
        "extra_trees",
    ]
    .iter()
    .map(|kind| fitted(&data, &only(&[0.7], &[kind])))
    // Blends, and what the whole pool makes of it.
    .chain([
        fitted(
            &data,
            &only(&[0.7], &["dense_logistic", "lexical_logistic", "mlp_1"]),
        ),
        fitted(&data, &config(&[0.9])),
    ])
    .collect();
    let probes = probes(300);
    let inputs = inputs(&probes);
    // One working space for all: nothing of a pipeline or a batch may be left in it.
    let mut scratch = Scratch::default();
    for pipeline in &pipelines {
        let surrogate = &pipeline.card().surrogate;
        let expected = one_by_one(pipeline, &inputs);
        let kinds = |f: fn(&Told) -> bool| expected.iter().filter(|told| f(told)).count();
        assert!(kinds(|t| matches!(t.decision, Ok(Decision::Handled { .. }))) > 20);
        assert!(kinds(|t| matches!(t.decision, Ok(Decision::Deferred { label: Some(_), .. }))) > 5);
        // Blocks that are full, cut short, and of one row.
        for size in [300, 64, 65, 7, 1] {
            let mut all = Vec::new();
            for part in inputs.chunks(size) {
                all.extend(together(pipeline, part, &mut scratch));
            }
            for (i, (told, expected)) in all.iter().zip(&expected).enumerate() {
                assert_eq!(told, expected, "{surrogate}, input {i}, {size} at a time");
            }
            assert_eq!(all.len(), expected.len());
        }
    }
    let lacks = |reason| move |told: &Told| matches!(told.decision, Ok(Decision::Deferred { reason: why, .. }) if why == reason);
    let blends: Vec<&Pipeline> = pipelines
        .iter()
        .filter(|p| p.card().needs_text && p.card().embedding_dimension.is_some())
        .collect();
    assert!(!blends.is_empty());
    let blend = one_by_one(blends[0], &inputs);
    for reason in [
        DeferReason::NoText,
        DeferReason::NoEmbedding,
        DeferReason::OutOfDistribution,
    ] {
        assert!(blend.iter().any(lacks(reason)), "{reason:?}");
    }
    assert!(blend.iter().any(|told| told.decision.is_err()));
    assert!(together(&pipelines[0], &[], &mut scratch).is_empty());
}

#[test]
fn a_batch_decides_in_a_cascade_as_each_input_alone() {
    // The second stage has to be worth it: the family is asked for by the data.
    let mut found = 0;
    for seed in 0..6 {
        let settings = FitConfig {
            seed,
            ..config(&[0.93])
        };
        let data = mixed(1200);
        let outcome = refit("desk", &data, &settings, &mut |_| {})
            .unwrap()
            .remove(0);
        let Some(pipeline) = outcome.pipeline else {
            continue;
        };
        found += usize::from(pipeline.card().family == Family::Rsb);
        let probes = probes(200);
        let inputs = inputs(&probes);
        let expected = one_by_one(&pipeline, &inputs);
        assert_eq!(
            together(&pipeline, &inputs, &mut Scratch::default()),
            expected
        );
    }
    println!("{found} cascades");
}

/// What the refit saw of its shadow split is what a stored copy serves.
#[test]
fn a_stored_pipeline_scores_the_shadow_rows_as_the_refit_did() {
    let data = mixed(800);
    let settings = only(&[0.8], &["dense_logistic", "lexical_logistic", "mlp_1"]);
    let outcome = refit("desk", &data, &settings, &mut |_| {})
        .unwrap()
        .remove(0);
    let pipeline = Pipeline::from_bytes(&outcome.pipeline.unwrap().to_bytes()).unwrap();
    let input = |row: usize| Input {
        text: data.text(row),
        embedding: data.embedding(row),
    };
    let rows = &outcome.shadow_rows;
    assert!(rows.len() > 100);
    let mut scratch = Scratch::default();
    let mut at = 0;
    pipeline.decide_batch(
        rows.iter().map(|row| input(row.row)),
        &mut scratch,
        |told, _| {
            let row = &rows[at];
            at += 1;
            let (label, score, handled) = match told.unwrap() {
                Decision::Handled { label, score } => (label, score, true),
                Decision::Deferred { label, score, .. } => (label.unwrap(), score, false),
            };
            assert_eq!((label, handled), (row.predicted, row.handled), "row {at}");
            assert_eq!(score.to_bits(), row.score.to_bits(), "row {at}");
        },
    );
    assert_eq!(at, rows.len());
}
