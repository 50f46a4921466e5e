//! Rollback, suspension, export, import, retention, the pages, and what is saved.

use std::fs;

use serde_json::{Value, json};

use crate::{
    common::Up,
    world::{Replica, World},
};

const PRICES: &str = "
refit_after_traces = 400
audit_rate = 0.0
teacher_input_dollars_per_million = 5.0
teacher_output_dollars_per_million = 100.0
";

/// Three versions, and nobody who publishes more.
fn three_versions() -> World {
    let world = World::new(PRICES, "");
    let up = Up::start(world.path());
    up.ready();
    for version in 1..=3 {
        let end = 400 * version;
        world.until_published(&up, version as f64, end - 400..end);
    }
    up.stop();
    world
}

fn state(world: &World, version: u64) -> Value {
    let listed = world.json(&["pipelines", "list", "--task", "default", "--json"]);
    let versions = listed["tasks"][0]["versions"].as_array().unwrap().clone();
    let found = versions.into_iter().find(|v| v["version"] == version);
    found.map_or(Value::Null, |version| version["state"].clone())
}

#[test]
fn every_replica_follows_what_people_do_to_versions() {
    let world = three_versions();
    let mut replicas = [
        Replica::start(&world, "replica-1"),
        Replica::start(&world, "replica-2"),
    ];
    let mut all_follow = |version: u64, suspended: bool, what: &str| {
        for replica in &mut replicas {
            let took = replica.follows(version as f64, suspended);
            eprintln!("{what}: followed after {took:?}");
        }
    };
    all_follow(3, false, "start");
    let by = ["--task", "default", "--json", "--author", "ada"];
    let change =
        |command: &str, more: &[&str]| world.json(&[&[command][..], &by[..], more].concat());

    let done = change("rollback", &["--reason", "too many complaints"]);
    assert_eq!(
        (
            &done["changed"],
            &done["before"]["version"],
            &done["after"]["version"]
        ),
        (&json!(true), &json!(3), &json!(2))
    );
    assert_eq!(done["entry"]["author"], "ada");
    assert_eq!(done["entry"]["reason"], "too many complaints");
    all_follow(2, false, "rollback");
    // A second one is a second step back.
    change("rollback", &[]);
    all_follow(1, false, "second rollback");
    let said = world.fails(&["rollback", "--task", "default"]);
    assert!(said.contains("no version served before"), "{said}");
    let said = world.fails(&["rollback", "--task", "default", "--to", "9"]);
    assert!(said.contains("there is no version 9"), "{said}");
    assert_eq!(change("rollback", &["--to", "1"])["changed"], false);

    let done = change("suspend", &["--reason", "an incident"]);
    assert_eq!(done["after"]["reason"], "an incident");
    all_follow(1, true, "suspend");
    assert_eq!(change("suspend", &["--reason", "again"])["changed"], false);
    assert_eq!(state(&world, 1), "suspended");
    assert_eq!(change("resume", &[])["changed"], true);
    all_follow(1, false, "resume");
    assert_eq!(change("resume", &[])["changed"], false);
    change("suspend", &[]);
    // A rollback ends a suspension, forth as well as back.
    change("rollback", &["--to", "v000003"]);
    all_follow(3, false, "rollback to a later one");
    for (version, expected) in [(1, "inactive"), (2, "inactive"), (3, "active")] {
        assert_eq!(state(&world, version), expected);
    }
    for command in ["rollback", "suspend", "resume"] {
        let said = world.fails(&[command, "--task", "nobody"]);
        assert!(said.contains("task nobody"), "{said}");
    }
    // All of it stands in the log.
    let shown = world.json(&["pipelines", "show", "3", "--task", "default", "--json"]);
    assert_eq!(shown["state"], "active");
    assert_eq!(shown["log"].as_array().unwrap().len(), 2, "{shown:#}");

    what_is_saved(&world, &replicas[0]);
    pages(&replicas[0]);
    differences(&world);
    archives(&world);
    let mut follow = |version: u64| {
        for replica in &mut replicas {
            replica.follows(version as f64, false);
        }
    };
    follow(4);
    retention(&world);
    // Nothing that serves has changed, and a replica that starts now serves it too.
    follow(4);
    Replica::start(&world, "replica-3").follows(4.0, false);
}

