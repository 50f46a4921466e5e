//! Texts without an embedding, for a pipeline that stands on embeddings.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use tracer_features::embed::{EmbedError, Embedder, Embedders, Identity};
use tracer_proto::v1::{self, Decision, DeferReason};

use crate::support::{
    DIMENSION, Options, Server, TASK, embedding, eventually, pipeline_a, pipeline_dense, publish,
    publish_with_embedder, registry, text,
};

/// Calls of an embedder that its gate lets through at a time.
const AT_ONCE: u32 = 100;

/// A text of a digit becomes the unit vector of that axis.
#[derive(Debug)]
struct Axes {
    identity: Identity,
    asked: Mutex<Vec<Vec<String>>>,
    fails: Mutex<Option<EmbedError>>,
    /// While it is closed nothing is embedded.
    gate: Semaphore,
}

impl Axes {
    fn new(name: &str, dimension: usize) -> Arc<Self> {
        Arc::new(Self {
            identity: Identity::named(name, dimension),
            asked: Mutex::default(),
            fails: Mutex::default(),
            gate: Semaphore::new(AT_ONCE as usize),
        })
    }
}

#[async_trait::async_trait]
impl Embedder for Axes {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.asked.lock().unwrap().push(texts.clone());
        let _open = self.gate.acquire().await.unwrap();
        if let Some(error) = self.fails.lock().unwrap().clone() {
            return Err(error);
        }
        if texts.iter().any(|text| text == "refused") {
            let detail = "no".to_owned();
            return Err(EmbedError::Refused { detail });
        }
        let axis = |text: &String| {
            let mut vector = vec![0.0; self.identity.dimension()];
            vector[text.trim().parse::<usize>().unwrap()] = 1.0;
            vector
        };
        Ok(texts.iter().map(axis).collect())
    }
}

fn options(embedder: &Arc<Axes>) -> Options {
    let embedder: Arc<dyn Embedder> = embedder.clone();
    let tasks = BTreeMap::from([(TASK.to_owned(), Some(embedder))]);
    Options {
        embedders: Embedders::new(None, tasks),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_text_is_embedded_for_a_pipeline_of_the_same_embedder() {
    let registry = registry();
    publish_with_embedder(&registry, pipeline_dense(), Some("axes")).await;
    let axes = Axes::new("axes", DIMENSION);
    let server = Server::start(registry, options(&axes)).await;
    let mut client = server.client().await;

    let answer = client.route(text("1")).await.unwrap().into_inner();
    assert_eq!(
        (answer.decision(), answer.label.as_str()),
        (Decision::Handled, "track")
    );

    // Of a batch only what needs it, together.
    let mut inputs: Vec<v1::Input> = ["0", "3"].map(|t| text(t).input.unwrap()).to_vec();
    inputs.insert(1, embedding(&[0.0, 0.0, 1.0, 0.0], "axes").input.unwrap());
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs,
        ..v1::RouteBatchRequest::default()
    };
    let answers = client
        .route_batch(request)
        .await
        .unwrap()
        .into_inner()
        .responses;
    let labels: Vec<&str> = answers.iter().map(|answer| answer.label.as_str()).collect();
    assert_eq!(labels, ["refund", "password", "cancel"]);
    assert_eq!(*axes.asked.lock().unwrap(), [vec!["1"], vec!["0", "3"]]);

    // A text that the embedder refuses is deferred, and takes no other with it.
    let texts = ["0", "1", "refused", "3"];
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs: texts.map(|t| text(t).input.unwrap()).to_vec(),
        ..v1::RouteBatchRequest::default()
    };
    let answers = client.route_batch(request).await.unwrap().into_inner();
    let answers = answers.responses;
    let labels: Vec<&str> = answers.iter().map(|answer| answer.label.as_str()).collect();
    assert_eq!(labels, ["refund", "track", "", "cancel"]);
    assert_eq!(answers[2].reason(), DeferReason::NoEmbedding);
    assert_eq!(server.metric("tracer_embed_failures_total"), Some(1.0));

    // What was sent with another name is not overruled.
    let mut both = embedding(&[0.0, 0.0, 1.0, 0.0], "other");
    both.input.as_mut().unwrap().text = "1".to_owned();
    let answer = client.route(both).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::EmbedderMismatch);

    // An embedder that fails defers, and is counted.
    let detail = "no".to_owned();
    *axes.fails.lock().unwrap() = Some(EmbedError::Model { detail });
    let answer = client.route(text("1")).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::NoEmbedding);
    assert_eq!(server.metric("tracer_embed_failures_total"), Some(2.0));
    assert_eq!(server.metric("tracer_embed_seconds_count"), Some(4.0));

    // One that has too much to do turns the request away, like the server itself.
    *axes.fails.lock().unwrap() = Some(EmbedError::Busy);
    let status = client.route(text("1")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let info = status.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.reason, "overloaded");
    assert_eq!(server.metric("tracer_embed_failures_total"), Some(2.0));
    server.stop().await;
}

