//! Ids of requests, and the caller's span.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tonic::{Code, Request, metadata::MetadataMap};
use tracer_inference::Recorder;
use tracer_proto::v1;
use tracer_source::{LogWriter, Message, SourceError};
use tracer_trace::{Format, Limits, Offset, Origin, PartitionId, TopicName, Trace, decode};

use crate::support::{Options, PLAIN, Server, TASK, registry, text};

const ID: &str = "x-request-id";

fn with_id<T>(message: T, id: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ID, id.parse().unwrap());
    request
}

fn id(metadata: &MetadataMap) -> String {
    metadata.get(ID).unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_answer_and_every_refusal_has_the_id() {
    let server = Server::start(registry(), Options::default()).await;
    let mut client = server.client().await;
    let answer = client
        .route(with_id(text(PLAIN), "caller-7"))
        .await
        .unwrap();
    assert_eq!(id(answer.metadata()), "caller-7");
    // Without one, or with one that is none, each gets its own.
    let mut own = Vec::new();
    for request in [
        Request::new(text(PLAIN)),
        Request::new(text(PLAIN)),
        with_id(text(PLAIN), "two words"),
    ] {
        own.push(id(client.route(request).await.unwrap().metadata()));
    }
    assert!(own.iter().all(|id| id.len() == 16), "{own:?}");
    own.sort();
    own.dedup();
    assert_eq!(own.len(), 3);

    let bad = v1::RouteRequest {
        task: "a b".into(),
        ..text(PLAIN)
    };
    let status = client.route(with_id(bad, "caller-8")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(id(status.metadata()), "caller-8");
    let stream = tokio_stream::iter([text(PLAIN)]);
    let stream = client.route_stream(with_id(stream, "caller-9")).await;
    assert_eq!(id(stream.unwrap().metadata()), "caller-9");
    server.stop().await;
}

/// Keeps what is appended.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Bytes>>);

#[async_trait]
impl LogWriter for Kept {
    async fn append(
        &self,
        topic: &TopicName,
        message: Message,
    ) -> Result<(PartitionId, Offset), SourceError> {
        let mut kept = self.0.lock().await;
        kept.push(message.payload);
        let offset = Offset(kept.len() as u64 - 1);
        Ok((PartitionId::new(topic.clone(), 0), offset))
    }

    async fn append_batch(
        &self,
        _: &TopicName,
        _: Vec<Message>,
    ) -> Result<Vec<(PartitionId, Offset)>, SourceError> {
        unreachable!("Record appends one by one")
    }

    async fn flush(&self) -> Result<(), SourceError> {
        Ok(())
    }

    fn keeps_lines(&self) -> bool {
        true
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_recorded_trace_names_the_callers_span() {
    let kept = Arc::new(Kept::default());
    let recorder = Recorder {
        writer: Arc::clone(&kept) as Arc<dyn LogWriter>,
        topic: TopicName::default(),
    };
    let options = Options {
        recorder: Some(recorder),
        limits: Limits {
            max_metadata_entries: 4,
            ..Limits::default()
        },
        ..Options::default()
    };
    let server = Server::start(registry(), options).await;
    let mut client = server.client().await;
    let mut record = async |headers: &[(&'static str, &str)], metadata: &[(&str, &str)]| {
        let own = metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let trace = v1::Trace {
            task: TASK.into(),
            input: PLAIN.into(),
            teacher: "refund".into(),
            metadata: own.collect(),
            ..v1::Trace::default()
        };
        let mut request = Request::new(v1::RecordRequest { trace: Some(trace) });
        for (header, value) in headers {
            request
                .metadata_mut()
                .append(*header, value.parse().unwrap());
        }
        client.record(request).await.unwrap();
        let payload = kept.0.lock().await.last().unwrap().clone();
        let origin = Origin {
            topic: "traces",
            partition: 0,
            offset: 0,
            timestamp_ms: None,
        };
        let limits = Limits::default();
        let stored: Trace = decode(&payload, &origin, Format::Auto, &limits).unwrap();
        let list: Vec<String> = stored
            .metadata
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        list.join(" ")
    };
    let ids = "span_id=00f067aa0ba902b7 trace_flags=01 trace_id=4bf92f3577b34da6a3ce929d0e0e4736";
    let both = [
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ];
    let found = record(&both, &[]).await;
    assert_eq!(found, format!("{ids} trace_state=a=1,b=2"));
    // The state goes first where there is no room, then all of it.
    assert_eq!(record(&both, &[("app", "x")]).await, format!("app=x {ids}"));
    let full = [("a", "1"), ("b", "2")];
    assert_eq!(record(&both, &full).await, "a=1 b=2");
    // What the caller says itself stays.
    let own = [("trace_id", "mine")];
    assert_eq!(record(&both, &own).await, "trace_id=mine");
    // What is no context is none.
    for bad in ["", "00-0-0-00", &PARENT.to_uppercase()] {
        assert_eq!(record(&[("traceparent", bad)], &[]).await, "");
    }
    assert_eq!(record(&[("tracestate", "a=1")], &[]).await, "");
    server.stop().await;
}
