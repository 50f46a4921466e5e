//! Which request is which: its id, in the answer and in the log, and the trace that it is
//! a part of.
//!
//! The id is the caller's `x-request-id`, if that is short and printable, else one of our
//! own. It goes back in the same header. A request that is refused is a line of the log
//! at the level `warn`, of which there are at most [`LINES`] a second; the others, and
//! what was answered, are at `debug`.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};
use tracer_telemetry::{OpenSpan, Spans, TraceContext};

/// The header, of a request and of its answer.
const HEADER: &str = "x-request-id";

/// Longest id that a caller may give.
const LONGEST: usize = 128;

/// Lines about refusals a second: a flood of them is no news, and must not be slow.
const LINES: u64 = 50;

/// Longest message of a refusal in the log.
const MESSAGE: usize = 512;

/// Methods whose requests are spans, and what these are called. A stream has no end that
/// its span could wait for.
const SPANS: [(&str, &str); 3] = [
    ("Route", "tracer.v1.Router/Route"),
    ("RouteBatch", "tracer.v1.Router/RouteBatch"),
    ("Record", "tracer.v1.Router/Record"),
];

/// The id of a request: printable ASCII.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(http::HeaderValue);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What makes ids, begins spans and counts lines of the log.
#[derive(Debug)]
pub(crate) struct Identities {
    state: AtomicU64,
    started: Instant,
    spans: Spans,
    /// The second that was counted last, and the lines in it: 40 and 24 bits.
    lines: AtomicU64,
}

impl Identities {
    pub(crate) fn new(spans: Spans) -> Self {
        use std::hash::BuildHasher as _;
        Self {
            spans,
            state: AtomicU64::new(std::hash::RandomState::new().hash_one(HEADER)),
            started: Instant::now(),
            lines: AtomicU64::new(0),
        }
    }

    fn of(&self, headers: &http::HeaderMap) -> RequestId {
        let given = headers.get(HEADER).filter(|value| {
            let bytes = value.as_bytes();
            (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        });
        RequestId(given.cloned().unwrap_or_else(|| self.next()))
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014) from a start of the process's own: no two
    /// of one process are the same.
    fn next(&self) -> http::HeaderValue {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let digits: [u8; 16] =
            std::array::from_fn(|i| b"0123456789abcdef"[(z >> (60 - 4 * i)) as usize & 15]);
        http::HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&digits))
            .unwrap_or(http::HeaderValue::from_static("0"))
    }

    /// Whether one more line may be written in this second.
    fn may_say(&self, now: Instant) -> bool {
        let second = now.duration_since(self.started).as_secs();
        let counted = self.lines.fetch_update(Relaxed, Relaxed, |lines| {
            match (lines >> 24 == second, lines & 0xff_ffff) {
                (false, _) => Some(second << 24 | 1),
                (true, said) if said < LINES => Some(lines + 1),
                (true, _) => None,
            }
        });
        counted.is_ok()
    }

    /// A span of a request, if spans are exported and this one is among them.
    fn span(
        &self,
        method: &'static str,
        id: &RequestId,
        headers: &http::HeaderMap,
    ) -> Option<OpenSpan> {
        if !self.spans.is_on() {
            return None;
        }
        let (_, name) = SPANS.into_iter().find(|(known, _)| *known == method)?;
        let mut span = self.spans.request(name, trace_context(headers).as_ref())?;
        for (key, value) in [
            ("rpc.system", "grpc"),
            ("rpc.service", "tracer.v1.Router"),
            ("rpc.method", method),
            ("tracer.request_id", id.as_str()),
        ] {
            span.set(key, value);
        }
        Some(span)
    }

    /// Writes down how a request ended.
    pub(crate) fn say(&self, id: &RequestId, method: &str, started: Instant, status: &Status) {
        let (id, now) = (id.as_str(), Instant::now());
        let milliseconds = now.duration_since(started).as_secs_f64() * 1e3;
        if status.code() == Code::Ok {
            tracing::debug!(request_id = id, method, milliseconds, "answered");
            return;
        }
        let (code, mut message) = (status.code(), status.message().to_owned());
        message.truncate(message.floor_char_boundary(MESSAGE));
        // That there is nothing yet, or nobody waits any more, is an answer like others.
        let usual = matches!(code, Code::NotFound | Code::Cancelled);
        if !usual && self.may_say(now) {
            tracing::warn!(request_id = id, method, milliseconds, ?code, error = ?message, "refused");
        } else {
            tracing::debug!(request_id = id, method, milliseconds, ?code, error = ?message, "refused");
        }
    }
}

