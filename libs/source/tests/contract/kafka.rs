//! Kafka keeps the contract; and what only a cluster can do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Offset as KafkaOffset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tokio::time::{Instant, timeout};
use tracer_source::{Event, KafkaConfig, Offset, PartitionId, SourceConfig, Start, TopicName};

use crate::{
    contract,
    suite::{Log, PARTITIONS},
};

fn brokers() -> String {
    std::env::var("TRACER_TEST_KAFKA").expect("TRACER_TEST_KAFKA is host:port of a Kafka broker")
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap()
}

async fn new() -> Log {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("contract-{}-{count}", std::process::id());
    let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
    for created in admin()
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap()
    {
        created.unwrap();
    }
    let topic = TopicName::new(&name).unwrap();
    Log {
        config: SourceConfig::Kafka(KafkaConfig {
            brokers: brokers(),
            topics: vec![topic.clone()],
            group: name,
            ..KafkaConfig::default()
        }),
        topic,
        _directory: None,
    }
}

contract!(new, #[ignore = "needs Apache Kafka: tests/run kafka"]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn a_position_behind_retention_is_lost_not_skipped() {
    let log = new().await;
    let written = log.fill(0..100).await;
    let victim = written.keys().next().unwrap().0.clone();
    let own: Vec<_> = written.keys().filter(|(p, _)| *p == victim).collect();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(
        log.topic.as_str(),
        victim.partition,
        KafkaOffset::Offset(own.len() as i64 - 1),
    )
    .unwrap();
    admin()
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();

    let mut reader = log.source();
    reader.assigned(|_| Start::At(Offset(1))).await;
    let lost = loop {
        match reader.next().await {
            Event::Records(records) => assert!(records.iter().all(|r| r.partition != victim)),
            other => break other,
        }
    };
    let Event::PositionLost {
        partition,
        position,
        available,
    } = lost
    else {
        panic!("unexpected: {lost:?}");
    };
    assert_eq!((partition, position), (victim.clone(), Offset(1)));
    assert_eq!(available.start, Offset(own.len() as u64 - 1));
    assert_eq!(available.end, Offset(own.len() as u64));
    reader
        .source
        .seek(&victim, Start::At(available.start))
        .await
        .unwrap();
    loop {
        if let Event::Records(records) = reader.next().await
            && let Some(record) = records.iter().find(|r| r.partition == victim)
        {
            assert_eq!(record.offset, available.start);
            break;
        }
    }
    reader.source.close().await;
}

/// Two members share the partitions; each is read on where the other stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn members_hand_partitions_over() {
    let log = new().await;
    let mut written = log.fill(0..300).await;
    let mut sources = vec![log.config.open_source().unwrap()];
    let mut positions: BTreeMap<PartitionId, Offset> = BTreeMap::new();
    let mut owned = vec![BTreeSet::new(), BTreeSet::new()];
    let mut read = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut joined = false;
    let mut left = false;
    loop {
        assert!(Instant::now() < deadline, "{owned:?}, {} read", read.len());
        for (index, source) in sources.iter_mut().enumerate() {
            let Ok(event) = timeout(Duration::from_millis(100), source.next()).await else {
                continue;
            };
            match event.unwrap() {
                Event::Assigned(partitions) => {
                    let starts: Vec<_> = partitions
                        .iter()
                        .map(|p| (p.clone(), positions.get(p).copied().into()))
                        .collect();
                    source.assign(&starts).await.unwrap();
                    owned[index].extend(partitions);
                }
                Event::Revoked(partitions) => {
                    owned[index].retain(|p| !partitions.contains(p));
                    source.release(&partitions).await.unwrap();
                }
                Event::Records(records) => {
                    for record in records {
                        assert!(owned[index].contains(&record.partition));
                        positions.insert(record.partition.clone(), record.next);
                        let text = String::from_utf8(record.payload.to_vec()).unwrap();
                        let place = (record.partition, record.offset);
                        assert!(read.insert(place, text).is_none(), "read twice");
                    }
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        let all = owned.iter().map(BTreeSet::len).sum::<usize>() == PARTITIONS as usize;
        if !joined && all && read.len() == written.len() {
            joined = true;
            sources.push(log.config.open_source().unwrap());
        } else if joined && !left && all && owned.iter().all(|o| !o.is_empty()) {
            written.extend(log.fill(300..600).await);
            left = true;
            sources.remove(0).close().await;
            owned.remove(0);
        } else if left && all && read.len() == written.len() {
            break;
        }
    }
    assert_eq!(read, written);
    for source in sources {
        source.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn closing_does_not_wait_for_an_answer_nobody_gives() {
    let log = new().await;
    let mut reader = log.source();
    let Event::Assigned(_) = reader.next().await else {
        panic!("not assigned");
    };
    // Unanswered.
    timeout(Duration::from_secs(20), reader.source.close())
        .await
        .expect("closes within the deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn the_end_becomes_known_by_itself() {
    let log = new().await;
    let written = log.fill(0..300).await;
    let mut reader = log.source();
    let partitions = reader.assigned(|_| Start::Beginning).await;
    reader.read(300).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    for partition in partitions {
        let count = written.keys().filter(|(p, _)| *p == partition).count();
        while reader.source.end(&partition) != Some(Offset(count as u64)) {
            assert!(Instant::now() < deadline);
            let _ = timeout(Duration::from_millis(100), reader.source.next()).await;
        }
    }
    reader.source.close().await;
}

/// Whatever a producer compresses with can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka: tests/run kafka"]
async fn every_codec_is_read() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let log = new().await;
        let SourceConfig::Kafka(mut config) = log.config.clone() else {
            panic!("not kafka");
        };
        let property = ("compression.type".to_owned(), codec.to_owned());
        config.properties = [property].into();
        let written = Log {
            config: SourceConfig::Kafka(config),
            topic: log.topic.clone(),
            _directory: None,
        }
        .fill(0..500)
        .await;
        let mut reader = log.source();
        reader.assigned(|_| Start::Beginning).await;
        let records = reader.read(500).await;
        assert_eq!(records.len(), written.len(), "{codec}");
        for record in records {
            let place = (record.partition, record.offset);
            assert_eq!(record.payload, written[&place], "{codec}");
        }
        reader.source.close().await;
    }
}