/// A stream embeds and checks each of its requests as a single one would be.
#[tokio::test]
async fn streams_are_embedded_for_too() {
    let registry = registry();
    publish_with_embedder(&registry, pipeline_dense(), Some("axes")).await;
    let axes = Axes::new("axes", DIMENSION);
    let server = Server::start(registry, options(&axes)).await;
    let foreign = embedding(&[0.0, 0.0, 1.0, 0.0], "other");
    let requests = futures::stream::iter([text("1"), foreign, text("0")]);
    let answers = server.client().await.route_stream(requests).await.unwrap();
    let answers: Vec<v1::RouteResponse> = answers
        .into_inner()
        .map(|answer| answer.unwrap())
        .collect()
        .await;
    let labels: Vec<&str> = answers.iter().map(|answer| answer.label.as_str()).collect();
    assert_eq!(labels, ["track", "", "refund"]);
    assert_eq!(answers[1].reason(), DeferReason::EmbedderMismatch);
    server.stop().await;
}

/// What waits for the embedder is under way, and makes room when its caller leaves or
/// its time is over.
#[tokio::test]
async fn the_work_of_an_embedder_is_bounded_and_given_up() {
    let registry = registry();
    publish_with_embedder(&registry, pipeline_dense(), Some("axes")).await;
    let axes = Axes::new("axes", DIMENSION);
    let mut options = options(&axes);
    options.config.max_in_flight = 1;
    let server = Server::start(registry, options).await;
    let client = server.client().await;
    let closed = axes.gate.acquire_many(AT_ONCE);
    let closed = closed.await.unwrap();
    let wait = |timeout: Option<Duration>| {
        let mut client = client.clone();
        let mut request = Request::new(text("1"));
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        tokio::spawn(async move { client.route(request).await })
    };
    let full = async || {
        let status = eventually("the server is full", async || {
            client.clone().route(embedded("1")).await.err()
        });
        assert_eq!(status.await.code(), Code::ResourceExhausted);
    };
    let has_room = async || {
        eventually("there is room again", async || {
            client.clone().route(embedded("1")).await.ok()
        })
        .await;
    };
    let leaver = wait(None);
    full().await;
    leaver.abort();
    has_room().await;
    let late = wait(Some(Duration::from_millis(200)));
    full().await;
    let code = late.await.unwrap().unwrap_err().code();
    assert!(
        [Code::DeadlineExceeded, Code::Cancelled].contains(&code),
        "{code:?}"
    );
    has_room().await;
    drop(closed);
    server.stop().await;
}

/// What the embedder would make of the text, sent along.
fn embedded(text: &str) -> v1::RouteRequest {
    let mut vector = [0.0; DIMENSION];
    vector[text.parse::<usize>().unwrap()] = 1.0;
    embedding(&vector, "axes")
}

/// The vectors that will be made count before they are.
#[tokio::test]
async fn embeddings_to_be_made_count_towards_what_is_under_way() {
    let registry = registry();
    publish_with_embedder(&registry, pipeline_dense(), Some("axes")).await;
    let axes = Axes::new("axes", DIMENSION);
    let mut options = options(&axes);
    // A batch of 31 × (512 + 1) bytes counts for one request more, one of 31 × (512 + 1 + 16)
    // for two.
    options.config.max_in_flight = 3;
    let server = Server::start(registry, options).await;
    let client = server.client().await;
    let inputs = vec![text("1").input.unwrap(); 31];
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs,
        ..v1::RouteBatchRequest::default()
    };
    let closed = axes.gate.acquire_many(AT_ONCE);
    let closed = closed.await.unwrap();
    let batch = tokio::spawn({
        let mut client = client.clone();
        async move { client.route_batch(request).await }
    });
    eventually("the batch is under way", async || {
        (axes.asked.lock().unwrap().len() == 1).then_some(())
    })
    .await;
    let status = client.clone().route(embedded("1")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(closed);
    batch.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_pipeline_of_another_embedder_is_never_shown_its_vectors() {
    for (fitted_on, dimension) in [
        (Some("other"), DIMENSION),
        (None, DIMENSION),
        (Some("axes"), DIMENSION + 1),
    ] {
        let registry = registry();
        publish_with_embedder(&registry, pipeline_dense(), fitted_on).await;
        let axes = Axes::new("axes", dimension);
        let server = Server::start(registry, options(&axes)).await;
        let mut client = server.client().await;
        let answer = client.route(text("1")).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Deferred);
        assert_eq!(
            answer.reason(),
            DeferReason::EmbedderMismatch,
            "{fitted_on:?}"
        );
        assert!(axes.asked.lock().unwrap().is_empty());
        server.stop().await;
    }
}

#[tokio::test]
async fn a_pipeline_on_text_alone_needs_no_embedder() {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    let axes = Axes::new("axes", DIMENSION);
    let server = Server::start(registry, options(&axes)).await;
    let mut client = server.client().await;
    let answer = client
        .route(text("please refund the payment for order 7"))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().label, "a:refund");
    assert!(axes.asked.lock().unwrap().is_empty());
    server.stop().await;
}
