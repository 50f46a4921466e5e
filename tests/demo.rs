//! `tracer demo` from nothing to a serving pipeline, on the real binary.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    fs,
    process::{Command, Stdio},
};

fn demo(arguments: &[&str]) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["demo", "--grpc-port", "0", "--http-port", "0"])
        .args(arguments)
        .current_dir(directory.path())
        .env_remove("TRACER_CONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

#[test]
fn five_days_from_a_refusal_to_a_pipeline_that_serves() {
    let output = demo(&["--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let result: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON document");
    let days = result["days"].as_array().unwrap();
    assert_eq!(days.len(), 5);

    // Every trace of every day went through the source, the shards and the refit once.
    let traces: Vec<u64> = days
        .iter()
        .map(|day| day["traces"].as_u64().unwrap())
        .collect();
    assert_eq!(traces, [1200, 2400, 3600, 4800, 6000]);

    // Day 1 has too little to certify; nothing serves on days 1 and 2.
    assert_eq!(days[0]["verdict"], "refused", "{result:#}");
    assert_eq!(
        (&days[0]["handled"], &days[1]["handled"]),
        (&0.into(), &0.into())
    );

    // Later days pass, with part of the traffic deferred.
    let passed: Vec<_> = days
        .iter()
        .filter(|day| day["verdict"] == "passed")
        .collect();
    assert!(passed.len() >= 2, "{result:#}");
    let last = passed[passed.len() - 1];
    assert_eq!(last["family"], "l2d");
    let coverage = last["shadow"]["coverage"].as_f64().unwrap();
    assert!((0.3..0.98).contains(&coverage), "{coverage}");
    assert!(last["shadow"]["agreement_lower"].as_f64().unwrap() >= 0.95);

    // What was published in the evening answers the next morning, and as promised.
    let mut version = 0;
    for day in days {
        assert_eq!(day["served_by"].as_u64(), Some(version), "{day:#}");
        version = day["version"].as_u64().unwrap_or(version);
    }
    let evening = &days[4];
    assert!(evening["handled"].as_u64().unwrap() > 300, "{evening:#}");
    assert!(
        evening["live_agreement"].as_f64().unwrap() > 0.93,
        "{evening:#}"
    );
    let number = |key: &str| evening[key].as_u64().unwrap();
    assert!(number("audited") < number("handled"), "{evening:#}");
    assert_eq!(
        number("teacher_calls"),
        1200 - number("handled") + number("audited")
    );
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("somebody's"), "").unwrap();
    let output = demo(&["--exit", "--data", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not empty"));
}
