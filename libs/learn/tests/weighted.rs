//! Refits of rows that stand for more than themselves.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use common::{Random, fit_one, only};
use tracer_learn::{Dataset, FitConfig, GateMode, Outcome, Row, Verdict, refit};

/// Two classes on a line. Far from the border the teacher is sure; near it, it says
/// either. `keep` is the chance that an easy row is labelled at all; one that is
/// counts `weight`, a hard row 1.
fn line(n: usize, keep: f64, weight: f64, copies: bool, seed: u64) -> Dataset {
    let mut random = Random(seed);
    let mut data = Dataset::new();
    for _ in 0..n {
        let x = random.between(-1.0, 1.0);
        let hard = x.abs() < 0.25;
        let label = if hard { random.sign() } else { x.signum() };
        // Nothing else to learn from, but enough to tell copies from neighbours.
        let embedding = [x as f32, random.next() as f32];
        if !hard && random.next() >= keep {
            continue;
        }
        let row = Row {
            text: None,
            embedding: Some(&embedding),
            label: if label > 0.0 { "right" } else { "left" },
        };
        if hard {
            data.push(row).unwrap();
        } else if copies {
            for _ in 0..weight as usize {
                data.push(row).unwrap();
            }
        } else {
            data.push_weighted(row, weight).unwrap();
        }
    }
    data
}

fn settings(weight_cap: Option<f64>) -> FitConfig {
    FitConfig {
        weight_cap,
        ood_budget: 0.0,
        dense_c: vec![10.0],
        ..only(&[0.97], &["dense_logistic"])
    }
}

fn macro_f1(outcome: &Outcome) -> f64 {
    outcome.candidates[0].macro_f1.unwrap()
}

#[test]
fn a_weighted_dataset_is_certified_on_what_it_stands_for() {
    let data = line(6000, 0.25, 4.0, false, 1);
    let outcome = fit_one(&data, &settings(Some(4.0)));
    assert_eq!(outcome.verdict, Verdict::Passed, "{:?}", outcome.shadow);
    let shadow = outcome.shadow;
    assert!(shadow.agreement_lower >= 0.97 && shadow.agreement_lower < shadow.agreement);
    // Three quarters of the traffic are easy; of the rows that are there, not half.
    let handled = outcome.shadow_rows.iter().filter(|row| row.handled).count();
    let share = handled as f64 / outcome.shadow_rows.len() as f64;
    assert!(
        shadow.coverage > 0.7 && share < 0.6,
        "{} {share}",
        shadow.coverage
    );
    assert!(shadow.n_effective > 0.0 && shadow.n_effective <= handled as f64 + 1e-6);
    // The sums by hand.
    let weight = |row: usize| data.weight(row);
    let all: f64 = outcome.shadow_rows.iter().map(|row| weight(row.row)).sum();
    let some: f64 = outcome
        .shadow_rows
        .iter()
        .filter(|row| row.handled)
        .map(|row| weight(row.row))
        .sum();
    assert!((shadow.coverage - some / all).abs() < 1e-9);
}

#[test]
fn weights_count_as_copies() {
    // The point estimate: weighted rows have a bound of their own, which is not to be compared.
    let point = |cap| FitConfig {
        gate: GateMode::Point,
        ..settings(cap)
    };
    for seed in 0..3 {
        let weighted = fit_one(&line(3000, 0.5, 2.0, false, seed), &point(Some(2.0)));
        let copied = fit_one(&line(3000, 0.5, 2.0, true, seed), &point(None));
        assert_eq!(weighted.verdict, Verdict::Passed);
        assert_eq!(copied.verdict, Verdict::Passed);
        // Copies share a side and a fold with their original, so training differs by
        // little more than the rounding of the fit.
        let difference = |of: fn(&Outcome) -> f64| (of(&weighted) - of(&copied)).abs();
        assert!(difference(macro_f1) < 0.005);
    }
}

#[test]
fn weighted_rows_without_a_cap_are_refused() {
    let outcome = fit_one(&line(4000, 0.25, 4.0, false, 1), &settings(None));
    let Verdict::Refused { reason } = outcome.verdict else {
        panic!("passed")
    };
    assert!(reason.contains("no cap on their weights"), "{reason}");
    assert!(outcome.pipeline.is_none());
}

#[test]
fn weights_too_uneven_to_certify_anything_are_refused() {
    let mut random = Random(3);
    let mut data = Dataset::new();
    for i in 0..1000 {
        let x = random.between(-1.0, 1.0) as f32;
        let row = Row {
            text: None,
            embedding: Some(&[x, random.next() as f32]),
            label: if x > 0.0 { "right" } else { "left" },
        };
        data.push_weighted(row, if i % 100 == 0 { 2000.0 } else { 1.0 })
            .unwrap();
    }
    let outcome = fit_one(&data, &settings(Some(2000.0)));
    assert!(
        matches!(outcome.verdict, Verdict::Refused { .. }),
        "{:?}",
        outcome.shadow
    );
}

/// The most and the least that a weight may be. Whatever becomes of it, it is neither
/// a crash nor a certificate.
#[test]
fn absurd_weights_are_no_crash_and_no_certificate() {
    for (light, heavy) in [(1e-12, 1e12), (1e-12, 1.0), (1.0, 1e12)] {
        for cap in [
            None,
            Some(1.0),
            Some(heavy),
            Some(f64::NAN),
            Some(-1.0),
            Some(0.0),
        ] {
            let mut data = Dataset::new();
            let mut random = Random(4);
            for i in 0..400 {
                let x = random.between(-1.0, 1.0) as f32;
                let row = Row {
                    text: None,
                    embedding: Some(&[x, random.next() as f32]),
                    label: if x > 0.0 { "right" } else { "left" },
                };
                data.push_weighted(row, if i % 7 == 0 { heavy } else { light })
                    .unwrap();
            }
            let sampled = FitConfig {
                max_fit_traces: 200,
                ..settings(cap)
            };
            for config in [settings(cap), sampled] {
                if let Ok(outcomes) = refit("desk", &data, &config, &mut |_| {}) {
                    assert!(
                        outcomes[0].pipeline.is_none(),
                        "{light} {heavy} {cap:?}: {:?}",
                        outcomes[0].shadow
                    );
                }
            }
        }
    }
}
