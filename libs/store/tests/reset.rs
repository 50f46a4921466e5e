//! Decisions where reading goes on, and what can come in between.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::sync::Arc;

use common::hooked::{Fate, Hooked};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use tracer_store::{Appended, LastRecord, ShardInfo, ShardLog, Store};
use tracer_trace::{Offset, OffsetRange, PartitionId, TopicName};

fn partition() -> PartitionId {
    PartitionId::new(TopicName::new("t").unwrap(), 3)
}

fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange::new(Offset(start), Offset(end)).unwrap()
}

fn log() -> (ShardLog, Arc<dyn ObjectStore>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = ShardLog::new(Store::from_object_store(store.clone()));
    (log, store)
}

async fn write(log: &ShardLog, start: u64, end: u64) {
    let appended = log
        .append(&partition(), range(start, end), Vec::new())
        .await;
    assert!(matches!(appended.unwrap(), Appended::Written(_)));
}

/// As by a writer that read one record and rejected it.
async fn write_rejected(log: &ShardLog, start: u64) -> ShardInfo {
    let (range, last) = (range(start, start + 1), Some(last_record(start)));
    let appended = log
        .append_until(&partition(), range, Vec::new(), last)
        .await;
    match appended.unwrap() {
        Appended::Written(info) => info,
        taken @ Appended::Taken { .. } => panic!("{taken:?}"),
    }
}

fn last_record(offset: u64) -> LastRecord {
    LastRecord::of(Offset(offset), None, b"no trace")
}

async fn resumes(log: &ShardLog) -> (u64, u64) {
    let resume = log.resume(&partition()).await.unwrap();
    (resume.position().unwrap().get(), resume.shift)
}

#[tokio::test]
async fn positions_only_grow_wherever_the_offset_lies() {
    let (log, _) = log();
    assert_eq!(
        log.resume(&partition()).await.unwrap(),
        tracer_store::Resume::default()
    );
    write(&log, 0, 100).await;
    assert_eq!(resumes(&log).await, (100, 0));
    // A gap: the offset lies ahead.
    let reset = log
        .reset(&partition(), Offset(150), "a", "b")
        .await
        .unwrap();
    assert_eq!((reset.position, reset.next), (Offset(100), Offset(150)));
    assert_eq!(resumes(&log).await, (150, 0));
    write(&log, 150, 160).await;
    // Created anew: it lies behind.
    let reset = log.reset(&partition(), Offset(0), "a", "b").await.unwrap();
    assert_eq!((reset.next, reset.shift()), (Offset(161), 161));
    write(&log, 161, 200).await;
    assert_eq!(resumes(&log).await, (200, 161));
    // A gap in the new one, and then anew again, to be read from its middle.
    log.reset(&partition(), Offset(50), "a", "b").await.unwrap();
    assert_eq!(resumes(&log).await, (211, 161));
    log.reset(&partition(), Offset(7), "a", "b").await.unwrap();
    assert_eq!(resumes(&log).await, (212, 205));
    // Nobody who asks another process gets another answer.
    assert_eq!(log.resets(&partition()).await.unwrap().len(), 4);
}

#[tokio::test]
async fn whoever_writes_late_is_told_to_go_on_behind_the_seal() {
    let (log, _) = log();
    write(&log, 0, 100).await;
    log.reset(&partition(), Offset(0), "a", "b").await.unwrap();
    let late = log.append(&partition(), range(100, 130), Vec::new()).await;
    assert_eq!(late.unwrap(), Appended::Taken { next: Offset(101) });
    assert_eq!(resumes(&log).await, (101, 101));
}

#[tokio::test]
async fn a_reset_whose_seal_came_second_is_void_and_made_again() {
    let (log, store) = log();
    write(&log, 0, 100).await;
    // As by a command that ended between its two steps.
    let path = Path::from("resets/t/00003/00000000000000000100.json");
    let json = r#"{"schema_version":1,"position":100,"next":101,"offset":0,
        "author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#;
    store.put(&path, json.into()).await.unwrap();
    assert_eq!(resumes(&log).await, (100, 0), "it holds without its seal");
    // A writer of the old log comes first.
    write(&log, 100, 130).await;
    assert_eq!(resumes(&log).await, (130, 0));
    let reset = log.reset(&partition(), Offset(0), "a", "b").await.unwrap();
    assert_eq!((reset.next, reset.shift()), (Offset(131), 131));
    assert_eq!(resumes(&log).await, (131, 131));
}

