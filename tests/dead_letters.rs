//! What is rejected is listed, and goes back once after a fix.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;
use tracer_source::{KafkaConfig, Message, Scanned, SourceConfig, SpoolConfig, TopicName};

use common::Aggregator;

const GOOD: usize = 20;
/// Their label is longer than the limit that is configured at first.
const LONG: usize = 30;
const BROKEN: usize = 5;

struct World {
    directory: TempDir,
    source: SourceConfig,
    section: String,
    letters: TopicName,
}

impl World {
    fn configure(&self, max_label_bytes: usize) {
        let config = format!(
            "{}\n[store]\nurl = \"store\"\n[limits]\nmax_label_bytes = {max_label_bytes}\n\
             [aggregator]\nmax_age_ms = 50\ndead_letter_topic = \"{}\"\n",
            self.section, self.letters
        );
        fs::write(self.directory.path().join("tracer.toml"), config).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("TRACER_CONFIG");
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn letters(&self) -> Value {
        self.json(&["dead-letters", "list", "--json", "--limit", "3"])
    }

    fn replay(&self, flags: &[&str]) -> Value {
        self.json(&[&["dead-letters", "replay", "--json"], flags].concat())
    }

    fn rows(&self) -> u64 {
        let output = self.command(&["shards", "verify", "--json"]).output();
        let document: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        document["rows"].as_u64().unwrap()
    }

    /// Writes what is to be rejected among what is not.
    async fn produce(&self) {
        let writer = self.source.open_writer().unwrap();
        let topic = self.source.write_topic();
        let payloads = (0..GOOD + LONG + BROKEN).map(|n| match n {
            0..BROKEN => format!("not a trace {n}"),
            n if n < BROKEN + LONG => {
                format!(
                    r#"{{"id": "long-{n}", "input": "text {n}", "teacher": "a long label {n}"}}"#
                )
            }
            n => format!(r#"{{"id": "good-{n}", "input": "text {n}", "teacher": "short"}}"#),
        });
        let messages = payloads.map(Message::new).collect();
        writer.append_batch(&topic, messages).await.unwrap();
    }

    /// Everything that stands in the topic of traces.
    async fn records(&self) -> Vec<Scanned> {
        let mut scan = self.source.scan(&self.source.write_topic());
        let mut records = Vec::new();
        while let Some(scanned) = scan.recv().await {
            records.push(scanned.unwrap());
        }
        records
    }
}

#[tokio::test]
async fn dead_letters_on_the_spool_go_back_once() {
    let directory = TempDir::new().unwrap();
    let source = SourceConfig::Spool(SpoolConfig {
        path: directory.path().join("spool"),
        topics: vec![TopicName::default()],
        partitions: 2,
    });
    go_back_once(World {
        directory,
        source,
        section: "[source]\npath = \"spool\"\npartitions = 2".to_owned(),
        letters: TopicName::new("traces.dead-letters").unwrap(),
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn dead_letters_on_kafka_go_back_once() {
    let brokers = std::env::var("TRACER_TEST_KAFKA")
        .expect("TRACER_TEST_KAFKA is host:port of a Kafka broker");
    let name = format!("letters-{}", std::process::id());
    let source = SourceConfig::Kafka(KafkaConfig {
        brokers: brokers.clone(),
        topics: vec![TopicName::new(&name).unwrap()],
        group: name.clone(),
        ..KafkaConfig::default()
    });
    go_back_once(World {
        directory: TempDir::new().unwrap(),
        source,
        section: format!(
            "[source]\nkind = \"kafka\"\nbrokers = {brokers:?}\ntopics = [{name:?}]\ngroup = {name:?}"
        ),
        letters: TopicName::new(&format!("{name}.dead-letters")).unwrap(),
    })
    .await;
}

async fn go_back_once(world: World) {
    world.configure(10);
    world.produce().await;
    let mut aggregator = Aggregator::start(world.directory.path());
    let rejected = (LONG + BROKEN) as u64;
    aggregator.until("all are rejected", || {
        world.rows() == GOOD as u64 && world.letters()["letters"] == rejected
    });
    aggregator.stop();
    let listed = world.letters();
    assert_eq!(listed["by_reason"]["label_too_large"], LONG, "{listed:#}");
    assert_eq!(listed["by_state"]["new"], rejected);
    let shown = listed["shown"].as_array().unwrap();
    assert_eq!(shown.len(), 3);
    for letter in shown {
        assert_eq!(letter["topic"], world.source.write_topic().as_str());
        assert!(letter["rejected_at"].is_string() && letter["error"].is_string());
    }
    assert_eq!(
        world.json(&[
            "dead-letters",
            "list",
            "--json",
            "--since",
            "2100-01-01T00:00:00Z"
        ])["letters"],
        0
    );
    assert_eq!(
        world.json(&["dead-letters", "list", "--json", "--topic", "another"])["letters"],
        0
    );

    // The fix, and those it is for: a part of them, and then the rest.
    world.configure(256);
    let some = world.replay(&["--reason", "label_too_large", "--limit", "10"]);
    assert_eq!(
        (&some["sent"], &some["sent_before"]),
        (&10.into(), &0.into())
    );
    let rest = world.replay(&["--reason", "label_too_large"]);
    assert_eq!(rest["sent"], LONG - 10, "{rest:#}");
    assert_eq!(rest["by_reason"]["label_too_large"], LONG - 10);
    let none = world.replay(&["--reason", "label_too_large"]);
    assert_eq!(
        (&none["sent"], &none["sent_before"]),
        (&0.into(), &LONG.into())
    );
    let mut aggregator = Aggregator::start(world.directory.path());
    aggregator.until("the traces are there", || {
        world.rows() == (GOOD + LONG) as u64
    });

    // What is still wrong comes back, and does not go round for ever.
    assert_eq!(world.replay(&[])["sent"], BROKEN);
    aggregator.until("they have come back", || {
        world.letters()["by_state"]["came back"] == BROKEN
    });
    let back = world.replay(&[]);
    assert_eq!(
        (&back["sent"], &back["came_back"]),
        (&0.into(), &BROKEN.into()),
        "{back:#}"
    );
    let again = world.replay(&["--again"]);
    assert_eq!(again["sent"], BROKEN, "{again:#}");
    aggregator.until("they have come back again", || {
        world.letters()["letters"] == rejected + 2 * BROKEN as u64
    });
    aggregator.stop();
    assert_eq!(world.rows(), (GOOD + LONG) as u64);

    let records = world.records().await;
    assert_eq!(records.len(), GOOD + 2 * LONG + 3 * BROKEN);
    let replayed = |record: &&Scanned| {
        record
            .headers
            .iter()
            .any(|(name, _)| name == "tracer-replay-of")
    };
    if matches!(world.source, SourceConfig::Kafka(_)) {
        assert_eq!(records.iter().filter(replayed).count(), LONG + 2 * BROKEN);
    }
    let other = world.replay(&["--again", "--to", "elsewhere", "--limit", "1"]);
    assert_eq!(other["sent"], 1, "{other:#}");
}