/// A service whose requests have ids.
#[derive(Clone, Debug)]
pub(crate) struct Identified<S> {
    pub(crate) service: S,
    pub(crate) identities: Arc<Identities>,
}

impl<S: NamedService> NamedService for Identified<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Identified<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Unpin,
{
    type Response = http::Response<B>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let id = self.identities.of(request.headers());
        let method = method(request.uri().path());
        let span = self.identities.span(method, &id, request.headers());
        // A stream tells by it how it ended.
        if method == "RouteStream" {
            request.extensions_mut().insert(id.clone());
        }
        Answering {
            started: Instant::now(),
            span,
            answer: self.service.call(request),
            identities: Arc::clone(&self.identities),
            id,
            method,
        }
    }
}

/// The method that a path names; nothing that a caller sends becomes a word of the log.
fn method(path: &str) -> &'static str {
    const METHODS: [&str; 6] = [
        "Route",
        "RouteBatch",
        "RouteStream",
        "Record",
        "GetPipeline",
        "ListPipelines",
    ];
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS
        .into_iter()
        .find(|method| *method == name)
        .unwrap_or("unknown")
}

/// A request until its answer begins.
pub(crate) struct Answering<F> {
    answer: F,
    identities: Arc<Identities>,
    id: RequestId,
    method: &'static str,
    started: Instant,
    span: Option<OpenSpan>,
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<http::Response<B>, E>> + Unpin,
{
    type Output = Result<http::Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(Pin::new(&mut self.answer).poll(cx))?;
        // A status among the headers is a refusal: otherwise it follows the answer.
        let refused = response.headers().contains_key("grpc-status");
        if refused || tracing::enabled!(tracing::Level::DEBUG) {
            let status = Status::from_header_map(response.headers());
            let status = status.unwrap_or_else(|| Status::ok(""));
            self.identities
                .say(&self.id, self.method, self.started, &status);
        }
        if let Some(mut span) = self.span.take() {
            let status = Status::from_header_map(response.headers());
            let code = status.as_ref().map_or(Code::Ok, Status::code);
            span.set("rpc.grpc.status_code", code as u64);
            if let Some(status) = status.filter(|_| code != Code::Ok) {
                span.fail(status.message());
            }
        }
        let id = self.id.0.clone();
        response.headers_mut().insert(HEADER, id);
        Poll::Ready(Ok(response))
    }
}

impl<F> Drop for Answering<F> {
    /// The caller has left, or was told that the time is over.
    fn drop(&mut self) {
        if let Some(span) = &mut self.span {
            span.set("rpc.grpc.status_code", Code::Cancelled as u64);
            span.fail("cancelled before there was an answer");
        }
    }
}

/// The caller's span, if the request says of one.
pub(crate) fn trace_context(headers: &http::HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    // A list may come in several headers.
    let states: Option<Vec<&str>> = headers
        .get_all("tracestate")
        .iter()
        .map(|value| value.to_str().ok())
        .collect();
    let state = states.map(|states| states.join(","));
    TraceContext::parse(parent, state.as_deref())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn an_id_is_the_callers_if_it_is_well_formed() {
        let identities = Identities::new(Spans::default());
        let of = |given: &[u8]| {
            let mut headers = http::HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(given).unwrap());
            identities.of(&headers).as_str().to_owned()
        };
        assert_eq!(of(b"req-1/a:b"), "req-1/a:b");
        assert_eq!(of(&[b'x'; LONGEST]).len(), LONGEST);
        for bad in [
            &b""[..],
            b"a b",
            b"a\tb",
            "ü".as_bytes(),
            &[b'x'; LONGEST + 1],
        ] {
            let own = of(bad);
            assert_eq!(own.len(), 16, "{own}");
            assert!(own.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn own_ids_differ() {
        let identities = Identities::new(Spans::default());
        let ids: HashSet<_> = (0..1000).map(|_| identities.next()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn lines_a_second_are_bounded() {
        let identities = Identities::new(Spans::default());
        let now = identities.started + Duration::from_secs(7);
        let said = (0..1000).filter(|_| identities.may_say(now)).count();
        assert_eq!(said as u64, LINES);
        assert!(identities.may_say(now + Duration::from_secs(1)));
    }

    #[test]
    fn methods_are_known_words() {
        assert_eq!(method("/tracer.v1.Router/RouteBatch"), "RouteBatch");
        assert_eq!(method("/tracer.v1.Router/\u{1b}[2J"), "unknown");
        assert_eq!(method(""), "unknown");
    }
}
