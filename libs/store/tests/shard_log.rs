//! The contract of the shard log, on every store.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, sync::Arc};

use common::{Place, partition, range, task, trace, traces};
use tracer_store::{Appended, LastRecord, ShardLog, StoreError};
use tracer_trace::Offset;

on_every_store![
    a_shard_gives_back_its_traces,
    a_log_resumes_where_its_shards_end,
    a_log_ends_where_a_shard_is_missing,
    one_of_many_writers_gets_a_name,
    rivals_lose_and_double_nothing,
    shards_inside_a_covered_range_do_not_count,
    a_shard_that_breaks_the_rules_is_refused,
    a_shard_tells_its_last_record,
];

fn written(appended: Appended) -> tracer_store::ShardInfo {
    match appended {
        Appended::Written(info) => info,
        Appended::Taken { next } => panic!("taken, next is {next}"),
    }
}

async fn a_shard_gives_back_its_traces(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    let (partition, range) = (partition(0), range(10, 40));
    let mut rows = traces(range);
    let info = written(log.append(&partition, range, rows.clone()).await.unwrap());
    assert_eq!(
        info.path,
        "traces/traces/00000/00000000000000000010.parquet"
    );
    assert_eq!(info.rows(), 30);
    assert_eq!(info.rows_by_task[&task("a")], 15);

    let reader = ShardLog::new(place.open());
    assert_eq!(reader.partitions().await.unwrap(), vec![partition.clone()]);
    assert_eq!(reader.shards(&partition).await.unwrap(), vec![info.clone()]);
    rows.sort_by(|x, y| (&x.trace.task, x.offset).cmp(&(&y.trace.task, y.offset)));
    assert_eq!(reader.read(&info, None).await.unwrap(), rows);
    for name in ["a", "b"] {
        let expected: Vec<_> = rows
            .iter()
            .filter(|r| r.trace.task == task(name))
            .cloned()
            .collect();
        assert_eq!(
            reader.read(&info, Some(&task(name))).await.unwrap(),
            expected
        );
    }
    assert!(
        reader
            .read(&info, Some(&task("c")))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_log_resumes_where_its_shards_end(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    assert_eq!(log.resume(&partition(0)).await.unwrap().position(), None);
    assert!(log.partitions().await.unwrap().is_empty());
    // Offsets may have gaps, and a range of rejected records has no row.
    for (start, end, rows) in [
        (5, 8, vec![trace(6, "a")]),
        (8, 20, vec![]),
        (20, 31, vec![]),
    ] {
        written(
            log.append(&partition(0), range(start, end), rows)
                .await
                .unwrap(),
        );
        for reader in [log.clone(), ShardLog::new(place.open())] {
            assert_eq!(
                reader.resume(&partition(0)).await.unwrap().position(),
                Some(Offset(end))
            );
            assert_eq!(reader.resume(&partition(1)).await.unwrap().position(), None);
        }
    }
}

/// What follows a gap does not count: going on behind it would lose what is missing.
/// It counts again once the gap is filled.
async fn a_log_ends_where_a_shard_is_missing(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    let append = async |start, end| {
        let range = range(start, end);
        log.append(&partition(0), range, traces(range))
            .await
            .unwrap()
    };
    written(append(0, 10).await);
    // Nothing ends at 20, so this one's writer is told where the log is.
    let resume = log.clone();
    assert_eq!(
        ShardLog::new(place.open())
            .append(&partition(0), range(20, 25), vec![])
            .await
            .unwrap(),
        Appended::Taken { next: Offset(10) }
    );
    assert_eq!(
        resume.resume(&partition(0)).await.unwrap().position(),
        Some(Offset(10))
    );
    let check = log.verify(&partition(0)).await.unwrap();
    assert_eq!(
        (check.gaps.as_slice(), check.others, check.is_whole()),
        ([range(10, 20)].as_slice(), 1, false)
    );
    written(append(10, 20).await);
    assert_eq!(
        log.resume(&partition(0)).await.unwrap().position(),
        Some(Offset(25))
    );
    let check = log.verify(&partition(0)).await.unwrap();
    assert!(check.is_whole(), "{check:?}");
    assert_eq!((check.rows, check.offsets, check.shards), (20, 20, 3));
}

async fn one_of_many_writers_gets_a_name(place: Arc<Place>) {
    let writers: Vec<_> = (1..=12)
        .map(|length| {
            let log = ShardLog::new(place.open());
            let range = range(0, length);
            tokio::spawn(async move {
                log.append(&partition(0), range, traces(range))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut won = Vec::new();
    let mut told = BTreeSet::new();
    for writer in writers {
        match writer.await.unwrap() {
            Appended::Written(info) => won.push(info.range.end),
            Appended::Taken { next } => {
                told.insert(next);
            }
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(told.into_iter().collect::<Vec<_>>(), won);
}

/// Several consumers believe that the partition is theirs. Whatever the order, the
/// log ends up with every position once.
async fn rivals_lose_and_double_nothing(place: Arc<Place>) {
    const END: u64 = 60;
    let rivals: Vec<_> = (0..4_u64)
        .map(|rival| {
            let log = ShardLog::new(place.open());
            tokio::spawn(async move {
                let resumed = log.resume(&partition(0)).await.unwrap().position();
                let mut at = resumed.map_or(0, Offset::get);
                while at < END {
                    let range = range(at, (at + 3 + rival).min(END));
                    match log
                        .append(&partition(0), range, traces(range))
                        .await
                        .unwrap()
                    {
                        Appended::Written(info) => at = info.range.end.get(),
                        Appended::Taken { next } => at = next.get(),
                    }
                }
            })
        })
        .collect();
    for rival in rivals {
        rival.await.unwrap();
    }
    let log = ShardLog::new(place.open());
    let mut offsets = Vec::new();
    for shard in log.shards(&partition(0)).await.unwrap() {
        let rows = log.read(&shard, None).await.unwrap();
        offsets.extend(rows.iter().map(|row| row.offset));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..END).collect::<Vec<_>>());
}

async fn shards_inside_a_covered_range_do_not_count(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    // As after a compaction of [0, 10) and [10, 20): a replaced consumer writes late.
    for (start, end) in [(0, 20), (20, 25), (10, 13)] {
        let range = range(start, end);
        written(
            log.append(&partition(0), range, traces(range))
                .await
                .unwrap(),
        );
    }
    // At the tail as well, where trusting the last name would go back.
    let late = range(22, 23);
    written(log.append(&partition(0), late, traces(late)).await.unwrap());
    let shards = log.shards(&partition(0)).await.unwrap();
    let ranges: Vec<_> = shards.iter().map(|shard| shard.range).collect();
    assert_eq!(ranges, [range(0, 20), range(20, 25)]);
    assert_eq!(
        log.resume(&partition(0)).await.unwrap().position(),
        Some(Offset(25))
    );
}

async fn a_shard_that_breaks_the_rules_is_refused(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    for (range, rows) in [(range(5, 5), vec![]), (range(5, 7), vec![trace(7, "a")])] {
        let error = log.append(&partition(0), range, rows).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidShard { .. }), "{error}");
    }
    assert_eq!(log.resume(&partition(0)).await.unwrap().position(), None);
}

async fn a_shard_tells_its_last_record(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    let last = LastRecord::of(Offset(7), Some(1_700_000_000_000), b"not a trace");
    let told = log
        .append_until(&partition(0), range(3, 9), vec![], Some(last.clone()))
        .await
        .unwrap();
    assert_eq!(written(told).last_record, Some(last.clone()));
    let read = ShardLog::new(place.open()).resume(&partition(0)).await;
    let read = read.unwrap().last.unwrap();
    assert_eq!(read.last_record, Some(last.clone()));

    let error = log
        .append_until(&partition(0), range(9, 12), vec![], Some(last))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::InvalidShard { .. }), "{error}");
    // Shards of a writer that does not tell are read as well.
    let silent = log
        .append(&partition(0), range(9, 12), vec![])
        .await
        .unwrap();
    assert_eq!(written(silent).last_record, None);
    let read = ShardLog::new(place.open()).resume(&partition(0)).await;
    let read = read.unwrap().last.unwrap();
    assert_eq!((read.range, read.last_record), (range(9, 12), None));
}

/// A damaged shard is a clear error on every way to it, never missing rows.
#[tokio::test]
async fn damaged_shards_are_refused() {
    let place = Place::file();
    let log = ShardLog::new(place.open());
    let range = range(0, 50);
    let info = written(
        log.append(&partition(0), range, traces(range))
            .await
            .unwrap(),
    );
    let path = place
        .directory
        .as_ref()
        .unwrap()
        .path()
        .join("store")
        .join(&info.path);
    let whole = std::fs::read(&path).unwrap();

    let mut flipped = whole.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 0xff;
    let renamed = path.with_file_name("00000000000000000099.parquet");
    let cases: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("not Parquet", b"hello, this is text"),
        ("truncated", &whole[..whole.len() / 2]),
        ("a length that lies", &flipped),
    ];
    for (case, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        let log = ShardLog::new(place.open());
        for error in [
            log.resume(&partition(0)).await.unwrap_err(),
            log.append(&partition(0), range, vec![]).await.unwrap_err(),
            log.read(&info, None).await.unwrap_err(),
        ] {
            assert!(
                matches!(error, StoreError::Damaged { .. }),
                "{case}: {error}"
            );
            assert!(error.to_string().starts_with(&info.path), "{case}: {error}");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(
        ShardLog::new(place.open())
            .shards(&partition(0))
            .await
            .unwrap(),
        [info]
    );
    std::fs::rename(&path, &renamed).unwrap();
    let error = ShardLog::new(place.open())
        .shards(&partition(0))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("from offset 0"), "{error}");
}
