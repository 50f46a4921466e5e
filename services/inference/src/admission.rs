//! How much is taken in at a time, and what is turned away.
//!
//! Two bounds, both before a request's message is read. The work under way is bounded,
//! in units of one plain route, so memory is too. And a request that waited too long
//! for a thread is turned away: work that comes in faster than it can be done would
//! else make everybody wait, without an end. How long is too long follows `CoDel`
//! (Nichols and Jacobson, 2012): a burst may wait, a queue that stands may not. When
//! even the luckiest request of the last interval waited longer than the target, the
//! queue stands, and whoever waited longer than the target is turned away; otherwise
//! only whoever waited [`PATIENCE`] times as long.
//!
//! A request whose deadline has passed before its turn is not worked on either.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tonic::{
    Status,
    body::Body,
    codegen::{Body as _, Bytes, Service, http},
    server::NamedService,
};

use crate::metrics::{Rejection, ServiceMetrics};

/// How long a queue is watched before it counts as standing.
const INTERVAL: Duration = Duration::from_millis(100);

/// How much longer than the target a request may wait while no queue stands.
const PATIENCE: u32 = 10;

/// How often the work under way is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

/// What is under way, and how long requests wait.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    under_way: AtomicUsize,
    queue: Queue,
    metrics: Arc<ServiceMetrics>,
}

impl Admission {
    /// Takes in work of `most` plain routes at a time, and lets none wait much longer
    /// than `target`.
    pub(crate) fn new(most: usize, target: Duration, metrics: Arc<ServiceMetrics>) -> Self {
        Self {
            most,
            under_way: AtomicUsize::new(0),
            queue: Queue::new(target),
            metrics,
        }
    }

    /// Takes in a request, unless there is too much already.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Permit> {
        self.take(1)
    }

    /// Takes in what a request that was let in weighs beyond a plain one. The largest
    /// there may be is let in when it is alone.
    pub(crate) fn more(self: &Arc<Self>, work: usize) -> Option<Permit> {
        self.take(work.min(self.most.saturating_sub(1)))
    }

    /// Work under way, in plain routes.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    /// Shows the work under way again and again: a request itself touches no gauge.
    pub(crate) async fn show(self: Arc<Self>) {
        loop {
            self.metrics.in_flight.set(self.under_way() as f64);
            tokio::time::sleep(SHOWN_EVERY).await;
        }
    }

    fn take(self: &Arc<Self>, work: usize) -> Option<Permit> {
        let before = self.under_way.fetch_add(work, Relaxed);
        // Counted from here on, and given back however this ends.
        let permit = Permit {
            admission: Arc::clone(self),
            work,
        };
        (before + work <= self.most).then_some(permit)
    }

    /// How long a queue may stand, and how long to wait before asking again.
    pub(crate) fn target(&self) -> Duration {
        self.queue.target
    }

    fn overloaded(&self) -> Status {
        self.metrics.reject(Rejection::Overloaded);
        crate::status::overloaded(self.target())
    }

    fn too_late(&self) -> Status {
        self.metrics.reject(Rejection::DeadlineExceeded);
        Status::deadline_exceeded("the deadline passed before the request's turn came")
    }

    /// What is turned away at `now`, having come at `arrived`.
    fn turn(&self, now: Instant, arrived: Instant, deadline: Option<Instant>) -> Option<Status> {
        let waited = now.duration_since(arrived);
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Some(self.too_late());
        }
        self.queue
            .is_too_long(now, waited)
            .then(|| self.overloaded())
    }
}

/// Work under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    work: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.under_way.fetch_sub(self.work, Relaxed);
    }
}

/// How long requests waited for a thread.
#[derive(Debug)]
struct Queue {
    target: Duration,
    started: Instant,
    /// When the interval ends, in nanoseconds since the start.
    ends: AtomicU64,
    /// The least wait of the interval in nanoseconds.
    least: AtomicU64,
    stands: AtomicBool,
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl Queue {
    fn new(target: Duration) -> Self {
        Self {
            target,
            started: Instant::now(),
            ends: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            stands: AtomicBool::new(false),
        }
    }

    /// Notes a wait that ends now, and says whether it was too long.
    fn is_too_long(&self, now: Instant, waited: Duration) -> bool {
        let wait = nanos(waited);
        // A store that changes nothing would still take the line from other cores.
        if wait < self.least.load(Relaxed) {
            self.least.fetch_min(wait, Relaxed);
        }
        let (now, interval) = (nanos(now.duration_since(self.started)), nanos(INTERVAL));
        let ends = self.ends.load(Relaxed);
        if now >= ends
            && self
                .ends
                .compare_exchange(ends, now + interval, Relaxed, Relaxed)
                .is_ok()
        {
            let least = self.least.swap(u64::MAX, Relaxed);
            // An interval that nobody ended for long was not a busy one.
            let fresh = now < ends + interval;
            self.stands
                .store(fresh && least > nanos(self.target), Relaxed);
        }
        let limit = if self.stands.load(Relaxed) {
            self.target
        } else {
            self.target * PATIENCE
        };
        waited > limit
    }
}

/// A service behind the admission.
#[derive(Clone, Debug)]
pub(crate) struct Admitted<S> {
    pub(crate) service: S,
    pub(crate) admission: Arc<Admission>,
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Unpin,
    S::Future: Unpin,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Turn<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(permit) = self.admission.enter() else {
            return Turn::refused(self.admission.overloaded(), request);
        };
        // The one that was polled ready is the one that is called.
        let next = self.service.clone();
        let service = std::mem::replace(&mut self.service, next);
        let arrived = Instant::now();
        let timeout = request.headers().get(TIMEOUT).and_then(timeout);
        Turn::Waiting(Box::new(Waiting {
            arrived,
            deadline: timeout.and_then(|timeout| arrived.checked_add(timeout)),
            request,
            service,
            permit,
        }))
    }
}

