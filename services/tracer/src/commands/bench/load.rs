//! The client: encoded requests over a few connections, as fast as they are
//! answered (closed loop) or at a fixed rate (open loop).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// What is sent, encoded beforehand: the client's work must not drown the server's.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) path: PathAndQuery,
    pub(super) requests: Arc<[Bytes]>,
}

impl Payload {
    pub(super) fn new(method: &str, requests: Vec<Bytes>) -> anyhow::Result<Self> {
        Ok(Self {
            path: format!("/tracer.v1.Router/{method}").parse()?,
            requests: requests.into(),
        })
    }
}

/// What became of the requests of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Until the last answer.
    pub(super) seconds: f64,
    /// Microseconds of every request that was answered.
    pub(super) latencies: Vec<u32>,
    /// Requests answered by `RESOURCE_EXHAUSTED`.
    pub(super) shed: u64,
    /// Requests answered by another error.
    pub(super) errors: u64,
    /// One of those.
    pub(super) error: Option<String>,
    /// Requests that were due and never sent, because too many were under way.
    pub(super) unsent: u64,
}

impl Run {
    /// Takes in the requests of another run that went on at the same time.
    fn join(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.shed += other.shed;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.unsent += other.unsent;
    }

    fn count(&mut self, answer: Result<u32, Status>) {
        match answer {
            Ok(micros) => self.latencies.push(micros),
            Err(status) if status.code() == Code::ResourceExhausted => self.shed += 1,
            Err(status) => {
                self.errors += 1;
                self.error.get_or_insert_with(|| status.to_string());
            }
        }
    }

    /// Answers a second.
    pub(super) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Connections to one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channels: Vec<Channel>,
}

/// Requests under way at the most in an open loop: several times what HTTP/2 lets a
/// few connections have. A client that holds many more is itself what is slow.
const MOST_UNDER_WAY: usize = 2_000;

/// How often an open loop sends what is due.
const TICK: Duration = Duration::from_millis(1);

impl Client {
    /// Opens the connections.
    pub(super) async fn connect(addr: &str, connections: usize) -> anyhow::Result<Self> {
        let url = if addr.contains("://") {
            addr.to_owned()
        } else {
            format!("http://{addr}")
        };
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            let endpoint = Endpoint::from_shared(url.clone())
                .with_context(|| format!("{addr:?} is not an address"))?
                .connect_timeout(Duration::from_secs(5))
                .tcp_nodelay(true)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            let connected = endpoint.connect().await;
            channels.push(connected.with_context(|| format!("no server answers at {addr}"))?);
        }
        Ok(Self { channels })
    }

    /// The connections.
    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Keeps `under_way` requests under way, over all connections, for `time`.
    pub(super) async fn closed(&self, payload: &Payload, under_way: usize, time: Duration) -> Run {
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..under_way {
            let channel = self.channels[caller % self.channels.len()].clone();
            let payload = payload.clone();
            callers.spawn(async move {
                let mut grpc = Grpc::new(channel);
                let mut run = Run::default();
                let requests = &payload.requests;
                // Callers begin at different requests.
                let mut next = caller * requests.len() / under_way;
                while started.elapsed() < time {
                    let request = requests[next % requests.len()].clone();
                    next += 1;
                    let answer = call(&mut grpc, payload.path.clone(), request).await;
                    run.count(answer);
                }
                run
            });
        }
        let mut run = Run::default();
        while let Some(part) = callers.join_next().await {
            run.join(part.unwrap_or_default());
        }
        run.seconds = started.elapsed().as_secs_f64();
        run
    }

    /// Sends `rate` requests a second for `time`, however they are answered. A
    /// request's time counts from when it was due, so waiting to be sent is waiting.
    pub(super) async fn open(&self, payload: &Payload, rate: f64, time: Duration) -> Run {
        let started = Instant::now();
        let under_way = Arc::new(AtomicUsize::new(0));
        let (done, mut answers) = mpsc::unbounded_channel();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let total = (rate * time.as_secs_f64()) as usize;
        let mut run = Run::default();
        let mut sent = 0;
        let requests = &payload.requests;
        while sent < total {
            let due = tick.tick().await.into_std();
            let until = (due.duration_since(started).as_secs_f64() * rate) as usize;
            while sent < until.min(total) {
                let request = requests[sent % requests.len()].clone();
                let mut grpc = Grpc::new(self.channels[sent % self.channels.len()].clone());
                sent += 1;
                if under_way.load(Relaxed) >= MOST_UNDER_WAY {
                    run.unsent += 1;
                    continue;
                }
                under_way.fetch_add(1, Relaxed);
                let (under_way, done) = (Arc::clone(&under_way), done.clone());
                let path = payload.path.clone();
                tokio::spawn(async move {
                    let answer = call(&mut grpc, path, request).await;
                    under_way.fetch_sub(1, Relaxed);
                    let since_due = due.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
                    let _ = done.send(answer.map(|_| since_due));
                });
            }
            while let Ok(answer) = answers.try_recv() {
                run.count(answer);
            }
        }
        drop(done);
        while let Some(answer) = answers.recv().await {
            run.count(answer);
        }
        run.seconds = started.elapsed().as_secs_f64();
        run
    }
}

/// One request; the microseconds until it was answered.
async fn call(grpc: &mut Grpc<Channel>, path: PathAndQuery, request: Bytes) -> Result<u32, Status> {
    let sent = Instant::now();
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(Request::new(request), path, Encoded).await?;
    Ok(sent.elapsed().as_micros().try_into().unwrap_or(u32::MAX))
}

/// Messages that are encoded already, and answers that nobody reads.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = buffer.remaining();
        buffer.advance(length);
        Ok(Some(length))
    }
}
