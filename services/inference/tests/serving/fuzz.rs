//! Requests that nobody would send: the server answers each with an answer or an
//! error, and none with what belongs to another task.
//!
//! A few thousand by default; `TRACER_FUZZ_REQUESTS=100000` for more, and
//! `TRACER_FUZZ_SEED` for others.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tracer_proto::v1;

use crate::support::{
    AMBIGUOUS, OTHER_TASK, Options, PLAIN, Server, TASK, pipeline_a, pipeline_of_other_task,
    publish, publish_of, registry, text,
};

/// Bytes out, bytes in.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item.as_slice());
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Route,
    RouteBatch,
    RouteStream,
    Record,
    GetPipeline,
    ListPipelines,
}

const METHODS: [Method; 6] = [
    Method::Route,
    Method::RouteBatch,
    Method::RouteStream,
    Method::Record,
    Method::GetPipeline,
    Method::ListPipelines,
];

const TASKS: [&str; 6] = [TASK, OTHER_TASK, "", "never-heard-of", "desk ", "../desk"];

fn input(random: &mut Random) -> v1::Input {
    let texts = [PLAIN, AMBIGUOUS, "", " \n", "\u{0}\u{feff}ﬀ İ", "a"];
    let numbers = [0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-40];
    let lengths = [0, 0, 0, 1, 3, 4, 4, 4, 5, 400];
    let length = lengths[random.below(lengths.len())];
    let mut text = texts[random.below(texts.len())].to_owned();
    if random.below(40) == 0 {
        text = text.repeat(1 + random.below(3000));
    }
    v1::Input {
        text,
        embedding: (0..length)
            .map(|_| numbers[random.below(numbers.len())])
            .collect(),
        embedder: ["", "mini-4", "\u{7f}"][random.below(3)].to_owned(),
    }
}

/// A request as a caller could send it.
fn plausible(method: Method, random: &mut Random) -> Vec<u8> {
    let task = TASKS[random.below(TASKS.len())].to_owned();
    let top_k = [0, 0, 3, 100, 101, u32::MAX][random.below(6)];
    match method {
        Method::Route | Method::RouteStream => v1::RouteRequest {
            task,
            input: (random.below(10) > 0).then(|| input(random)),
            request_id: "r".repeat(random.below(300)),
            top_k,
        }
        .encode_to_vec(),
        Method::RouteBatch => v1::RouteBatchRequest {
            task,
            inputs: (0..random.below(90)).map(|_| input(random)).collect(),
            top_k,
        }
        .encode_to_vec(),
        Method::Record => v1::RecordRequest {
            trace: Some(v1::Trace {
                task,
                input: PLAIN.into(),
                teacher: "refund".into(),
                embedding: input(random).embedding,
                ..v1::Trace::default()
            }),
        }
        .encode_to_vec(),
        Method::GetPipeline => v1::GetPipelineRequest { task }.encode_to_vec(),
        Method::ListPipelines => Vec::new(),
    }
}

