//! From the records of the log to the rows of a buffer.

use bytes::Bytes;
use tracer_source::{Message, Record};
use tracer_trace::{DecodeError, Decoded, Decoder, Format, Limits, Origin, TraceView};

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

    /// Puts what a run of records of one partition holds into its buffer: traces, any
    /// number of them, and dead letters. All of a record goes into one shard, since a
    /// buffer is only taken between two runs. What lies before the buffer's position is
    /// passed over.
    pub(crate) fn read(
        &mut self,
        records: &[Record],
        config: &AggregatorConfig,
        buffer: &mut Buffer,
        metrics: &AggregatorMetrics,
    ) {
        let Some(first) = records.first() else {
            return;
        };
        let format = config.format_of(&first.partition.topic);
        let mut traces = 0;
        for record in records {
            // The source promises otherwise; a trace in two shards is worse.
            if record.offset >= buffer.position {
                traces += self.record(record, format, buffer, metrics);
            }
        }
        metrics.consumed.increment(traces);
    }

    /// Answers how many traces the record holds.
    fn record(
        &mut self,
        record: &Record,
        format: Format,
        buffer: &mut Buffer,
        metrics: &AggregatorMetrics,
    ) -> u64 {
        let origin = Origin {
            topic: record.partition.topic.as_str(),
            partition: record.partition.partition,
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
        };
        if !self.privacy.withholds()
            && let Some(trace) = self.decoder.plain(&record.payload, &origin, format)
        {
            buffer.push(record.offset, trace.view(), record.next);
            return 1;
        }
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
        let traces = decoded.traces.len() as u64;
        for mut trace in decoded.traces.drain(..) {
            self.privacy.apply(&mut trace);
            buffer.push(record.offset, TraceView::from(&trace), record.next);
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
        traces
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
