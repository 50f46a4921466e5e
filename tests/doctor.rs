//! `tracer doctor`, `config` and `health` as processes of their own: before real brokers
//! and a real S3 server, and before nothing.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "common/acl.rs"]
mod acl;
mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use acl::{ALL, ALLOW, DENY, GROUP, READ, TOPIC, WRITE, acl, no_acl};
use common::{PATIENCE, Up};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::Value;

const SECRET: &str = "a-secret-nobody-may-see-31415926";

fn tracer(directory: &Path, args: &[&str], variables: &BTreeMap<String, String>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(args)
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .envs(variables)
        .output()
        .unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (format!("TRACER__{key}"), (*value).to_owned()))
        .collect()
}

/// What a doctor found.
struct Found {
    code: i32,
    document: Value,
    said: String,
}

impl Found {
    fn by(role: &str, variables: &BTreeMap<String, String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let args = ["doctor", "--json", "--role", role, "--timeout-ms", "30000"];
        let output = tracer(directory.path(), &args, variables);
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        let document = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{errors}"));
        let said = said + &errors;
        assert!(!said.contains(SECRET), "the secret is told: {said}");
        Self {
            code: output.status.code().unwrap(),
            document,
            said,
        }
    }

    /// The status of a check, what was found, and what to do.
    fn the(&self, check: &str) -> (&str, &str, &str) {
        let all = self.document["findings"].as_array().unwrap();
        let found = all
            .iter()
            .find(|finding| finding["check"].as_str().unwrap().starts_with(check));
        let found = found.unwrap_or_else(|| panic!("no {check}: {}", self.said));
        let of = |key: &str| found[key].as_str().unwrap_or_default();
        (of("status"), of("found"), of("remedy"))
    }

    fn passes(&self, check: &str) {
        assert_eq!(self.the(check).0, "ok", "{check}: {}", self.said);
    }

    fn fails(&self, check: &str, found: &str, remedy: &str) {
        assert_eq!(self.code, 1, "{}", self.said);
        let finding = self.the(check);
        let fits = finding.0 == "failed" && finding.1.contains(found) && finding.2.contains(remedy);
        assert!(fits, "{check}: {}", self.said);
    }
}

fn kafka() -> String {
    std::env::var("TRACER_TEST_KAFKA").expect("TRACER_TEST_KAFKA is the address of a broker")
}

fn unique(name: &str) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!("doctor-{name}-{}", now.as_nanos())
}

/// Makes topics of two partitions.
fn make(brokers: &str, names: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .unwrap();
        let topics = names.iter();
        let topics: Vec<_> = topics
            .map(|name| NewTopic::new(name, 2, TopicReplication::Fixed(1)))
            .collect();
        let made = admin.create_topics(&topics, &AdminOptions::new()).await;
        for made in made.unwrap() {
            made.unwrap();
        }
    });
}

fn observer(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .create()
        .unwrap()
}

