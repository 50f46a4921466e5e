//! Appending to the spool, durably and together.
//!
//! One thread a writer does all file work. It takes whatever appends have piled up
//! while the disk was busy, writes them partition by partition and syncs each file
//! once: many appends share one sync. Processes exclude each other by a lock on the
//! partition's file, so offsets are exact however many there are.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::partition_path;
use crate::{LogWriter, Message, Offset, PartitionId, SourceError, SpoolConfig, TopicName};

/// Most bytes written between two syncs of a file.
const GROUP_BYTES: usize = 8 << 20;

/// Requests waiting for the thread. Callers wait when there are more.
const QUEUE: usize = 1024;

/// The writing end of a spool.
#[derive(Debug)]
pub struct SpoolWriter {
    partitions: i32,
    /// Spreads records without a key over the partitions.
    turn: AtomicU32,
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    partition: PartitionId,
    lines: Vec<Message>,
    /// Gets the offset of every line.
    done: oneshot::Sender<Result<Vec<Offset>, SourceError>>,
}

impl SpoolWriter {
    /// Opens a spool, creating its directory when it is missing.
    pub fn open(config: &SpoolConfig) -> Result<Self, SourceError> {
        create_dir(&config.path)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let root = config.path.clone();
        std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || run(&root, queue))
            .map_err(SourceError::spool(&config.path, "start the writer"))?;
        Ok(Self {
            partitions: config.partitions,
            turn: AtomicU32::new(0),
            requests,
        })
    }

    fn partition_of(&self, key: Option<&[u8]>) -> i32 {
        let count = self.partitions.max(1) as u32;
        let number = match key {
            // FNV-1a: stable across versions and machines.
            Some(key) => key.iter().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            }),
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        (number % count) as i32
    }

    async fn send(
        &self,
        partition: PartitionId,
        lines: Vec<Message>,
    ) -> Result<oneshot::Receiver<Result<Vec<Offset>, SourceError>>, SourceError> {
        if lines.iter().any(|line| line.payload.contains(&b'\n')) {
            return Err(SourceError::NotALine {
                topic: partition.topic,
            });
        }
        let (done, answer) = oneshot::channel();
        let request = Request {
            partition,
            lines,
            done,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| SourceError::Closed)?;
        Ok(answer)
    }
}

#[async_trait]
impl LogWriter for SpoolWriter {
    async fn append(
        &self,
        topic: &TopicName,
        message: Message,
    ) -> Result<(PartitionId, Offset), SourceError> {
        let mut places = self.append_batch(topic, vec![message]).await?;
        places.pop().ok_or(SourceError::Closed)
    }

    async fn append_batch(
        &self,
        topic: &TopicName,
        messages: Vec<Message>,
    ) -> Result<Vec<(PartitionId, Offset)>, SourceError> {
        let mut places = vec![None; messages.len()];
        let mut parts: BTreeMap<i32, (Vec<usize>, Vec<Message>)> = BTreeMap::new();
        for (index, message) in messages.into_iter().enumerate() {
            let partition = self.partition_of(message.key.as_deref());
            let part = parts.entry(partition).or_default();
            part.0.push(index);
            part.1.push(message);
        }
        let mut answers = Vec::with_capacity(parts.len());
        for (partition, (indices, lines)) in parts {
            let partition = PartitionId::new(topic.clone(), partition);
            let answer = self.send(partition.clone(), lines).await?;
            answers.push((partition, indices, answer));
        }
        for (partition, indices, answer) in answers {
            let offsets = answer.await.map_err(|_| SourceError::Closed)??;
            for (index, offset) in indices.into_iter().zip(offsets) {
                places[index] = Some((partition.clone(), offset));
            }
        }
        Ok(places.into_iter().flatten().collect())
    }

    async fn flush(&self) -> Result<(), SourceError> {
        // Requests are taken in order, and an empty one is answered last of those
        // taken together: when it is, all before it have been.
        let topic = TopicName::default();
        let answer = self.send(PartitionId::new(topic, 0), Vec::new()).await?;
        answer.await.map_err(|_| SourceError::Closed)?.map(|_| ())
    }

    fn keeps_lines(&self) -> bool {
        true
    }
}

