//! What an operator relies on, on real Kafka: lag, patterns, membership, resets, stalls.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{collections::BTreeSet, fs, time::Duration};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::time::{Instant, sleep};
use tracer_aggregator::AggregatorConfig;
use tracer_source::{
    KafkaConfig, Message, Offset, PartitionId, SourceConfig, TopicName, TopicPattern,
};

use crate::common::{
    Member, World, all_lost, brokers, create, fill, ids, recreate, remove_before, start,
    start_with, until,
};

const TIMEOUT: Duration = Duration::from_secs(10);

fn kafka(source: &SourceConfig) -> KafkaConfig {
    let SourceConfig::Kafka(kafka) = source else {
        panic!("not kafka");
    };
    kafka.clone()
}

/// What ordinary lag tools see: the group's offsets and the ends of the partitions.
struct Observer(BaseConsumer, String);

impl Observer {
    fn of(group: &str, topic: &str) -> Self {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", group)
            .create()
            .unwrap();
        Self(consumer, topic.to_owned())
    }

    fn lag(&self, partition: i32) -> Option<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.1, partition);
        let committed = self.0.committed_offsets(list, TIMEOUT).ok()?;
        let rdkafka::Offset::Offset(committed) = committed.elements()[0].offset() else {
            return None;
        };
        let (_, end) = self.0.fetch_watermarks(&self.1, partition, TIMEOUT).ok()?;
        Some(end - committed)
    }

    /// The names the broker knows the group's members by.
    fn members(&self, group: &str) -> BTreeSet<String> {
        let list = self.0.fetch_group_list(Some(group), TIMEOUT).unwrap();
        let groups = list.groups();
        let members = groups.iter().flat_map(rdkafka::groups::GroupInfo::members);
        members.map(|member| member.id().to_owned()).collect()
    }
}

fn series(member: &Member, start: &str) -> Option<f64> {
    let text = member.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.and_then(|rest| rest.trim().parse().ok())
}

fn lag(member: &Member, topic: &str, partition: i32) -> Option<f64> {
    let start = format!(r#"tracer_consumer_lag{{topic="{topic}",partition="{partition}"}}"#);
    series(member, &start)
}

/// Marks of transactions stand in the log and are no records: they are no lag, neither
/// for us nor for the tools that look at the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_lag_is_none_once_all_is_stored_marks_of_transactions_included() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("marks");
    create(&name, 2, &[]).await;
    let topic = name.clone();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("transactional.id", &topic)
            .create()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        for (from, commits) in [(0, true), (30, true), (60, false)] {
            producer.begin_transaction().unwrap();
            for n in from..from + 30 {
                let line = format!(r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#);
                let record = BaseRecord::<(), str>::to(&topic)
                    .payload(&line)
                    .partition(n % 2);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(TIMEOUT).unwrap();
            if commits {
                producer.commit_transaction(TIMEOUT).unwrap();
            } else {
                producer.abort_transaction(TIMEOUT).unwrap();
            }
        }
    })
    .await
    .unwrap();
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 60).await;
    let observer = Observer::of(&name, &name);
    for partition in 0..2 {
        until("our lag is none", async || {
            lag(&member, &name, partition) == Some(0.0)
        })
        .await;
        until("the group's lag is none", async || {
            observer.lag(partition) == Some(0)
        })
        .await;
    }
    member.stop().await;
    assert_eq!(ids(&log).await.len(), 60);
}

