//! Reading a topic of the spool once.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
};

use super::partition_path;
use crate::{
    Offset, PartitionId, SourceError, SpoolConfig, TopicName,
    scan::{Scanned, Sink},
};

/// Blocking.
pub(crate) fn scan(
    config: &SpoolConfig,
    topic: &TopicName,
    sink: &mut Sink<'_>,
) -> Result<(), SourceError> {
    for number in 0..config.partitions {
        let partition = PartitionId::new(topic.clone(), number);
        let path = partition_path(&config.path, &partition);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(SourceError::spool(path, "open the file")(error)),
        };
        let length = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Err(SourceError::spool(path, "read")(error)),
        };
        let mut lines = BufReader::new(file).take(length);
        let mut offset = 0;
        loop {
            let mut line = Vec::new();
            let read = match lines.read_until(b'\n', &mut line) {
                Ok(read) => read as u64,
                Err(error) => return Err(SourceError::spool(path, "read")(error)),
            };
            // What has no newline is being written.
            if line.pop() != Some(b'\n') {
                break;
            }
            let scanned = Scanned {
                partition: partition.clone(),
                offset: Offset(offset),
                timestamp_ms: None,
                headers: Vec::new(),
                payload: line.into(),
            };
            if !sink(scanned) {
                return Ok(());
            }
            offset += read;
        }
    }
    Ok(())
}