/// The same, damaged; or nothing of the kind.
fn bytes(method: Method, random: &mut Random) -> Vec<u8> {
    let mut bytes = plausible(method, random);
    match random.below(8) {
        0 | 1 => {}
        2 => {
            bytes = (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect();
        }
        3 => bytes.truncate(random.below(bytes.len() + 1)),
        4 => {
            let other = METHODS[random.below(METHODS.len())];
            bytes.extend(plausible(other, random));
        }
        5 => {
            // A length that promises more than there is.
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
        _ => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
        }
    }
    bytes
}

/// An answer is about the task that was asked for, and so is its label.
fn assert_of_task(answer: &v1::RouteResponse, asked: &str) {
    let asked = if asked.is_empty() { "default" } else { asked };
    assert_eq!(answer.task, asked);
    let own = match asked {
        TASK => "a:",
        OTHER_TASK => "secret:",
        _ => "no label",
    };
    let said = answer.routing.as_ref().and_then(|r| r.label.as_deref());
    let labels = answer.top.iter().map(|entry| entry.label.as_str());
    for label in labels.chain(said).chain([answer.label.as_str()]) {
        assert!(
            label.is_empty() || label.starts_with(own),
            "{asked}: {answer:?}"
        );
    }
}

fn assert_whole(method: Method, sent: &[u8], answer: &[u8]) {
    match method {
        Method::Route | Method::RouteStream => {
            let request = v1::RouteRequest::decode(sent).unwrap();
            let answer = v1::RouteResponse::decode(answer).unwrap();
            assert_of_task(&answer, &request.task);
            assert_eq!(answer.request_id, request.request_id);
        }
        Method::RouteBatch => {
            let request = v1::RouteBatchRequest::decode(sent).unwrap();
            let answers = v1::RouteBatchResponse::decode(answer).unwrap().responses;
            assert_eq!(answers.len(), request.inputs.len());
            for answer in answers {
                assert_of_task(&answer, &request.task);
            }
        }
        Method::GetPipeline => {
            let request = v1::GetPipelineRequest::decode(sent).unwrap();
            let pipeline = v1::Pipeline::decode(answer).unwrap();
            assert_eq!(pipeline.task, request.task);
            let prefix = if pipeline.task == TASK {
                "a:"
            } else {
                "secret:"
            };
            assert!(
                pipeline
                    .labels
                    .iter()
                    .all(|label| label.starts_with(prefix))
            );
        }
        Method::ListPipelines => {
            let list = v1::ListPipelinesResponse::decode(answer).unwrap();
            assert_eq!(list.pipelines.len(), 2);
        }
        // There is no log.
        Method::Record => panic!("recorded: {sent:?}"),
    }
}

/// Errors that say what was wrong with the request, and no other.
fn assert_about_the_request(method: Method, status: &Status) {
    let expected = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => true,
        Code::Internal => status.message().starts_with("failed to decode"),
        Code::NotFound => method == Method::GetPipeline,
        Code::FailedPrecondition => method == Method::Record,
        _ => false,
    };
    assert!(expected, "{method:?}: {status}");
}

async fn send(grpc: &mut Grpc<Channel>, method: Method, sent: Vec<u8>) -> Result<Bytes, Status> {
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/tracer.v1.Router/{method:?}").parse().unwrap();
    let request = Request::new(sent);
    if method != Method::RouteStream {
        return Ok(grpc.unary(request, path, Raw).await?.into_inner());
    }
    let mut answers = grpc
        .server_streaming(request, path, Raw)
        .await?
        .into_inner();
    let answer = answers.message().await?;
    answer.ok_or_else(|| Status::unknown("the stream ended without an answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_panics_or_is_answered_for_another_task() {
    let setting = |name: &str, default: u64| {
        env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let total = setting("TRACER_FUZZ_REQUESTS", 4_000);
    let seed = setting("TRACER_FUZZ_SEED", 1);
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    publish_of(&registry, OTHER_TASK, pipeline_of_other_task()).await;
    let server = Server::start(registry, Options::default()).await;
    let mut client = server.client().await;
    let before = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!(before.label, "a:refund");

    let answered = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for worker in 0..8 {
        let channel = server.channel().await;
        let answered = Arc::clone(&answered);
        workers.push(tokio::spawn(async move {
            let mut grpc = Grpc::new(channel);
            let mut random = Random(seed.wrapping_mul(1000) + worker);
            for _ in 0..total / 8 {
                let method = METHODS[random.below(METHODS.len())];
                let sent = bytes(method, &mut random);
                match send(&mut grpc, method, sent.clone()).await {
                    Ok(answer) => {
                        assert_whole(method, &sent, &answer);
                        answered.fetch_add(1, Relaxed);
                    }
                    Err(status) => assert_about_the_request(method, &status),
                }
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    // Neither all refused nor all taken: the requests are of both kinds.
    let answered = answered.load(Relaxed);
    assert!(
        (total / 20..total).contains(&answered),
        "{answered} of {total}"
    );
    let internal = r#"tracer_requests_rejected_total{reason="internal"}"#;
    assert_eq!(server.metric(internal), Some(0.0));
    let after = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!((after.label, after.score), (before.label, before.score));
    server.stop().await;
}
