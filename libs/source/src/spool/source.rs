//! Reading and tailing the spool.
//!
//! The spool has one reader's view: every partition is assigned at once and
//! never revoked. Two readers of one spool both read everything; the
//! contract's fourth point sorts them out.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::partition_path;
use crate::{
    Event, Offset, OffsetRange, PartitionId, Record, Source, SourceError, SpoolConfig, Start,
    TopicName,
};

/// Bytes read from a partition at a time.
const CHUNK: usize = 1 << 20;

/// The longest line delivered whole. Of a longer one its beginning is delivered,
/// so that it is refused and counted like any other payload that is too large.
const MAX_LINE: usize = 32 << 20;

/// How long a reader that found nothing waits before it looks again.
const IDLE: Duration = Duration::from_millis(25);

/// The reading end of a spool.
#[derive(Debug)]
pub struct SpoolSource {
    root: PathBuf,
    /// Said once at the start.
    unassigned: Vec<PartitionId>,
    partitions: BTreeMap<PartitionId, Tail>,
    /// Partitions in the order in which they are looked at next.
    turns: VecDeque<PartitionId>,
    /// The read under way. It outlives a dropped `next`: a caller that asks again
    /// and again must not start a read each time and never see one end.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    partition: PartitionId,
    path: PathBuf,
    position: u64,
    result: JoinHandle<io::Result<Read>>,
}

#[derive(Debug)]
struct Tail {
    position: u64,
    /// The position has not been compared with the file yet.
    unchecked: bool,
    paused: bool,
    /// The position is not in the file; nothing is read until it is sought.
    lost: bool,
    /// A long line without an end that was read before, to no avail.
    unfinished: Option<Unfinished>,
}

impl Tail {
    fn at(start: Start) -> Self {
        let position = match start {
            Start::Beginning => 0,
            Start::At(offset) => offset.get(),
        };
        Self {
            position,
            unchecked: true,
            paused: false,
            lost: false,
            unfinished: None,
        }
    }
}

/// What a file looked like whose last line is long and has no end. As long as it
/// looks the same it is not read again: that would be megabytes at every look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unfinished {
    length: u64,
    modified: Option<SystemTime>,
}

impl SpoolSource {
    /// Opens a spool. Its directory and files need not exist yet.
    ///
    /// A spool that has more partitions than are configured is refused: what stands
    /// in the others would never be read.
    pub fn open(config: &SpoolConfig) -> Result<Self, SourceError> {
        for topic in &config.topics {
            refuse_unread(config, topic)?;
        }
        let unassigned = config
            .topics
            .iter()
            .flat_map(|topic| (0..config.partitions).map(|n| PartitionId::new(topic.clone(), n)))
            .collect();
        Ok(Self {
            root: config.path.clone(),
            unassigned,
            partitions: BTreeMap::new(),
            turns: VecDeque::new(),
            reading: None,
        })
    }

    fn tail(&mut self, partition: &PartitionId) -> Result<&mut Tail, SourceError> {
        self.partitions.get_mut(partition).ok_or_else(|| {
            SourceError::Config(format!("partition {partition} has not been assigned"))
        })
    }

    /// The next partition's read, begun; `None` when no partition is to be read.
    fn begin(&mut self) -> Option<Reading> {
        for _ in 0..self.turns.len() {
            let partition = self.turns.pop_front()?;
            self.turns.push_back(partition.clone());
            let Some(tail) = self.partitions.get(&partition) else {
                continue;
            };
            if tail.paused || tail.lost {
                continue;
            }
            let path = partition_path(&self.root, &partition);
            let (position, check, known) = (tail.position, tail.unchecked, tail.unfinished);
            let file = path.clone();
            return Some(Reading {
                partition,
                path,
                position,
                result: tokio::task::spawn_blocking(move || read(&file, position, check, known)),
            });
        }
        None
    }

