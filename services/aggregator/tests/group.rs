//! Aggregators of one consumer group on real Kafka.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminOptions, NewPartitions},
    consumer::{Consumer as _, StreamConsumer},
    message::Headers as _,
};
use tokio::time::{Instant, sleep, timeout};
use tracer_source::{Event, Message, PartitionId, Start};

use crate::common::{
    DEADLINE, Member, World, admin, all_lost, brokers, create, fill, ids, recreate, remove_before,
    shards, start, until,
};

/// Members come and go while traces are written: partitions change hands all the
/// time, and every trace is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn members_of_a_kafka_group_come_and_go() {
    let World {
        name: _,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("group");
    let (writer, topic) = (source.open_writer().unwrap(), source.write_topic());
    let mut members = Vec::new();
    let mut count = 0;
    for round in 0..8 {
        // Two join and one leaves, then one joins and two leave.
        let (join, leave) = if round % 2 == 0 { (2, 1) } else { (1, 2) };
        for _ in 0..join {
            members.push(start(&source, log.clone(), &dead));
        }
        for _ in 0..20 {
            let messages = (count..count + 20).map(|n| {
                let payload =
                    format!(r#"{{"id": "{n}", "input": "text {n}", "teacher": "label"}}"#);
                Message::new(payload).with_key(n.to_string())
            });
            writer
                .append_batch(&topic, messages.collect())
                .await
                .unwrap();
            count += 20;
            sleep(Duration::from_millis(40)).await;
        }
        for _ in 0..leave.min(members.len() - 1) {
            members.remove(0).stop().await;
        }
    }
    let end = Instant::now() + DEADLINE;
    while ids(&log).await.len() < count {
        assert!(Instant::now() < end, "{} of {count}", ids(&log).await.len());
        sleep(Duration::from_millis(100)).await;
    }
    for member in members {
        member.stop().await;
    }
    let stored = ids(&log).await;
    assert_eq!(stored.len(), count);
    let stored: BTreeSet<_> = stored.into_iter().collect();
    assert_eq!(stored, (0..count).map(|n| n.to_string()).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn dead_letters_on_kafka_carry_their_bytes_and_origin() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("letters");
    let payload: &[u8] = &[b'{', 0, 159, b'\n', 255];
    let (place, offset) = source
        .open_writer()
        .unwrap()
        .append(&source.write_topic(), Message::new(payload))
        .await
        .unwrap();
    let member = start(&source, log, &dead);

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", format!("{name}.reader"))
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()
        .unwrap();
    consumer.subscribe(&[&dead]).unwrap();
    let end = Instant::now() + DEADLINE;
    let letter = loop {
        // The topic does not exist at first.
        if let Ok(Ok(letter)) = tokio::time::timeout_at(end, consumer.recv()).await {
            break letter;
        }
        assert!(Instant::now() < end, "no dead letter");
    };
    assert_eq!(letter.payload(), Some(payload));
    let headers: BTreeMap<_, _> = letter
        .headers()
        .unwrap()
        .iter()
        .map(|header| {
            let value = std::str::from_utf8(header.value.unwrap()).unwrap();
            (header.key.to_owned(), value.to_owned())
        })
        .collect();
    assert_eq!(headers["tracer.topic"], name);
    assert_eq!(headers["tracer.partition"], place.partition.to_string());
    assert_eq!(headers["tracer.offset"], offset.to_string());
    assert_eq!(headers["tracer.reason"], "malformed_json");
    assert!(headers["tracer.error"].contains("malformed JSON"));
    member.stop().await;
}

/// A topic that is deleted, created anew and longer than before holds every old
/// position. Its records must not be taken for what follows the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_longer_kafka_topic_created_anew_is_a_clear_state() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("anew");
    create(&name, 3, &[]).await;
    fill(&source, 0..100).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 100).await;
    member.stop().await;

    recreate(&name).await;
    fill(&source, 0..300).await;
    let member = start(&source, log.clone(), &dead);
    all_lost(&member, &name).await;
    let details = member.health.ready().unwrap_err();
    assert!(details[0].contains("created anew"), "{details:?}");
    member.stop().await;
    assert_eq!(ids(&log).await.len(), 100);
}

/// Retention may remove the record before the position and no more: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn kafka_retention_up_to_the_position_is_no_loss() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("retained");
    create(&name, 1, &[]).await;
    fill(&source, 0..100).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 100).await;
    member.stop().await;
    fill(&source, 100..150).await;
    remove_before(&name, 100).await;
    let member = start(&source, log.clone(), &dead);
    until("the rest is stored", async || ids(&log).await.len() == 150).await;
    assert!(member.health.ready().is_ok());
    member.stop().await;
}

