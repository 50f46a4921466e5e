//! `tracer up` on the real binary: starts from nothing, flushes when it is told to
//! stop, and goes on where it was.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

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

/// `tracer shards list`, as soon as there are the first traces.
fn list(directory: &Path, wait: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["shards", "list", "--rows", "70", "--wait", wait])
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .env("TRACER__STORE__URL", "data/store")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How a process ended, and what it said.
fn exited(process: Child) -> (Option<i32>, String) {
    let output = process.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
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
    let (code, said) = exited(list(directory.path(), "0"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0 of 70 traces"), "{said}");
    let waiting = list(directory.path(), "300");
    assert!(up.stop().contains("stopped"));
    assert_eq!(shards(directory.path()), 1);
    let (code, said) = exited(waiting);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("70 rows"), "{said}");
    // What is there already is seen by one look.
    let (code, said) = exited(list(directory.path(), "0"));
    assert_eq!(code, Some(0), "{said}");

    let up = Up::start(directory.path());
    up.ready();
    replay(directory.path(), "second", 30);
    consumed(&up, 30.0);
    assert_eq!(up.metric("tracer_traces_consumed_total"), 30.0);
    up.stop();
    assert_eq!(shards(directory.path()), 2);
}

fn route(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
    command
        .arg("route")
        .args(arguments)
        .arg("where is my parcel")
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    exited(command.spawn().unwrap())
}

#[test]
fn tls_and_tokens_from_the_configuration_to_the_command_that_asks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let cert = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(path.join("cert.pem"), cert.pem()).unwrap();
    fs::write(path.join("key.pem"), key.serialize_pem()).unwrap();
    // printf %s s3cret-token | sha256sum
    let hash = "a81e611a041b13f078bf8ebe5dab4d4fd63fcc5594661c918bec093a2f416a7e";
    fs::write(path.join("tokens"), format!("me {hash} route default\n")).unwrap();
    fs::write(path.join("token"), "s3cret-token\n").unwrap();
    let config =
        "[security]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\ntokens = \"tokens\"\n";
    fs::write(path.join("tracer.toml"), config).unwrap();
    let up = Up::start(path);
    up.ready();
    let addr = up.grpc.trim_start_matches("http://").to_owned();
    let https = format!("https://{addr}");
    for addr in [&addr, &https] {
        let asked = ["--addr", addr, "--ca", "cert.pem", "--token-file", "token"];
        let (code, said) = route(path, &asked);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("no_pipeline"), "{said}");
    }
    for (asked, named) in [
        (
            &["--addr", &addr, "--ca", "cert.pem"][..],
            "a token is needed",
        ),
        (
            &[
                "--addr",
                &addr,
                "--ca",
                "cert.pem",
                "--token-file",
                "token",
                "--task",
                "other",
            ],
            "not for task \"other\"",
        ),
        (
            &["--addr", &addr, "--token-file", "token"],
            "refused the request",
        ),
        (&["--addr", &up.grpc, "--ca", "cert.pem"], "https://"),
        (&["--addr", &addr, "--ca", "none.pem"], "none.pem"),
    ] {
        let (code, said) = route(path, asked);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(named), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(!up.log().contains("s3cret"), "{}", up.log());
    up.stop();
}
