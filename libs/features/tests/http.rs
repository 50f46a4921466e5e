//! The embedder over HTTP, against a server of the test's own.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::sync::Arc;

use common::{Asked, Server};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracer_features::embed::{
    Directory, EmbedError, Embedder, EmbedderApi, EmbedderConfig, EmbedderKind, OpenError,
    embed_all, open,
};

/// The vectors of some texts: the length of each, and 1. The last comes first.
fn openai(asked: &Asked) -> (u16, String) {
    let texts = asked.body["input"].as_array().unwrap();
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({ "index": index, "embedding": [text.as_str().unwrap().len(), 1] }))
        .rev()
        .collect();
    (200, json!({ "data": data }).to_string())
}

fn config(server: &Server) -> EmbedderConfig {
    EmbedderConfig {
        kind: EmbedderKind::Http,
        url: server.url.clone(),
        model: "small".to_owned(),
        dimension: 2,
        retries: 0,
        ..EmbedderConfig::default()
    }
}

async fn opened(config: &EmbedderConfig) -> Arc<dyn Embedder> {
    try_open(config).await.unwrap()
}

async fn try_open(config: &EmbedderConfig) -> Result<Arc<dyn Embedder>, OpenError> {
    Ok(open(config, &Directory(".".into())).await?.unwrap())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn openai_in_batches_with_a_token_and_a_prefix() {
    let server = Server::start(|_, asked| openai(asked)).await;
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "s3cret\n").unwrap();
    let config = EmbedderConfig {
        prefix: Some("q: ".to_owned()),
        max_batch: 2,
        token_file: token_file.display().to_string(),
        ..config(&server)
    };
    let embedder = opened(&config).await;
    assert!(
        embedder
            .identity()
            .as_str()
            .starts_with("http:small:2:prefix-")
    );
    let vectors = embedder.embed(texts(&["a", "bb", "ccc"])).await.unwrap();
    assert_eq!(vectors, [[4.0, 1.0], [5.0, 1.0], [6.0, 1.0]]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, "/v1/embeddings");
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer s3cret"));
    assert_eq!(asked[0].body["model"], "small");
    assert_eq!(asked[0].body["input"], json!(["q: a", "q: bb"]));
    assert_eq!(asked[1].body["input"], json!(["q: ccc"]));
}