/// A partition that is paused tells its end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_lag_grows_while_the_store_stands_still_and_nobody_is_thrown_out() {
    let World {
        name,
        directory,
        source,
        log,
        dead: _,
    } = World::new("stalled");
    create(&name, 1, &[]).await;
    fill(&source, 0..50).await;
    let mut config = kafka(&source);
    // Whoever does not poll for so long is thrown out of the group.
    let limits = [
        ("max.poll.interval.ms", "6000"),
        ("session.timeout.ms", "6000"),
    ];
    config.properties = limits.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let member = start_with(
        &SourceConfig::Kafka(config),
        log.clone(),
        AggregatorConfig {
            max_rows: 50,
            max_age_ms: 50,
            max_buffered_bytes: 20_000,
            dead_letter_topic: None,
            ..AggregatorConfig::default()
        },
    );
    until("all is stored", async || ids(&log).await.len() == 50).await;
    let observer = Observer::of(&name, &name);
    let before = observer.members(&name);
    assert_eq!(before.len(), 1);

    // The store takes nothing: the place of the partition is a file.
    let place = directory.path().join("traces").join(&name);
    let aside = directory.path().join("aside");
    fs::rename(&place, &aside).unwrap();
    fs::write(&place, "in the way").unwrap();
    fill(&source, 50..2000).await;
    until("it is said", async || {
        let ready = member.health.ready();
        ready.is_err_and(|details| details[0].contains("cannot write a shard"))
    })
    .await;
    until("the lag is told of a paused partition", async || {
        lag(&member, &name, 0) == Some(1950.0)
    })
    .await;
    // Time itself is the point here: twice as long as a member may be silent.
    sleep(Duration::from_secs(13)).await;
    fill(&source, 2000..2100).await;
    until("what came meanwhile as well", async || {
        lag(&member, &name, 0) == Some(2050.0)
    })
    .await;
    assert_eq!(observer.members(&name), before, "it is another member now");
    let bytes = series(&member, "tracer_consumer_queue_bytes").unwrap();
    assert!(bytes <= f64::from(32 << 20), "{bytes} bytes are read ahead");

    fs::remove_file(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    until("all is stored", async || ids(&log).await.len() >= 2100).await;
    until("it is ready", async || member.health.ready().is_ok()).await;
    assert_eq!(observer.members(&name), before);
    member.stop().await;
    let stored = ids(&log).await;
    assert_eq!(stored.len(), 2100);
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>().len(), 2100);
    assert_eq!(observer.lag(0), Some(0));
}

/// Topics that a pattern fits are read, those that come later too, and dead letters never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_topics_are_read_by_pattern_but_for_those_that_are_excluded() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        ..
    } = World::new("pattern");
    let (first, second) = (format!("{name}.first"), format!("{name}.second"));
    let dead = TopicName::new(&format!("{name}.dead")).unwrap();
    create(&first, 1, &[]).await;
    create(dead.as_str(), 1, &[]).await;
    let write = |topic: &str| {
        let mut config = kafka(&source);
        config.topics = Vec::new();
        config.patterns = vec![TopicPattern::new(&format!("^{name}\\..*")).unwrap()];
        config.write_topic = Some(TopicName::new(topic).unwrap());
        SourceConfig::Kafka(config)
    };
    let mut config = write(&first);
    config.exclude(&dead);
    fill(&config, 0..20).await;
    let bad = Message::new("no trace");
    let writer = config.open_writer().unwrap();
    writer.append(&config.write_topic(), bad).await.unwrap();
    let member = start(&config, log.clone(), dead.as_str());
    until("the first is stored", async || ids(&log).await.len() == 20).await;
    create(&second, 1, &[]).await;
    fill(&write(&second), 20..50).await;
    until("the second is stored", async || ids(&log).await.len() == 50).await;
    until("the bad one is rejected", async || {
        series(
            &member,
            r#"tracer_traces_rejected_total{reason="malformed_json"}"#,
        ) == Some(1.0)
    })
    .await;
    member.stop().await;
    let read: BTreeSet<String> = log
        .partitions()
        .await
        .unwrap()
        .into_iter()
        .map(|partition| partition.topic.as_str().to_owned())
        .collect();
    assert_eq!(read, BTreeSet::from([first, second]));
}

/// A member with a name of its own comes back to its partitions, and the other one never
/// notices; a second one of the same name puts the first out, which says so and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_members_with_names_come_back_to_their_partitions() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("static");
    create(&name, 2, &[]).await;
    let named = |id: &str| {
        let mut config = kafka(&source);
        config.instance_id = Some(id.to_owned());
        start(&SourceConfig::Kafka(config), log.clone(), &dead)
    };
    let owns = |member: &Member| -> BTreeSet<i32> {
        let owned = |partition: &i32| lag(member, &name, *partition).is_some();
        (0..2).filter(owned).collect()
    };
    let (one, two) = (named("one"), named("two"));
    fill(&source, 0..100).await;
    until("all is stored", async || ids(&log).await.len() == 100).await;
    until("each has one", async || {
        !owns(&two).is_empty() && lag(&two, &name, *owns(&two).first().unwrap()) == Some(0.0)
    })
    .await;
    let observer = Observer::of(&name, &name);
    let members = observer.members(&name);
    assert_eq!(members.len(), 2);
    one.stop().await;
    assert_eq!(observer.members(&name), members, "it has left the group");
    let one = named("one");
    fill(&source, 100..200).await;
    until("all is stored", async || ids(&log).await.len() == 200).await;

    let usurper = named("one");
    let ended = tokio::time::timeout(Duration::from_mins(1), one.task).await;
    let error = ended.expect("it ends").unwrap().unwrap_err().to_string();
    assert!(error.to_lowercase().contains("fenced"), "{error}");
    fill(&source, 200..300).await;
    until("all is stored", async || ids(&log).await.len() == 300).await;
    usurper.stop().await;
    two.stop().await;
    let stored = ids(&log).await;
    assert_eq!(stored.iter().collect::<BTreeSet<_>>().len(), stored.len());
}

