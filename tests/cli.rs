//! The command line of the real binary: exit codes, errors, help.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// The binary in a directory of its own, away from anybody's configuration.
fn tracer(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .output()
        .expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

const GOOD: &str = r#"{"input": "where is my fern", "teacher": "track_delivery"}"#;

#[test]
fn help_and_version_go_to_standard_output() {
    let dir = directory();
    let help = tracer(dir.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in [
        "up",
        "demo",
        "aggregator",
        "trainer",
        "inference",
        "fit",
        "backtest",
        "scan",
        "route",
        "replay",
        "shards",
        "dead-letters",
        "pipelines",
        "rollback",
        "suspend",
        "resume",
        "labels",
    ] {
        assert!(stdout(&help).contains(command), "{command}");
        let own = tracer(dir.path(), &[command, "--help"]);
        assert_eq!(own.status.code(), Some(0), "{command}");
        assert!(stdout(&own).contains("Usage: tracer"), "{command}");
    }
    assert!(stdout(&help).contains("TRACER__SECTION__KEY"));
    let version = tracer(dir.path(), &["--version"]);
    assert!(stdout(&version).starts_with("tracer "));
}

#[test]
fn wrong_usage_exits_2() {
    let dir = directory();
    for arguments in [
        &["fly"][..],
        &["replay"],
        &["up", "--grpc-port", "many"],
        &["replay", "f", "--rate", "fast"],
        &["replay", "f", "--kafka", "a:1", "--spool", "d"],
        &["demo", "--price", "-1"],
    ] {
        let output = tracer(dir.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(!stderr(&output).is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn bad_configuration_exits_64_and_names_the_key() {
    let dir = directory();
    for (toml, named) in [
        ("[store]\nurll = \"x\"\n", "store.urll"),
        (
            "[trainer]\npoll_interval_ms = \"often\"\n",
            "trainer.poll_interval_ms",
        ),
        (
            "[tasks.mail]\ntarget_agreement = 2.0\n",
            "tasks.mail.target_agreement",
        ),
        ("[source]\nkind = \"pulsar\"\n", "pulsar"),
        (
            "[telemetry]\nlog_filter = \"tracer=loudly\"\n",
            "telemetry.log_filter",
        ),
        ("[store]\nurl = \"gopher://hole\"\n", "gopher"),
        (
            "[tasks.t.embedder]\nkind = \"static\"\nmodel = \"nowhere\"\n",
            "tasks.t.embedder: nowhere/model.safetensors: there is no such file",
        ),
        (
            "[task_defaults]\nembedder = { kind = \"static\", model = \"store:models/m\" }\n",
            "task_defaults.embedder: store:models/m/model.safetensors: there is no such file",
        ),
        ("not toml", "tracer.toml"),
    ] {
        let file = dir.path().join("tracer.toml");
        fs::write(&file, toml).unwrap();
        // The file of the directory is read without being named.
        let output = tracer(dir.path(), &["trainer", "--http-port", "0"]);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{toml}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(named),
            "{toml}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_file_of_security_that_cannot_be_used_exits_64_and_is_named() {
    let dir = directory();
    fs::write(dir.path().join("tokens"), "me hunter2 route *\n").unwrap();
    for (toml, named) in [
        ("tls_cert = \"c.pem\"", "security.tls_key: "),
        (
            "tls_cert = \"c.pem\"\ntls_key = \"k.pem\"",
            "security.tls_cert: c.pem: ",
        ),
        ("tokens = \"tokens\"", "security.tokens: tokens: line 1: "),
    ] {
        let config = format!("[security]\n{toml}\n");
        fs::write(dir.path().join("tracer.toml"), config).unwrap();
        let output = tracer(
            dir.path(),
            &["inference", "--http-port", "0", "--grpc-port", "0"],
        );
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{toml}: {said}");
        assert!(
            said.contains(named) && !said.contains("hunter2"),
            "{toml}: {said}"
        );
    }
}

#[test]
fn a_configuration_file_that_is_named_must_be_there() {
    let dir = directory();
    let output = tracer(dir.path(), &["trainer", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("nowhere.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_environment_overrides_and_its_mistakes_are_named() {
    let dir = directory();
    let run = |name: &str, value: &str| {
        Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(["inference", "--http-port", "0", "--grpc-port", "0"])
            .current_dir(dir.path())
            .env(name, value)
            .output()
            .unwrap()
    };
    for (name, value, named) in [
        ("TRACER__INFERENCE__MAX_BATCH", "0", "inference.max_batch"),
        ("TRACER__INFERENCE__MAX_BACH", "5", "inference.max_bach"),
        ("TRACER__STORE__URL", "gopher://hole", "gopher"),
    ] {
        let output = run(name, value);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{name}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(named),
            "{name}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let dir = directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = tracer(
        dir.path(),
        &["up", "--http-port", &port, "--grpc-port", "0"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&port) && stderr(&output).contains("--http-port"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn replay_says_which_lines_it_left_out() {
    let dir = directory();
    let lines = [GOOD, "", "{\"input\": \"no label\"}", "not json", GOOD];
    fs::write(dir.path().join("t.jsonl"), lines.join("\n")).unwrap();
    let output = tracer(
        dir.path(),
        &["replay", "t.jsonl", "--spool", "log", "--json"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("t.jsonl:3") && stderr(&output).contains("t.jsonl:4"),
        "{}",
        stderr(&output)
    );
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (result["sent"].as_u64(), result["invalid"].as_u64()),
        (Some(2), Some(2))
    );
    let log = fs::read_to_string(dir.path().join("log/traces/00000.jsonl")).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), [GOOD, GOOD]);

    fs::write(dir.path().join("bad.jsonl"), "not json\n{}\n").unwrap();
    let nothing = tracer(dir.path(), &["replay", "bad.jsonl", "--spool", "other"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        stderr(&nothing).contains("no line of bad.jsonl is a trace"),
        "{}",
        stderr(&nothing)
    );

    let strict = tracer(
        dir.path(),
        &["replay", "t.jsonl", "--spool", "other", "--strict"],
    );
    assert_eq!(strict.status.code(), Some(1));
    assert!(stderr(&strict).contains("t.jsonl:3"), "{}", stderr(&strict));
}

#[test]
fn replay_sends_a_part_at_a_rate() {
    let dir = directory();
    let lines: Vec<String> = (0..10)
        .map(|i| format!(r#"{{"input": "message {i}", "teacher": "x"}}"#))
        .collect();
    fs::write(dir.path().join("t.jsonl"), lines.join("\n")).unwrap();
    let arguments = [
        "replay", "t.jsonl", "--spool", "log", "--skip", "3", "--limit", "4", "--rate", "20/s",
    ];
    let started = std::time::Instant::now();
    let output = tracer(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // Four traces at 20 a second: the last one goes out after 150 ms.
    assert!(started.elapsed().as_millis() >= 150);
    let log = fs::read_to_string(dir.path().join("log/traces/00000.jsonl")).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), &lines[3..7]);
}

#[test]
fn replay_attaches_embeddings_by_line() {
    let dir = directory();
    fs::write(dir.path().join("t.jsonl"), [GOOD, "bad", GOOD].join("\n")).unwrap();
    // Version 1.0 of the format: magic, length of the header, header, values.
    let mut header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }".to_vec();
    header.resize(128 - 10 - 1, b' ');
    header.push(b'\n');
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header);
    npy.extend((0..6_u8).flat_map(|i| f32::from(i).to_le_bytes()));
    fs::write(dir.path().join("e.npy"), npy).unwrap();
    let output = tracer(
        dir.path(),
        &[
            "replay",
            "t.jsonl",
            "--spool",
            "log",
            "--embeddings",
            "e.npy",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let log = fs::read_to_string(dir.path().join("log/traces/00000.jsonl")).unwrap();
    let embeddings: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["embedding"].clone())
        .collect();
    assert_eq!(
        embeddings,
        [serde_json::json!([0.0, 1.0]), serde_json::json!([4.0, 5.0])]
    );
}

#[test]
fn files_that_are_not_there_fail_with_their_name() {
    let dir = directory();
    for arguments in [
        &["replay", "nothing.jsonl", "--spool", "log"][..],
        &["fit", "--traces", "nothing.jsonl", "--out", "model"],
        &["backtest", "--traces", "nothing.jsonl"],
    ] {
        let output = tracer(dir.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("nothing.jsonl"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn route_without_a_server_fails_with_its_address() {
    let dir = directory();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = tracer(
        dir.path(),
        &["route", "--addr", &format!("http://{free}"), "hello"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&free.to_string()),
        "{}",
        stderr(&output)
    );
}
