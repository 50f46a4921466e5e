//! Artifacts A, B, C and E, the reliability and the words, on real refits.

use std::collections::BTreeSet;

use tracer_learn::{Dataset, Family, Row, ShadowRow, clopper_pearson_interval, refit};

use super::{Dice, config, desk, examples, fitted, push, shadow_ids, traces, written};
use crate::{DeferredBy, InputsShown, Reporter};

#[test]
fn all_of_it_is_held_out() {
    let data = desk(1.0);
    let (outcome, report, _) = written(&data, &config(0.9));
    let shadow = shadow_ids(&outcome);
    assert!(shadow.len() < data.len() / 2);
    let shown = examples(&report);
    assert!(shown.len() > 6, "{shown:?}");
    for one in &shown {
        assert!(shadow.contains(&one.id), "{one:?} was trained on");
        let row: usize = one.id.strip_prefix("trace-").unwrap().parse().unwrap();
        assert_eq!(one.text.as_deref(), data.text(row));
    }
    let n = outcome.shadow_rows.len();
    assert_eq!(report.labels.iter().map(|s| s.n).sum::<usize>(), n);
    assert_eq!(report.lengths.iter().map(|s| s.n).sum::<usize>(), n);
    let foreign = outcome.shadow_rows.iter().filter(|row| row.foreign).count();
    let binned: usize = report.reliability.iter().map(|bin| bin.n).sum();
    assert_eq!(binned, n - foreign);
    assert_eq!(report.cues.as_ref().unwrap().texts, n);
}

#[test]
fn a_report_changes_no_byte_of_the_model() {
    let data = desk(1.0);
    let config = config(0.9);
    let plain = fitted(&data, &config).pipeline.unwrap().to_bytes();
    let outcome = fitted(&data, &config);
    let before = outcome.pipeline.as_ref().unwrap().to_bytes();
    let again = outcome.clone();
    let report = Reporter::new("desk", &data, Ok(&outcome), &config).report();
    assert!(!report.cards.is_empty());
    assert_eq!(outcome.pipeline.as_ref().unwrap().to_bytes(), before);
    assert_eq!(before, plain);
    assert_eq!(outcome.shadow_rows, again.shadow_rows);
}

#[test]
fn slices_count_what_they_say() {
    let data = desk(1.0);
    let config = config(0.9);
    let (outcome, report, _) = written(&data, &config);
    for slice in &report.labels {
        let rows: Vec<_> = outcome
            .shadow_rows
            .iter()
            .filter(|row| data.label_names()[data.label(row.row) as usize] == slice.name)
            .collect();
        let handled: Vec<_> = rows.iter().filter(|row| row.handled).collect();
        let right = handled.iter().filter(|row| row.agrees).count();
        assert_eq!((slice.n, slice.handled), (rows.len(), handled.len()));
        assert_eq!(
            slice.handled_share,
            handled.len() as f64 / rows.len() as f64
        );
        assert_eq!(slice.agreement, Some(right as f64 / handled.len() as f64));
        let (low, high) =
            clopper_pearson_interval(right as u64, handled.len() as u64, config.delta);
        assert_eq!(slice.agreement_interval, Some([low, high]));
        let all = rows.iter().filter(|row| row.agrees).count();
        assert_eq!(slice.surrogate_agreement, all as f64 / rows.len() as f64);
    }
    // Lengths are apart and ascend.
    assert!(report.lengths.len() > 1);
    assert!(report.lengths[0].name.starts_with("up to "));
}