/// The writer's thread: ends when the writer is dropped and the queue is empty.
fn run(root: &Path, mut queue: mpsc::Receiver<Request>) {
    let mut files: BTreeMap<PartitionId, File> = BTreeMap::new();
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = size(&first);
        let mut group = vec![first];
        while bytes < GROUP_BYTES {
            match queue.try_recv() {
                Ok(request) => {
                    bytes += size(&request);
                    group.push(request);
                }
                Err(_) => break,
            }
        }
        let mut by_partition: BTreeMap<PartitionId, Vec<Request>> = BTreeMap::new();
        let mut flushes = Vec::new();
        for request in group {
            if request.lines.is_empty() {
                flushes.push(request.done);
                continue;
            }
            by_partition
                .entry(request.partition.clone())
                .or_default()
                .push(request);
        }
        for (partition, requests) in by_partition {
            write_group(root, &mut files, &partition, requests);
        }
        for done in flushes {
            let _ = done.send(Ok(Vec::new()));
        }
    }
}

fn size(request: &Request) -> usize {
    request
        .lines
        .iter()
        .map(|line| line.payload.len() + 1)
        .sum()
}

fn write_group(
    root: &Path,
    files: &mut BTreeMap<PartitionId, File>,
    partition: &PartitionId,
    requests: Vec<Request>,
) {
    let mut buffer = Vec::with_capacity(requests.iter().map(size).sum());
    let mut starts = Vec::with_capacity(requests.len());
    for request in &requests {
        let mut of_request = Vec::with_capacity(request.lines.len());
        for line in &request.lines {
            of_request.push(buffer.len() as u64);
            buffer.extend_from_slice(&line.payload);
            buffer.push(b'\n');
        }
        starts.push(of_request);
    }
    let path = partition_path(root, partition);
    match append(files, partition, &path, &buffer) {
        Ok(base) => {
            for (request, starts) in requests.into_iter().zip(starts) {
                let offsets = starts.into_iter().map(|start| Offset(base + start));
                // A caller that has gone away does not need the answer.
                let _ = request.done.send(Ok(offsets.collect()));
            }
        }
        Err((action, error)) => {
            // The file is opened anew next time, and its tail repaired.
            files.remove(partition);
            for request in requests {
                let again = io::Error::new(error.kind(), error.to_string());
                let _ = request
                    .done
                    .send(Err(SourceError::spool(&path, action)(again)));
            }
        }
    }
}

/// Appends whole lines and syncs; answers the offset of the first.
fn append(
    files: &mut BTreeMap<PartitionId, File>,
    partition: &PartitionId,
    path: &Path,
    lines: &[u8],
) -> Result<u64, (&'static str, io::Error)> {
    // Whoever removed the file, or put another in its place, must not leave us
    // writing to what nobody can read.
    if files.get(partition).is_some_and(|file| !is_at(file, path)) {
        files.remove(partition);
    }
    if !files.contains_key(partition) {
        let file = open(path).map_err(|error| ("open the file", error))?;
        files.insert(partition.clone(), file);
    }
    let Some(mut file) = files.get(partition) else {
        return Err(("open the file", io::ErrorKind::NotFound.into()));
    };
    file.lock().map_err(|error| ("lock the file", error))?;
    let written = (|| {
        let base = repair(file).map_err(|error| ("repair the last line", error))?;
        file.write_all(lines)
            .and_then(|()| file.sync_data())
            .map_err(|error| ("append", error))?;
        Ok(base)
    })();
    let unlocked = file.unlock().map_err(|error| ("unlock the file", error));
    let base = written?;
    unlocked?;
    Ok(base)
}

/// True when the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(file), Ok(path)) => id(file) == id(path),
        _ => false,
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        create_dir_synced(directory)?;
    }
    let existed = path.exists();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    if !existed && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

/// Cuts off what follows the last newline: a line that a dead writer did not
/// finish and nobody was told of. Answers the length that is left. The file must
/// be locked, or the line may be one that is being written.
fn repair(mut file: &File) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        // Almost always the last byte is the newline: look at it alone first.
        let start = if end == length { end - 1 } else { start };
        let mut chunk = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        tracing::warn!(
            bytes = length - end,
            "the spool ends in an unfinished line: cutting it off"
        );
        file.set_len(end)?;
    }
    Ok(end)
}

fn create_dir(path: &Path) -> Result<(), SourceError> {
    create_dir_synced(path).map_err(SourceError::spool(path, "create the directory"))
}

/// Creates a directory and its parents, and syncs the parents: a file that
/// survives a power loss is no use in a directory that does not.
fn create_dir_synced(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_synced(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
