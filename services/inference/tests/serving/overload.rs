//! What is turned away, and what comes of deadlines and of callers who leave.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;
use tracer_inference::{InferenceConfig, Recorder};
use tracer_proto::v1::{self, router_client::RouterClient};
use tracer_source::{LogWriter, Message, SourceError};
use tracer_trace::{Offset, PartitionId, TopicName};

use crate::support::{
    Options, PLAIN, Server, TASK, eventually, pipeline_a, publish, registry, text,
};

/// A log that takes nothing until it is let: a request that is under way for as
/// long as a test wants.
struct Gate(Arc<Semaphore>);

#[async_trait::async_trait]
impl LogWriter for Gate {
    async fn append(
        &self,
        topic: &TopicName,
        _: Message,
    ) -> Result<(PartitionId, Offset), SourceError> {
        let _turn = self.0.acquire().await.unwrap();
        Ok((PartitionId::new(topic.clone(), 0), Offset::ZERO))
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
        false
    }
}

/// A server with room for two requests at a time, and the gate of its log.
async fn narrow() -> (Server, Arc<Semaphore>) {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    let gate = Arc::new(Semaphore::new(0));
    let options = Options {
        config: InferenceConfig {
            max_in_flight: 2,
            ..Options::default().config
        },
        recorder: Some(Recorder {
            writer: Arc::new(Gate(Arc::clone(&gate))),
            topic: TopicName::default(),
        }),
        ..Options::default()
    };
    (Server::start(registry, options).await, gate)
}

fn record() -> v1::RecordRequest {
    v1::RecordRequest {
        trace: Some(v1::Trace {
            task: TASK.into(),
            input: PLAIN.into(),
            teacher: "refund".into(),
            ..v1::Trace::default()
        }),
    }
}

fn batch(inputs: usize) -> v1::RouteBatchRequest {
    v1::RouteBatchRequest {
        task: TASK.into(),
        inputs: vec![text(PLAIN).input.unwrap(); inputs],
        top_k: 0,
    }
}

/// A refusal that says why and when to come again.
fn assert_overloaded(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "overloaded");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
}

type Client = RouterClient<Channel>;

/// Waits until as many requests are under way as there may be.
async fn full(client: &Client) -> Status {
    eventually("the server is full", async || {
        client.clone().route(text(PLAIN)).await.err()
    })
    .await
}

async fn routes_again(client: &Client) {
    eventually("there is room again", async || {
        client.clone().route(text(PLAIN)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn what_is_too_much_is_turned_away_whatever_the_method() {
    let (server, gate) = narrow().await;
    let client = server.client().await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.record(record()).await })
        })
        .collect();
    assert_overloaded(&full(&client).await);
    let mut caller = client.clone();
    assert_overloaded(&caller.route_batch(batch(3)).await.unwrap_err());
    assert_overloaded(&caller.record(record()).await.unwrap_err());
    let opened = caller.route_stream(stream::iter([text(PLAIN)])).await;
    assert_overloaded(&opened.err().unwrap());
    let rejected = r#"tracer_requests_rejected_total{reason="overloaded"}"#;
    assert!(server.metric(rejected).unwrap() >= 4.0);
    // Health is asked for elsewhere: whoever is overloaded is not ill.
    assert_eq!(server.health.ready(), Ok(()));

    gate.add_permits(2);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    routes_again(&client).await;
    server.stop().await;
}

