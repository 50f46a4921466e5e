//! A log that refuses a position and has it all the same: the aggregator goes on when
//! its last record is the one that was read, and stands still when it is another.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracer_aggregator::{AggregatorConfig, Error, run};
use tracer_source::{
    Event, Offset, OffsetRange, PartitionId, Record, Source, SourceError, Start, TopicName,
};
use tracer_store::{Appended, LastRecord, ShardLog, Store};
use tracer_telemetry::{Health, Metrics};
use tracer_trace::Limits;

fn partition() -> PartitionId {
    PartitionId::new(TopicName::default(), 0)
}

/// One partition in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<State>>);

#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "what was said and done, one by one"
)]
struct State {
    records: Vec<String>,
    said: bool,
    position: Option<usize>,
    /// The position is to be refused.
    refuse: bool,
    refused: bool,
    paused: bool,
}

impl Log {
    fn set(&self, records: impl Iterator<Item = String>, refuse: bool) {
        let mut state = self.0.lock().unwrap();
        state.records = records.collect();
        state.refuse = refuse;
    }

    fn event(&self) -> Option<Event> {
        let mut state = self.0.lock().unwrap();
        if !std::mem::replace(&mut state.said, true) {
            return Some(Event::Assigned(vec![partition()]));
        }
        let position = state.position?;
        if state.paused || state.refused {
            return None;
        }
        if std::mem::take(&mut state.refuse) {
            state.refused = true;
            return Some(Event::PositionDoubtful {
                partition: partition(),
                position: Offset(position as u64),
            });
        }
        let payload = state.records.get(position)?.clone().into();
        state.position = Some(position + 1);
        Some(Event::Records(vec![Record {
            partition: partition(),
            offset: Offset(position as u64),
            next: Offset(position as u64 + 1),
            payload,
            timestamp_ms: None,
        }]))
    }
}

