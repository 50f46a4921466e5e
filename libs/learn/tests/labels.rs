//! What a refit makes of every kind of label space.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::collections::BTreeMap;

use common::{Random, config, embedding, fit_one, only, phrase, push, topics, word};
use tracer_features::LexiconConfig;
use tracer_learn::{
    Dataset, Decision, Family, FitConfig, FitError, Input, Outcome, Pipeline, Scratch, Verdict,
    refit, refit_from,
};

fn answer<'p>(pipeline: &'p Pipeline, text: &str, embedding: Option<&[f32]>) -> Option<&'p str> {
    let input = Input {
        text: Some(text),
        embedding,
    };
    match pipeline.decide(input, &mut Scratch::default()).unwrap() {
        Decision::Handled { label, .. } => Some(&pipeline.labels()[label]),
        Decision::Deferred { .. } => None,
    }
}

/// (shadow rows, handled ones, handled ones that agree) by label.
fn by_label(data: &Dataset, outcome: &Outcome) -> BTreeMap<String, (usize, usize, usize)> {
    let mut counts = BTreeMap::<String, (usize, usize, usize)>::new();
    for row in &outcome.shadow_rows {
        let label = data.label_names()[data.label(row.row) as usize].clone();
        let (n, handled, right) = counts.entry(label).or_default();
        *n += 1;
        *handled += usize::from(row.handled);
        *right += usize::from(row.handled && row.agrees);
    }
    counts
}

#[test]
fn a_new_label_is_answered_from_the_next_refit_on() {
    let mut data = topics(800, 0, true);
    let before = fit_one(&data, &config(&[0.9])).pipeline.unwrap();
    assert_eq!(before.labels(), ["card_lost", "fees", "login", "refund"]);
    for i in 0..200 {
        let text = format!("where is my parcel {}", word(i));
        push(&mut data, &text, Some(&embedding(i, 5)), "delivery");
    }
    let full = fit_one(&data, &config(&[0.9])).pipeline.unwrap();
    let incremental = refit_from("desk", &data, &config(&[0.9]), &before, &mut |_| {})
        .unwrap()
        .remove(0)
        .pipeline
        .unwrap();
    for after in [full, incremental] {
        assert_eq!(
            after.labels(),
            ["card_lost", "delivery", "fees", "login", "refund"]
        );
        let parcel = answer(&after, "where is my parcel", Some(&embedding(3, 5)));
        assert_eq!(parcel, Some("delivery"));
        let card = answer(&after, "lost my card", Some(&embedding(3, 0)));
        assert_eq!(card, Some("card_lost"));
    }
}

#[test]
fn a_label_with_one_trace_is_a_class_in_training_and_never_agreed_with_in_the_shadow() {
    let mut data = topics(800, 0, true);
    for i in 0..20 {
        let text = format!("something else {}", word(i * 17));
        push(
            &mut data,
            &text,
            Some(&embedding(i, 5)),
            &format!("rare_{}", word(i)),
        );
    }
    let outcome = fit_one(&data, &config(&[0.9]));
    assert_eq!(outcome.verdict, Verdict::Passed);
    let (mut trained, mut unseen) = (0, 0);
    for row in 800..820 {
        let label = &data.label_names()[data.label(row) as usize];
        let known = outcome.labels.contains(label);
        let shadow = outcome.shadow_rows.iter().find(|shadow| shadow.row == row);
        assert_eq!(known, shadow.is_none(), "{label}");
        trained += usize::from(known);
        unseen += usize::from(!known);
        assert!(shadow.is_none_or(|row| !row.agrees), "{label}");
    }
    // The hash has put some on either side.
    assert!(trained > 0 && unseen > 0, "{trained} {unseen}");
    // They count against the promise: nothing is left out of the gate's sample.
    let shadow = outcome.shadow_rows.len();
    assert_eq!(outcome.shadow.n, shadow);
    assert_eq!(outcome.training_traces + shadow, 820);
}

#[test]
fn a_thousand_classes() {
    let mut random = Random(5);
    let centres: Vec<Vec<f64>> = (0..1000)
        .map(|_| (0..16).map(|_| random.normal()).collect())
        .collect();
    let mut data = Dataset::new();
    for i in 0..6000 {
        let class = i % 1000;
        let x: Vec<f32> = centres[class]
            .iter()
            .map(|c| (c + 0.15 * random.normal()) as f32)
            .collect();
        let text = format!("{} {}", word(class), word(i / 1000));
        push(&mut data, &text, Some(&x), &format!("class {class}"));
    }
    let quick = FitConfig {
        folds: 2,
        dense_c: vec![30.0],
        lexical_c: vec![30.0],
        max_iterations: 12,
        lexicon: LexiconConfig {
            bucket_bits: 12,
            ..LexiconConfig::default()
        },
        ..only(&[0.9], &["dense_logistic", "lexical_logistic"])
    };
    let outcome = fit_one(&data, &quick);
    assert_eq!(outcome.labels.len(), 1000);
    assert_eq!(outcome.verdict, Verdict::Passed, "{:?}", outcome.shadow);
    assert!(outcome.shadow.coverage > 0.5, "{:?}", outcome.shadow);
    let pipeline = outcome.pipeline.unwrap();
    let again = Pipeline::from_bytes(&pipeline.to_bytes()).unwrap();
    assert_eq!(again.labels().len(), 1000);
}

