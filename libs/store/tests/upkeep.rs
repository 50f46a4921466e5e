//! Compaction and expiry lose and double nothing, whoever works at the same time and
//! wherever it breaks off.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    Place,
    hooked::{Fate, Hooked, Kind},
    partition, range, task, traces,
};
use tracer_store::{
    Appended, Compacted, Compaction, LastRecord, ShardInfo, ShardKind, ShardLog, StoreError,
};
use tracer_trace::{Decision, Offset, OffsetRange, Routing, StoredTrace, parquet_schema::Columns};

on_every_store![small_shards_become_one, old_shards_lose_their_rows,];

const RULES: Compaction = Compaction {
    max_rows: 1000,
    max_bytes: 10 << 20,
    min_shards: 2,
    keep_shards: 2,
    min_age: Duration::ZERO,
    max_span: None,
};

/// Shards of five positions each.
async fn write(log: &ShardLog, start: u64, end: u64) {
    for base in (start..end).step_by(5) {
        let range = range(base, base + 5);
        let last = LastRecord::of(Offset(base + 4), None, b"x");
        let put = log
            .append_until(&partition(0), range, traces(range), Some(last))
            .await;
        assert!(matches!(put.unwrap(), Appended::Written(_)));
    }
}

async fn shards(log: &ShardLog) -> Vec<ShardInfo> {
    log.shards(&partition(0)).await.unwrap()
}

fn offsets(rows: &[StoredTrace]) -> Vec<u64> {
    let mut offsets: Vec<_> = rows.iter().map(|row| row.offset).collect();
    offsets.sort_unstable();
    offsets
}

/// Every position up to `end` is there once, and that is where reading goes on.
async fn is_whole(log: &ShardLog, end: u64) {
    let check = log.verify(&partition(0)).await.unwrap();
    assert!(check.is_whole(), "{check:?}");
    assert_eq!((check.rows, check.offsets), (end, end));
    let rows = log.read_all(&shards(log).await, None).await.unwrap();
    assert_eq!(offsets(&rows), (0..end).collect::<Vec<_>>());
    let resume = log.resume(&partition(0)).await.unwrap().position();
    assert_eq!(resume, Some(Offset(end)));
}

/// As after the time of grace.
fn later(now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::hours(1)
}

async fn compact(log: &ShardLog) -> Compacted {
    let now = log.now().await.unwrap();
    log.compact(&partition(0), &RULES, now).await.unwrap()
}

async fn sweep(log: &ShardLog) -> u64 {
    let now = later(log.now().await.unwrap());
    let grace = Duration::from_mins(1);
    log.sweep(&partition(0), grace, now).await.unwrap().deleted
}

