//! Whole refits on small made-up traffic.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use tracer_learn::{
    Dataset, DecideError, Decision, DeferReason, FeatureMode, FitConfig, FitError, Input,
    ModelError, Pipeline, Row, SCHEMA_VERSION, Scratch, Verdict, refit,
};

mod common;

use common::{TOPICS, config, embedding, fit, topics as data, word};

#[test]
fn a_clean_task_is_handled_whole() {
    let outcomes = fit(&data(1000, 0, true), &config(&[0.9, 0.95]));
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert_eq!(outcome.verdict, Verdict::Passed);
        assert_eq!(outcome.family.as_str(), "global");
        let pipeline = outcome.pipeline.unwrap();
        let decision = pipeline.decide(
            Input {
                text: Some("my card is gone"),
                embedding: Some(&embedding(3, 0)),
            },
            &mut Scratch::default(),
        );
        let Ok(Decision::Handled { label, score }) = decision else {
            panic!("{decision:?}")
        };
        assert_eq!(pipeline.labels()[label], "card_lost");
        assert!((0.0..=1.0).contains(&score));
    }
}

#[test]
fn a_noisy_teacher_is_refused_with_the_reason_and_no_pipeline() {
    let outcome = fit(&data(1000, 3, false), &config(&[0.95])).remove(0);
    assert!(outcome.pipeline.is_none());
    let Verdict::Refused { reason } = outcome.verdict else {
        panic!("passed")
    };
    assert!(reason.contains("0.950"), "{reason}");
    assert!(!outcome.frontier.is_empty());
}

#[test]
fn what_cannot_be_fitted_is_refused_by_name() {
    let refusal =
        |data: &Dataset, config: &FitConfig| refit("desk", data, config, &mut |_| {}).unwrap_err();
    assert!(matches!(
        refusal(&Dataset::new(), &config(&[0.95])),
        FitError::TooFewTraces { have: 0, .. }
    ));
    assert!(matches!(
        refusal(&data(50, 0, false), &config(&[0.95])),
        FitError::TooFewTraces {
            have: 50,
            need: 200
        }
    ));

    let mut one_class = Dataset::new();
    for i in 0..300 {
        one_class
            .push(Row {
                text: Some(&word(i)),
                embedding: None,
                label: "only",
            })
            .unwrap();
    }
    assert_eq!(
        refusal(&one_class, &config(&[0.95])),
        FitError::OneClass {
            label: "only".into()
        }
    );

    let dense = FitConfig {
        features: FeatureMode::Dense,
        ..config(&[0.95])
    };
    assert!(matches!(
        refusal(&data(300, 0, false), &dense),
        FitError::NoFeatures(_)
    ));
    let few = FitConfig {
        max_labels: 3,
        ..config(&[0.95])
    };
    assert!(matches!(
        refusal(&data(300, 0, false), &few),
        FitError::TooManyLabels { have: 4, limit: 3 }
    ));
    for bad in [
        config(&[]),
        config(&[1.0]),
        FitConfig {
            delta: 0.0,
            ..config(&[0.9])
        },
        FitConfig {
            folds: 1,
            ..config(&[0.9])
        },
    ] {
        assert!(matches!(
            refusal(&data(300, 0, false), &bad),
            FitError::Setting(_)
        ));
    }
}

#[test]
fn the_same_data_gives_the_same_bytes_whatever_the_threads() {
    let data = data(600, 11, true);
    let bytes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outcome = pool.install(|| fit(&data, &config(&[0.8])).remove(0));
        outcome.pipeline.unwrap().to_bytes()
    };
    assert!(bytes(1) == bytes(3));
}

#[test]
fn a_pipeline_comes_back_from_its_bytes_and_decides_the_same() {
    let pipeline = fit(&data(1000, 25, true), &config(&[0.9]))
        .remove(0)
        .pipeline
        .unwrap();
    let again = Pipeline::from_bytes(&pipeline.to_bytes()).unwrap();
    assert_eq!(again.card(), pipeline.card());
    let mut scratch = Scratch::default();
    for i in 0..200 {
        let text = format!("{} {}", TOPICS[i % 4].1[i % 3], word(i));
        let embedding = embedding(i, (i + i / 7) % 4);
        let input = Input {
            text: Some(&text),
            embedding: Some(&embedding),
        };
        assert_eq!(
            pipeline.decide(input, &mut scratch),
            again.decide(input, &mut scratch)
        );
    }
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = fit(&data(400, 0, true), &config(&[0.9]))
        .remove(0)
        .pipeline
        .unwrap()
        .to_bytes();
    assert!(matches!(
        Pipeline::from_bytes(&bytes[..bytes.len() - 9]),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        Pipeline::from_bytes(b"not a model"),
        Err(ModelError::Malformed(_))
    ));
    assert!(matches!(
        Pipeline::from_bytes(&[]),
        Err(ModelError::Malformed(_))
    ));

    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .expect("present in the header");
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        Pipeline::from_bytes(&bytes)
    };
    let version = |number: u32| format!(r#"schema_version\":{number}"#);
    let newer = replaced(&version(SCHEMA_VERSION), &version(9));
    assert!(
        matches!(newer, Err(ModelError::NewerSchema { found: 9 })),
        "{newer:?}"
    );
    let older = replaced(&version(SCHEMA_VERSION), &version(1));
    assert!(
        matches!(older, Err(ModelError::OlderSchema { found: 1 })),
        "{older:?}"
    );
    // A not-a-number among the weights.
    let mut nan = bytes.clone();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let at = header["first.0.weights"]["data_offsets"][0]
        .as_u64()
        .unwrap() as usize;
    nan[8 + length + at..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(
        Pipeline::from_bytes(&nan),
        Err(ModelError::Damaged(_))
    ));
    // No flipped byte may panic.
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xff;
        let _ = Pipeline::from_bytes(&flipped);
    }
}

#[test]
fn inputs_that_lack_or_break_something() {
    let pipeline = fit(&data(1000, 0, true), &config(&[0.9]))
        .remove(0)
        .pipeline
        .unwrap();
    let mut scratch = Scratch::default();
    let mut decide =
        |text, embedding: Option<&[f32]>| pipeline.decide(Input { text, embedding }, &mut scratch);
    let reason = |decision: Result<Decision, DecideError>| match decision {
        Ok(Decision::Deferred { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    if pipeline.card().needs_text {
        assert_eq!(
            reason(decide(None, Some(&embedding(0, 0)))),
            DeferReason::NoText
        );
        assert_eq!(
            reason(decide(Some("  "), Some(&embedding(0, 0)))),
            DeferReason::NoText
        );
    }
    if pipeline.card().embedding_dimension.is_some() {
        assert_eq!(reason(decide(Some("card"), None)), DeferReason::NoEmbedding);
        assert_eq!(
            decide(Some("card"), Some(&[1.0])),
            Err(DecideError::WrongDimension {
                expected: 6,
                got: 1
            })
        );
        let nan = [0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(
            decide(Some("card"), Some(&nan)),
            Err(DecideError::NotFinite { index: 1 })
        );
    }
}

#[test]
fn rows_without_the_common_features_are_left_out_and_counted() {
    let mut data = data(1000, 0, false);
    for i in 0..50 {
        data.push(Row {
            text: None,
            embedding: Some(&embedding(i, i % 4)),
            label: TOPICS[i % 4].0,
        })
        .unwrap();
    }
    let outcome = fit(&data, &config(&[0.9])).remove(0);
    assert_eq!(outcome.left_out, 50);
    assert_eq!(outcome.surrogate, "lexical_logistic");
}