/// Points on a circle around two centres, and far fewer between them.
fn circles() -> Dataset {
    let mut data = Dataset::new();
    let mut dice = Dice(7);
    for i in 0..900 {
        let between = i % 6 == 0;
        let centre = match (between, i % 2) {
            (true, _) => [0.0, 0.0],
            (false, 0) => [3.0, 1.0],
            (false, _) => [-3.0, 1.0],
        };
        let mut noise = || dice.unit() - 0.5;
        let embedding = [centre[0] + noise(), centre[1] + noise(), noise(), 2.0];
        let label = if between {
            ["east", "west"][dice.roll(2)]
        } else {
            ["east", "west"][i % 2]
        };
        let text = format!("number {i}");
        let row = Row {
            text: Some(&text),
            embedding: Some(&embedding),
            label,
        };
        data.push(row).unwrap();
    }
    data
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let terms = a.iter().zip(b);
        terms.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn pairs_are_the_nearest_there_are() {
    let data = circles();
    let (outcome, report, _) = written(&data, &config(0.9));
    assert_eq!(outcome.family, Family::L2d);
    assert_eq!(report.pairs.len(), 2, "{:?}", report.absent);
    let row = |id: &str| id.strip_prefix("trace-").unwrap().parse::<usize>().unwrap();
    for of in &report.pairs {
        // By hand, over all there are.
        let rows: Vec<&ShadowRow> = outcome
            .shadow_rows
            .iter()
            .filter(|r| data.label_names()[data.label(r.row) as usize] == of.label && !r.foreign)
            .collect();
        let (handled, deferred): (Vec<&ShadowRow>, Vec<&ShadowRow>) =
            rows.iter().partition(|r| r.handled);
        let nearness =
            |a: usize, b: usize| cosine(data.embedding(a).unwrap(), data.embedding(b).unwrap());
        let best = deferred
            .iter()
            .flat_map(|d| handled.iter().map(|h| nearness(d.row, h.row)))
            .fold(-1.0, f64::max);
        assert!((of.pairs[0].similarity - best).abs() < 1e-5);
        assert!(of.pairs.is_sorted_by(|a, b| a.similarity >= b.similarity));
        for pair in &of.pairs {
            assert!(pair.handled.handled && !pair.deferred.handled);
            assert_eq!(
                (&pair.handled.label, &pair.deferred.label),
                (&of.label, &of.label)
            );
            assert_eq!(pair.deferred.deferred_by, Some(DeferredBy::LowScore));
            assert!(pair.handled.score >= f64::from(outcome.threshold));
            assert!(pair.deferred.score < f64::from(outcome.threshold));
            // The nearest handled one to this deferred one.
            let d = row(&pair.deferred.id);
            let nearest = handled
                .iter()
                .map(|h| nearness(d, h.row))
                .fold(-1.0, f64::max);
            assert!((pair.similarity - nearest).abs() < 1e-5);
        }
        let distinct: BTreeSet<_> = of.pairs.iter().map(|p| &p.handled.id).collect();
        assert_eq!(distinct.len(), of.pairs.len());
    }
}

#[test]
fn cards_are_nearest_to_their_centroid() {
    let data = circles();
    let (outcome, report, _) = written(&data, &config(0.9));
    let mut seen = 0;
    for of in &report.cards {
        for (card, handled) in [(&of.handled, true), (&of.deferred, false)] {
            let rows: Vec<usize> = outcome
                .shadow_rows
                .iter()
                .filter(|r| {
                    data.label_names()[data.label(r.row) as usize] == of.label
                        && r.handled == handled
                })
                .map(|r| r.row)
                .collect();
            let Some(card) = card else {
                assert!(rows.is_empty());
                continue;
            };
            assert_eq!(card.of, rows.len());
            let unit = |row: usize| {
                let x = data.embedding(row).unwrap();
                let length = x.iter().map(|v| v * v).sum::<f32>().sqrt();
                x.iter().map(|v| v / length).collect::<Vec<f32>>()
            };
            let mut centre = vec![0.0_f32; 4];
            for &row in &rows {
                for (c, x) in centre.iter_mut().zip(unit(row)) {
                    *c += x;
                }
            }
            let best = rows
                .iter()
                .map(|&row| cosine(&unit(row), &centre))
                .fold(-1.0, f64::max);
            assert!((card.similarity - best).abs() < 1e-5);
            let row: usize = card
                .example
                .id
                .strip_prefix("trace-")
                .unwrap()
                .parse()
                .unwrap();
            assert!((cosine(&unit(row), &centre) - best).abs() < 1e-5);
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn disagreements_are_grouped_by_what_the_surrogate_said() {
    let data = desk(1.0);
    let (outcome, report, _) = written(&data, &config(0.9));
    let wrong = outcome.shadow_rows.iter().filter(|row| !row.agrees).count();
    let told: usize = report.disagreements.iter().map(|of| of.disagreements).sum();
    assert!(wrong > 0);
    assert_eq!(told, wrong);
    for of in &report.disagreements {
        assert!(
            of.examples
                .iter()
                .all(|e| e.predicted == of.predicted && !e.agrees)
        );
        assert_eq!(
            of.teacher.iter().map(|t| t.n).sum::<usize>(),
            of.disagreements
        );
        let handled = of.examples.iter().filter(|e| e.handled).count();
        assert_eq!(
            handled,
            of.handled.min(of.examples.len()),
            "the handled ones come first"
        );
    }
}

#[test]
fn a_global_pipeline_has_no_pairs_and_says_so() {
    let mut data = Dataset::new();
    for i in 0..600 {
        let (text, label) = match i % 2 {
            0 => (format!("card lost {i}"), "card"),
            _ => (format!("refund me {i}"), "refund"),
        };
        push(&mut data, &text, label);
    }
    let (outcome, report, html) = written(&data, &config(0.95));
    assert_eq!(outcome.family, Family::Global);
    assert!(report.pairs.is_empty() && report.absent["pairs"].contains("family global"));
    assert!(html.contains("Nothing to show: the surrogate answers everything"));
    assert!(report.absent["disagreements"].contains("agree on every shadow trace"));
    // What the guard alone defers is typical of nothing that the acceptor does.
    assert!(report.cards.iter().all(|of| of.handled.is_some()));
}

#[test]
fn the_words_are_those_that_tell_the_labels_apart() {
    let (_, report, html) = written(&desk(1.0), &config(0.9));
    assert_eq!(report.inputs, InputsShown::Text);
    let cues = report.cues.unwrap();
    for (label, words) in [("<card>", ["card", "lost"]), ("refund", ["refund", "me"])] {
        let of = cues.labels.iter().find(|of| of.label == label).unwrap();
        let found: Vec<&str> = of
            .cues
            .iter()
            .map(|cue| cue.ngram.trim_matches('_'))
            .collect();
        assert!(
            words
                .iter()
                .any(|word| found.iter().any(|cue| cue.contains(word))),
            "{label}: {found:?}"
        );
        // Nothing that is in both labels' texts alike leads.
        assert!(!found[0].contains("help"), "{found:?}");
        assert!(
            of.cues
                .iter()
                .all(|cue| cue.weight > 0.0 && cue.texts <= of.predictions)
        );
    }
    assert!(!cues.global.is_empty() && html.contains("Over all labels"));
}

#[test]
fn the_reliability_is_that_of_the_scores() {
    let data = desk(1.0);
    let (outcome, report, _) = written(&data, &config(0.9));
    let rows: Vec<_> = outcome
        .shadow_rows
        .iter()
        .filter(|row| !row.foreign)
        .collect();
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let overall = mean(
        rows.iter()
            .map(|row| f64::from(u8::from(row.agrees)))
            .collect(),
    );
    let binned: f64 = report
        .reliability
        .iter()
        .map(|b| b.agreement * b.n as f64)
        .sum();
    assert!((binned / rows.len() as f64 - overall).abs() < 1e-9);
    assert!(report.reliability.len() > 2);
    assert!(report.reliability.is_sorted_by(|a, b| a.score <= b.score));
    for bin in &report.reliability {
        let [low, high] = bin.agreement_interval.unwrap();
        assert!(low <= bin.agreement && bin.agreement <= high);
    }
}

#[test]
fn one_refit_of_several_targets_has_a_report_for_each() {
    let data = desk(1.0);
    let config = tracer_learn::FitConfig {
        targets: vec![0.85, 0.9],
        ..config(0.9)
    };
    let traces = traces(data.len());
    for outcome in refit("desk", &data, &config, &mut |_| {}).unwrap() {
        let report = Reporter::new("desk", &data, Ok(&outcome), &config)
            .traces(&traces)
            .report();
        assert_eq!(report.target_agreement, outcome.target);
        assert_eq!(report.shadow.coverage, outcome.shadow.coverage);
    }
}
