//! The spool keeps the contract; and what only a directory of files can suffer.

use std::{fs, io::Write as _, path::PathBuf};

use tempfile::TempDir;
use tracer_source::{
    Event, Message, Offset, OffsetRange, PartitionId, SourceConfig, SourceError, SpoolConfig,
    Start, TopicName,
};

use crate::{
    contract,
    suite::{Log, PARTITIONS},
};

async fn new() -> Log {
    let directory = TempDir::new().unwrap();
    let topic = TopicName::default();
    Log {
        config: SourceConfig::Spool(SpoolConfig {
            path: directory.path().join("not/there/yet"),
            topics: vec![topic.clone()],
            partitions: PARTITIONS,
        }),
        topic,
        _directory: Some(directory),
    }
}

contract!(new);

fn file(log: &Log, partition: i32) -> PathBuf {
    let SourceConfig::Spool(spool) = &log.config else {
        panic!("not a spool");
    };
    spool.path.join(format!("traces/{partition:05}.jsonl"))
}

fn message(text: &str) -> Message {
    Message::new(text.to_owned()).with_key("k")
}

#[tokio::test]
async fn what_a_dead_writer_left_is_cut_off_and_never_delivered() {
    let log = new().await;
    let (partition, _) = log
        .writer()
        .append(&log.topic, message("whole"))
        .await
        .unwrap();
    let path = file(&log, partition.partition);
    for torn in ["t", "torn", &"x".repeat(200_000)] {
        let before = fs::metadata(&path).unwrap().len();
        let mut dead = fs::OpenOptions::new().append(true).open(&path).unwrap();
        dead.write_all(torn.as_bytes()).unwrap();
        let (_, offset) = log
            .writer()
            .append(&log.topic, message("next"))
            .await
            .unwrap();
        assert_eq!(offset, Offset(before));
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "whole\nnext\nnext\nnext\n"
    );
    let mut torn = fs::OpenOptions::new().append(true).open(&path).unwrap();
    torn.write_all(b"torn again").unwrap();
    let mut reader = log.source();
    reader.assigned(|_| Start::Beginning).await;
    let texts: Vec<_> = reader
        .read(4)
        .await
        .into_iter()
        .map(|r| r.payload)
        .collect();
    assert_eq!(texts, ["whole", "next", "next", "next"]);
    reader.silent().await;
    // The rest of the line makes it one.
    torn.write_all(b" and finished\n").unwrap();
    assert_eq!(reader.read(1).await[0].payload, "torn again and finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_exclude_each_other() {
    let log = new().await;
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let (open, topic) = (log.writer(), log.topic.clone());
        tasks.push(tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..50 {
                let text = format!("{writer} {n}");
                let place = open.append(&topic, message(&text)).await.unwrap();
                places.push((place, text));
            }
            places
        }));
    }
    let mut written = Vec::new();
    for task in tasks {
        written.extend(task.await.unwrap());
    }
    written.sort();
    let mut reader = log.source();
    reader.assigned(|_| Start::Beginning).await;
    let read: Vec<_> = reader
        .read(200)
        .await
        .into_iter()
        .map(|r| {
            let text = String::from_utf8(r.payload.to_vec()).unwrap();
            ((r.partition, r.offset), text)
        })
        .collect();
    assert_eq!(read, written);
}

#[tokio::test]
async fn a_payload_must_be_one_line() {
    let log = new().await;
    let error = log
        .writer()
        .append(&log.topic, message("a\nb"))
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::NotALine { .. }), "{error}");
}