/// Retention removed what was not read: it is said, and goes on when somebody decides so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_retention_that_removed_too_much_waits_for_a_decision() {
    let World {
        name,
        directory,
        source,
        log,
        dead,
    } = World::new("gap");
    create(&name, 1, &[]).await;
    fill(&source, 0..100).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 100).await;
    member.stop().await;
    fill(&source, 100..200).await;
    remove_before(&name, 150).await;
    let member = start(&source, log.clone(), &dead);
    until("it is said", async || {
        let ready = member.health.ready();
        ready.is_err_and(|details| details[0].contains("reset --to beginning"))
    })
    .await;
    // Decided elsewhere, by a process that shares nothing but the store.
    let partition = PartitionId::new(source.write_topic(), 0);
    let elsewhere = common::shards(&directory);
    let reset = elsewhere
        .reset(&partition, Offset(150), "a test", "retention was too short")
        .await
        .unwrap();
    assert_eq!((reset.next, reset.shift()), (Offset(150), 0));
    until("the rest is stored", async || ids(&log).await.len() == 150).await;
    until("it is ready", async || member.health.ready().is_ok()).await;
    member.stop().await;
    assert_eq!(Observer::of(&name, &name).lag(0), Some(0));
    let decided = log.resets(&partition).await.unwrap();
    assert_eq!(decided[0].reason, "retention was too short");
}

/// A topic that was created anew is read from its first record once somebody decides so,
/// and its traces follow the old ones; again, and across restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_kafka_topic_created_anew_is_read_after_a_decision() {
    let World {
        name,
        directory,
        source,
        log,
        dead,
    } = World::new("anew-reset");
    create(&name, 3, &[]).await;
    fill(&source, 0..100).await;
    let mut count = 100;
    let mut member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 100).await;
    member.stop().await;
    // Longer than before, then shorter.
    for more in [300, 50] {
        recreate(&name).await;
        fill(&source, count..count + more).await;
        member = start(&source, log.clone(), &dead);
        all_lost(&member, &name).await;
        let elsewhere = common::shards(&directory);
        for number in 0..3 {
            let partition = PartitionId::new(source.write_topic(), number);
            let reset = elsewhere
                .reset(&partition, Offset::ZERO, "a test", "created anew")
                .await
                .unwrap();
            assert!(reset.shift() > 0);
        }
        count += more;
        until("the new ones are stored", async || {
            ids(&log).await.len() == count
        })
        .await;
        until("it is ready", async || member.health.ready().is_ok()).await;
        member.stop().await;
        // A restart finds the decision in the store.
        fill(&source, count..count + 30).await;
        count += 30;
        member = start(&source, log.clone(), &dead);
        until("those after it are stored", async || {
            ids(&log).await.len() == count
        })
        .await;
        let observer = Observer::of(&name, &name);
        for number in 0..3 {
            until("the group knows", async || observer.lag(number) == Some(0)).await;
        }
        member.stop().await;
    }
    let stored = ids(&log).await;
    assert_eq!(stored.len(), count);
    let distinct: BTreeSet<_> = stored.into_iter().collect();
    assert_eq!(distinct, (0..count).map(|n| n.to_string()).collect());
}

/// A topic that is gone is said, and so is that it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_kafka_topic_that_is_gone_is_said() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("gone");
    let member = start(&source, log.clone(), &dead);
    until("it is said", async || {
        let ready = member.health.ready();
        ready.is_err_and(|details| details[0].contains(&format!("there is no topic {name}")))
    })
    .await;
    assert_eq!(series(&member, "tracer_consumer_failing"), Some(1.0));
    create(&name, 1, &[]).await;
    until("it is ready", async || member.health.ready().is_ok()).await;
    let deadline = Instant::now() + common::DEADLINE;
    while series(&member, "tracer_consumer_failing") != Some(0.0) {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(100)).await;
    }
    member.stop().await;
}