/// A shard that cannot be read keeps its partition from being read, wherever the
/// partition goes, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_damaged_shard_stops_its_own_kafka_partition_only() {
    let World {
        name,
        directory,
        source,
        log,
        dead,
    } = World::new("damaged");
    create(&name, 3, &[]).await;
    fill(&source, 0..300).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 300).await;
    member.stop().await;
    let victim = PartitionId::new(source.write_topic(), 1);
    let shard = directory
        .path()
        .join(&log.shards(&victim).await.unwrap()[0].path);
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, "damaged").unwrap();
    fill(&source, 300..600).await;

    // Without a cache of footers, as another process.
    let consumed = |member: &Member| {
        let text = member.metrics.render();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("tracer_traces_consumed_total "));
        value.map_or(0, |value| value.parse::<usize>().unwrap())
    };
    let first = start(&source, shards(&directory), &dead);
    until("the others are read", async || consumed(&first) > 150).await;
    until("it is said", async || {
        let ready = first.health.ready();
        ready.is_err_and(|details| details[0].contains("damaged"))
    })
    .await;
    // The group hands partitions over, the waiting one among them or not.
    let second = start(&source, shards(&directory), &dead);
    until("it has joined", async || {
        second.metrics.render().contains("partition=")
    })
    .await;
    first.stop().await;
    until("it is said again", async || {
        let ready = second.health.ready();
        ready.is_err_and(|details| details[0].contains("damaged"))
    })
    .await;
    fs::write(&shard, whole).unwrap();
    until("all is stored", async || ids(&log).await.len() >= 600).await;
    until("it is ready", async || second.health.ready().is_ok()).await;
    second.stop().await;
    let stored = ids(&log).await;
    assert_eq!(stored.len(), 600);
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>().len(), 600);
}

/// A topic that comes into being after the aggregator, and a partition that is added
/// to it, are found without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_kafka_topic_created_later_is_found_and_so_is_its_new_partition() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("later");
    let member = start(&source, log.clone(), &dead);
    // Long enough to have asked for the topic and been told that there is none.
    let early = timeout(Duration::from_secs(3), async {
        until("something is stored", async || !ids(&log).await.is_empty()).await;
    });
    assert!(early.await.is_err());
    create(&name, 2, &[]).await;
    fill(&source, 0..50).await;
    until("all is stored", async || ids(&log).await.len() == 50).await;
    admin()
        .create_partitions([&NewPartitions::new(&name, 3)], &AdminOptions::new())
        .await
        .unwrap()[0]
        .clone()
        .unwrap();
    fill(&source, 50..150).await;
    until("all is stored", async || ids(&log).await.len() == 150).await;
    let added = PartitionId::new(source.write_topic(), 2);
    assert!(log.resume(&added).await.unwrap().last.is_some());
    member.stop().await;
}

/// The dead-letter topic takes less than the topic of traces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_dead_letter_too_large_for_its_kafka_topic_is_cut() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("cut");
    create(&name, 1, &[]).await;
    create(&dead, 1, &[("max.message.bytes", "5000")]).await;
    let mut noise = 1_u64;
    let large: Vec<u8> = (0..100_000)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .collect();
    let bad = [b"not one".to_vec(), large.clone(), b"nor two".to_vec()];
    let writer = source.open_writer().unwrap();
    for payload in &bad {
        let message = Message::new(payload.clone());
        writer.append(&source.write_topic(), message).await.unwrap();
    }
    fill(&source, 0..50).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 50).await;
    member.stop().await;

    let mut letters = common::source(&dead).open_source().unwrap();
    let mut read = Vec::new();
    while read.len() < bad.len() {
        match timeout(DEADLINE, letters.next())
            .await
            .expect("letters")
            .unwrap()
        {
            Event::Assigned(partitions) => {
                let starts: Vec<_> = partitions
                    .into_iter()
                    .map(|p| (p, Start::Beginning))
                    .collect();
                letters.assign(&starts).await.unwrap();
            }
            Event::Records(records) => read.extend(records.into_iter().map(|r| r.payload)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    let silence = timeout(Duration::from_secs(2), letters.next()).await;
    assert!(silence.is_err(), "more letters than there are");
    letters.close().await;
    read.sort_by_key(bytes::Bytes::len);
    assert_eq!(read[0], "not one");
    assert_eq!(read[1], "nor two");
    assert!(read[2].len() > 1000 && large.starts_with(&read[2]));
}

/// The same while an aggregator reads it. The new topic is filled once the
/// aggregator has found it too short, or it would be the case that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_kafka_topic_created_anew_under_a_reader_is_a_clear_state() {
    let World {
        name,
        directory: _directory,
        source,
        log,
        dead,
    } = World::new("under");
    create(&name, 3, &[]).await;
    fill(&source, 0..100).await;
    let member = start(&source, log.clone(), &dead);
    until("all is stored", async || ids(&log).await.len() == 100).await;

    recreate(&name).await;
    all_lost(&member, &name).await;
    fill(&source, 0..300).await;
    let details = member.health.ready().unwrap_err();
    assert!(details[0].contains("created anew"), "{details:?}");
    member.stop().await;
    assert_eq!(ids(&log).await.len(), 100);
}