#[tokio::test]
async fn a_log_that_shrank_or_changed_is_a_lost_position() {
    let log = new().await;
    let partition = PartitionId::new(log.topic.clone(), 0);
    let path = file(&log, 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "one\ntwo\n").unwrap();
    let mut reader = log.source();
    reader.assigned(|_| Start::Beginning).await;
    reader.read(2).await;
    fs::write(&path, "new\n").unwrap();
    let lost = |position, end| Event::PositionLost {
        partition: partition.clone(),
        position: Offset(position),
        available: OffsetRange {
            start: Offset::ZERO,
            end: Offset(end),
        },
    };
    assert_eq!(reader.next().await, lost(8, 4));

    // As long as before, but the position is inside a line.
    fs::write(&path, "another line\n").unwrap();
    let mut reader = log.source();
    reader
        .assigned(|p| {
            if *p == partition {
                Start::At(Offset(8))
            } else {
                Start::Beginning
            }
        })
        .await;
    assert_eq!(reader.next().await, lost(8, 13));

    // Gone altogether.
    fs::remove_file(&path).unwrap();
    reader
        .source
        .seek(&partition, Start::At(Offset(8)))
        .await
        .unwrap();
    assert_eq!(reader.next().await, lost(8, 0));
}

#[tokio::test]
async fn of_a_line_without_measure_the_beginning_is_delivered() {
    let log = new().await;
    let path = file(&log, 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let length = 40 << 20;
    let mut text = vec![b'x'; length];
    text.extend_from_slice(b"\nafter\n");
    fs::write(&path, text).unwrap();
    let mut reader = log.source();
    reader.assigned(|_| Start::Beginning).await;
    let records = reader.read(2).await;
    assert_eq!(records[0].payload.len(), 32 << 20);
    assert_eq!(records[0].next, Offset(length as u64 + 1));
    assert_eq!(records[1].payload, "after");
}

#[tokio::test]
async fn a_long_line_without_an_end_is_waited_for() {
    let log = new().await;
    let path = file(&log, 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for megabytes in [3, 40] {
        fs::write(&path, vec![b'x'; megabytes << 20]).unwrap();
        let mut reader = log.source();
        reader.assigned(|_| Start::Beginning).await;
        reader.silent().await;
        let mut torn = fs::OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"y").unwrap();
        reader.silent().await;
        torn.write_all(b"\nnext\n").unwrap();
        let records = reader.read(2).await;
        assert_eq!(records[0].next, Offset((megabytes << 20) as u64 + 2));
        assert_eq!(records[1].payload, "next");
    }
}

/// A flush says that everything before it is durable, whichever partition it is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_answered_last() {
    let log = new().await;
    let writer = log.writer();
    for round in 0..50 {
        let mut pending = tokio::task::JoinSet::new();
        for n in 0..40 {
            let (writer, topic) = (writer.clone(), log.topic.clone());
            pending.spawn(async move {
                let message = Message::new("x".repeat(100)).with_key(format!("{n}"));
                writer.append(&topic, message).await.unwrap();
            });
        }
        // Ours is handed over, and then the flush.
        let message = Message::new(format!("end of {round}")).with_key(format!("{round}"));
        let append = writer.append(&log.topic, message);
        let flush = async {
            writer.flush().await.unwrap();
            let read = |n| fs::read_to_string(file(&log, n)).unwrap_or_default();
            (0..PARTITIONS).any(|n| read(n).contains(&format!("end of {round}\n")))
        };
        let (_, is_there) = tokio::join!(append, flush);
        assert!(is_there, "round {round}");
        pending.join_all().await;
    }
}

#[tokio::test]
async fn a_writer_follows_its_path_and_not_a_removed_file() {
    let log = new().await;
    let writer = log.writer();
    let (partition, _) = writer.append(&log.topic, message("old")).await.unwrap();
    let path = file(&log, partition.partition);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let (_, offset) = writer.append(&log.topic, message("new")).await.unwrap();
    assert_eq!(offset, Offset::ZERO);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    // Another file in its place.
    let other = path.with_extension("other");
    fs::write(&other, "another\n").unwrap();
    fs::rename(&other, &path).unwrap();
    writer.append(&log.topic, message("last")).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "another\nlast\n");
}

#[tokio::test]
async fn fewer_partitions_than_there_are_is_refused() {
    let mut log = new().await;
    log.fill(0..100).await;
    log.source();
    let SourceConfig::Spool(spool) = &mut log.config else {
        panic!("not a spool");
    };
    spool.partitions = 2;
    let error = log.config.open_source().err().unwrap().to_string();
    assert!(error.contains("00002.jsonl"), "{error}");
}
