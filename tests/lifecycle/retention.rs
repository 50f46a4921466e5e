//! Versions that are too many go by themselves, and nobody who serves notices.

use serde_json::json;

use crate::{
    common::Up,
    world::{Replica, World},
};

#[test]
fn old_versions_go_and_what_serves_stays() {
    let world = World::new(
        "refit_after_traces = 300\n",
        "[registry]\nkeep_versions = 1\nkeep_days = 0\ngrace_seconds = 0\ninterval_seconds = 1\n",
    );
    let up = Up::start(world.path());
    up.ready();
    world.until_published(&up, 1.0, 0..300);
    let mut replica = Replica::start(&world, "replica");
    replica.follows(1.0, false);
    // It sleeps while the version that it serves is replaced, retired and deleted.
    replica.signal("-STOP");
    for version in 2..=4 {
        let end = 300 * version;
        world.until_published(&up, version as f64, end - 300..end);
    }
    let folder = world.path().join("data/store/pipelines/default");
    let there = |version: u64| folder.join(format!("v{version:06}/manifest.json")).exists();
    up.until("the old ones are deleted", || !there(1) && !there(2));
    assert!(there(3) && there(4), "what a rollback goes back to stays");

    // Its model is in its memory: it answers, and comes after by itself.
    replica.signal("-CONT");
    let text = "number 7 is about the leaf of my fern and some moss";
    let address = replica.grpc.clone();
    let ask = ["route", "--addr", &address, "--json", text];
    let answer = world.json(&ask);
    assert_eq!(answer["decision"], "handled", "{answer:#}");
    replica.follows(4.0, false);

    for command in [
        &["pipelines", "show", "1", "--task", "default"][..],
        &["pipelines", "diff", "1", "4", "--task", "default"],
        &[
            "pipelines",
            "export",
            "1",
            "--task",
            "default",
            "--out",
            "one.tar",
        ],
        &["fit", "--reproduce", "1", "--task", "default"],
        &["rollback", "--to", "1", "--task", "default"],
    ] {
        let said = world.fails(command);
        assert!(said.contains("it was retired"), "{command:?}: {said}");
    }
    let answer = replica.get("/tasks/default/versions/1/report.html");
    assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
    let page = replica.get("/tasks/default");
    assert!(page.contains("retired by retention"), "{page}");

    // A rollback has what it needs, and what it needs is kept while it is.
    let done = world.json(&["rollback", "--task", "default", "--json"]);
    assert_eq!(done["after"]["version"], json!(3));
    replica.follows(3.0, false);
    let answer = world.json(&ask);
    assert_eq!(answer["routing"]["pipeline_version"], 3, "{answer:#}");
    up.stop();
    assert!(there(3) && there(4), "the newest and the one that serves");
    replica.follows(3.0, false);
}
