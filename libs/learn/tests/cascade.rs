//! The family `rsb` on a task made for it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use common::{Random, fit_one, only};
use tracer_learn::{Dataset, Decision, Family, FitConfig, Input, Pipeline, Row, Scratch, Verdict};

/// In three rows of four the first value tells the label and the second is large and
/// says nothing. In the fourth, the first value is small and points the wrong way, and
/// the second one tells. No one linear model does both: it follows the first value,
/// and is unsure where that is small. A second one, fitted on those rows alone, is right.
fn data(n: usize, seed: u64) -> Dataset {
    let mut random = Random(seed);
    let mut data = Dataset::new();
    for _ in 0..n {
        let side = random.sign();
        let x = if random.next() < 0.75 {
            [side * random.between(0.5, 1.0), random.between(-20.0, 20.0)]
        } else {
            [
                -side * random.between(0.0, 0.2),
                side * random.between(0.5, 1.0),
            ]
        };
        data.push(Row {
            text: None,
            embedding: Some(&x.map(|v| v as f32)),
            label: if side > 0.0 { "right" } else { "left" },
        })
        .unwrap();
    }
    data
}

fn settings(cascade: bool) -> FitConfig {
    FitConfig {
        cascade,
        ood_budget: 0.0,
        dense_c: vec![100.0],
        ..only(&[0.95], &["dense_logistic"])
    }
}

#[test]
fn a_second_stage_wins_where_the_first_is_unsure_in_one_way() {
    let data = data(3000, 1);
    let (with, without) = (
        fit_one(&data, &settings(true)),
        fit_one(&data, &settings(false)),
    );
    assert_eq!(without.verdict, Verdict::Passed);
    assert!(without.families.iter().all(|f| f.family != Family::Rsb));
    assert!(without.shadow.coverage < 0.9, "{:?}", without.shadow);

    assert_eq!(with.verdict, Verdict::Passed);
    assert_eq!(with.family, Family::Rsb);
    assert_eq!(with.families[0].family, Family::Rsb);
    assert_eq!(with.families.len(), 3);
    assert!(with.shadow.coverage > 0.97, "{:?}", with.shadow);
    assert!(with.shadow.agreement_lower >= 0.95);

    let pipeline = with.pipeline.unwrap();
    assert_eq!(pipeline.card().family, Family::Rsb);
    let again = Pipeline::from_bytes(&pipeline.to_bytes()).unwrap();
    assert_eq!(again.card(), pipeline.card());
    let (mut a, mut b) = (Scratch::default(), Scratch::default());
    for row in 0..data.len() {
        let input = Input {
            text: None,
            embedding: data.embedding(row),
        };
        let decision = pipeline.decide(input, &mut a).unwrap();
        assert_eq!(decision, again.decide(input, &mut b).unwrap());
        if let Decision::Handled { score, .. } = decision {
            assert!((0.0..=1.0).contains(&score));
        }
    }
}

/// What the gate has seen is what the pipeline does, row by row.
#[test]
fn the_gate_and_the_pipeline_see_the_same() {
    let data = data(2000, 2);
    let outcome = fit_one(&data, &settings(true));
    let pipeline = outcome.pipeline.unwrap();
    let mut scratch = Scratch::default();
    let (mut handled, mut right) = (0, 0);
    for row in &outcome.shadow_rows {
        let input = Input {
            text: None,
            embedding: data.embedding(row.row),
        };
        let decision = pipeline.decide(input, &mut scratch).unwrap();
        assert_eq!(matches!(decision, Decision::Handled { .. }), row.handled);
        if let Decision::Handled { label, .. } = decision {
            handled += 1;
            let teacher = &data.label_names()[data.label(row.row) as usize];
            right += usize::from(pipeline.labels()[label] == *teacher);
        }
    }
    let n = outcome.shadow.n as f64;
    assert!((outcome.shadow.coverage - f64::from(handled) / n).abs() < 1e-9);
    assert!((outcome.shadow.agreement - right as f64 / f64::from(handled)).abs() < 1e-9);
}

/// Where everything overflows there is no score, and nothing that is no score is handled.
#[test]
fn an_input_beyond_all_numbers_is_never_handled() {
    let pipeline = fit_one(&data(2000, 1), &settings(true)).pipeline.unwrap();
    assert_eq!(pipeline.card().family, Family::Rsb);
    for x in [
        [f32::MAX, f32::MAX],
        [f32::MAX, -f32::MAX],
        [-f32::MAX, f32::MAX],
    ] {
        let input = Input {
            text: None,
            embedding: Some(&x),
        };
        let decision = pipeline.decide(input, &mut Scratch::default()).unwrap();
        let Decision::Deferred { score, .. } = decision else {
            panic!("{x:?}: {decision:?}")
        };
        assert_eq!(score, 0.0);
    }
}
