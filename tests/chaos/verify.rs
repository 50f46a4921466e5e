//! What stands in the log, what stands in the shards, and whether it is the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Headers as _,
};

use crate::{
    producer::content,
    world::{PARTITIONS, World},
};

/// A payload that is no trace begins like this.
const OTHER: &str = "no trace";

/// What the comparison has found.
#[derive(Default)]
pub(crate) struct Found {
    /// Traces in the log.
    pub(crate) traces: usize,
    /// Payloads in the log that are none.
    pub(crate) others: usize,
    /// Offsets that the log leaves out: markers of transactions, and aborted records.
    pub(crate) gaps: u64,
    /// Rows in the shards.
    pub(crate) rows: usize,
    pub(crate) shards: usize,
    /// Traces of the log that are in no shard.
    pub(crate) lost: usize,
    /// Rows beyond the first of their offset.
    pub(crate) duplicated: usize,
    /// Rows that the log has not, or has otherwise.
    pub(crate) foreign: usize,
    /// Ranges of shards that do not begin where the one before ended.
    pub(crate) breaks: usize,
    /// By partition: the sum of a hash of every trace, of the log and of the shards.
    pub(crate) log_checksum: Vec<u64>,
    pub(crate) shard_checksum: Vec<u64>,
    pub(crate) letters: usize,
    /// Payloads that are no traces and have no dead letter.
    pub(crate) letters_lost: usize,
    /// Dead letters about nothing in the log.
    pub(crate) letters_foreign: usize,
}

impl Found {
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.duplicated + self.foreign + self.breaks;
        wrong + self.letters_lost + self.letters_foreign == 0
            && self.rows == self.traces
            && self.log_checksum == self.shard_checksum
    }
}

type Records = Vec<BTreeMap<u64, String>>;

/// Every record of the topic, by partition and offset: its id, or the payload when it
/// is no trace.
pub(crate) async fn read_log(world: &World) -> Records {
    let (brokers, topic) = (world.cluster.brokers.clone(), world.topic.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut log: Records = vec![BTreeMap::new(); PARTITIONS];
        read_all(&brokers, &topic, PARTITIONS, |message| {
            let payload = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
            log[message.partition() as usize].insert(message.offset() as u64, payload);
        });
        log
    });
    read.await.unwrap()
}

/// A dead letter: the place it is about, and the payload.
pub(crate) type Letter = ((usize, u64), String);

pub(crate) async fn read_letters(world: &World) -> Vec<Letter> {
    let (brokers, topic) = (world.cluster.brokers.clone(), world.dead_letters.clone());
    let of = world.topic.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut letters = Vec::new();
        read_all(&brokers, &topic, 3, |message| {
            let headers = message.headers().expect("a dead letter has headers");
            let header = |name: &str| {
                let header = headers.iter().find(|header| header.key == name);
                let value = header.and_then(|header| header.value).expect("its origin");
                std::str::from_utf8(value).unwrap().to_owned()
            };
            assert_eq!(header("tracer.topic"), of);
            let place = (
                header("tracer.partition").parse().unwrap(),
                header("tracer.offset").parse().unwrap(),
            );
            let payload = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
            letters.push((place, payload));
        });
        letters
    });
    read.await.unwrap()
}

fn read_all(
    brokers: &str,
    topic: &str,
    partitions: usize,
    mut each: impl FnMut(&rdkafka::message::BorrowedMessage<'_>),
) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("{topic}.truth"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, rdkafka::Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut ended = BTreeSet::new();
    while ended.len() < partitions {
        match consumer.poll(Duration::from_secs(120)) {
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            // A broker that was away is asked again.
            Some(Err(error)) => eprintln!("chaos: reading {topic}: {error}"),
            None => panic!("{topic} cannot be read to its end"),
        }
    }
}

/// Compares the shards, as a reader finds them, with the log.
pub(crate) async fn compare(world: &World, log: &Records, letters: &[Letter]) -> Found {
    let mut found = Found {
        letters: letters.len(),
        ..Found::default()
    };
    for (number, partition) in world.partitions().iter().enumerate() {
        let (others, traces): (Vec<_>, Vec<_>) = log[number]
            .iter()
            .partition(|(_, payload)| payload.starts_with(OTHER));
        let traces: BTreeMap<u64, &str> = traces
            .into_iter()
            .map(|(offset, payload)| (*offset, id_of(payload)))
            .collect();
        found.traces += traces.len();
        found.others += others.len();
        found.gaps += log[number]
            .last_key_value()
            .map_or(0, |(last, _)| last + 1 - log[number].len() as u64);
        found
            .log_checksum
            .push(checksum(traces.iter().map(|(offset, id)| {
                let (text, label) = content(id);
                hash(*offset, &[*id, &text, &label])
            })));

        let mut seen = HashSet::new();
        let mut next = 0;
        let mut hashes = Vec::new();
        for shard in world.shards.shards(partition).await.unwrap() {
            found.shards += 1;
            found.breaks += usize::from(shard.range.start.get() != next);
            next = shard.range.end.get();
            for row in world.shards.read(&shard, None).await.unwrap() {
                found.rows += 1;
                let (text, label) = content(&row.trace.id);
                let same = traces.get(&row.offset) == Some(&row.trace.id.as_str())
                    && row.trace.input.as_deref() == Some(&text)
                    && row.trace.teacher == label;
                found.foreign += usize::from(!same);
                found.duplicated += usize::from(!seen.insert(row.offset));
                let input = row.trace.input.as_deref().unwrap_or_default();
                hashes.push(hash(
                    row.offset,
                    &[&row.trace.id, input, &row.trace.teacher],
                ));
            }
        }
        found.shard_checksum.push(checksum(hashes.into_iter()));
        found.lost += traces
            .keys()
            .filter(|offset| !seen.contains(offset))
            .count();

        let about: HashSet<(u64, &str)> = letters
            .iter()
            .filter(|((of, _), _)| *of == number)
            .map(|((_, offset), payload)| (*offset, payload.as_str()))
            .collect();
        let others: HashSet<(u64, &str)> = others
            .into_iter()
            .map(|(offset, payload)| (*offset, payload.as_str()))
            .collect();
        found.letters_lost += others.difference(&about).count();
        found.letters_foreign += about.difference(&others).count();
    }
    found
}

/// How often something stands in the logs of a round's members.
pub(crate) fn count_in_logs(home: &Path, what: &str) -> usize {
    let logs = fs::read_dir(home).unwrap();
    logs.map(|member| {
        let log = fs::read(member.unwrap().path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(what).count()
    })
    .sum()
}

fn id_of(payload: &str) -> &str {
    payload
        .strip_prefix(r#"{"id":""#)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(payload)
}

/// The same in any order.
fn checksum(hashes: impl Iterator<Item = u64>) -> u64 {
    hashes.fold(0, u64::wrapping_add)
}

/// FNV-1a of 64 bits, over an offset and texts with their ends.
fn hash(offset: u64, texts: &[&str]) -> u64 {
    let ends = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    offset
        .to_le_bytes()
        .into_iter()
        .chain(ends)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}
