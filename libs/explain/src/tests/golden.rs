//! The layout of `report.json`, pinned: by a document that must not change by accident, and
//! by the schema that is published for those who read it.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tracer_learn::{
    BudgetPoint, CandidateScore, Dataset, Family, FamilyScore, FitConfig, GateStats, Outcome, Row,
    ShadowRow, TargetPoint, Verdict,
};

use super::{config, desk, traces, written};
use crate::{
    ActualCost, Changes, Cost, Cues, LabelChange, LabelCues, NGramCue, ProjectedCost, Report,
    Reporter, Standing, VersionPoint,
};

/// Set, files are written in place of being compared.
const BLESS: &str = "TRACER_BLESS";

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a file, or writes it.
fn compare(path: &str, made: &Value) {
    let path = file(path);
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    same(&kept, made, "$");
}

/// The same but for the last digits of numbers, which are a processor's own.
fn same(kept: &Value, made: &Value, at: &str) {
    match (kept, made) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!(
                (a - b).abs() <= 1e-6 * a.abs().max(1.0),
                "{at}: {a} is now {b}"
            );
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}: the length changed");
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                same(a, b, &format!("{at}[{i}]"));
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            let names = |o: &serde_json::Map<String, Value>| o.keys().cloned().collect::<Vec<_>>();
            let (mut old, mut new) = (names(a), names(b));
            old.sort();
            new.sort();
            assert_eq!(
                old, new,
                "{at}: the names changed (set {BLESS}=1 if they should)"
            );
            for (name, a) in a {
                same(a, &b[name], &format!("{at}.{name}"));
            }
        }
        _ => assert_eq!(kept, made, "{at}"),
    }
}

fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(Report)).unwrap();
    schema["title"] = "Tracer's report.json".into();
    schema["properties"]["schema_version"]["const"] = crate::SCHEMA_VERSION.into();
    schema
}

/// Fails unless the document is one of the published schema.
fn validate(document: &Value) {
    let published = file("../../docs/report.schema.json");
    let published: Value = serde_json::from_slice(&fs::read(published).unwrap()).unwrap();
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("report.json", published).unwrap();
    let schema = compiler.compile("report.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, schema) {
        panic!("{error:#}");
    }
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    compare("../../docs/report.schema.json", &schema());
}

#[test]
fn reports_are_of_the_published_schema_and_come_back() {
    let (data, config) = (desk(1.0), config(0.9));
    let strict = FitConfig {
        targets: vec![0.999],
        ..config.clone()
    };
    for plan in [&config, &strict] {
        let (outcome, report, _) = written(&data, plan);
        let traces = traces(data.len());
        let files = Reporter::new("desk", &data, Ok(&outcome), plan)
            .traces(&traces)
            .files();
        validate(&serde_json::from_slice(&files.json).unwrap());
        assert_eq!(
            serde_json::from_slice::<Report>(&files.json).unwrap(),
            report
        );
    }
    let mut broken = golden();
    broken["labels"][0]["handled_share"] = "most".into();
    assert!(std::panic::catch_unwind(|| validate(&broken)).is_err());
}

#[test]
fn the_layout_is_as_it_was() {
    let made = golden();
    validate(&made);
    compare("src/tests/golden/report-v3.json", &made);
}

/// A report of the layout before has not all of it: readers take what is there.
#[test]
fn the_layout_before_is_still_read() {
    let mut old = golden();
    let names = [
        "diagnosis",
        "inputs",
        "lengths",
        "weak_slices",
        "cards",
        "pairs",
        "changes",
        "disagreements",
        "reliability",
        "cues",
        "flywheel",
        "cost",
        "absent",
    ];
    for name in names {
        old.as_object_mut().unwrap().remove(name).unwrap();
    }
    for slice in old["labels"].as_array_mut().unwrap() {
        let slice = slice.as_object_mut().unwrap();
        let name = slice.remove("name").unwrap();
        slice.insert("label".into(), name);
        for new in ["agreement_interval", "surrogate_agreement"] {
            slice.remove(new).unwrap();
        }
    }
    old["schema_version"] = 2.into();
    let report: Report = serde_json::from_value(old).unwrap();
    assert_eq!((report.labels.len(), report.cards.len()), (2, 0));
}

