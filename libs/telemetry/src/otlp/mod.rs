//! Our own spans, exported by OTLP over gRPC where an endpoint is configured.
//!
//! A span that ends goes into a bounded queue, without waiting: where that is full it is
//! dropped and counted. One task sends what is in the queue. Without an endpoint there is
//! no queue, and beginning a span is a look at an `Option`.
//!
//! An exporter of our own, and not a library: it needs ten messages and one method on the
//! gRPC client that is there anyway.

mod export;
pub mod proto;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::metrics::Counter;
use tokio::sync::mpsc;

pub use export::{ExportError, Exporter, SpanConfig};
use proto::{KeyValue, SpanStatus, Value};

use crate::TraceContext;

/// Where spans begin. Clones share the queue; the default exports nothing.
#[derive(Clone, Default)]
pub struct Spans {
    queue: Option<Arc<Queue>>,
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans")
            .field("on", &self.is_on())
            .finish_non_exhaustive()
    }
}

struct Queue {
    sender: mpsc::Sender<proto::Span>,
    dropped: Counter,
    /// A root is sampled when a draw of 64 bits is below this.
    sampled_below: u64,
    state: AtomicU64,
}

impl Queue {
    /// `SplitMix64` (Steele, Lea, Flood 2014); never 0, which ids may not be.
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}

impl Spans {
    /// Whether spans are exported at all.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// A span of work that nobody called for. All of them are recorded: they are few.
    pub fn root(&self, name: &'static str) -> Option<OpenSpan> {
        let queue = self.queue.as_ref()?;
        let trace_id = u128::from(queue.draw()) << 64 | u128::from(queue.draw());
        Some(OpenSpan::new(queue, name, Kind::Internal, trace_id, 0))
    }

    /// A span of a request. Within the trace of a caller it is recorded if the caller's
    /// span is; otherwise it is the root of a trace, and a share of these is recorded.
    pub fn request(&self, name: &'static str, caller: Option<&TraceContext>) -> Option<OpenSpan> {
        let queue = self.queue.as_ref()?;
        let Some(caller) = caller else {
            let sampled = queue.draw() <= queue.sampled_below;
            let mut span = sampled.then(|| self.root(name)).flatten()?;
            span.kind = Kind::Server;
            return Some(span);
        };
        if !caller.is_sampled() {
            return None;
        }
        let (trace_id, parent) = (caller.trace_id(), caller.span_id());
        let mut span = OpenSpan::new(queue, name, Kind::Server, trace_id, parent);
        caller
            .state()
            .unwrap_or_default()
            .clone_into(&mut span.trace_state);
        Some(span)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Internal = 1,
    Server = 2,
}

/// A span under way. It ends when it is dropped, or by [`OpenSpan::end`].
pub struct OpenSpan {
    queue: Arc<Queue>,
    name: &'static str,
    kind: Kind,
    trace_id: u128,
    span_id: u64,
    parent: u64,
    trace_state: String,
    began: SystemTime,
    since: Instant,
    attributes: Vec<KeyValue>,
    failed: Option<String>,
}

impl fmt::Debug for OpenSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSpan")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl OpenSpan {
    fn new(
        queue: &Arc<Queue>,
        name: &'static str,
        kind: Kind,
        trace_id: u128,
        parent: u64,
    ) -> Self {
        Self {
            span_id: queue.draw(),
            queue: Arc::clone(queue),
            name,
            kind,
            trace_id,
            parent,
            trace_state: String::new(),
            began: SystemTime::now(),
            since: Instant::now(),
            attributes: Vec::new(),
            failed: None,
        }
    }

    /// A part of it.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let (trace, parent) = (self.trace_id, self.span_id);
        let mut child = Self::new(&self.queue, name, Kind::Internal, trace, parent);
        child.trace_state.clone_from(&self.trace_state);
        child
    }

    /// Says something of it.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value.into()));
    }

    /// It has failed.
    pub fn fail(&mut self, message: impl Into<String>) {
        self.failed = Some(message.into());
    }

    /// Ends it now.
    pub fn end(self) {
        drop(self);
    }

    fn finish(&mut self) -> proto::Span {
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        proto::Span {
            trace_id: self.trace_id.to_be_bytes().to_vec(),
            span_id: self.span_id.to_be_bytes().to_vec(),
            trace_state: std::mem::take(&mut self.trace_state),
            parent_span_id: match self.parent {
                0 => Vec::new(),
                parent => parent.to_be_bytes().to_vec(),
            },
            name: self.name.to_owned(),
            kind: self.kind as i32,
            start_time_unix_nano: nanos(began),
            end_time_unix_nano: nanos(began + self.since.elapsed()),
            attributes: std::mem::take(&mut self.attributes),
            status: self
                .failed
                .take()
                .map(|message| SpanStatus { message, code: 2 }),
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let span = self.finish();
        if self.queue.sender.try_send(span).is_err() {
            self.queue.dropped.increment(1);
        }
    }
}
