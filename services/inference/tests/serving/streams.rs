//! `RouteStream`.

use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tracer_proto::v1::{self, Decision};

use crate::support::{AMBIGUOUS, Options, PLAIN, Server, pipeline_a, publish, registry, text};

fn numbered(id: usize, input: &str) -> v1::RouteRequest {
    v1::RouteRequest {
        request_id: id.to_string(),
        ..text(input)
    }
}

#[tokio::test]
async fn answers_in_order() {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    let server = Server::start(registry, Options::default()).await;
    let mut client = server.client().await;
    let requests =
        stream::iter((0..200).map(|id| numbered(id, if id % 2 == 0 { PLAIN } else { AMBIGUOUS })));
    let mut answers = client.route_stream(requests).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.request_id, count.to_string());
        let expected = [Decision::Handled, Decision::Deferred][count % 2];
        assert_eq!(answer.decision(), expected);
        count += 1;
    }
    assert_eq!(count, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_refused_request_ends_the_stream_with_its_status() {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    let server = Server::start(registry, Options::default()).await;
    let mut client = server.client().await;
    let requests = stream::iter([numbered(0, PLAIN), numbered(1, ""), numbered(2, PLAIN)]);
    let mut answers = client.route_stream(requests).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().request_id, "0");
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(answers.next().await.is_none());
    server.stop().await;
}

/// A server with a drain that no stream may wait out.
async fn patient() -> Server {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    Server::start(registry, Options::patient()).await
}

#[tokio::test]
async fn a_shutdown_ends_a_stream_that_waits() {
    let server = patient().await;
    let mut client = server.client().await;
    let (send, requests) = mpsc::channel(4);
    send.send(numbered(0, PLAIN)).await.unwrap();
    let requests = ReceiverStream::new(requests);
    let mut answers = client.route_stream(requests).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().request_id, "0");
    server.shutdown.cancel();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the server is shutting down");
    drop((send, client));
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_a_stream_that_never_pauses() {
    let server = patient().await;
    let mut client = server.client().await;
    let requests = stream::iter((0..).map(|id| numbered(id, PLAIN)));
    let mut answers = client.route_stream(requests).await.unwrap().into_inner();
    let mut count = 0;
    let status = loop {
        match answers.next().await.unwrap() {
            Ok(answer) => assert_eq!(answer.request_id, count.to_string()),
            Err(status) => break status,
        }
        count += 1;
        if count == 50 {
            server.shutdown.cancel();
        }
        // Far more than fits into the buffers of a connection.
        assert!(count < 100_000, "the stream goes on");
    };
    assert!(count >= 50, "{count}");
    assert_eq!(status.code(), Code::Unavailable);
    drop((answers, client));
    server.stop().await;
}
