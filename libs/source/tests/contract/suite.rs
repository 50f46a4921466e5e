//! The cases. Each gets a new, empty log with three partitions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tracer_source::{
    Event, LogWriter, Message, Offset, PartitionId, Record, Source, SourceConfig, Start, TopicName,
};

pub(crate) const PARTITIONS: i32 = 3;
const DEADLINE: Duration = Duration::from_mins(1);
/// How long silence must last to count as silence.
const SILENCE: Duration = Duration::from_millis(1500);

/// A log under test.
pub(crate) struct Log {
    pub(crate) config: SourceConfig,
    pub(crate) topic: TopicName,
    /// Holds the files of a log that has some.
    pub(crate) _directory: Option<TempDir>,
}

impl Log {
    pub(crate) fn source(&self) -> Reader {
        Reader {
            source: self.config.open_source().unwrap(),
            lost: Vec::new(),
        }
    }

    pub(crate) fn writer(&self) -> Arc<dyn LogWriter> {
        self.config.open_writer().unwrap()
    }

    /// Writes numbered records, spread over the partitions by key.
    pub(crate) async fn fill(&self, numbers: std::ops::Range<usize>) -> Places {
        let writer = self.writer();
        let messages = numbers
            .clone()
            .map(|n| Message::new(format!("{n}")).with_key(format!("key {}", n % 16)))
            .collect();
        let places = writer.append_batch(&self.topic, messages).await.unwrap();
        numbers
            .zip(places)
            .map(|(n, place)| (place, n.to_string()))
            .collect()
    }
}

pub(crate) type Places = BTreeMap<(PartitionId, Offset), String>;

/// A source with the patience of a test.
pub(crate) struct Reader {
    pub(crate) source: Box<dyn Source>,
    pub(crate) lost: Vec<Event>,
}

impl Reader {
    /// A doubtful position is taken as it is: nobody creates these logs anew.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let event = timeout(DEADLINE, self.source.next())
                .await
                .expect("an event within the deadline")
                .unwrap();
            let Event::PositionDoubtful {
                partition,
                position,
            } = &event
            else {
                return event;
            };
            let start = Start::At(*position);
            self.source.seek(partition, start).await.unwrap();
        }
    }

    /// Waits for all partitions and answers with `start`.
    pub(crate) async fn assigned(
        &mut self,
        start: impl Fn(&PartitionId) -> Start,
    ) -> Vec<PartitionId> {
        let mut all = Vec::new();
        while all.len() < PARTITIONS as usize {
            match self.next().await {
                Event::Assigned(partitions) => {
                    let starts: Vec<_> = partitions.iter().map(|p| (p.clone(), start(p))).collect();
                    self.source.assign(&starts).await.unwrap();
                    all.extend(partitions);
                }
                Event::Revoked(partitions) => {
                    self.source.release(&partitions).await.unwrap();
                    all.retain(|p| !partitions.contains(p));
                }
                Event::Records(records) if all.is_empty() => panic!("too early: {records:?}"),
                other => panic!("unexpected: {other:?}"),
            }
        }
        all
    }

    /// Reads until `count` records have come; checks order and positions.
    pub(crate) async fn read(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        while records.len() < count {
            match self.next().await {
                Event::Records(some) => records.extend(some),
                lost @ Event::PositionLost { .. } => self.lost.push(lost),
                other => panic!("unexpected: {other:?}"),
            }
        }
        assert_eq!(records.len(), count, "more records than there are");
        in_order(&records);
        records
    }

    pub(crate) async fn silent(&mut self) {
        if let Ok(event) = timeout(SILENCE, self.next()).await {
            panic!("unexpected: {event:?}");
        }
    }
}

fn in_order(records: &[Record]) {
    let mut last: BTreeMap<&PartitionId, Offset> = BTreeMap::new();
    for record in records {
        assert!(record.offset < record.next);
        if let Some(next) = last.insert(&record.partition, record.next) {
            assert!(next <= record.offset, "out of order: {record:?}");
        }
    }
}

fn places(records: &[Record]) -> Places {
    let places: Places = records
        .iter()
        .map(|record| {
            let text = String::from_utf8(record.payload.to_vec()).unwrap();
            ((record.partition.clone(), record.offset), text)
        })
        .collect();
    assert_eq!(places.len(), records.len(), "a record came twice");
    places
}

fn beginning(_: &PartitionId) -> Start {
    Start::Beginning
}

pub(crate) async fn delivers_everything_in_order(log: Log) {
    let written = log.fill(0..3000).await;
    assert_eq!(written.len(), 3000);
    let mut reader = log.source();
    let mut partitions = reader.assigned(beginning).await;
    partitions.sort();
    let expected: Vec<_> = (0..PARTITIONS)
        .map(|n| PartitionId::new(log.topic.clone(), n))
        .collect();
    assert_eq!(partitions, expected);
    let records = reader.read(3000).await;
    assert_eq!(places(&records), written);
    reader.silent().await;
    reader.source.close().await;
}

