//! What is read of a partition and not durable yet.

use tokio::time::Instant;
use tracer_source::{Message, Offset, OffsetRange};
use tracer_store::LastRecord;
use tracer_trace::{Rows, TraceView};

/// The part of a partition between what is durable and what has been read:
/// the traces of the positions from `base` to `position`, and the rejected
/// payloads among them.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) base: Offset,
    pub(crate) position: Offset,
    pub(crate) rows: Rows,
    /// With the offset each came from.
    pub(crate) dead: Vec<(Offset, Message)>,
    pub(crate) bytes: usize,
    /// The record before `position`, when it is of this buffer's range.
    pub(crate) last: Option<LastRecord>,
    /// When the first record came in.
    pub(crate) since: Option<Instant>,
}

impl Buffer {
    /// An empty buffer at a position.
    pub(crate) fn at(position: Offset) -> Self {
        Self {
            base: position,
            position,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.base == self.position
    }

    pub(crate) fn range(&self) -> OffsetRange {
        OffsetRange {
            start: self.base,
            end: self.position,
        }
    }

    pub(crate) fn push(&mut self, offset: Offset, trace: TraceView<'_>, next: Offset) {
        self.bytes += self.rows.push(offset.get(), trace);
        self.advance(next);
    }

    /// Passes a rejected record; its message, if there is one, is kept.
    pub(crate) fn reject(&mut self, offset: Offset, message: Option<Message>, next: Offset) {
        if let Some(message) = message {
            self.bytes += dead_weight(&message);
            self.dead.push((offset, message));
        }
        self.advance(next);
    }

    fn advance(&mut self, next: Offset) {
        self.position = next;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Takes everything out and goes on, empty, at the position reached.
    pub(crate) fn take(&mut self) -> Self {
        let rest = Self::at(self.position);
        std::mem::replace(self, rest)
    }
}

fn dead_weight(message: &Message) -> usize {
    size_of::<Message>() + message.payload.len() + 1024
}

#[cfg(test)]
mod tests {
    use tracer_trace::{Format, Limits, Origin, Trace, decode};

    use super::*;

    fn trace(offset: u64) -> Trace {
        let origin = Origin {
            topic: "t",
            partition: 0,
            offset,
            timestamp_ms: None,
        };
        let payload = br#"{"input": "a", "teacher": "b"}"#;
        decode(payload, &origin, Format::Auto, &Limits::default()).unwrap()
    }

    fn filled(range: std::ops::Range<u64>) -> Buffer {
        let mut buffer = Buffer::at(Offset(range.start));
        for offset in range {
            let trace = trace(offset);
            buffer.push(Offset(offset), TraceView::from(&trace), Offset(offset + 1));
            buffer.last = Some(last(offset));
        }
        buffer
    }

    fn last(offset: u64) -> LastRecord {
        LastRecord::of(Offset(offset), None, b"payload")
    }

    fn offsets(buffer: &Buffer) -> Vec<u64> {
        buffer.rows.offsets().collect()
    }

    #[test]
    fn taking_leaves_an_empty_buffer_at_the_position() {
        let mut buffer = filled(10..13);
        buffer.reject(Offset(13), None, Offset(14));
        let taken = buffer.take();
        assert_eq!(taken.range().to_string(), "[10, 14)");
        assert_eq!(offsets(&taken), [10, 11, 12]);
        assert!(buffer.is_empty() && buffer.bytes == 0 && buffer.since.is_none());
        assert_eq!(buffer.base, Offset(14));
    }
}