#[tokio::test]
async fn large_requests_count_for_several_and_pass_alone() {
    let (server, gate) = narrow().await;
    let client = server.client().await;
    // 200 inputs of half a KiB and some count for more than all there is room for.
    let answers = client.clone().route_batch(batch(200)).await.unwrap();
    assert_eq!(answers.into_inner().responses.len(), 200);
    let mut other = client.clone();
    let waiting = tokio::spawn(async move {
        // A batch that is under way leaves no room for it.
        loop {
            match other.record(record()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {}
                recorded => return recorded,
            }
        }
    });
    let refused = eventually("the other request is under way", async || {
        assert!(!waiting.is_finished(), "the log let a trace through");
        client.clone().route_batch(batch(200)).await.err()
    })
    .await;
    assert_overloaded(&refused);
    // A plain one still fits.
    client.clone().route(text(PLAIN)).await.unwrap();
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_stream_is_held_back_and_then_ended() {
    let (server, gate) = narrow().await;
    let client = server.client().await;
    let (send, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client
        .clone()
        .route_stream(requests)
        .await
        .unwrap()
        .into_inner();
    send.send(text(PLAIN)).await.unwrap();
    answers.next().await.unwrap().unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.record(record()).await })
        })
        .collect();
    full(&client).await;
    send.send(text(PLAIN)).await.unwrap();
    assert_overloaded(&answers.next().await.unwrap().unwrap_err());
    assert!(answers.next().await.is_none());
    gate.add_permits(2);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn callers_who_leave_or_run_out_of_time_make_room() {
    let (server, _gate) = narrow().await;
    let client = server.client().await;
    let wait = |timeout: Option<Duration>| {
        let mut client = client.clone();
        let mut request = Request::new(record());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        tokio::spawn(async move { client.record(request).await })
    };
    let (timed, left) = (wait(Some(Duration::from_millis(300))), wait(None));
    full(&client).await;
    let status = timed.await.unwrap().unwrap_err();
    assert!(
        [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()),
        "{status}"
    );
    left.abort();
    // Both places are free, though the log never answered.
    routes_again(&client).await;
    let both = [wait(None), wait(None)];
    full(&client).await;
    both.iter().for_each(tokio::task::JoinHandle::abort);
    routes_again(&client).await;
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_not_worked_on() {
    let (server, _gate) = narrow().await;
    let mut client = server.client().await;
    let mut request = Request::new(text(PLAIN));
    // Passed on arrival, in the protocol's own words: the client's own clock would
    // give up before it sent anything.
    request
        .metadata_mut()
        .insert("grpc-timeout", "0n".parse().unwrap());
    let status = client.route(request).await.unwrap_err();
    assert!(
        [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()),
        "{status}"
    );
    let handled = r#"tracer_routes_total{task="desk",decision="handled",reason=""}"#;
    assert_eq!(server.metric(handled), Some(0.0));
    server.stop().await;
}

/// HTTP/2 closes a connection on which too many streams were reset.
#[tokio::test]
async fn a_connection_outlives_many_refusals() {
    let (server, gate) = narrow().await;
    let client = server.client().await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.record(record()).await })
        })
        .collect();
    full(&client).await;
    // Of several frames, which arrive before and after the refusal.
    let long = "again and again ".repeat(3000);
    for _ in 0..30 {
        let refused = (0..100).map(|_| {
            let (mut client, request) = (client.clone(), text(&long));
            async move { client.route(request).await.unwrap_err() }
        });
        for status in futures::future::join_all(refused).await {
            assert_overloaded(&status);
        }
    }
    gate.add_permits(2);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    routes_again(&client).await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_under_way_is_shown_and_a_refusal_has_an_id() {
    let (server, gate) = narrow().await;
    let client = server.client().await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.record(record()).await })
        })
        .collect();
    let shown = async |wanted: f64| {
        eventually("the work under way is shown", async || {
            (server.metric("tracer_requests_in_flight") == Some(wanted)).then_some(())
        })
        .await;
    };
    shown(2.0).await;
    let mut request = Request::new(text(PLAIN));
    let id = "late-comer".parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    let status = client.clone().route(request).await.unwrap_err();
    assert_overloaded(&status);
    let id = status.metadata().get("x-request-id").unwrap();
    assert_eq!(id, "late-comer");
    gate.add_permits(2);
    for held in held {
        held.await.unwrap().unwrap();
    }
    shown(0.0).await;
    server.stop().await;
}
