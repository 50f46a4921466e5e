//! Each failpoint by itself: a crash, an error or a pause before or after any durable
//! step loses no trace and writes none twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracer_source::{Message, PartitionId, SourceConfig, SpoolConfig, TopicName};
use tracer_store::{ShardLog, Store};

use crate::member::Member;

/// Where an aggregator on the spool comes by: nothing is ever revoked there.
const PLACES: &[&str] = &[
    "put_before",
    "put_after",
    "letters_before",
    "letters_after",
    "commit_before",
    "commit_after",
    "assign_before",
    "assign_after",
];

const ACTIONS: &[&str] = &["abort", "error", "pause 300"];

const RECORDS: usize = 100;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failpoint_by_itself_loses_and_repeats_nothing() {
    for place in PLACES {
        for action in ACTIONS {
            once(place, action).await;
        }
    }
}

async fn once(place: &str, action: &str) {
    let directory = TempDir::new().unwrap();
    let (spool, store) = (
        directory.path().join("spool"),
        directory.path().join("store"),
    );
    let source = SourceConfig::Spool(SpoolConfig {
        path: spool.clone(),
        topics: vec![TopicName::default()],
        partitions: 1,
    });
    let messages = (0..RECORDS).map(|n| {
        Message::new(if n % 10 == 3 {
            format!("no trace {n}")
        } else {
            format!(r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#)
        })
    });
    let writer = source.open_writer().unwrap();
    let topic = source.write_topic();
    writer
        .append_batch(&topic, messages.collect())
        .await
        .unwrap();

    let config = format!(
        "[source]\nkind = \"spool\"\npath = \"{}\"\n[store]\nurl = \"{}\"\n\
         [aggregator]\nmax_rows = 40\nmax_age_ms = 50\n[listen]\nhttp = \"127.0.0.1:0\"\n",
        spool.display(),
        store.display(),
    );
    let mut member = Member::new("m", directory.path(), &config, None);
    member.arm(place, action);
    member.start();
    let armed = member.failpoint(place);
    until(&format!("{place} is reached"), || !armed.exists());
    if action == "abort" {
        let mut status = None;
        until(&format!("{place} ends it"), || {
            status = member.ended();
            status.is_some()
        });
        assert!(
            member.crashed_as_told(status.unwrap()),
            "{}",
            member.story(status.unwrap())
        );
        member.start();
    }

    let shards = ShardLog::new(Store::open(store.to_str().unwrap(), &BTreeMap::new()).unwrap());
    // A spool counts in bytes: its end is the length of its file.
    let end = fs::metadata(spool.join("traces/00000.jsonl"))
        .unwrap()
        .len();
    let partition = PartitionId::new(topic, 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let position = shards.resume(&partition).await.unwrap().position();
        if position.is_some_and(|position| position.get() == end) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "after {action} at {place} the shards end at {position:?}, not {end}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    member.terminate().await.unwrap();

    let (mut ids, mut next) = (Vec::new(), 0);
    for shard in shards.shards(&partition).await.unwrap() {
        assert_eq!(shard.range.start.get(), next, "after {action} at {place}");
        next = shard.range.end.get();
        let rows = shards.read(&shard, None).await.unwrap();
        ids.extend(
            rows.into_iter()
                .map(|row| row.trace.id.parse::<usize>().unwrap()),
        );
    }
    ids.sort_unstable();
    let expected: Vec<_> = (0..RECORDS).filter(|n| n % 10 != 3).collect();
    assert_eq!(ids, expected, "after {action} at {place}");

    let letters = dead_letters(&spool);
    let about: BTreeSet<_> = letters.iter().collect();
    assert_eq!(about.len(), RECORDS / 10, "after {action} at {place}");
    // Twice only where a crash, or an answer that went unnoticed, lies in between.
    let again = matches!(
        (place, action),
        ("letters_after", "abort" | "error") | ("put_before", "abort")
    );
    assert!(
        again || letters.len() == about.len(),
        "after {action} at {place}: {letters:?}"
    );
}

/// The offsets that dead letters are about.
fn dead_letters(spool: &Path) -> Vec<u64> {
    let lines = fs::read_to_string(spool.join("traces.dead-letters/00000.jsonl")).unwrap();
    lines
        .lines()
        .map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            letter["offset"].as_u64().unwrap()
        })
        .collect()
}

fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