/// Nothing was written to a topic, and a group has no position in it.
fn untouched(brokers: &str, topics: &[&str], group: &str) {
    let observer = observer(brokers, group);
    for topic in topics {
        let mut list = TopicPartitionList::new();
        for partition in 0..2 {
            let (low, high) = observer
                .fetch_watermarks(topic, partition, PATIENCE)
                .unwrap();
            assert_eq!((low, high), (0, 0), "{topic}/{partition} was written to");
            list.add_partition(topic, partition);
        }
        let committed = observer.committed_offsets(list, PATIENCE).unwrap();
        for element in committed.elements() {
            assert_eq!(element.offset(), rdkafka::Offset::Invalid, "{topic}");
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka: tests/run kafka"]
fn kafka_that_is_in_order_passes_and_is_left_as_it_was() {
    let (topic, dead) = (unique("traces"), unique("dead"));
    make(&kafka(), &[&topic, &dead]);
    let found = Found::by(
        "all",
        &variables(&[
            ("SOURCE__KIND", "kafka"),
            ("SOURCE__BROKERS", &kafka()),
            ("SOURCE__TOPICS", &format!("[{topic:?}]")),
            ("SOURCE__GROUP", &topic),
            ("AGGREGATOR__DEAD_LETTER_TOPIC", &dead),
            ("STORE__URL", "memory://"),
        ]),
    );
    assert_eq!(found.code, 0, "{}", found.said);
    for check in [
        "kafka: reached",
        &format!("kafka: topic {topic}"),
        &format!("kafka: topic {dead}"),
        &format!("kafka: read {topic}"),
        &format!("kafka: group {topic}"),
        &format!("kafka: write {topic} (Record)"),
        &format!("kafka: write {dead} (dead letters)"),
    ] {
        found.passes(check);
    }
    untouched(&kafka(), &[&topic, &dead], &topic);
}

#[test]
#[ignore = "needs Apache Kafka: tests/run kafka"]
fn kafka_without_the_topic_fails_and_the_topic_is_not_made() {
    let topic = unique("missing");
    let found = Found::by(
        "all",
        &variables(&[
            ("SOURCE__KIND", "kafka"),
            ("SOURCE__BROKERS", &kafka()),
            ("SOURCE__TOPICS", &format!("[{topic:?}]")),
            ("STORE__URL", "memory://"),
        ]),
    );
    let check = format!("kafka: topic {topic}");
    found.fails(&check, "no such topic", "--create --topic");
    let metadata = observer(&kafka(), "doctor").fetch_metadata(None, PATIENCE);
    let metadata = metadata.unwrap();
    let made = metadata.topics().iter().any(|found| found.name() == topic);
    assert!(!made, "it was made");
}

fn home() -> PathBuf {
    std::env::var("TRACER_TEST_SECURE_KAFKA")
        .expect("TRACER_TEST_SECURE_KAFKA is the directory of a broker with TLS and SASL")
        .into()
}

fn text(name: &str) -> String {
    let text = fs::read_to_string(home().join(name)).unwrap();
    text.trim().to_owned()
}

/// Of the broker that asks who one is.
fn secured(topic: &str, dead: &str) -> BTreeMap<String, String> {
    let file = |name: &str| home().join(name).display().to_string();
    variables(&[
        ("SOURCE__KIND", "kafka"),
        ("SOURCE__BROKERS", &text("sasl")),
        ("SOURCE__TOPICS", &format!("[{topic:?}]")),
        ("SOURCE__GROUP", topic),
        ("SOURCE__TLS__CA", &file("ca.pem")),
        ("SOURCE__SASL__MECHANISM", "SCRAM-SHA-512"),
        ("SOURCE__SASL__USERNAME", "tracer"),
        ("SOURCE__SASL__PASSWORD_FILE", &file("password")),
        ("AGGREGATOR__DEAD_LETTER_TOPIC", dead),
        ("STORE__URL", "memory://"),
    ])
}

#[test]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
fn kafka_security_says_what_access_lists_deny() {
    let (topic, dead) = (unique("traces"), unique("dead"));
    let broker = text("plaintext");
    make(&broker, &[&topic, &dead]);
    let variables = secured(&topic, &dead);
    let read = format!("kafka: read {topic}");
    let group = format!("kafka: group {topic}");
    let write = format!("kafka: write {dead}");
    let record = format!("kafka: write {topic}");
    let found = Found::by("all", &variables);
    assert_eq!(found.code, 0, "{}", found.said);
    for check in [&read, &group, &write, &record] {
        found.passes(check);
    }
    // The certificates of the tests hold for two days.
    assert_eq!(found.the("certificates: source.tls.ca").0, "warning");

    for (resource, name, operation, check, remedy) in [
        (TOPIC, &topic, READ, &read, "READ on the topic"),
        (GROUP, &topic, READ, &group, "READ on the group"),
        (TOPIC, &dead, WRITE, &write, "WRITE on the topic"),
        (TOPIC, &topic, WRITE, &record, "WRITE on the topic"),
    ] {
        acl(resource, name, "User:tracer", operation, DENY);
        // Whoever is on a list is on none of the others.
        acl(resource, name, "User:*", ALL, ALLOW);
        let found = Found::by("all", &variables);
        found.fails(check, "access lists deny", remedy);
        let others = [&read, &group, &write, &record];
        // To read needs READ of the topic, and so does a commit.
        let both = [&read, &group];
        for other in others {
            let also = *check == read && both.contains(&other);
            if other != check && !also {
                found.passes(other);
            }
        }
        no_acl(resource, name);
    }
    untouched(&broker, &[&topic, &dead], &topic);
}

#[test]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
fn kafka_security_tells_refusals_in_plain_words() {
    let (topic, dead) = (unique("traces"), unique("dead"));
    let mut wrong = secured(&topic, &dead);
    wrong.remove("TRACER__SOURCE__SASL__PASSWORD_FILE");
    wrong.insert("TRACER__SOURCE__SASL__PASSWORD".into(), SECRET.into());
    let found = Found::by("aggregator", &wrong);
    found.fails(
        "kafka: reached",
        "refuses the login",
        "source.sasl.username",
    );

    let mut stranger = secured(&topic, &dead);
    let ca = home().join("stranger.pem").display().to_string();
    stranger.insert("TRACER__SOURCE__TLS__CA".into(), ca);
    let found = Found::by("aggregator", &stranger);
    found.fails(
        "kafka: reached",
        "not signed by an authority",
        "source.tls.ca",
    );

    // TLS where there is none, and none where there is.
    let mut plain = secured(&topic, &dead);
    plain.insert("TRACER__SOURCE__BROKERS".into(), text("plaintext"));
    let found = Found::by("aggregator", &plain);
    found.fails("kafka: reached", "TLS", "source.tls");
    let open = variables(&[
        ("SOURCE__KIND", "kafka"),
        ("SOURCE__BROKERS", &text("sasl")),
        ("STORE__URL", "memory://"),
    ]);
    let found = Found::by("aggregator", &open);
    found.fails("kafka: reached", "", "source.tls");

    // A listener that wants a certificate of ours.
    let mut mutual = secured(&topic, &dead);
    mutual.retain(|key, _| !key.contains("SASL"));
    mutual.insert("TRACER__SOURCE__BROKERS".into(), text("mtls"));
    let found = Found::by("aggregator", &mutual);
    found.fails("kafka: reached", "", "source.tls.certificate");
}

/// The S3 server of `tests/run`, and a bucket of it.
fn s3(bucket: &str) -> BTreeMap<String, String> {
    let endpoint =
        std::env::var("TRACER_TEST_S3").expect("TRACER_TEST_S3 is the endpoint of an S3 server");
    let directory = std::env::temp_dir().display().to_string();
    variables(&[
        ("STORE__URL", &format!("s3://{bucket}/{}", unique("store"))),
        ("STORE__OPTIONS__ENDPOINT", &endpoint),
        ("STORE__OPTIONS__ALLOW_HTTP", "\"true\""),
        ("SOURCE__PATH", &directory),
    ])
}

#[test]
#[ignore = "needs an S3 server: tests/run s3"]
fn s3_that_is_in_order_passes() {
    let bucket = std::env::var("TRACER_TEST_S3_BUCKET").unwrap_or_else(|_| "tracer-tests".into());
    let found = Found::by("all", &s3(&bucket));
    assert_eq!(found.code, 0, "{}", found.said);
    for check in [
        "store: put-if-absent",
        "store: put-if-absent at the same time",
        "store: listing",
        "store: delete",
        "clock",
    ] {
        found.passes(check);
    }
}

#[test]
#[ignore = "needs an S3 server: tests/run s3"]
fn s3_that_refuses_is_told_with_what_to_do() {
    let found = Found::by("trainer", &s3("no-such-bucket"));
    found.fails("store: reached", "NoSuchBucket", "make the bucket");
    let mut wrong = s3("tracer-tests");
    let key = "TRACER__STORE__OPTIONS__SECRET_ACCESS_KEY";
    wrong.insert(key.into(), SECRET.into());
    let found = Found::by("trainer", &wrong);
    found.fails("store: reached", "", "credentials");
}

#[test]
fn a_doctor_of_a_new_machine_says_what_is_missing_and_how_to_help_it() {
    let directory = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let output = tracer(directory.path(), &["doctor"], &none);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED     store: directory"), "{said}");
    assert!(said.contains("mkdir -p"), "{said}");
    for made in ["store", "spool"] {
        fs::create_dir_all(directory.path().join("tracer-data").join(made)).unwrap();
    }
    let output = tracer(directory.path(), &["doctor"], &none);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(", 0 failed"), "{said}");

    let bad = variables(&[("TRAINER__LEASE_MS", "7")]);
    let output = tracer(directory.path(), &["doctor"], &bad);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let bad = variables(&[
        ("TRAINER__LEASE_MS", "7"),
        ("TASKS__MAIL__FOLDS", "99"),
        ("STORE__OPTIONS__ACCESS_KEY_ID", "id"),
        ("STORE__OPTIONS__SECRET_ACCESS_KEY", SECRET),
        ("STORE__URL", "s3://bucket"),
    ]);
    let output = tracer(directory.path(), &["config", "check", "--json"], &bad);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["ok"], false);
    let problems = document["problems"].as_array().unwrap();
    let keys: Vec<_> = problems
        .iter()
        .map(|p| p["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["tasks.mail.folds", "trainer.lease_ms"]);
    assert_eq!(problems[0]["from"], "TRACER__TASKS__MAIL__FOLDS");
    assert_eq!(problems[0]["allowed"], "whole number, 2 to 20");

    let good = variables(&[
        ("STORE__OPTIONS__ACCESS_KEY_ID", "id"),
        ("STORE__OPTIONS__SECRET_ACCESS_KEY", SECRET),
        ("STORE__URL", "s3://bucket"),
    ]);
    let output = tracer(directory.path(), &["config", "check"], &good);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let output = tracer(directory.path(), &["config", "show", "--set"], &good);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        "store.options.access_key_id = [hidden]  # TRACER__STORE__OPTIONS__ACCESS_KEY_ID\nstore.options.secret_access_key = [hidden]  # TRACER__STORE__OPTIONS__SECRET_ACCESS_KEY\nstore.url = \"s3://bucket\"  # TRACER__STORE__URL\n"
    );
    let output = tracer(directory.path(), &["config", "reference"], &BTreeMap::new());
    let reference = include_str!("../docs/config.md");
    assert!(String::from_utf8(output.stdout).unwrap() == reference);
}

#[test]
fn a_running_service_is_healthy_and_one_that_is_not_there_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let url = format!("http://{}/readyz", up.http());
    let deadline = Instant::now() + PATIENCE;
    let asked = |args: &[&str]| tracer(directory.path(), args, &BTreeMap::new());
    loop {
        let output = asked(&["health", "--url", &url]);
        let said = String::from_utf8(output.stdout).unwrap();
        if output.status.code() == Some(0) {
            assert!(said.starts_with("ready"), "{said}");
            break;
        }
        assert!(Instant::now() < deadline, "it is never ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Where it is configured to listen.
    let http = variables(&[("LISTEN__HTTP", up.http())]);
    let output = tracer(directory.path(), &["health", "--live"], &http);
    assert_eq!(output.status.code(), Some(0));
    up.stop();
    let output = asked(&["health", "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nothing answers"), "{said}");
}
