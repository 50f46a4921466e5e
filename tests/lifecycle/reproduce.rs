//! A version is made again from its traces, whatever has become of their shards.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{common::Up, world::World};

fn reproduce(world: &World, version: &str) -> Value {
    world.json(&["fit", "--reproduce", version, "--task", "default", "--json"])
}

fn shards(world: &World) -> Vec<Value> {
    let listed = world.json(&["shards", "list", "--json"]);
    let partitions = listed["partitions"].as_array().unwrap();
    partitions[0]["shards"].as_array().unwrap().clone()
}

#[test]
fn full_and_incremental_versions_come_out_the_same() {
    let world = World::new("refit_after_traces = 300\nfull_refit_every = 3\n", "");
    let up = Up::start(world.path());
    up.ready();
    for version in 1..=3 {
        let end = 300 * version;
        world.until_published(&up, version as f64, end - 300..end);
    }
    // Traces that none of them has seen, in shards of their own.
    for part in 0..4 {
        world.send(900 + part * 40..940 + part * 40);
        let all = (940 + part * 40) as f64;
        up.until("they are taken in", || {
            up.metric("tracer_traces_consumed_total") >= all
        });
    }
    up.stop();
    let shown = world.json(&["pipelines", "show", "2", "--task", "default", "--json"]);
    let from = &shown["manifest"]["provenance"];
    assert_eq!(from["base"], 1, "the second is incremental: {from:#}");
    assert_eq!(from["traces"], 600);
    assert_eq!(from["lock_sha256"].as_str().unwrap().len(), 64);
    assert!(from["libraries"]["ndarray"].is_string(), "{from:#}");

    expired(&world);

    let before = shards(&world).len();
    let done = world.json(&["shards", "compact", "--after", "0", "--keep", "1", "--json"]);
    assert!(
        done["total"]["compacted"]["made"].as_u64() >= Some(1),
        "{done:#}"
    );
    assert!(shards(&world).len() < before);
    for version in ["1", "2", "3"] {
        let made = reproduce(&world, version);
        assert_eq!(made["identical"], true, "{made:#}");
        assert_eq!(made["sha256"], made["published_sha256"]);
        assert_eq!(made["differences"], serde_json::json!([]));
    }
    // Threads change nothing.
    let output = world
        .command(&[
            "fit",
            "--reproduce",
            "2",
            "--task",
            "default",
            "--json",
            "--out",
            "made",
        ])
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["identical"], true, "{made:#}");
    let model = |path: &str| fs::read(world.path().join(path)).unwrap();
    assert_eq!(
        model("made/model.safetensors"),
        model("data/store/pipelines/default/v000002/model.safetensors")
    );

    others(&world);
}

/// Of more traces than the most to fit on, the rows are drawn while they are read. How they
/// were drawn stands in the manifest: by then the shards may be cut otherwise, and hold more.
#[test]
fn a_sample_is_drawn_again() {
    let world = World::new(
        "refit_after_traces = 350\nmax_fit_traces = 300\nfull_refit_every = 2\ndedup_window_seconds = 7200\n",
        "",
    );
    let up = Up::start(world.path());
    up.ready();
    for version in 1..=3_u64 {
        let end = 350 * version;
        // The same text a minute later, under another id: a retry.
        let retries = end - 30..end;
        world.send_copies(retries, 3_000 * version);
        world.until_published(&up, version as f64, end - 350..end);
    }
    up.stop();
    let done = world.json(&["shards", "compact", "--after", "0", "--keep", "1", "--json"]);
    assert!(
        done["total"]["compacted"]["made"].as_u64() >= Some(1),
        "{done:#}"
    );
    let mut sampled = Vec::new();
    for version in ["1", "2", "3"] {
        let shown = world.json(&["pipelines", "show", version, "--task", "default", "--json"]);
        let then = &shown["manifest"]["provenance"];
        assert_eq!(then["dedup_window_ms"], 7_200_000, "{then:#}");
        assert!(then["rows"].as_u64() < then["traces"].as_u64(), "{then:#}");
        sampled.push(then["sampled"].as_bool().unwrap());
        let made = reproduce(&world, version);
        assert_eq!(made["identical"], true, "{version}: {made:#}");
        assert_eq!(made["differences"], serde_json::json!([]));
    }
    assert_eq!(sampled[1..], [true, true], "{sampled:?}");
}

/// Other bytes are told, with what differs.
fn others(world: &World) {
    let manifest = world
        .path()
        .join("data/store/pipelines/default/v000001/manifest.json");
    let whole = fs::read(&manifest).unwrap();
    let mut altered: Value = serde_json::from_slice(&whole).unwrap();
    altered["config"]["seed"] = 7.into();
    altered["provenance"]["revision"] = "somewhere else".into();
    fs::write(&manifest, altered.to_string()).unwrap();
    let said = world.fails(&["fit", "--reproduce", "1", "--task", "default"]);
    assert!(said.contains("came out otherwise"), "{said}");
    assert!(
        said.contains("revision of the code: somewhere else then"),
        "{said}"
    );
    fs::write(&manifest, whole).unwrap();

    let said = world.fails(&["fit", "--reproduce", "9", "--task", "default"]);
    assert!(said.contains("v000009"), "{said}");
    let usage = world.run(&["fit", "--reproduce", "1"]);
    assert_eq!(usage.status.code(), Some(2));
}

/// Of traces that are gone it is said which.
fn expired(world: &World) {
    let copy = world.path().join("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&world.path().join("data/store"), &copy])
        .status()
        .unwrap();
    assert!(copied.success());
    let first = shards(world)[0]["path"].as_str().unwrap().to_owned();
    age(&copy.join(first));
    let run = |arguments: &[&str]| {
        world
            .command(arguments)
            .env("TRACER__STORE__URL", "copy")
            .output()
            .unwrap()
    };
    let output = run(&["shards", "expire", "--days", "1", "--json"]);
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = done["total"]["expired"]["rows"].as_u64().unwrap();
    assert!(rows > 0, "{done:#}");
    let output = run(&["fit", "--reproduce", "1", "--task", "default"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("{rows} of 300 are missing")),
        "{said}"
    );
    assert!(said.contains("have expired"), "{said}");
}

fn age(path: &Path) {
    let touched = Command::new("touch")
        .args(["-d", "10 days ago"])
        .arg(path)
        .status()
        .unwrap();
    assert!(touched.success());
}
