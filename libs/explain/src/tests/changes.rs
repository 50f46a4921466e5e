//! Artifact D: the previous version, asked the same rows.

use tracer_learn::{Dataset, Decision, FitConfig, Input, Pipeline, Scratch, refit};

use super::{config, desk, fitted, push, shadow_ids, traces};
use crate::{Previous, Report, Reporter};

fn report_of(data: &Dataset, config: &FitConfig, previous: &Pipeline) -> (Report, String) {
    report_against(data, config, previous, false)
}

fn report_against(
    data: &Dataset,
    config: &FitConfig,
    previous: &Pipeline,
    other_embedder: bool,
) -> (Report, String) {
    let outcome = fitted(data, config);
    let traces = traces(data.len());
    let files = Reporter::new("desk", data, Ok(&outcome), config)
        .traces(&traces)
        .previous(Some(Previous {
            version: 4,
            pipeline: previous,
            other_embedder,
        }))
        .files();
    let report: Report = serde_json::from_slice(&files.json).unwrap();
    let shadow = shadow_ids(&outcome);
    assert!(
        super::examples(&report)
            .iter()
            .all(|e| shadow.contains(&e.id))
    );
    (report, String::from_utf8(files.html).unwrap())
}

/// What was learned first, and later a third topic beside it.
fn first_and_grown() -> (Dataset, Dataset) {
    let first = desk(1.0);
    let mut grown = desk(1.0);
    for i in 0..250 {
        push(&mut grown, &format!("passport renewal {i}"), "passport");
    }
    (first, grown)
}

#[test]
fn a_version_on_another_embedder_is_not_compared_with() {
    let (first, grown) = first_and_grown();
    let config = config(0.9);
    let previous = fitted(&first, &config).pipeline.unwrap();
    let (report, html) = report_against(&grown, &config, &previous, true);
    assert_eq!(report.changes, None);
    let why = "version 4 is not comparable: another embedder";
    assert_eq!(report.absent["changes"], why);
    assert!(html.contains(why));
}

#[test]
fn both_versions_are_asked_the_same_rows() {
    let (first, grown) = first_and_grown();
    let config = config(0.9);
    let previous = fitted(&first, &config).pipeline.unwrap();
    let (report, html) = report_of(&grown, &config, &previous);
    let changes = report.changes.unwrap();
    assert_eq!((changes.version, changes.n), (4, report.shadow.n));
    assert!((changes.now.coverage - report.shadow.coverage).abs() < 1e-9);
    // By hand, through the door that serves.
    let outcome = fitted(&grown, &config);
    let mut scratch = Scratch::default();
    let (mut handled, mut newly, mut gone) = (0, 0, 0);
    for row in &outcome.shadow_rows {
        let input = Input {
            text: grown.text(row.row),
            embedding: None,
        };
        let was = previous.decide(input, &mut scratch).unwrap();
        let was = matches!(was, Decision::Handled { .. });
        handled += usize::from(was);
        newly += usize::from(!was && row.handled);
        gone += usize::from(was && !row.handled);
    }
    let n = outcome.shadow_rows.len() as f64;
    assert!((changes.before.coverage - f64::from(handled as u32) / n).abs() < 1e-9);
    assert_eq!(
        (changes.newly_handled, changes.newly_deferred),
        (newly, gone)
    );
    // The new topic is what moved: unknown before, answered now.
    let passport = changes
        .labels
        .iter()
        .find(|c| c.label == "passport")
        .unwrap();
    assert!(
        passport.now.coverage > passport.before.coverage + 0.5,
        "{passport:?}"
    );
    assert!(passport.now.agreement.unwrap() > 0.9);
    assert!(
        passport
            .before
            .agreement
            .is_none_or(|agreement| agreement == 0.0)
    );
    assert!(!changes.newly_handled_examples.is_empty());
    assert!(html.contains("Version 4 and this one were asked the same"));
}

#[test]
fn the_same_pipeline_changes_nothing() {
    let (first, _) = first_and_grown();
    let config = config(0.9);
    let previous = fitted(&first, &config).pipeline.unwrap();
    let (report, _) = report_of(&first, &config, &previous);
    let changes = report.changes.unwrap();
    assert_eq!(changes.before, changes.now);
    assert!(changes.labels.is_empty());
    assert_eq!(
        (
            changes.newly_handled,
            changes.newly_deferred,
            changes.changed_label
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_version_that_may_have_seen_the_rows_is_not_asked() {
    let (first, grown) = first_and_grown();
    let config = config(0.9);
    let other_draw = FitConfig {
        seed: 1,
        ..config.clone()
    };
    let seen = fitted(&first, &other_draw).pipeline.unwrap();
    let (report, html) = report_of(&grown, &config, &seen);
    assert!(report.changes.is_none());
    assert!(report.absent["changes"].contains("trained on some"));
    assert!(html.contains("Nothing to show: version 4 may have been trained on some"));
    // So is one of another task.
    let mut outcomes = refit("other", &first, &config, &mut |_| {}).unwrap();
    let other = outcomes.remove(0).pipeline.unwrap();
    assert!(report_of(&grown, &config, &other).0.changes.is_none());
}

#[test]
fn a_version_of_other_embeddings_cannot_be_asked() {
    let with = |dimension: usize| {
        let mut data = Dataset::new();
        for i in 0..400_usize {
            let mut embedding = vec![0.1; dimension];
            embedding[i % 2] = 1.0 + (i % 7) as f32 / 10.0;
            let text = format!("number {i}");
            data.push(tracer_learn::Row {
                text: Some(&text),
                embedding: Some(&embedding),
                label: ["a", "b"][i % 2],
            })
            .unwrap();
        }
        data
    };
    let config = FitConfig {
        features: tracer_learn::FeatureMode::Dense,
        ..config(0.9)
    };
    let previous = fitted(&with(3), &config).pipeline.unwrap();
    let (report, _) = report_of(&with(4), &config, &previous);
    assert!(
        report.absent["changes"].contains("cannot be asked"),
        "{:?}",
        report.absent
    );
}