#[async_trait]
impl Source for Log {
    async fn next(&mut self) -> Result<Event, SourceError> {
        loop {
            if let Some(event) = self.event() {
                return Ok(event);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError> {
        for (partition, start) in starts {
            self.seek(partition, *start).await?;
        }
        Ok(())
    }

    async fn release(&mut self, _: &[PartitionId]) -> Result<(), SourceError> {
        self.0.lock().unwrap().position = None;
        Ok(())
    }

    async fn seek(&mut self, _: &PartitionId, start: Start) -> Result<(), SourceError> {
        let mut state = self.0.lock().unwrap();
        state.refused = false;
        state.position = Some(match start {
            Start::Beginning => 0,
            Start::At(offset) => offset.get() as usize,
        });
        Ok(())
    }

    fn pause(&mut self, _: &[PartitionId]) -> Result<(), SourceError> {
        self.0.lock().unwrap().paused = true;
        Ok(())
    }

    fn resume(&mut self, _: &[PartitionId]) -> Result<(), SourceError> {
        self.0.lock().unwrap().paused = false;
        Ok(())
    }

    fn commit(&mut self, _: &[(PartitionId, Offset)]) {}

    fn end(&self, _: &PartitionId) -> Option<Offset> {
        Some(Offset(self.0.lock().unwrap().records.len() as u64))
    }

    async fn close(self: Box<Self>) {}
}

fn traces(of: &'static str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!(r#"{{"id": "{of}{n}", "input": "a", "teacher": "b"}}"#))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An aggregator, its log, and a store in memory.
struct World {
    log: Log,
    shards: ShardLog,
    metrics: Metrics,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl World {
    /// On a log of some old traces. Nothing is stored for its age.
    fn start(old: usize, max_rows: usize) -> Self {
        let store = Store::open("memory://", &std::collections::BTreeMap::new()).unwrap();
        let (shards, log) = (ShardLog::new(store), Log::default());
        log.set(traces("old", old), false);
        let (shutdown, metrics) = (CancellationToken::new(), Metrics::new());
        let config = AggregatorConfig {
            max_rows,
            max_age_ms: 3_600_000,
            ..AggregatorConfig::default()
        };
        let task = tokio::spawn(run(
            config,
            Box::new(log.clone()),
            None,
            shards.clone(),
            Limits::default(),
            metrics.clone(),
            Health::new(),
            shutdown.clone(),
        ));
        Self {
            log,
            shards,
            metrics,
            shutdown,
            task,
        }
    }

    async fn until(&self, series: &str) {
        until(series, || self.metrics.render().contains(series)).await;
    }

    async fn stop(self) -> ShardLog {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.shards
    }
}

const LOST: &str = r#"tracer_consumer_position_lost{topic="traces",partition="0"} 1"#;

async fn ids(shards: &ShardLog) -> Vec<String> {
    let mut ids = Vec::new();
    for shard in shards.shards(&partition()).await.unwrap() {
        let rows = shards.read(&shard, None).await.unwrap();
        ids.extend(rows.into_iter().map(|row| row.trace.id));
    }
    ids
}

/// The record at an offset of a log of [`traces`].
fn record(of: &'static str, offset: usize) -> LastRecord {
    let payload = traces(of, offset + 1).last().unwrap();
    LastRecord::of(Offset(offset as u64), None, payload.as_bytes())
}

/// Reads 3 traces, then meets `records` and a refused position.
async fn after_a_refusal(records: impl Iterator<Item = String>, ends: &str) -> ShardLog {
    let world = World::start(3, 1000);
    world.until("tracer_traces_consumed_total 3\n").await;
    world.log.set(records, true);
    world.until(ends).await;
    world.stop().await
}

#[tokio::test]
async fn the_same_log_is_read_on() {
    let shards = after_a_refusal(traces("old", 5), "tracer_traces_consumed_total 5\n").await;
    assert_eq!(ids(&shards).await, ["old0", "old1", "old2", "old3", "old4"]);
}

#[tokio::test]
async fn another_log_is_not() {
    let shards = after_a_refusal(traces("new", 5), LOST).await;
    assert_eq!(ids(&shards).await, ["old0", "old1", "old2"]);
    // The record that gave it away is not taken for the last that was read.
    let last = shards.resume(&partition()).await.unwrap().last.unwrap();
    assert_eq!(last.last_record, Some(record("old", 2)));
}

/// While it stands still, a consumer of the old log that is late writes another shard. That
/// is no decision to go on in the new log.
#[tokio::test]
async fn another_log_is_not_read_after_a_late_shard_of_the_old_one() {
    let world = World::start(3, 3);
    world.until("tracer_shards_written_total 1\n").await;
    world.log.set(traces("new", 9), true);
    world.until(LOST).await;
    let range = OffsetRange::new(Offset(3), Offset(5)).unwrap();
    let last = Some(record("old", 4));
    let late = world
        .shards
        .append_until(&partition(), range, Vec::new(), last)
        .await
        .unwrap();
    assert!(matches!(late, Appended::Written(_)));
    let looked = r#"tracer_consumer_resets_total{topic="traces",partition="0"} 1"#;
    world.until(looked).await;
    world.until(LOST).await;
    let shards = world.stop().await;
    assert_eq!(ids(&shards).await, ["old0", "old1", "old2"]);
}

/// The log was created anew and it was decided to read it from its first record, all while a
/// consumer had read some of the old one and stored nothing yet. What it has is of a log
/// that is gone: none of it may stand behind the seal, in the place of the new records.
#[tokio::test]
async fn nothing_of_the_old_log_is_stored_behind_a_seal() {
    let world = World::start(2, 3);
    world.until("tracer_traces_consumed_total 2\n").await;
    let reset = world
        .shards
        .reset(&partition(), Offset::ZERO, "a test", "created anew")
        .await
        .unwrap();
    assert_eq!((reset.position, reset.next), (Offset(0), Offset(1)));
    world.log.set(traces("new", 6), false);
    world.until("tracer_shards_written_total 2\n").await;
    let shards = world.stop().await;
    let expected: Vec<_> = (0..6).map(|n| format!("new{n}")).collect();
    assert_eq!(ids(&shards).await, expected);
}

/// The shard of a rival that read less, as much or more takes the range, and what it does not cover
/// is read again.
#[tokio::test]
async fn what_a_rival_covers_is_passed_and_the_rest_read_again() {
    for covered in [2, 3, 5] {
        let world = World::start(2, 3);
        world.until("tracer_traces_consumed_total 2\n").await;
        let range = OffsetRange::new(Offset(0), Offset(covered)).unwrap();
        let last = Some(record("old", covered as usize - 1));
        let rival = world
            .shards
            .append_until(&partition(), range, Vec::new(), last)
            .await
            .unwrap();
        assert!(matches!(rival, Appended::Written(_)));
        world.log.set(traces("old", covered as usize + 6), false);
        world.until("tracer_shards_written_total 2\n").await;
        let shards = world.stop().await;
        let expected: Vec<_> = (covered..covered + 6).map(|n| format!("old{n}")).collect();
        assert_eq!(ids(&shards).await, expected);
    }
}