pub(crate) async fn nothing_flows_before_the_answer(log: Log) {
    log.fill(0..10).await;
    let mut reader = log.source();
    let Event::Assigned(partitions) = reader.next().await else {
        panic!("not assigned");
    };
    reader.silent().await;
    let starts: Vec<_> = partitions
        .into_iter()
        .map(|p| (p, Start::Beginning))
        .collect();
    reader.source.assign(&starts).await.unwrap();
    reader.read(10).await;
    reader.source.close().await;
}

pub(crate) async fn resumes_at_any_position(log: Log) {
    let written = log.fill(0..300).await;
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let first = reader.read(300).await;
    reader.source.close().await;
    for keep in [1, 150, 299] {
        let mut resume = BTreeMap::new();
        for record in &first[..keep] {
            resume.insert(record.partition.clone(), record.next);
        }
        let mut reader = log.source();
        reader
            .assigned(|partition| resume.get(partition).copied().into())
            .await;
        let rest = places(&reader.read(300 - keep).await);
        let mut all = places(&first[..keep]);
        all.extend(rest);
        assert_eq!(all, written, "after {keep}");
        reader.silent().await;
        reader.source.close().await;
    }
}

pub(crate) async fn tails_what_is_written_later(log: Log) {
    let mut written = log.fill(0..10).await;
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let mut read = places(&reader.read(10).await);
    reader.silent().await;
    for round in 1..5 {
        written.extend(log.fill(round * 10..(round + 1) * 10).await);
        read.extend(places(&reader.read(10).await));
    }
    assert_eq!(read, written);
    reader.source.close().await;
}

pub(crate) async fn pauses_without_a_gap(log: Log) {
    let mut written = log.fill(0..5000).await;
    let mut reader = log.source();
    let partitions = reader.assigned(beginning).await;
    let mut records = Vec::new();
    while records.is_empty() {
        if let Event::Records(some) = reader.next().await {
            records.extend(some);
        }
    }
    for round in 0..3 {
        reader.source.pause(&partitions).unwrap();
        written.extend(log.fill(5000 + round * 100..5100 + round * 100).await);
        reader.silent().await;
        reader.source.resume(&partitions).unwrap();
        while let Event::Records(some) = reader.next().await {
            records.extend(some);
            if records.len() > 1500 * (round + 1) {
                break;
            }
        }
    }
    while records.len() < 5300 {
        if let Event::Records(some) = reader.next().await {
            records.extend(some);
        }
    }
    in_order(&records);
    assert_eq!(places(&records), written);
    reader.source.close().await;
}

pub(crate) async fn seeks_back_and_forth(log: Log) {
    log.fill(0..300).await;
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let records = reader.read(300).await;
    let partition = records[0].partition.clone();
    let own: Vec<_> = records
        .iter()
        .filter(|record| record.partition == partition)
        .cloned()
        .collect();
    let middle = &own[own.len() / 2];
    reader
        .source
        .seek(&partition, Start::At(middle.offset))
        .await
        .unwrap();
    let again = reader.read(own.len() - own.len() / 2).await;
    assert_eq!(again, own[own.len() / 2..]);
    reader
        .source
        .seek(&partition, Start::Beginning)
        .await
        .unwrap();
    assert_eq!(reader.read(own.len()).await, own);
    // Forward, over records that may be under way already.
    reader
        .source
        .seek(&partition, Start::Beginning)
        .await
        .unwrap();
    let last = &own[own.len() - 1];
    reader
        .source
        .seek(&partition, Start::At(last.offset))
        .await
        .unwrap();
    assert_eq!(reader.read(1).await, std::slice::from_ref(last));
    reader.silent().await;
    reader.source.close().await;
}

pub(crate) async fn says_when_a_position_is_lost(log: Log) {
    let written = log.fill(0..100).await;
    let victim = written.keys().next().unwrap().0.clone();
    let beyond = Offset(1_000_000);
    let mut reader = log.source();
    reader
        .assigned(|partition| {
            if *partition == victim {
                Start::At(beyond)
            } else {
                Start::Beginning
            }
        })
        .await;
    let others = written.keys().filter(|(p, _)| *p != victim).count();
    let mut read = places(&reader.read(others).await);
    while reader.lost.is_empty() {
        let event = reader.next().await;
        reader.lost.push(event);
    }
    let [
        Event::PositionLost {
            partition,
            position,
            available,
        },
    ] = &reader.lost[..]
    else {
        panic!("unexpected: {:?}", reader.lost);
    };
    assert_eq!((partition, *position), (&victim, beyond));
    assert!(available.end < beyond && available.end > Offset::ZERO);
    // The partition stays where it is until somebody decides.
    reader.silent().await;
    reader.source.seek(&victim, Start::Beginning).await.unwrap();
    read.extend(places(&reader.read(100 - others).await));
    assert_eq!(read, written);
    reader.source.close().await;
}

