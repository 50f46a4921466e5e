//! The inputs that are worth a person's time.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{common::Up, world::World};

#[test]
fn the_queue_holds_distinct_deferred_inputs_the_best_first() {
    let world = World::new("refit_after_traces = 600\n", "");
    let up = Up::start(world.path());
    up.ready();
    world.until_published(&up, 1.0, 0..600);
    // Something that no trace was about, a hundred times nearly the same.
    let strange: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"id": "strange-{n}", "input": "quantum zeppelin yodelling over zirconium {n}", "teacher": "plants"}}"#))
        .collect();
    fs::write(world.path().join("strange.jsonl"), strange.join("\n")).unwrap();
    world.json(&["replay", "strange.jsonl", "--json"]);
    up.until("they are taken in", || {
        up.metric("tracer_traces_consumed_total") >= 700.0
    });
    up.stop();

    let queue = |more: &[&str]| {
        let output = world.run(&[&["labels", "queue", "--task", "default"], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        output.stdout
    };
    let text = queue(&["--limit", "20"]);
    let lines: Vec<Value> = String::from_utf8(text.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty() && lines.len() <= 20);
    let values: Vec<f64> = lines.iter().map(|l| l["value"].as_f64().unwrap()).collect();
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
    let ids: BTreeSet<&str> = lines.iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len());
    for line in &lines {
        for key in ["input", "teacher", "reason"] {
            assert!(
                line[key].as_str().is_some_and(|text| !text.is_empty()),
                "{line:#}"
            );
        }
        assert!(line["group"]["inputs"].as_u64() >= Some(1), "{line:#}");
        assert!(line["score"].is_number() && line["surrogate"].is_array());
    }
    // The hundred are one question.
    let strange: Vec<&Value> = lines
        .iter()
        .filter(|line| line["id"].as_str().unwrap().starts_with("strange"))
        .collect();
    assert_eq!(strange.len(), 1, "{lines:#?}");
    assert!(
        strange[0]["group"]["inputs"].as_u64() >= Some(90),
        "{:#}",
        strange[0]
    );

    // Again the same, and in a file.
    queue(&["--limit", "20", "--out", "queue.jsonl"]);
    assert_eq!(fs::read(world.path().join("queue.jsonl")).unwrap(), text);
    assert_eq!(
        queue(&["--limit", "1"]),
        text.split_inclusive(|&byte| byte == b'\n').next().unwrap()
    );
    let said = world.fails(&["labels", "queue", "--task", "nobody"]);
    assert!(said.contains("no active version"), "{said}");
}