fn what_is_saved(world: &World, replica: &Replica) {
    // 200 tokens in at 5 dollars a million, 10 out at 100.
    let call = 0.002;
    let saved = "tracer_teacher_cost_saved_dollars_total{task=\"default\"}";
    let mut handled = 0;
    for n in 0..3 {
        let text = format!("number {n} is about the leaf of my fern and some moss");
        let answer = world.json(&["route", "--addr", &replica.grpc, "--json", &text]);
        handled += u32::from(answer["decision"] == "handled");
    }
    assert!(handled > 0);
    let dollars = replica.metric(saved);
    assert!(
        (dollars - f64::from(handled) * call).abs() < 1e-9,
        "{dollars}"
    );

    let shown = world.json(&["pipelines", "show", "3", "--task", "default", "--json"]);
    let cost = &shown["manifest"]["cost"];
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(
        (number(&cost["call_dollars"]) - call).abs() < 1e-12,
        "{cost:#}"
    );
    assert_eq!(cost["usage"]["traces"], 1200);
    assert_eq!(
        cost["saved_share"], shown["manifest"]["shadow"]["coverage"],
        "nothing is audited"
    );
    // A trace a minute.
    let per_day = number(&cost["calls_per_day"]);
    assert!((per_day - 1441.2).abs() < 1.0, "{per_day}");
}

