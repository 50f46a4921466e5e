//! From the records of the log to the rows of a buffer.

use bytes::Bytes;
use tracer_source::{Message, Record};
use tracer_trace::{DecodeError, Decoded, Decoder, Limits, Origin, StoredTrace};

use crate::{
    AggregatorConfig, buffer::Buffer, dead_letter, metrics::AggregatorMetrics, privacy::Privacy,
};

/// Decodes records, each as its topic asks.
pub(crate) struct Reader {
    decoder: Decoder,
    decoded: Decoded,
    privacy: Privacy,
    /// How dead letters are written: `None` when they are counted alone, else whether
    /// the log keeps lines.
    letters_as_lines: Option<bool>,
}

impl Reader {
    pub(crate) fn new(
        config: &AggregatorConfig,
        limits: Limits,
        letters_as_lines: Option<bool>,
    ) -> Self {
        Self {
            decoder: Decoder::new(limits, config.otlp.clone()),
            decoded: Decoded::default(),
            privacy: Privacy::new(&config.inputs),
            letters_as_lines,
        }
    }

    /// Puts what a record holds into its partition's buffer: traces, any number of
    /// them, and dead letters. All of it goes into one shard, since a buffer is only
    /// taken between two records.
    pub(crate) fn read(
        &mut self,
        record: &Record,
        config: &AggregatorConfig,
        buffer: &mut Buffer,
        metrics: &AggregatorMetrics,
    ) {
        let origin = Origin {
            topic: record.partition.topic.as_str(),
            partition: record.partition.partition,
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
        };
        let format = config.format_of(&record.partition.topic);
        let mut decoded = std::mem::take(&mut self.decoded);
        let read = self
            .decoder
            .decode(&record.payload, &origin, format, &mut decoded);
        // Passed, whatever is in it.
        buffer.reject(record.offset, None, record.next);
        if let Err(error) = read {
            decoded.clear();
            let letter = self.letter(record, &error, 1, metrics);
            buffer.reject(record.offset, letter, record.next);
        }
        metrics.consumed.increment(decoded.traces.len() as u64);
        for mut trace in decoded.traces.drain(..) {
            self.privacy.apply(&mut trace);
            let offset = record.offset.get();
            buffer.push(StoredTrace { offset, trace }, record.next);
        }
        for rejected in decoded.rejected.drain(..) {
            let part = Record {
                payload: Bytes::from(rejected.payload),
                ..record.clone()
            };
            let letter = self.letter(&part, &rejected.error, rejected.count, metrics);
            buffer.reject(record.offset, letter, record.next);
        }
        metrics.skipped(&decoded.skipped);
        self.decoded = decoded;
    }

    /// Counts what was rejected, and makes the dead letter of it.
    fn letter(
        &self,
        record: &Record,
        error: &DecodeError,
        count: u64,
        metrics: &AggregatorMetrics,
    ) -> Option<Message> {
        metrics.rejected(error.reason(), count);
        let error = self.privacy.told(error);
        tracing::debug!(partition = %record.partition, offset = %record.offset, %error, "rejected");
        let as_lines = self.letters_as_lines?;
        let record = self.privacy.shown(record);
        Some(dead_letter::message(&record, &error, as_lines))
    }
}
