//! `tracer shards` over what the real aggregator writes, and shards as other programs
//! read them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use common::Aggregator;

const TRACES: u64 = 600;
const TASKS: u64 = 3;

/// A spool and a store in one directory.
struct World(TempDir);

impl World {
    fn new(maintenance: &str, aggregator: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let config = format!(
            "[source]\npath = \"spool\"\n[store]\nurl = \"store\"\n\
             [maintenance]\n{maintenance}\n\
             [aggregator]\nmax_age_ms = 50\n{aggregator}\n"
        );
        fs::write(directory.path().join("tracer.toml"), config).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_remove("TRACER_CONFIG");
        command
    }

    /// Runs a command to its end: its code, and its document where it printed one.
    fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let output = self.command(arguments).output().unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), document)
    }

    fn must(&self, arguments: &[&str]) -> Value {
        let (code, document) = self.json(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {document:#}");
        document
    }

    /// Writes a file of traces.
    fn lines(&self) {
        let mut lines = String::new();
        for n in 0..TRACES {
            let embedding = match n % 10 {
                0 => String::new(),
                1 => r#", "embedding": [1.5, -2.0]"#.to_owned(),
                _ => format!(r#", "embedding": [{n}, 0.25, -0.5, 1e-3]"#),
            };
            writeln!(
                lines,
                r#"{{"id": "id-{n}", "task": "task-{}", "input": "where is parcel {n}?", "teacher": "label-{}", "timestamp": {}{embedding}}}"#,
                n % TASKS,
                n % 7,
                1_800_000_000_000_u64 + n,
            )
            .unwrap();
        }
        fs::write(self.path().join("traces.jsonl"), lines).unwrap();
    }

    /// Sends some traces of the file to the log.
    fn replay(&self, skip: u64, limit: u64) {
        let (skip, limit) = (skip.to_string(), limit.to_string());
        self.must(&[
            "replay",
            "traces.jsonl",
            "--json",
            "--skip",
            &skip,
            "--limit",
            &limit,
        ]);
    }

    /// Fills the log, a few traces at a time, so that they become many shards.
    fn fill(&self) {
        self.lines();
        let mut aggregator = Aggregator::start(self.path());
        for part in 0..10 {
            self.replay(part * TRACES / 10, TRACES / 10);
            let rows = (part + 1) * TRACES / 10;
            aggregator.until("the part is stored", || {
                self.json(&["shards", "verify", "--json"]).1["rows"] == rows
            });
        }
        aggregator.stop();
    }
}

#[test]
fn shards_are_listed_verified_compacted_and_expired() {
    let world = World::new("enabled = false", "");
    world.fill();
    let whole = world.must(&["shards", "verify", "--json"]);
    assert_eq!(
        (&whole["whole"], &whole["rows"]),
        (&Value::Bool(true), &TRACES.into())
    );
    let partition = &whole["partitions"][0];
    assert_eq!(
        (
            &partition["topic"],
            &partition["first_offset"],
            &partition["duplicates"]
        ),
        (&"traces".into(), &0.into(), &0.into())
    );
    assert_eq!(partition["offsets"], TRACES);
    let length = fs::metadata(world.path().join("spool/traces/00000.jsonl"));
    if let Ok(length) = length {
        assert_eq!(partition["next_offset"], length.len());
    }
    let shards = |all: &[&str]| {
        let listed = world.must(&[&["shards", "list", "--json"], all].concat());
        listed["partitions"][0]["shards"]
            .as_array()
            .unwrap()
            .clone()
    };
    let before = shards(&[]);
    assert!(before.len() >= 10, "{} shards", before.len());

    // Nothing is old enough by default.
    let done = world.must(&["shards", "compact", "--json"]);
    assert_eq!(done["total"]["compacted"]["made"], 0);
    let done = world.must(&["shards", "compact", "--json", "--after", "0", "--keep", "1"]);
    assert!(
        done["total"]["compacted"]["made"].as_u64() >= Some(1),
        "{done:#}"
    );
    assert_eq!(done["total"]["deleted"]["deleted"], 0);
    let after = shards(&[]);
    assert!(after.len() < before.len());
    assert!(after.iter().any(|shard| shard["kind"] == "compacted"));
    assert_eq!(
        shards(&["--all"]).len(),
        before.len() + done["total"]["compacted"]["made"].as_u64().unwrap() as usize
    );
    let again = world.must(&["shards", "verify", "--json"]);
    assert_eq!(
        (&again["checksum"], &again["rows"]),
        (&whole["checksum"], &whole["rows"])
    );

    // Traces are as old as when they were written, whatever their own time says.
    let done = world.must(&["shards", "expire", "--json", "--days", "1"]);
    assert_eq!(done["total"]["expired"]["rows"], 0);
    let refused = world.command(&["shards", "expire"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("retention_days"));

    // A shard that is gone is a gap, and an error.
    let victim = &after[after.len() - 2];
    let lost = victim["base_offset"].as_u64()..victim["next_offset"].as_u64();
    for shard in shards(&["--all"]) {
        if lost.contains(&shard["base_offset"].as_u64()) {
            fs::remove_file(
                world
                    .path()
                    .join("store")
                    .join(shard["path"].as_str().unwrap()),
            )
            .unwrap();
        }
    }
    let (code, broken) = world.json(&["shards", "verify", "--json"]);
    assert_eq!((code, &broken["whole"]), (Some(1), &Value::Bool(false)));
    let gap = &broken["partitions"][0]["gaps"][0];
    assert_eq!(
        gap["start"].as_u64()..gap["end"].as_u64(),
        lost,
        "{broken:#}"
    );
}

/// Aggregators compact as they go. Nothing but the number of shards tells.
#[test]
fn an_aggregator_looks_after_its_shards() {
    let world = World::new(
        "interval_seconds = 1\ncompact_after_seconds = 0\ncompact_min_shards = 2\n\
         keep_shards = 1\ngrace_seconds = 5",
        "",
    );
    world.fill();
    let mut aggregator = Aggregator::start(world.path());
    let shards = || {
        let listed = world.must(&["shards", "list", "--json", "--all"]);
        listed["partitions"][0]["shards"]
            .as_array()
            .unwrap()
            .clone()
    };
    let counts = |shard: &Value| shard["counts"] == true;
    aggregator.until("some are compacted", || {
        shards().iter().any(|shard| shard["kind"] == "compacted")
    });
    // And what was replaced goes.
    aggregator.until("what was replaced is gone", || shards().iter().all(counts));
    assert!(shards().len() < 8, "{:#?}", shards());
    aggregator.stop();
    let check = world.must(&["shards", "verify", "--json"]);
    assert_eq!(
        (&check["whole"], &check["rows"]),
        (&Value::Bool(true), &TRACES.into())
    );
}

/// A shard that is lost while the aggregator runs is a gap. It notices that what it
/// writes does not count, goes back and reads again what was lost.
#[test]
fn a_lost_shard_is_read_again() {
    let world = World::new("enabled = false\ngrace_seconds = 5", "");
    world.lines();
    let mut aggregator = Aggregator::start(world.path());
    let mut sent = 0;
    let mut send = |count: u64| {
        world.replay(sent, count);
        sent += count;
        sent
    };
    let rows = || world.json(&["shards", "verify", "--json"]).1["rows"].clone();
    for _ in 0..3 {
        let sent = send(20);
        aggregator.until("all are stored", || rows() == sent);
    }
    let listed = world.must(&["shards", "list", "--json"]);
    let lost = listed["partitions"][0]["shards"][1]["path"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::remove_file(world.path().join("store").join(lost)).unwrap();
    assert!(rows().as_u64() < Some(60));
    aggregator.until("what was lost is stored again", || {
        let sent = send(1);
        let (code, check) = world.json(&["shards", "verify", "--json"]);
        code == Some(0) && check["rows"].as_u64() >= Some(sent - 1)
    });
    let sent = send(0);
    // A stop may leave what was read last to whoever comes next.
    aggregator.until("all are stored", || rows() == sent);
    aggregator.stop();
    let check = world.must(&["shards", "verify", "--json"]);
    assert_eq!(check["rows"], sent, "{check:#}");
}

/// What other programs make of the shards that the real binary writes.
#[test]
#[ignore = "needs pyarrow, DuckDB and Polars: tests/run parquet"]
fn other_programs_read_the_shards_parquet() {
    let packages = std::env::var("TRACER_TEST_PARQUET")
        .expect("TRACER_TEST_PARQUET is where the Python packages are: tests/run parquet");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parquet/check.py");
    for embeddings in ["f32", "f16"] {
        let world = World::new("enabled = false", &format!("embeddings = \"{embeddings}\""));
        world.fill();
        for compacted in [false, true] {
            if compacted {
                world.must(&["shards", "compact", "--json", "--after", "0", "--keep", "1"]);
            }
            let listed = world.must(&["shards", "list", "--json"]);
            let list = world.path().join("list.json");
            fs::write(&list, listed.to_string()).unwrap();
            let checked = Command::new("python3")
                .arg(script)
                .arg(world.path().join("store"))
                .arg(&list)
                .args([embeddings, &TRACES.to_string(), &TASKS.to_string()])
                .env("PYTHONPATH", &packages)
                .output()
                .unwrap();
            assert!(
                checked.status.success(),
                "{embeddings}, compacted: {compacted}: {}{}",
                String::from_utf8_lossy(&checked.stdout),
                String::from_utf8_lossy(&checked.stderr)
            );
        }
    }
}