pub(crate) async fn a_lost_position_leaves_the_others_as_they_are(log: Log) {
    let written = log.fill(0..3000).await;
    let victim = written.keys().next().unwrap().0.clone();
    let mut reader = log.source();
    let partitions = reader
        .assigned(|partition| {
            if *partition == victim {
                Start::At(Offset(1_000_000))
            } else {
                Start::Beginning
            }
        })
        .await;
    let [paused, flowing] = &partitions
        .into_iter()
        .filter(|partition| *partition != victim)
        .collect::<Vec<_>>()[..]
    else {
        panic!("not three partitions");
    };
    reader.source.pause(std::slice::from_ref(paused)).unwrap();
    let count = |of: &PartitionId| written.keys().filter(|(p, _)| p == of).count();
    let mut records = reader.read(count(flowing)).await;
    while reader.lost.is_empty() {
        let event = reader.next().await;
        reader.lost.push(event);
    }
    assert!(
        matches!(&reader.lost[..], [Event::PositionLost { partition, .. }] if *partition == victim)
    );
    reader.silent().await;
    reader.source.resume(std::slice::from_ref(paused)).unwrap();
    records.extend(reader.read(count(paused)).await);
    let mut expected = written.clone();
    expected.retain(|(partition, _), _| *partition != victim);
    assert_eq!(places(&records), expected);
    reader.silent().await;
    reader.source.close().await;
}

pub(crate) async fn next_can_be_dropped_at_any_time(log: Log) {
    let written = log.fill(0..5000).await;
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let mut records = Vec::new();
    let end = Instant::now() + DEADLINE;
    while records.len() < 5000 {
        assert!(Instant::now() < end, "{} of 5000", records.len());
        let patience = Duration::from_micros(50 * (records.len() as u64 % 7));
        if let Ok(Ok(Event::Records(some))) = timeout(patience, reader.source.next()).await {
            records.extend(some);
        }
        // A log whose reads take longer than the patience never gets anywhere.
        if let Ok(Ok(Event::Records(some))) = timeout(SILENCE, reader.source.next()).await {
            records.extend(some);
        }
    }
    in_order(&records);
    assert_eq!(places(&records), written);
    reader.source.close().await;
}

pub(crate) async fn hints_are_only_hints(log: Log) {
    let written = log.fill(0..100).await;
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let records = reader.read(100).await;
    let ends: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.partition.clone(), record.next))
        .collect();
    reader.source.commit(&ends.into_iter().collect::<Vec<_>>());
    reader.source.close().await;

    let mut reader = log.source();
    reader.assigned(beginning).await;
    assert_eq!(places(&reader.read(100).await), written);
    reader.source.close().await;
}

pub(crate) async fn released_partitions_are_silent(log: Log) {
    log.fill(0..100).await;
    let mut reader = log.source();
    let partitions = reader.assigned(beginning).await;
    reader.read(100).await;
    reader.source.release(&partitions[..1]).await.unwrap();
    let written = log.fill(100..200).await;
    let kept = written
        .keys()
        .filter(|(partition, _)| *partition != partitions[0])
        .count();
    assert!(kept < 100);
    let records = reader.read(kept).await;
    assert!(records.iter().all(|r| r.partition != partitions[0]));
    reader.silent().await;
    reader.source.close().await;
}

pub(crate) async fn batches_keep_their_order(log: Log) {
    let writer = log.writer();
    let mut written = Vec::new();
    for batch in 0..20 {
        let messages = (0..50)
            .map(|n| Message::new(format!("{}", batch * 50 + n)).with_key("the same"))
            .collect();
        written.extend(writer.append_batch(&log.topic, messages).await.unwrap());
    }
    writer.flush().await.unwrap();
    assert!(written.is_sorted(), "offsets grow in the order of writing");
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let records = reader.read(1000).await;
    for (n, (record, place)) in records.iter().zip(&written).enumerate() {
        assert_eq!(record.payload, n.to_string());
        assert_eq!((&record.partition, record.offset), (&place.0, place.1));
    }
    reader.source.close().await;
}

pub(crate) async fn large_and_empty_payloads_pass(log: Log) {
    let writer = log.writer();
    let large = "x".repeat(900_000);
    for payload in ["", large.as_str(), "", "end"] {
        let message = Message::new(payload.to_owned()).with_key("k");
        writer.append(&log.topic, message).await.unwrap();
    }
    let mut reader = log.source();
    reader.assigned(beginning).await;
    let records = reader.read(4).await;
    let lengths: Vec<_> = records.iter().map(|record| record.payload.len()).collect();
    assert_eq!(lengths, [0, 900_000, 0, 3]);
    reader.source.close().await;
}
