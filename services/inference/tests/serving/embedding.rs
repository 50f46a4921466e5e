//! Texts without an embedding, for a pipeline that stands on embeddings.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tracer_features::embed::{EmbedError, Embedder, Embedders, Identity};
use tracer_proto::v1::{self, Decision, DeferReason};

use crate::support::{
    DIMENSION, Options, Server, TASK, embedding, pipeline_a, pipeline_dense, publish,
    publish_with_embedder, registry, text,
};

/// A text of a digit becomes the unit vector of that axis.
#[derive(Debug)]
struct Axes {
    identity: Identity,
    asked: Mutex<Vec<Vec<String>>>,
    fails: AtomicBool,
}

impl Axes {
    fn new(name: &str, dimension: usize) -> Arc<Self> {
        Arc::new(Self {
            identity: Identity::named(name, dimension),
            asked: Mutex::default(),
            fails: AtomicBool::new(false),
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
        if self.fails.load(Relaxed) {
            return Err(EmbedError::Busy);
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

    // What was sent with another name is not overruled.
    let mut both = embedding(&[0.0, 0.0, 1.0, 0.0], "other");
    both.input.as_mut().unwrap().text = "1".to_owned();
    let answer = client.route(both).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::EmbedderMismatch);

    // An embedder that fails defers, and is counted.
    axes.fails.store(true, Relaxed);
    let answer = client.route(text("1")).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::NoEmbedding);
    assert_eq!(server.metric("tracer_embed_failures_total"), Some(1.0));
    assert_eq!(server.metric("tracer_embed_seconds_count"), Some(3.0));
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
