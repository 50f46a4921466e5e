//! `tracer up` on the real binary: starts from nothing, flushes when it is told to
//! stop, and goes on where it was.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{fs, path::Path, process::Command};

use common::Up;

fn replay(directory: &Path, name: &str, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|i| format!(r#"{{"id": "{name}-{i}", "input": "message {i}", "teacher": "x"}}"#))
        .collect();
    fs::write(directory.join(name), lines.join("\n")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["replay", name, "--spool", "data/spool"])
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.code(), Some(0));
}

fn shards(directory: &Path) -> usize {
    fs::read_dir(directory.join("data/store/traces/traces/00000")).map_or(0, Iterator::count)
}

fn consumed(up: &Up, count: f64) {
    up.until("the traces are consumed", || {
        up.metric("tracer_traces_consumed_total") >= count
    });
}

#[test]
fn what_was_taken_in_is_stored_at_the_end_and_not_taken_in_again() {
    let directory = tempfile::tempdir().unwrap();
    // No shard for its age, however slow the machine is.
    let config = "[aggregator]\nmax_age_ms = 3600000\n";
    fs::write(directory.path().join("tracer.toml"), config).unwrap();
    let up = Up::start(directory.path());
    up.ready();
    assert!(up.get("/livez").starts_with("HTTP/1.1 200"));
    replay(directory.path(), "first", 70);
    consumed(&up, 70.0);
    // The traces are younger than a shard waits: only the end writes them.
    assert_eq!(shards(directory.path()), 0);
    assert!(up.stop().contains("stopped"));
    assert_eq!(shards(directory.path()), 1);

    let up = Up::start(directory.path());
    up.ready();
    replay(directory.path(), "second", 30);
    consumed(&up, 30.0);
    assert_eq!(up.metric("tracer_traces_consumed_total"), 30.0);
    up.stop();
    assert_eq!(shards(directory.path()), 2);
}