/// A made-up task: sixty shadow traces with embeddings of two numbers.
fn golden() -> Value {
    let mut data = Dataset::new();
    let mut rows = Vec::new();
    for i in 0..60_usize {
        let plants = i % 2 == 0;
        let unclear = i % 6 < 2;
        let text = match (plants, unclear) {
            (_, true) => format!("it does not look right, please help {i}"),
            (true, false) => format!("my fern has brown leaves {i}"),
            (false, false) => format!("the invoice is wrong {i}"),
        };
        let turn = 0.01 * i as f32;
        let embedding = match (plants, unclear) {
            (true, true) => [0.75 + turn, 0.5],
            (false, true) => [0.5, 0.75 + turn],
            (true, false) => [1.0, turn],
            (false, false) => [turn, 1.0],
        };
        data.push(Row {
            text: Some(&text),
            embedding: Some(&embedding),
            label: ["plants & pots", "billing"][i % 2],
        })
        .unwrap();
        let agrees = !unclear || i % 4 == 0 || i % 12 == 1;
        rows.push(ShadowRow {
            row: i,
            predicted: if agrees { i % 2 } else { 1 - i % 2 },
            agrees,
            score: if unclear {
                0.25 + 0.005 * i as f32
            } else {
                0.9 + 0.001 * i as f32
            },
            foreign: i == 59,
            handled: i != 59 && (!unclear || i >= 54),
        });
    }
    let stats = |coverage, agreement, agreement_lower| GateStats {
        coverage,
        agreement,
        agreement_lower,
        n: 60,
        n_effective: 60.0 * coverage,
    };
    let outcome = Outcome {
        target: 0.9,
        verdict: Verdict::Passed,
        pipeline: None,
        uncertified: None,
        shadow_share: 0.25,
        shadow: stats(0.6875, 0.96875, 0.90625),
        family: Family::L2d,
        surrogate: "dense_logistic+lexical_logistic".into(),
        threshold: 0.5,
        training_traces: 180,
        left_out: 2,
        not_sampled: 0,
        candidates: vec![
            CandidateScore {
                name: "dense_logistic+lexical_logistic".into(),
                macro_f1: Some(0.9375),
                dropped: None,
            },
            CandidateScore {
                name: "decision_tree".into(),
                macro_f1: None,
                dropped: Some("it did not fit".into()),
            },
        ],
        families: vec![FamilyScore {
            family: Family::L2d,
            surrogate: "dense_logistic+lexical_logistic".into(),
            expected_coverage: 0.65625,
        }],
        labels: data.label_names().to_vec(),
        shadow_rows: rows,
        frontier: vec![
            stats(0.25, 1.0, 0.8125),
            stats(0.6875, 0.96875, 0.90625),
            stats(1.0, 0.75, 0.625),
        ],
        targets: vec![TargetPoint {
            target: 0.95,
            passed: false,
            shadow: stats(0.25, 1.0, 0.8125),
        }],
        budgets: vec![BudgetPoint {
            budget: 0.02,
            foreign: 0.015_625,
            shadow: stats(0.6875, 0.96875, 0.90625),
        }],
        fit_seconds: 1.0,
    };
    let past = [VersionPoint {
        version: 1,
        created_at: "2026-01-01T12:00:00Z".into(),
        target_agreement: 0.9,
        training_traces: 90,
        coverage: 0.5,
        agreement: 0.9375,
        agreement_lower: 0.90625,
    }];
    let cost = Cost {
        call_dollars: 0.002,
        saved_share: 0.671_875,
        projected: Some(ProjectedCost {
            calls_per_day: 1000.0,
            dollars_per_day: 2.0,
            saved_dollars_per_day: 1.34375,
        }),
        actual: Some(ActualCost {
            since: "2026-01-01T12:00:00Z".into(),
            calls_saved: 640,
            calls_made: 360,
            saved_dollars: 1.28,
        }),
    };
    let config = config(0.9);
    let traces = traces(data.len());
    let mut report = Reporter::new("greenhouse", &data, Ok(&outcome), &config)
        .traces(&traces)
        .flywheel(&past)
        .cost(Some(&cost))
        .report();
    // What comes from a fitted pipeline stands here by hand: its numbers are not a layout's.
    let standing = |coverage, agreement| Standing {
        coverage,
        agreement,
    };
    let example = report.disagreements[0].examples[0].clone();
    report.absent.remove("changes");
    report.changes = Some(Changes {
        version: 1,
        target_agreement: 0.9,
        n: 60,
        before: standing(0.5, Some(0.9375)),
        now: standing(0.6875, Some(0.96875)),
        newly_handled: 12,
        newly_deferred: 1,
        changed_label: 1,
        labels: vec![LabelChange {
            label: "billing".into(),
            n: 30,
            before: standing(0.0, None),
            now: standing(0.6875, Some(0.96875)),
        }],
        newly_handled_examples: vec![example.clone()],
        newly_deferred_examples: vec![example.clone()],
        changed_label_examples: vec![example],
    });
    let cue = |ngram: &str| NGramCue {
        ngram: ngram.into(),
        texts: 20,
        weight: 0.5,
    };
    report.absent.remove("cues");
    report.cues = Some(Cues {
        texts: 60,
        global: vec![cue("fern"), cue("_inv")],
        labels: vec![LabelCues {
            label: "plants & pots".into(),
            predictions: 30,
            cues: vec![cue("brown leaves")],
        }],
    });
    serde_json::to_value(&report).unwrap()
}