/// Bytes of a refused message that are read all the same. An answer before the end of
/// the message resets the stream, and HTTP/2 takes a connection with many resets for
/// an attack.
const MOST_DRAINED: usize = 1 << 20;

/// A request until it is answered.
pub(crate) enum Turn<S, F> {
    /// Waits for a thread; it is worked on when it is polled for the first time.
    Waiting(Box<Waiting<S>>),
    Answering {
        answer: F,
        /// Given back when the answer is there, or nobody waits for it.
        _permit: Permit,
    },
    Refused {
        status: Option<Status>,
        /// What is left of the message, and how much more of it is read.
        rest: Option<(Body, usize)>,
    },
}

pub(crate) struct Waiting<S> {
    arrived: Instant,
    deadline: Option<Instant>,
    request: http::Request<Body>,
    service: S,
    permit: Permit,
}

impl<S, F> Turn<S, F> {
    fn refused(status: Status, request: http::Request<Body>) -> Self {
        // A stream of messages may have no end.
        let ends = !request.uri().path().ends_with("/RouteStream");
        Self::Refused {
            status: Some(status),
            rest: ends.then(|| (request.into_body(), MOST_DRAINED)),
        }
    }
}

impl<S> Future for Turn<S, S::Future>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Unpin,
    S::Future: Unpin,
{
    type Output = Result<http::Response<Body>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Waiting(_) = &*self {
            let nothing = Self::Refused {
                status: None,
                rest: None,
            };
            let Self::Waiting(waiting) = std::mem::replace(&mut *self, nothing) else {
                return Poll::Pending;
            };
            let mut waiting = *waiting;
            let admission = &waiting.permit.admission;
            *self = match admission.turn(Instant::now(), waiting.arrived, waiting.deadline) {
                Some(status) => Self::refused(status, waiting.request),
                None => Self::Answering {
                    answer: waiting.service.call(waiting.request),
                    _permit: waiting.permit,
                },
            };
        }
        match &mut *self {
            Self::Answering { answer, .. } => Pin::new(answer).poll(cx),
            Self::Refused { status, rest } => {
                while let Some((body, left)) = rest {
                    match Pin::new(body).poll_frame(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(Ok(frame))) => {
                            let bytes = frame.data_ref().map_or(0, Bytes::len);
                            *left = left.saturating_sub(bytes);
                            if *left == 0 {
                                *rest = None;
                            }
                        }
                        Poll::Ready(Some(Err(_)) | None) => *rest = None,
                    }
                }
                let status = status.take();
                let status = status.unwrap_or_else(|| Status::internal("polled too often"));
                Poll::Ready(Ok(status.into_http()))
            }
            Self::Waiting(_) => Poll::Pending,
        }
    }
}

/// The header with the time that a caller gives a request.
const TIMEOUT: &str = "grpc-timeout";

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn timeout(value: &http::HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tracer_telemetry::Metrics;

    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    #[test]
    fn a_burst_may_wait_and_a_standing_queue_may_not() {
        let queue = Queue::new(TARGET);
        let at = |ms: u64| queue.started + Duration::from_millis(1000 + ms);
        let ms = Duration::from_millis;
        assert!(!queue.is_too_long(at(0), ms(0)));
        // A burst: long waits, but the interval had a short one.
        assert!(!queue.is_too_long(at(10), ms(5)));
        assert!(!queue.is_too_long(at(50), ms(150)));
        assert!(queue.is_too_long(at(60), ms(201)));
        // From here on nobody waits less than 30 ms.
        assert!(!queue.is_too_long(at(110), ms(30)));
        assert!(!queue.is_too_long(at(200), ms(40)));
        assert!(queue.is_too_long(at(215), ms(35)), "the queue stands");
        // Whoever waited less than the target is let in, and ends it.
        assert!(!queue.is_too_long(at(220), ms(10)));
        assert!(!queue.is_too_long(at(320), ms(35)));
        // A long pause is no standing queue.
        assert!(!queue.is_too_long(at(400), ms(30)));
        assert!(!queue.is_too_long(at(9000), ms(30)));
    }

    fn admission(most: usize) -> Arc<Admission> {
        let metrics = Arc::new(ServiceMetrics::new(Metrics::new()));
        Arc::new(Admission::new(most, TARGET, metrics))
    }

    #[test]
    fn what_is_under_way_is_bounded_and_given_back() {
        let admission = admission(5);
        let first = admission.enter().unwrap();
        let rest = admission.more(2).unwrap();
        assert!(admission.more(3).is_none());
        let others = (admission.enter().unwrap(), admission.enter().unwrap());
        assert!(admission.enter().is_none());
        drop((first, rest));
        assert!(admission.more(3).is_some());
        drop(others);
        // The largest request, alone.
        let alone = admission.enter().unwrap();
        assert!(admission.more(1_000_000).is_some());
        drop(alone);
        assert_eq!(admission.under_way.load(Relaxed), 0);
    }

    #[test]
    fn a_request_past_its_deadline_is_not_worked_on() {
        let admission = admission(1);
        let arrived = Instant::now();
        let at = |ms| arrived + Duration::from_millis(ms);
        assert!(admission.turn(at(5), arrived, Some(at(6))).is_none());
        let late = admission.turn(at(6), arrived, Some(at(6))).unwrap();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        assert!(admission.turn(at(6), arrived, None).is_none());
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let read = |text: &'static str| timeout(&http::HeaderValue::from_static(text));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