    /// Looks at every partition once, beginning with the one whose turn it is.
    async fn look(&mut self) -> Result<Option<Event>, SourceError> {
        for _ in 0..self.turns.len() {
            if self.reading.is_none() {
                self.reading = self.begin();
            }
            let Some(reading) = &mut self.reading else {
                return Ok(None);
            };
            // Dropped here, the read goes on and is awaited by the next call.
            let read = (&mut reading.result).await;
            let Some(Reading {
                partition,
                path,
                position,
                ..
            }) = self.reading.take()
            else {
                return Ok(None);
            };
            let read = read
                .map_err(|_| SourceError::Closed)?
                .map_err(SourceError::spool(path, "read"))?;
            // Released, paused or sought since the read began: it is read again
            // when it is wanted, from where it is wanted.
            let wanted = self
                .partitions
                .get(&partition)
                .is_some_and(|tail| tail.position == position && !tail.paused && !tail.lost);
            if !wanted {
                continue;
            }
            let tail = self.tail(&partition)?;
            match read {
                Read::Nothing => {}
                Read::Unfinished(unfinished) => tail.unfinished = Some(unfinished),
                Read::Lost { length } => {
                    tail.lost = true;
                    return Ok(Some(Event::PositionLost {
                        partition,
                        position: Offset(position),
                        available: OffsetRange {
                            start: Offset::ZERO,
                            end: Offset(length),
                        },
                    }));
                }
                Read::Lines(lines) => {
                    tail.unchecked = false;
                    tail.unfinished = None;
                    let mut records = Vec::with_capacity(lines.len());
                    for Line { start, end, text } in lines {
                        tail.position = end;
                        records.push(Record {
                            partition: partition.clone(),
                            offset: Offset(start),
                            next: Offset(end),
                            payload: text,
                            timestamp_ms: None,
                        });
                    }
                    return Ok(Some(Event::Records(records)));
                }
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Source for SpoolSource {
    async fn next(&mut self) -> Result<Event, SourceError> {
        if !self.unassigned.is_empty() {
            return Ok(Event::Assigned(std::mem::take(&mut self.unassigned)));
        }
        loop {
            if let Some(event) = self.look().await? {
                return Ok(event);
            }
            tokio::time::sleep(IDLE).await;
        }
    }

    async fn assign(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), SourceError> {
        for (partition, start) in starts {
            if self
                .partitions
                .insert(partition.clone(), Tail::at(*start))
                .is_none()
            {
                self.turns.push_back(partition.clone());
            }
        }
        Ok(())
    }

    async fn release(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        for partition in partitions {
            self.partitions.remove(partition);
        }
        self.turns.retain(|turn| !partitions.contains(turn));
        Ok(())
    }

    async fn seek(&mut self, partition: &PartitionId, start: Start) -> Result<(), SourceError> {
        let tail = self.tail(partition)?;
        let paused = tail.paused;
        *tail = Tail {
            paused,
            ..Tail::at(start)
        };
        Ok(())
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        for partition in partitions {
            self.tail(partition)?.paused = true;
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), SourceError> {
        for partition in partitions {
            self.tail(partition)?.paused = false;
        }
        Ok(())
    }

    fn commit(&mut self, _positions: &[(PartitionId, Offset)]) {
        // Nobody reads hints about a spool.
    }

    fn end(&self, partition: &PartitionId) -> Option<Offset> {
        let path = partition_path(&self.root, partition);
        match path.metadata() {
            Ok(metadata) => Some(Offset(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Offset::ZERO),
            Err(_) => None,
        }
    }

    async fn close(self: Box<Self>) {}
}

#[derive(Debug)]
struct Line {
    start: u64,
    end: u64,
    text: Bytes,
}

#[derive(Debug)]
enum Read {
    Nothing,
    Unfinished(Unfinished),
    Lost { length: u64 },
    Lines(Vec<Line>),
}

/// Refuses a topic with a file of a partition that is not to be read.
fn refuse_unread(config: &SpoolConfig, topic: &TopicName) -> Result<(), SourceError> {
    let directory = config.path.join(topic.as_str());
    let files = match directory.read_dir() {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SourceError::spool(directory, "read the directory")(error)),
    };
    for file in files {
        let file = file.map_err(SourceError::spool(&directory, "read the directory"))?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(number) = number.and_then(|number| number.parse::<i32>().ok())
            && number >= config.partitions
        {
            return Err(SourceError::Config(format!(
                "partitions is {}, but {} is there and would not be read: partitions may be raised, never lowered",
                config.partitions,
                file.path().display()
            )));
        }
    }
    Ok(())
}

/// Reads whole lines from `position` on. With `check`, a position that is not the
/// start of a line is lost as well: the file is not the one it was taken from.
/// A file that still looks as `known` is not read.
fn read(path: &Path, position: u64, check: bool, known: Option<Unfinished>) -> io::Result<Read> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A partition that was never written to. One that was read before and is
        // gone is another matter.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(match position {
                0 => Read::Nothing,
                _ => Read::Lost { length: 0 },
            });
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let length = metadata.len();
    if length < position {
        return Ok(Read::Lost { length });
    }
    if check && position > 0 {
        let mut before = [0];
        file.read_exact_at(&mut before, position - 1)?;
        if before != *b"\n" {
            return Ok(Read::Lost { length });
        }
    }
    if length == position {
        return Ok(Read::Nothing);
    }
    let looks = Unfinished {
        length,
        modified: metadata.modified().ok(),
    };
    if known == Some(looks) {
        return Ok(Read::Nothing);
    }
    let mut chunk = Vec::new();
    let mut wanted = CHUNK;
    let whole = loop {
        read_to(&file, position, &mut chunk, wanted)?;
        if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
            break newline + 1;
        }
        if chunk.len() < wanted {
            // A short one costs little, and the time of a file is a coarse sign.
            let long = chunk.len() > CHUNK;
            return Ok(if long {
                Read::Unfinished(looks)
            } else {
                Read::Nothing
            });
        }
        if chunk.len() >= MAX_LINE {
            let line = overlong(&file, position, chunk)?;
            return Ok(line.map_or(Read::Unfinished(looks), |line| Read::Lines(vec![line])));
        }
        wanted = (wanted * 2).min(MAX_LINE);
    };
    // What is delivered must not vanish in a power loss: its position would point
    // beyond the end of the file.
    file.sync_data()?;
    chunk.truncate(whole);
    Ok(Read::Lines(split(position, &Bytes::from(chunk))))
}

/// Fills `chunk` up to `wanted` bytes, or to the end of the file.
fn read_to(file: &File, position: u64, chunk: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let mut filled = chunk.len();
    chunk.resize(wanted, 0);
    while filled < wanted {
        match file.read_at(&mut chunk[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(())
}

fn split(position: u64, chunk: &Bytes) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (index, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        lines.push(Line {
            start: position + start as u64,
            end: position + index as u64 + 1,
            text: chunk.slice(start..index),
        });
        start = index + 1;
    }
    lines
}

/// The beginning of a line that is too long, once its end is there.
fn overlong(file: &File, position: u64, beginning: Vec<u8>) -> io::Result<Option<Line>> {
    let mut at = position + beginning.len() as u64;
    loop {
        let mut chunk = Vec::new();
        read_to(file, at, &mut chunk, CHUNK)?;
        if let Some(newline) = chunk.iter().position(|byte| *byte == b'\n') {
            file.sync_data()?;
            return Ok(Some(Line {
                start: position,
                end: at + newline as u64 + 1,
                text: beginning.into(),
            }));
        }
        if chunk.len() < CHUNK {
            return Ok(None);
        }
        at += chunk.len() as u64;
    }
}