#[tokio::test]
async fn a_reset_that_was_left_half_done_is_finished_by_the_same_decision() {
    let (log, store) = log();
    write(&log, 0, 100).await;
    let path = Path::from("resets/t/00003/00000000000000000100.json");
    let json = r#"{"schema_version":1,"position":100,"next":101,"offset":5,
        "author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#;
    store.put(&path, json.into()).await.unwrap();
    // The same one finishes it, another one comes after it.
    let reset = log.reset(&partition(), Offset(0), "c", "d").await.unwrap();
    assert_eq!((reset.position, reset.author.as_str()), (Offset(101), "c"));
    assert_eq!(resumes(&log).await, (102, 102));
}

#[tokio::test]
async fn what_is_no_reset_is_refused() {
    let (log, store) = log();
    write(&log, 0, 100).await;
    let path = Path::from("resets/t/00003/00000000000000000100.json");
    for (json, said) in [
        ("{", "damaged"),
        (
            r#"{"schema_version":9,"position":100,"next":101,"offset":0,"author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#,
            "upgrade",
        ),
        (
            r#"{"schema_version":1,"position":100,"next":100,"offset":0,"author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#,
            "goes back",
        ),
        (
            r#"{"schema_version":1,"position":100,"next":18446744073709551615,"offset":2,"author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#,
            "beyond any offset",
        ),
    ] {
        store.put(&path, json.into()).await.unwrap();
        let error = log.resume(&partition()).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_shard_of_rejected_records_alone_is_no_seal() {
    let (log, store) = log();
    write(&log, 0, 100).await;
    let path = Path::from("resets/t/00003/00000000000000000100.json");
    let json = r#"{"schema_version":1,"position":100,"next":101,"offset":0,
        "author":"a","reason":"b","at":"2026-01-02T03:04:05Z"}"#;
    store.put(&path, json.into()).await.unwrap();
    let info = write_rejected(&log, 100).await;
    assert_eq!(info.bare_ranges(), []);
    // It ends where the seal would.
    assert_eq!(resumes(&log).await, (101, 0));
}

/// Between the two steps of a reset comes a writer whose shard ends where the seal would.
#[tokio::test]
async fn a_reset_that_lost_its_place_to_a_shard_of_the_same_range_is_made_again() {
    let (elsewhere, there) = log();
    write(&elsewhere, 0, 100).await;
    let shard = Path::from(write_rejected(&elsewhere, 100).await.path);
    let bytes = there.get(&shard).await.unwrap().bytes().await.unwrap();

    let hooked = Hooked::new(|_, _| Fate::Done);
    let log = ShardLog::new(hooked.store());
    write(&log, 0, 100).await;
    let rival = async {
        let reset = "resets/t/00003/00000000000000000100.json";
        while !hooked.paths().await.iter().any(|path| path == reset) {
            tokio::task::yield_now().await;
        }
        hooked.put(&shard, bytes.into()).await.unwrap();
    };
    let partition = partition();
    let (reset, ()) = tokio::join!(log.reset(&partition, Offset(0), "a", "b"), rival);
    let reset = reset.unwrap();
    assert_eq!((reset.position, reset.next), (Offset(101), Offset(102)));
    assert_eq!(resumes(&log).await, (102, 102));
    let shards = log.shards(&partition).await.unwrap();
    assert_eq!(shards[1].last_record, Some(last_record(100)));
}

#[tokio::test]
async fn an_offset_that_no_log_has_is_refused_and_leaves_nothing() {
    let (log, store) = log();
    write(&log, 0, 100).await;
    let error = log.reset(&partition(), Offset(u64::MAX), "a", "b").await;
    assert!(error.unwrap_err().to_string().contains("beyond any offset"));
    let path = Path::from("resets/t/00003/00000000000000000100.json");
    assert!(store.head(&path).await.is_err());
    assert_eq!(resumes(&log).await, (100, 0));
}