fn pages(replica: &Replica) {
    let (head, body) = split(&replica.get("/"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(body.contains("href=\"/tasks/default\"") && body.contains("version 3 serves"));
    assert!(!body.contains("<script"));

    let (head, body) = split(&replica.get("/tasks/default"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        body.contains("too many complaints") && body.contains("by ada"),
        "{body}"
    );
    assert!(body.contains("/tasks/default/versions/2/report.html"));

    let (head, body) = split(&replica.get("/tasks/default/versions/2/report.json"));
    assert!(head.contains("content-type: application/json"), "{head}");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["task"], "default");
    let (head, body) = split(&replica.get("/tasks/default/versions/v000002/report.html"));
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(head.contains("content-security-policy: "), "{head}");
    assert!(body.starts_with("<!doctype html>"));

    for path in [
        "/tasks/nobody",
        "/tasks/default/versions/9/report.json",
        "/tasks/default/versions/0/report.json",
        "/tasks/default/versions/2/manifest.json",
        "/tasks/default/versions/2/model.safetensors",
        "/tasks/..%2F..%2Fdefault/versions/2/report.json",
        "/tasks/default/versions/..%2Fv000002/report.json",
        "/tasks/default/versions/2%2F../report.json",
        "/tasks/%3Cscript%3E",
        "/tasks/../../etc/passwd",
    ] {
        let (head, body) = split(&replica.get(path));
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert!(!body.contains("<script"), "{path}: {body}");
    }
}

fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // A body that is not sent in chunks.
    assert!(head.to_lowercase().contains("content-length"), "{head}");
    (head.to_owned(), body.to_owned())
}

fn differences(world: &World) {
    let diff = world.json(&["pipelines", "diff", "1", "3", "--task", "default", "--json"]);
    let traces = &diff["card"]["training_traces"];
    assert!(
        traces["from"].as_u64().unwrap() < traces["to"].as_u64().unwrap(),
        "{diff:#}"
    );
    assert_eq!(diff["config"], json!({}));
    assert_eq!(diff["label_space"]["added"], json!([]));
    let rows = &diff["provenance"]["rows"];
    assert_eq!((&rows["from"], &rows["to"]), (&json!(400), &json!(1200)));
    assert_eq!(diff["frontier"].as_array().unwrap().len(), 6);
    let text = world.run(&["pipelines", "diff", "1", "3", "--task", "default"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("version 1 → version 3") && text.contains("training_traces"),
        "{text}"
    );
    let same = world.json(&["pipelines", "diff", "2", "2", "--task", "default", "--json"]);
    assert_eq!((&same["card"], &same["labels"]), (&json!({}), &json!([])));
}

fn archives(world: &World) {
    let export = [
        "pipelines",
        "export",
        "2",
        "--task",
        "default",
        "--out",
        "two.tar",
        "--json",
    ];
    let exported = world.json(&export);
    let said = world.fails(&export);
    assert!(said.contains("two.tar"), "no file is overwritten: {said}");
    let whole = fs::read(world.path().join("two.tar")).unwrap();
    assert_eq!(exported["bytes"], whole.len());

    // Whatever is damaged is refused, and nothing is published.
    let import = |bytes: &[u8], more: &[&str]| {
        fs::write(world.path().join("bad.tar"), bytes).unwrap();
        let said = world.fails(&[&["pipelines", "import", "bad.tar"], more].concat());
        assert!(said.contains("bad.tar is refused"), "{said}");
        said
    };
    // A tar archive has a block of 512 bytes before each file.
    for place in [600, whole.len() / 3, whole.len() / 2, 2 * whole.len() / 3] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        import(&damaged, &[]);
    }
    for length in [0, 100, 512, whole.len() / 2] {
        import(&whole[..length], &[]);
    }
    import(
        b"no archive at all, but long enough to be taken for one",
        &[],
    );
    let said = import(&whole, &["--task", "other"]);
    assert!(said.contains("of task default"), "{said}");
    let listed = world.json(&["pipelines", "list", "--json"]);
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(listed["tasks"][0]["versions"].as_array().unwrap().len(), 3);

    // Elsewhere it is the first version.
    let dry = world.json(&["pipelines", "import", "two.tar", "--dry-run", "--json"]);
    assert_eq!(dry["version"], Value::Null);
    let elsewhere = |arguments: &[&str]| {
        let output = world
            .command(arguments)
            .env("TRACER__STORE__URL", "elsewhere")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let done = elsewhere(&[
        "pipelines",
        "import",
        "two.tar",
        "--author",
        "ada",
        "--json",
    ]);
    assert_eq!((&done["version"], &done["from"]), (&json!(1), &json!(2)));
    let there = elsewhere(&["pipelines", "show", "--task", "default", "--json"]);
    let here = world.json(&["pipelines", "show", "2", "--task", "default", "--json"]);
    let (there, here) = (&there["manifest"], &here["manifest"]);
    assert_eq!(there["files"], here["files"]);
    assert_eq!(there["imported"]["version"], 2);
    assert_eq!(there["imported"]["created_at"], here["created_at"]);
    assert_eq!(there["author"], "ada");

    // Here it is the fourth.
    let done = world.json(&["pipelines", "import", "two.tar", "--json"]);
    assert_eq!(done["version"], 4);
}

fn retention(world: &World) {
    let prune = |more: &[&str]| {
        let done = world.json(&[&["pipelines", "prune", "--json"], more].concat());
        done["tasks"][0]["done"].clone()
    };
    let code = world.run(&["pipelines", "prune"]).status.code();
    assert_eq!(code, Some(64), "all are kept unless it is said how many");
    // All of them are young.
    assert_eq!(prune(&["--keep", "1"])["retired"], json!([]));
    let old = ["--keep", "1", "--days", "0", "--grace", "0"];
    let planned = prune(&[&old[..], &["--dry-run"]].concat());
    // 3 is what a rollback goes back to.
    assert_eq!(planned["retired"], json!([1, 2]));
    assert_eq!(planned["kept"], json!([3, 4]));
    assert_eq!(state(world, 1), "inactive", "nothing was done");
    assert_eq!(prune(&old)["retired"], json!([1, 2]));
    let said = world.fails(&["rollback", "--task", "default", "--to", "1"]);
    assert!(said.contains("it was retired"), "{said}");
    let deleted = prune(&old);
    assert_eq!(deleted["deleted"], json!([1, 2]), "{deleted:#}");
    assert_eq!(deleted["objects"], 8);
    assert_eq!(state(world, 1), Value::Null);
    assert_eq!(prune(&old)["deleted"], json!([]));
    assert!(
        !world
            .path()
            .join("data/store/pipelines/default/v000001/manifest.json")
            .exists()
    );
    assert!(
        world
            .path()
            .join("data/store/pipelines/default/v000003/manifest.json")
            .exists()
    );
}