async fn small_shards_become_one(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    write(&log, 0, 60).await;
    let before = shards(&log).await;
    let done = compact(&log).await;
    // The last two are kept, so [0, 50) may be touched: the windows of 32, of 8 and ...
    // only whole ones.
    assert_eq!(
        (done.made, done.replaced, done.rows),
        (2, 10, 50),
        "{done:?}"
    );
    let after = shards(&log).await;
    let ranges: Vec<_> = after.iter().map(|shard| shard.range).collect();
    assert_eq!(
        ranges,
        [range(0, 35), range(35, 50), range(50, 55), range(55, 60)]
    );
    assert_eq!(
        after[0].path,
        "traces/traces/00000/00000000000000000000-00000000000000000035.parquet"
    );
    assert_eq!(after[0].kind, ShardKind::Compacted);
    assert_eq!(after[0].last_record, before[6].last_record);
    assert!(after[0].written.is_some());
    for log in [&log, &ShardLog::new(place.open())] {
        is_whole(log, 60).await;
    }
    // Nothing more to do, and in time of grace nothing is deleted.
    assert_eq!(compact(&log).await, Compacted::default());
    let now = log.now().await.unwrap();
    let grace = Duration::from_hours(1);
    let swept = log.sweep(&partition(0), grace, now).await.unwrap();
    assert_eq!(swept.deleted, 0);
    assert_eq!(sweep(&log).await, 10);
    for log in [&log, &ShardLog::new(place.open())] {
        is_whole(log, 60).await;
        assert_eq!(log.list(&partition(0)).await.unwrap().len(), 4);
    }

    // A reader of the listing from before finds what stands in the place of the
    // shards, and nothing beyond the end of its listing.
    let error = log.read(&before[3], None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    let rows = log.read_all(&before[..9], None).await.unwrap();
    assert_eq!(offsets(&rows), (0..45).collect::<Vec<_>>());
    let rows = log.read_all(&before, Some(&task("a"))).await.unwrap();
    assert_eq!(offsets(&rows), (1..60).step_by(2).collect::<Vec<_>>());
    // The log goes on, and so does compaction: of what was compacted as well.
    write(&log, 60, 80).await;
    assert_eq!(compact(&log).await.made, 1);
    assert_eq!(shards(&log).await[0].range, range(0, 65));
    sweep(&log).await;
    is_whole(&log, 80).await;
}

async fn old_shards_lose_their_rows(place: Arc<Place>) {
    let log = ShardLog::new(place.open());
    write(&log, 0, 30).await;
    let before = shards(&log).await;
    let now = log.now().await.unwrap();
    let done = log
        .expire(&partition(0), Duration::from_hours(1), now)
        .await;
    assert_eq!(done.unwrap().shards, 0);
    // The last one stays, however old.
    let done = log
        .expire(&partition(0), Duration::ZERO, later(now))
        .await
        .unwrap();
    assert_eq!((done.shards, done.rows), (5, 25));
    for _ in 0..2 {
        for log in [&log, &ShardLog::new(place.open())] {
            let check = log.verify(&partition(0)).await.unwrap();
            assert!(check.is_whole(), "{check:?}");
            assert_eq!((check.rows, check.first_offset), (5, Some(Offset(0))));
            let last = log.resume(&partition(0)).await.unwrap().last.unwrap();
            assert_eq!(last, before[5]);
            let rows = log.read_all(&shards(log).await, None).await.unwrap();
            assert_eq!(offsets(&rows), (25..30).collect::<Vec<_>>());
        }
        assert_eq!(
            log.expire(&partition(0), Duration::ZERO, later(now))
                .await
                .unwrap()
                .shards,
            0
        );
        sweep(&log).await;
    }
    let rows = log.read_all(&before, None).await.unwrap();
    assert_eq!(offsets(&rows), (25..30).collect::<Vec<_>>());
    // What has expired is compacted as well: few objects are left of it.
    write(&log, 30, 40).await;
    assert!(compact(&log).await.made > 0);
    sweep(&log).await;
    let kept = log.list(&partition(0)).await.unwrap();
    assert!(
        kept.iter().filter(|shard| shard.counts).count() < 8,
        "{kept:?}"
    );
    let rows = log.read_all(&shards(&log).await, None).await.unwrap();
    assert_eq!(offsets(&rows), (25..40).collect::<Vec<_>>());
    let resume = log.resume(&partition(0)).await.unwrap().position();
    assert_eq!(resume, Some(Offset(40)));
}

/// The shards that become one expire together: the newest counts, and when the shards
/// were written, not when they were compacted.
#[tokio::test]
async fn a_compacted_shard_is_as_old_as_the_newest_of_its_traces() {
    let log = ShardLog::new(Hooked::new(|_, _| Fate::Done).store());
    write(&log, 0, 60).await;
    let written = log.now().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    compact(&log).await;
    let old = shards(&log).await[0].written.unwrap();
    assert!(old.first <= old.last && old.last <= written);
    let done = log
        .expire(
            &partition(0),
            Duration::ZERO,
            written + TimeDelta::milliseconds(1),
        )
        .await
        .unwrap();
    assert_eq!((done.shards, done.rows), (4 - 1, 55));
}

/// Somebody passed a range on purpose: which one is known after compaction and expiry.
#[tokio::test]
async fn ranges_without_rows_are_remembered() {
    let log = ShardLog::new(Hooked::new(|_, _| Fate::Done).store());
    write(&log, 0, 20).await;
    let bare = range(20, 27);
    log.append(&partition(0), bare, Vec::new()).await.unwrap();
    for base in [27, 32, 37, 42, 47, 52] {
        let range = range(base, base + 5);
        log.append(&partition(0), range, traces(range))
            .await
            .unwrap();
    }
    let known = async || -> Vec<_> {
        let shards = shards(&log).await;
        shards.iter().flat_map(ShardInfo::bare_ranges).collect()
    };
    assert_eq!(known().await, [bare]);
    assert!(compact(&log).await.made > 0);
    sweep(&log).await;
    assert_eq!(known().await, [bare]);
    let now = later(log.now().await.unwrap());
    let done = log
        .expire(&partition(0), Duration::ZERO, now)
        .await
        .unwrap();
    assert!(done.shards > 0);
    sweep(&log).await;
    assert_eq!(known().await, [bare]);
}

/// A consumer that was replaced long ago wakes up. The names of the shards it wants
/// are free again, those inside compacted ranges as well as that of their first one.
#[tokio::test]
async fn a_late_writer_changes_nothing_and_is_told() {
    for base in [0, 5, 30, 35, 45] {
        let place = Place::memory();
        let log = ShardLog::new(place.open());
        write(&log, 0, 60).await;
        compact(&log).await;
        sweep(&log).await;
        // It confirms as rarely as can be, and reads far beyond the end of the log.
        let late = ShardLog::new(place.open()).confirming_every(Duration::MAX);
        late.resume(&partition(0)).await.unwrap();
        let mut at = base;
        while at < 90 {
            let range = range(at, at + 7);
            match late
                .append(&partition(0), range, traces(range))
                .await
                .unwrap()
            {
                Appended::Written(info) => at = info.range.end.get(),
                Appended::Taken { next } => at = next.get(),
            }
            // Whatever it writes, the log is what it was.
            let rows = log.read_all(&shards(&log).await, None).await.unwrap();
            assert_eq!(offsets(&rows), (0..60).collect::<Vec<_>>());
            let resume = log.resume(&partition(0)).await.unwrap().position();
            assert_eq!(resume, Some(Offset(60)));
        }
        // What lies beyond the end is told: an operator may have lost a shard.
        let check = log.verify(&partition(0)).await.unwrap();
        assert_eq!((check.rows, check.gaps.len()), (60, 1), "{check:?}");
        // One that confirms is told where the log ends.
        let late = ShardLog::new(place.open()).confirming_every(Duration::ZERO);
        let range = range(base + 1, base + 3);
        assert_eq!(
            late.append(&partition(0), range, traces(range))
                .await
                .unwrap(),
            Appended::Taken { next: Offset(60) }
        );
        // The log goes on in spite of what lies in its way.
        let mut at = 60;
        while at < 120 {
            let range = common::range(at, at + 5);
            at = match log
                .append(&partition(0), range, traces(range))
                .await
                .unwrap()
            {
                Appended::Written(info) => info.range.end.get(),
                Appended::Taken { next } => next.get(),
            };
        }
        is_whole(&log, at).await;
        compact(&log).await;
        sweep(&log).await;
        is_whole(&log, at).await;
        let left = log.list(&partition(0)).await.unwrap();
        assert!(
            left.iter()
                .all(|shard| shard.counts || shard.base_offset >= Offset(60)),
            "{left:?}"
        );
    }
}

async fn maintain(log: &ShardLog) -> Result<(), StoreError> {
    let now = later(log.now().await?);
    log.expire(&partition(0), Duration::MAX, now).await?;
    log.compact(&partition(0), &RULES, now).await?;
    log.sweep(&partition(0), Duration::from_mins(1), now)
        .await?;
    Ok(())
}

/// Upkeep that breaks off at any operation, done or not, leaves a whole log, and the
/// next one completes the work.
#[tokio::test]
async fn a_crash_at_any_point_leaves_a_whole_log() {
    let start = Hooked::new(|_, _| Fate::Done);
    write(&ShardLog::new(start.store()), 0, 60).await;
    // What is there changes only by these operations: a crash between two of them is a
    // crash before the second.
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = changes.clone();
    let clean = start.copy(move |number, kind| {
        if kind == Kind::Change {
            noted.lock().unwrap().push(number);
        }
        Fate::Done
    });
    maintain(&ShardLog::new(clean.store())).await.unwrap();
    let done = clean.paths().await;
    let changes = std::mem::take(&mut *changes.lock().unwrap());
    assert_eq!(
        changes.len(),
        2 + 2 + 10,
        "the clock, two shards, ten deletions"
    );
    for fate in [Fate::Fails, Fate::DoneAndFails] {
        for last in changes.iter().copied() {
            let crashed = start.copy(move |number, kind| match kind {
                _ if number < last => Fate::Done,
                Kind::Change if number == last => fate,
                _ => Fate::Fails,
            });
            let ended = maintain(&ShardLog::new(crashed.store())).await;
            assert!(ended.is_err(), "operation {last} was not the last");
            let next = crashed.copy(|_, _| Fate::Done);
            is_whole(&ShardLog::new(next.store()), 60).await;
            for _ in 0..2 {
                maintain(&ShardLog::new(next.store())).await.unwrap();
                is_whole(&ShardLog::new(next.store()), 60).await;
            }
            let left: Vec<_> = next
                .paths()
                .await
                .into_iter()
                .filter(|path| path.starts_with("traces"))
                .collect();
            assert_eq!(left, done, "after {fate:?} of operation {last}");
        }
    }
}

/// A compacted shard that cannot be read costs nothing that it was made from.
#[tokio::test]
async fn what_replaces_is_read_before_anything_is_deleted() {
    let place = Place::file();
    let log = ShardLog::new(place.open());
    write(&log, 0, 60).await;
    compact(&log).await;
    let made = shards(&log).await[0].clone();
    let directory = place.directory.as_ref().unwrap();
    let path = directory.path().join("store").join(&made.path);
    let mut bytes = std::fs::read(&path).unwrap();
    // In the pages, not in the footer.
    for byte in &mut bytes[4..400] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let log = ShardLog::new(place.open());
    let check = log.verify(&partition(0)).await.unwrap();
    assert_eq!((check.problems.len(), check.is_whole()), (1, false));
    // Those that [35, 50) replaces go, those of the damaged one stay.
    assert_eq!(sweep(&log).await, 3);
    std::fs::remove_file(&path).unwrap();
    is_whole(&log, 60).await;
}

/// Writers, compactors and readers at the same time, with no time of grace at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rivals_of_every_kind_lose_and_double_nothing() {
    const END: u64 = 400;
    for seed in 0..6_u64 {
        let hooked = Hooked::new(|_, _| Fate::Done);
        let open = || ShardLog::new(hooked.store()).confirming_every(Duration::ZERO);
        let ended = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..2)
            .map(|rival| {
                let log = open();
                tokio::spawn(async move {
                    let mut at = 0;
                    while at < END {
                        let length = 1 + (at + seed + rival) % 4;
                        let range = range(at, (at + length).min(END));
                        at = match log
                            .append(&partition(0), range, traces(range))
                            .await
                            .unwrap()
                        {
                            Appended::Written(info) => info.range.end.get(),
                            Appended::Taken { next } => next.get(),
                        };
                    }
                })
            })
            .collect();
        let keepers: Vec<_> = (0..3_u64)
            .map(|rival| {
                let (log, ended) = (open(), ended.clone());
                tokio::spawn(async move {
                    let rules = Compaction {
                        max_rows: 20 + 40 * rival,
                        min_shards: 2 + rival as usize,
                        keep_shards: 2 + rival as usize,
                        ..RULES
                    };
                    let mut last = false;
                    while !last {
                        last = ended.load(Ordering::SeqCst);
                        let now = later(log.now().await.unwrap());
                        log.compact(&partition(0), &rules, now).await.unwrap();
                        log.sweep(&partition(0), Duration::ZERO, now).await.unwrap();
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (log, ended) = (open(), ended.clone());
                tokio::spawn(async move {
                    let (mut last, mut most) = (false, 0);
                    while !last {
                        last = ended.load(Ordering::SeqCst);
                        let listed = shards(&log).await;
                        let end = listed.last().map_or(0, |shard| shard.range.end.get());
                        assert!(end >= most, "from {most} back to {end}");
                        most = end;
                        tokio::task::yield_now().await;
                        let rows = offsets(&log.read_all(&listed, None).await.unwrap());
                        // Also where a freed name holds a late writer's shard by then.
                        assert_eq!(rows, (0..end).collect::<Vec<_>>());
                    }
                    most
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        ended.store(true, Ordering::SeqCst);
        for keeper in keepers {
            keeper.await.unwrap();
        }
        for reader in readers {
            assert_eq!(reader.await.unwrap(), END);
        }
        let log = open();
        is_whole(&log, END).await;
        let left = shards(&log).await.len();
        assert!(left < 40, "{left} shards of about 160 are left");
    }
}

/// A reader comes so late that what it listed was replaced and deleted, and that a writer
/// which knows nothing of it has put a shorter shard under one of the names.
#[tokio::test]
async fn a_reader_takes_no_other_shard_for_the_one_it_listed() {
    let place = Place::memory();
    let log = ShardLog::new(place.open());
    write(&log, 0, 60).await;
    let listed = shards(&log).await;
    compact(&log).await;
    sweep(&log).await;
    let late = ShardLog::new(place.open()).confirming_every(Duration::MAX);
    late.resume(&partition(0)).await.unwrap();
    let shorter = range(5, 7);
    let put = late.append(&partition(0), shorter, traces(shorter)).await;
    assert!(matches!(put.unwrap(), Appended::Written(_)));
    let error = log.read(&listed[1], None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    for task in [None, Some(task("a")), Some(task("b"))] {
        let rows = log.read_all(&listed, task.as_ref()).await.unwrap();
        let all = log.read_all(&shards(&log).await, task.as_ref()).await;
        assert_eq!(offsets(&rows), offsets(&all.unwrap()));
        assert_eq!(rows.len(), if task.is_some() { 30 } else { 60 });
    }
}

/// So it is where a part of a shard is fetched alone, whatever the size of the other one.
#[tokio::test]
async fn a_reader_of_a_part_takes_no_other_shard_for_the_one_it_listed() {
    let large = |range: OffsetRange| {
        let mut rows = traces(range);
        for row in &mut rows {
            // Noise, so that each shard is too large to be fetched whole.
            let noise = |n: u64| ((row.offset * 25_000 + n) as f32 * 12.9898).sin();
            row.trace.embedding = Some((0..25_000).map(noise).collect());
        }
        rows
    };
    for late_end in [7, 12] {
        let place = Place::memory();
        let log = ShardLog::new(place.open());
        for base in (0..30).step_by(5) {
            let range = range(base, base + 5);
            log.append(&partition(0), range, large(range))
                .await
                .unwrap();
        }
        let listed = shards(&log).await;
        assert!(listed[1].size > 256 << 10);
        compact(&log).await;
        sweep(&log).await;
        let late = ShardLog::new(place.open()).confirming_every(Duration::MAX);
        late.resume(&partition(0)).await.unwrap();
        let other = range(5, late_end);
        let put = late.append(&partition(0), other, large(other)).await;
        assert!(matches!(put.unwrap(), Appended::Written(_)));
        for name in ["a", "b"] {
            let task = task(name);
            let error = log.read(&listed[1], Some(&task)).await.unwrap_err();
            assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
            let rows = log.read_all(&listed, Some(&task)).await.unwrap();
            let expected = large(range(0, 30)).into_iter();
            let expected: Vec<_> = expected.filter(|row| row.trace.task == task).collect();
            assert!(rows == expected, "{late_end} {name}");
        }
    }
}

/// Text that compresses to nothing is as large as ever once it is read.
#[tokio::test]
async fn a_compaction_holds_no_more_than_it_may_once_unpacked() {
    const TEXT: usize = 100_000;
    let log = ShardLog::new(Hooked::new(|_, _| Fate::Done).store());
    for base in (0..60).step_by(5) {
        let range = range(base, base + 5);
        let mut rows = traces(range);
        for row in &mut rows {
            row.trace.input = Some("ab".repeat(TEXT / 2));
        }
        log.append(&partition(0), range, rows).await.unwrap();
    }
    let before = shards(&log).await;
    let (size, unpacked) = (before[0].size, before[0].unpacked);
    assert!(
        unpacked > 5 * TEXT as u64 && size < unpacked / 20,
        "{size} of {unpacked}"
    );
    let rules = Compaction {
        max_bytes: 3 * unpacked,
        ..RULES
    };
    let now = log.now().await.unwrap();
    let done = log.compact(&partition(0), &rules, now).await.unwrap();
    assert!(done.made > 1 && done.replaced >= 6, "{done:?}");
    for shard in shards(&log).await {
        assert!(shard.rows() <= 15, "{shard:?}");
        assert!(shard.unpacked <= rules.max_bytes, "{shard:?}");
    }
    is_whole(&log, 60).await;
}

/// Who asks where to go on has seen the end of the partition: the put that follows does
/// not look once more.
#[tokio::test]
async fn asking_where_to_go_on_confirms_the_end() {
    let hooked = Hooked::new(|_, _| Fate::Done);
    write(&ShardLog::new(hooked.store()), 0, 10).await;
    let operations = async |log: &ShardLog, base: u64| {
        let (before, range) = (hooked.operations(), range(base, base + 5));
        let put = log.append(&partition(0), range, traces(range)).await;
        assert!(matches!(put.unwrap(), Appended::Written(_)));
        hooked.operations() - before
    };
    let told = ShardLog::new(hooked.store());
    told.resume(&partition(0)).await.unwrap();
    assert_eq!(operations(&told, 10).await, 1, "the put alone");
    // One that was told nothing looks.
    let untold = ShardLog::new(hooked.store());
    assert!(operations(&untold, 15).await > 1);
}

/// A reader of one task fetches the row groups of that task alone.
#[tokio::test]
async fn a_reader_of_one_task_skips_the_others() {
    let hooked = Hooked::new(|_, _| Fate::Done);
    let log = ShardLog::new(hooked.store());
    let whole = range(0, 8000);
    let mut rows = traces(whole);
    for row in &mut rows {
        // Large enough that bytes tell: [0, 1000) of "a" and "c", the rest of "b".
        let name = match row.offset {
            0..500 => "a",
            500..1000 => "c",
            _ => "b",
        };
        row.trace.task = task(name);
        // Noise: what compresses well is fetched in one request.
        let noise = |n: u64| ((row.offset * 64 + n) as f32 * 12.9898).sin();
        row.trace.embedding = Some((0..64).map(noise).collect());
    }
    log.append(&partition(0), whole, rows.clone())
        .await
        .unwrap();
    let info = shards(&log).await.remove(0);
    assert_eq!(
        info.rows_by_task,
        BTreeMap::from([(task("a"), 500), (task("b"), 7000), (task("c"), 500),])
    );
    for (name, most) in [("a", 6), ("c", 6), ("b", 1)] {
        let before = hooked.bytes_read();
        let read = log.read(&info, Some(&task(name))).await.unwrap();
        let expected: Vec<_> = rows
            .iter()
            .filter(|row| row.trace.task == task(name))
            .collect();
        assert!(read.iter().eq(expected), "{name}");
        let bytes = hooked.bytes_read() - before;
        assert!(
            bytes < info.size / most + (64 << 10),
            "{bytes} of {} bytes for {name}",
            info.size
        );
    }
}

/// Counts what it is shown, and how much at a time.
#[derive(Default)]
struct Counting {
    rows: usize,
    most: usize,
    embeddings: usize,
    truths: usize,
    /// Echoes of routes, and metadata.
    echoes: usize,
    metadata: usize,
    inputs: usize,
}

impl tracer_store::Visitor for Counting {
    fn see(&mut self, rows: Vec<StoredTrace>) {
        self.rows += rows.len();
        self.most = self.most.max(rows.len());
        self.embeddings += rows.iter().filter(|r| r.trace.embedding.is_some()).count();
        self.inputs += rows.iter().filter(|r| r.trace.input.is_some()).count();
        self.truths += rows
            .iter()
            .filter(|r| r.trace.ground_truth.is_some())
            .count();
        self.echoes += rows.iter().filter(|r| r.trace.routing.is_some()).count();
        self.metadata += rows.iter().filter(|r| !r.trace.metadata.is_empty()).count();
    }
}

/// Of a task's traces only the columns that are wanted are fetched, and they are shown
/// some at a time.
#[tokio::test]
async fn columns_that_are_not_wanted_are_not_fetched() {
    let hooked = Hooked::new(|_, _| Fate::Done);
    let log = ShardLog::new(hooked.store());
    let mut rows = traces(range(0, 40_000));
    for row in &mut rows {
        // Nothing that compresses.
        let mut state = row.offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let values = (0..64).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32
        });
        row.trace.embedding = Some(values.collect());
        row.trace.ground_truth = Some("truth".into());
        row.trace.metadata = BTreeMap::from([("model".into(), "m".into())]);
        row.trace.routing = Some(Routing {
            pipeline_version: 3,
            decision: Decision::Handled,
            label: Some("x".into()),
            score: None,
            audit: true,
            propensity: 0.1,
        });
    }
    log.append(&partition(0), range(0, 40_000), rows)
        .await
        .unwrap();
    let shards = log.shards(&partition(0)).await.unwrap();
    let task = task("a");
    let visit = async |columns| {
        let before = hooked.bytes_read();
        let visited = log.visit(&shards, Some(&task), columns, Counting::default());
        (visited.await.unwrap(), hooked.bytes_read() - before)
    };
    let (all, bytes_of_all) = visit(Columns::All).await;
    let (learning, bytes_to_learn) = visit(Columns::Learning).await;
    let (fitting, bytes_to_fit) = visit(Columns::Fitting).await;
    let (survey, bytes_to_survey) = visit(Columns::Surveying).await;
    let (audits, bytes_to_audit) = visit(Columns::Auditing).await;
    for seen in [&all, &learning, &fitting, &survey, &audits] {
        assert_eq!(seen.rows, 20_000);
        assert!(seen.most <= 8 * 1024, "{} at a time", seen.most);
    }
    let counts = |seen: &Counting| {
        let read = [
            seen.embeddings,
            seen.truths,
            seen.inputs,
            seen.metadata,
            seen.echoes,
        ];
        read.map(|rows| rows / 20_000)
    };
    assert_eq!(counts(&all), [1, 1, 1, 1, 1]);
    assert_eq!(counts(&learning), [1, 0, 1, 1, 1]);
    assert_eq!(counts(&fitting), [1, 0, 1, 0, 0]);
    assert_eq!(counts(&survey), [0, 0, 1, 1, 1]);
    assert_eq!(counts(&audits), [0, 0, 0, 0, 1]);
    // Half of the rows are of the other task.
    assert!(
        bytes_of_all * 10 < shards[0].size * 6,
        "{bytes_of_all} of {}",
        shards[0].size
    );
    // Small columns between large ones may be fetched with them.
    assert!(bytes_to_fit <= bytes_to_learn && bytes_to_learn <= bytes_of_all);
    assert!(
        bytes_to_survey * 4 < bytes_to_learn,
        "{bytes_to_survey} {bytes_to_learn}"
    );
    assert!(
        bytes_to_audit < bytes_to_survey,
        "{bytes_to_audit} {bytes_to_survey}"
    );
}
