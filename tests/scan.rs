//! `tracer scan` on the real binary: ordinary, tiny and odd files.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

fn scan(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .arg("scan")
        .args(arguments)
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .output()
        .expect("the binary runs")
}

/// The document of a scan that has to succeed, of a file `t.jsonl` with these lines.
fn document(lines: &[String], arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.jsonl"), lines.join("\n")).unwrap();
    let output = scan(dir.path(), &[&["t.jsonl", "--json"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// Two in three messages tell their label by a word; of the others half are guesses.
fn line(i: usize) -> String {
    let (word, label) = match i % 3 {
        0 => ("where is my parcel", "delivery"),
        1 => ("give my money back", "refund"),
        _ if coin(i as u64) => ("hello you there", "delivery"),
        _ => ("hello you there", "refund"),
    };
    json!({ "task": "desk", "input": format!("{word} number {i}"), "teacher": label }).to_string()
}

/// Bits that no word tells: `SplitMix64`'s mixing.
fn coin(i: u64) -> bool {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) & 1 == 0
}

fn lines(n: usize) -> Vec<String> {
    (0..n).map(line).collect()
}

#[test]
fn every_number_is_in_the_document() {
    let found = document(
        &lines(1500),
        &[
            "--calls-per-day",
            "1000",
            "--call-dollars",
            "0.01",
            "--alpha",
            "0.9,0.95,0.98",
        ],
    );
    assert_eq!(found["contents"]["traces"], 1500);
    assert_eq!(found["contents"]["labels"], 2);
    assert_eq!(found["file"]["task"], "desk");
    let estimate = &found["estimate"];
    let agreement = estimate["agreement"].as_f64().unwrap();
    assert!((0.78..0.88).contains(&agreement), "{agreement}");
    let targets = estimate["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 3);
    for (target, saving) in targets.iter().zip(found["savings"].as_array().unwrap()) {
        // Two in three are told by a word; the rest is a coin.
        assert_eq!(target["verdict"], "now", "{target:#}");
        let coverage = target["expected_coverage"].as_f64().unwrap();
        assert!((0.45..0.9).contains(&coverage), "{target:#}");
        let limit = target["coverage_limit"].as_f64().unwrap();
        assert!(coverage <= limit + 0.05 && limit < 0.95, "{target:#}");
        let dollars = saving["dollars_a_day"].as_f64().unwrap();
        assert!((dollars - 9.8 * coverage).abs() < 1e-6, "{saving:#}");
        for key in [
            "target",
            "promised_coverage",
            "passes",
            "coverage_range",
            "surrogate",
            "coverage_at_twice",
            "to_start",
            "to_handle_most",
            "shadow",
        ] {
            assert!(target.get(key).is_some(), "{key}");
        }
    }
    let curve = estimate["curve"].as_array().unwrap();
    let sizes: Vec<u64> = curve
        .iter()
        .map(|p| p["traces"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [187, 375, 750, 1500]);
    // More traces make no better guesses of coins: no law is to be found.
    assert_eq!(
        estimate["learning"]["kind"], "flat",
        "{}",
        estimate["learning"]
    );
    assert_eq!(estimate["labels"].as_array().unwrap().len(), 2);
    let pair = &estimate["confusions"][0];
    assert!(
        pair["example"]["text"].as_str().unwrap().contains("hello"),
        "{pair:#}"
    );
}

#[test]
fn the_terminal_and_the_page_tell_it_in_words() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.jsonl"), lines(600).join("\n")).unwrap();
    let output = scan(
        dir.path(),
        &["t.jsonl", "--html", "out.html", "--alpha", "0.95"],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for heading in [
        "IN THE FILE",
        "WHAT COULD BE CERTIFIED",
        "HOW MANY MORE TRACES",
    ] {
        assert!(text.contains(heading), "{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("out.html"));
    let page = fs::read_to_string(dir.path().join("out.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() == 2);
    assert!(!page.contains("://") && !page.contains("<script"));
    // Nothing else was written.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn tiny_files_are_told_about_and_are_no_failure() {
    for n in [0, 1, 10] {
        let found = document(&lines(n), &[]);
        assert_eq!(found["contents"]["traces"], n);
        assert_eq!(found["estimate"], Value::Null);
        let why = found["no_estimate"].as_str().unwrap();
        assert!(why.contains("at least 30") && why.contains("200"), "{why}");
        assert_eq!(found["savings"], json!([]));
    }
    let few = document(&lines(90), &[]);
    for target in few["estimate"]["targets"].as_array().unwrap() {
        assert_ne!(target["verdict"], "now", "a refit needs 200 traces");
        assert_eq!(target["expected_coverage"], 0.0);
    }
}

#[test]
fn one_class_and_free_text_are_told_in_words() {
    let of = |label: &dyn Fn(usize) -> String, n: usize| -> Vec<String> {
        (0..n)
            .map(|i| json!({ "input": format!("text {i}"), "teacher": label(i) }).to_string())
            .collect()
    };
    let one = document(&of(&|_| "only".into(), 50), &[]);
    assert!(one["no_estimate"].as_str().unwrap().contains("only"));
    let many = document(&of(&|i| format!("answer {i}"), 4200), &[]);
    assert!(
        many["no_estimate"]
            .as_str()
            .unwrap()
            .contains("4200 distinct labels")
    );
    assert_eq!(many["contents"]["single"], 4200);
}

#[test]
fn odd_lines_are_passed_over_by_number() {
    let mut odd = lines(60);
    odd.push("{not json".into());
    odd.push(String::new());
    odd.push(json!({ "task": "desk", "input": "no label" }).to_string());
    odd.push(
        json!({ "task": "desk", "input": "x".repeat(2_000_000), "teacher": "long" }).to_string(),
    );
    odd.push(
        json!({ "task": "desk", "input": "a\u{1b}[2J\u{202e}\u{0}b", "teacher": " Refund " })
            .to_string(),
    );
    odd.push(json!({ "task": "desk", "embedding": [1.0, 2.0], "teacher": "refund" }).to_string());
    odd.push(json!({ "task": "desk", "embedding": [1.0], "teacher": "refund" }).to_string());
    odd.push(json!({ "task": "other", "input": "x", "teacher": "y" }).to_string());
    odd.push(
        json!({ "task": "desk", "input": "WHERE is my parcel  number 0", "teacher": "refund" })
            .to_string(),
    );
    let found = document(&odd, &[]);
    let file = &found["file"];
    assert_eq!((&file["lines"], &file["unusable"]), (&68.into(), &4.into()));
    let numbers: Vec<u64> = file["unusable_lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line[0].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [61, 63, 64, 67]);
    assert_eq!(file["other_tasks"], json!([["other", 1]]));
    let contents = &found["contents"];
    assert_eq!(
        (&contents["traces"], &contents["with_text"]),
        (&63.into(), &62.into())
    );
    assert_eq!(contents["dimension"], 2);
    // " Refund " is a spelling of refund; parcel 0 has come with two labels.
    assert_eq!(
        (&contents["labels"], &contents["folded"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (&contents["duplicates"], &contents["contradictory"]),
        (&1.into(), &1.into())
    );
    assert!((contents["ceiling"].as_f64().unwrap() - 62.0 / 63.0).abs() < 1e-12);
    assert_eq!(found["contradictions"][0]["traces"], 2);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.jsonl"), odd.join("\n")).unwrap();
    let output = scan(dir.path(), &["t.jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{202e}'),
        "{text}"
    );
    assert!(text.contains("line 61"), "{text}");
}

/// The echo of a router that had no pipeline yet says that everything was deferred: such
/// traces are as good a sample as those without an echo.
#[test]
fn only_traces_of_a_serving_pipeline_count_as_such() {
    let mut echoes = lines(60);
    for version in [0, 0, 0, 4, 4] {
        let routing = json!({
            "pipeline_version": version, "decision": "deferred", "audit": false, "propensity": 1.0
        });
        let trace = json!({
            "task": "desk", "input": format!("where is my parcel after {}", echoes.len()),
            "teacher": "delivery", "routing": routing
        });
        echoes.push(trace.to_string());
    }
    let found = document(&echoes, &[]);
    let file = &found["file"];
    assert_eq!((&file["unusable"], &file["routed"]), (&0.into(), &2.into()));
}

#[test]
fn another_task_of_the_file_can_be_looked_at() {
    let mut both = lines(40);
    both.extend((0..50).map(|i| {
        json!({ "task": "b", "input": format!("w{} {i}", i % 2), "teacher": (i % 2).to_string() })
            .to_string()
    }));
    assert_eq!(document(&both, &[])["file"]["task"], "b");
    let desk = document(&both, &["--task", "desk"]);
    assert_eq!(
        (&desk["file"]["task"], &desk["contents"]["traces"]),
        (&"desk".into(), &40.into())
    );
}

#[test]
fn embeddings_alone_are_enough() {
    let rows: Vec<String> = (0..400)
        .map(|i| {
            let x = (f64::from(i) * 12.9898).sin();
            json!({ "embedding": [x, x * x, 1.0], "teacher": if x > 0.0 { "up" } else { "down" } })
                .to_string()
        })
        .collect();
    let found = document(&rows, &["--alpha", "0.9"]);
    assert_eq!(found["estimate"]["features"], json!(["dense"]));
    assert_eq!(found["estimate"]["targets"][0]["verdict"], "now");
    assert_eq!(found["contents"]["text_length"], Value::Null);
}

#[test]
fn an_unusable_file_fails() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |arguments: &[&str], code: i32, says: &str| {
        let output = scan(dir.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(
            errors.contains(says) && output.stdout.is_empty(),
            "{errors}"
        );
    };
    fails(&["nowhere.jsonl"], 1, "nowhere.jsonl");
    fs::write(dir.path().join("bad.jsonl"), b"\xff\xfe\n[1]\n").unwrap();
    fails(&["bad.jsonl"], 1, "no usable trace");
    fs::write(dir.path().join("good.jsonl"), lines(40).join("\n")).unwrap();
    fails(&["good.jsonl", "--embeddings", "good.jsonl"], 1, "npy");
    fails(&["good.jsonl", "--task", "none"], 1, "none");
    fails(&["good.jsonl", "--alpha", "1.5"], 1, "between 0 and 1");
    fails(&["good.jsonl", "--calls-per-day=-3"], 2, "calls-per-day");
}