#[tokio::test]
async fn text_embeddings_inference() {
    let server = Server::start(|_, _| (200, "[[3, 4]]".to_owned())).await;
    let config = EmbedderConfig {
        api: EmbedderApi::Tei,
        normalize: Some(true),
        ..config(&server)
    };
    let embedder = opened(&config).await;
    assert_eq!(embedder.identity().as_str(), "http:small:2:unit");
    assert_eq!(embedder.embed(texts(&["a"])).await.unwrap(), [[0.6, 0.8]]);
    let asked = &server.asked()[0];
    assert_eq!(asked.path, "/embed");
    assert_eq!(asked.body["inputs"], json!(["a"]));
    assert_eq!(asked.authorization, None);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_no_more_often_than_allowed() {
    let server = Server::start(|number, asked| match number {
        1 => (503, String::new()),
        2 => (429, String::new()),
        _ => openai(asked),
    })
    .await;
    let two = EmbedderConfig {
        retries: 2,
        ..config(&server)
    };
    let vectors = opened(&two).await.embed(texts(&["a"])).await.unwrap();
    assert_eq!((vectors, server.asked().len()), (vec![vec![1.0, 1.0]], 3));

    let broken = Server::start(|_, _| (500, "secrets of the server".to_owned())).await;
    let one = EmbedderConfig {
        retries: 1,
        ..config(&broken)
    };
    let error = opened(&one).await.embed(texts(&["a"])).await.unwrap_err();
    assert!(error.to_string().contains("status 500"), "{error}");
    assert!(!error.to_string().contains("secrets"), "{error}");
    assert_eq!(broken.asked().len(), 2);
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_a_redirect_not_followed() {
    for status in [401, 400, 307] {
        let server = Server::start(move |_, _| (status, "s3cret".to_owned())).await;
        let config = EmbedderConfig {
            retries: 3,
            ..config(&server)
        };
        let error = opened(&config)
            .await
            .embed(texts(&["a"]))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

/// A server that takes no text of more than three letters, and no more than two texts.
#[tokio::test]
async fn a_text_that_the_server_refuses_is_found() {
    for status in [400, 413, 422] {
        let server = Server::start(move |_, asked| {
            let all = asked.body["input"].as_array().unwrap();
            let long = all.iter().any(|text| text.as_str().unwrap().len() > 3);
            if long || all.len() > 2 {
                return (status, String::new());
            }
            openai(asked)
        })
        .await;
        let embedder = opened(&config(&server)).await;
        let embedded = embed_all(embedder.as_ref(), &["a", "bb", "long", "ccc"], |_| {}).await;
        let embedded = embedded.unwrap();
        assert_eq!(embedded.refused, 1);
        let lengths: Vec<Option<f32>> = embedded
            .vectors
            .iter()
            .map(|vector| vector.as_ref().map(|vector| vector[0]))
            .collect();
        assert_eq!(lengths, [Some(1.0), Some(2.0), None, Some(3.0)]);
    }
    // Who may not ask at all is told so.
    let server = Server::start(|_, _| (401, String::new())).await;
    let embedder = opened(&config(&server)).await;
    let error = embed_all(embedder.as_ref(), &["a", "bb"], |_| {}).await;
    assert!(matches!(error, Err(EmbedError::Server { .. })), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_right_is_an_error() {
    for body in [
        r#"{"data": [{"index": 0, "embedding": [1, 2, 3]}]}"#,
        r#"{"data": [{"index": 1, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 1e60]}]}"#,
        r#"{"data": []}"#,
        r#"{"error": "private"}"#,
        "private",
    ] {
        let server = Server::start(move |_, _| (200, body.to_owned())).await;
        let error = opened(&config(&server))
            .await
            .embed(texts(&["a"]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, EmbedError::BadAnswer { .. }),
            "{body}: {error}"
        );
        assert!(!error.to_string().contains("private"), "{error}");
    }
    let endless = Server::start(|_, _| (200, " ".repeat(1 << 20))).await;
    let error = opened(&config(&endless))
        .await
        .embed(texts(&["a"]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_is_not_there() {
    let server = Server::start(|_, _| (0, String::new())).await;
    let impatient = EmbedderConfig {
        timeout_ms: 50,
        ..config(&server)
    };
    let error = opened(&impatient)
        .await
        .embed(texts(&["a"]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, EmbedError::TimedOut { timeout_ms: 50, .. }),
        "{error}"
    );

    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let nowhere = EmbedderConfig {
        url: format!("http://{free}"),
        ..impatient
    };
    let error = opened(&nowhere)
        .await
        .embed(texts(&["a"]))
        .await
        .unwrap_err();
    assert!(matches!(error, EmbedError::Server { .. }), "{error}");
}

#[tokio::test]
async fn what_finds_the_queue_full_is_refused() {
    let server = Server::start(|_, _| (0, String::new())).await;
    let small = EmbedderConfig {
        max_queue: 2,
        timeout_ms: 600_000,
        ..config(&server)
    };
    let embedder = opened(&small).await;
    let first = tokio::spawn({
        let embedder = Arc::clone(&embedder);
        async move { embedder.embed(texts(&["a"])).await }
    });
    server.came.notified().await;
    assert_eq!(
        embedder.embed(texts(&["b", "c"])).await,
        Err(EmbedError::Busy)
    );
    // Who goes away gives the place back.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = tokio::spawn({
        let embedder = Arc::clone(&embedder);
        async move { embedder.embed(texts(&["b", "c"])).await }
    });
    server.came.notified().await;
    second.abort();
}

#[tokio::test]
async fn a_token_that_is_not_there_is_named_and_never_shown() {
    let server = Server::start(|_, asked| openai(asked)).await;
    let missing = EmbedderConfig {
        token_file: "/nowhere/token".to_owned(),
        ..config(&server)
    };
    let error = try_open(&missing).await.unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/token: "), "{error}");
    let unset = EmbedderConfig {
        token_env: "TRACER_TEST_NO_SUCH_VARIABLE".to_owned(),
        ..config(&server)
    };
    let error = try_open(&unset).await.unwrap_err().to_string();
    assert!(
        error.contains("TRACER_TEST_NO_SUCH_VARIABLE is not set"),
        "{error}"
    );
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "two\nlines").unwrap();
    let bad = EmbedderConfig {
        token_file: token_file.display().to_string(),
        ..config(&server)
    };
    let error = try_open(&bad).await.unwrap_err().to_string();
    assert!(
        error.starts_with("token_file: ") && !error.contains("lines"),
        "{error}"
    );
}