#[test]
fn one_dominant_class_carries_the_promise_and_the_slices_tell_of_the_rest() {
    // One row in a hundred is of another label, and nothing tells which.
    let (mut data, mut random) = (Dataset::new(), Random(2));
    for i in 0..3000 {
        let label = if random.next() < 0.01 {
            "rare"
        } else {
            "usual"
        };
        push(&mut data, &phrase(i), Some(&embedding(i, i % 4)), label);
    }
    let outcome = fit_one(&data, &config(&[0.95]));
    assert_eq!(outcome.verdict, Verdict::Passed);
    // The promise is about the traffic that is handled, not about each label.
    assert!(outcome.shadow.coverage > 0.9 && outcome.shadow.agreement > 0.97);
    assert_eq!(outcome.labels, ["rare", "usual"]);
    let slices = by_label(&data, &outcome);
    assert_eq!(slices["rare"].2, 0);
    // Macro-F1 counts both labels alike: no candidate looks good on this.
    assert!(
        outcome
            .candidates
            .iter()
            .all(|c| c.macro_f1.is_none_or(|f1| f1 < 0.7))
    );

    // Where the rare label can be told, it is answered.
    let mut data = topics(400, 0, true);
    for i in 0..2000 {
        let text = format!("hello there {}", word(i));
        push(&mut data, &text, Some(&embedding(i, 5)), "greeting");
    }
    // Without a guard, whose budget is a share of all traffic: it would be spent on
    // what is rare.
    let settings = FitConfig {
        ood_budget: 0.0,
        ..config(&[0.95])
    };
    let outcome = fit_one(&data, &settings);
    let slices = by_label(&data, &outcome);
    let (n, handled, right) = slices["refund"];
    assert!(n > 10 && right * 10 >= n * 8, "{n} {handled} {right}");
}

#[test]
fn inputs_the_teacher_contradicts_itself_on_are_deferred() {
    // Three rows in ten are texts that come three times, each time with another label.
    let mut data = topics(1400, 0, false);
    let ambiguous = |i: usize| format!("help {}", word(i % 200));
    for i in 0..600 {
        let label = common::TOPICS[(i / 200) % 3].0;
        push(&mut data, &ambiguous(i), None, label);
    }
    let outcome = fit_one(&data, &config(&[0.95]));
    assert_eq!(outcome.verdict, Verdict::Passed, "{:?}", outcome.shadow);
    assert_ne!(outcome.family, Family::Global);
    let handled = |clear: bool| {
        let rows = outcome
            .shadow_rows
            .iter()
            .filter(|row| (row.row < 1400) == clear);
        let (handled, n) = rows.fold((0, 0), |(h, n), row| (h + usize::from(row.handled), n + 1));
        handled as f64 / f64::from(n)
    };
    assert!(handled(true) > 0.9, "{}", handled(true));
    assert!(handled(false) < 0.3, "{}", handled(false));
    // Of the copies of one text the first alone certifies, if any does.
    let in_shadow = |row: usize| outcome.shadow_rows.iter().any(|s| s.row == row);
    for i in 0..200 {
        assert!((1..3).all(|k| !in_shadow(1400 + i + 200 * k)));
    }
}

#[test]
fn nothing_but_contradictions_is_refused() {
    let mut data = Dataset::new();
    for i in 0..600 {
        push(
            &mut data,
            &format!("help {}", word(i % 40)),
            None,
            ["a", "b", "c"][(i / 40) % 3],
        );
    }
    let outcome = fit_one(&data, &config(&[0.95]));
    assert!(matches!(outcome.verdict, Verdict::Refused { .. }));
    assert!(outcome.pipeline.is_none());
}

/// All rows stand in one fold, or all in the shadow split.
#[test]
fn one_input_again_and_again_is_refused() {
    let mut seen = [false; 2];
    for number in 0..24 {
        let mut data = Dataset::new();
        for i in 0..300 {
            let text = format!("the same {}", word(number));
            push(
                &mut data,
                &text,
                Some(&embedding(number, 1)),
                ["a", "b"][i % 2],
            );
        }
        match refit("desk", &data, &config(&[0.9]), &mut |_| {}) {
            Ok(outcomes) => {
                seen[0] = true;
                assert!(outcomes[0].pipeline.is_none());
                assert_eq!(outcomes[0].shadow.n, 0);
            }
            Err(FitError::TooFewTraces { have: 0, .. }) => seen[1] = true,
            Err(FitError::NoCandidate(_)) => seen[0] = true,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn labels_that_differ_in_case_or_space_are_one_class() {
    let mut data = Dataset::new();
    for i in 0..800 {
        let label = match (i % 4, (i / 4) % 4) {
            (0, 0) => "Card Lost",
            (0, 1) => " card  lost",
            (0, _) => "card lost",
            (1, _) => "Refund ",
            (2, _) => "login",
            _ => "fees",
        };
        push(&mut data, &phrase(i), Some(&embedding(i, i % 4)), label);
    }
    let outcome = fit_one(&data, &config(&[0.9]));
    // Called as they are spelled most often, without the space around.
    assert_eq!(outcome.labels, ["Refund", "card lost", "fees", "login"]);
    assert_eq!(outcome.verdict, Verdict::Passed);
    assert_eq!(outcome.family, Family::Global);
}
