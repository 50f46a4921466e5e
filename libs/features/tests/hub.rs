//! A model on a hub, against a server of the test's own.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use common::{Asked, Reply, Server};
use serde_json::json;
use tracer_features::embed::{EmbedderConfig, EmbedderKind, Hub, ModelFiles, OpenError, open};

/// Two words as vectors: safetensors by hand, the length of the header before it.
fn weights() -> Vec<u8> {
    let header = json!({
        "embeddings": { "dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24] },
    })
    .to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(
        [0.0_f32, 0.0, 3.0, 4.0, 1.0, 0.0]
            .into_iter()
            .flat_map(f32::to_le_bytes),
    );
    file
}

fn tokenizer() -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null, "decoder": null,
        "model": {
            "type": "WordLevel", "vocab": { "[UNK]": 0, "refund": 1, "order": 2 },
            "unk_token": "[UNK]",
        },
    })
    .to_string()
}

fn found(body: Vec<u8>) -> Reply {
    Reply {
        body,
        ..(200, String::new()).into()
    }
}

/// What the hub has below `/small/resolve/v1/`; the weights are on another server.
fn hub(asked: &Asked, elsewhere: &str) -> Reply {
    match asked.path.strip_prefix("/mirror/org/small/resolve/v1/") {
        Some("tokenizer.json") => found(tokenizer().into_bytes()),
        Some("model.safetensors") => Reply {
            location: format!("{elsewhere}/signed"),
            ..(302, String::new()).into()
        },
        _ => (404, String::new()).into(),
    }
}

fn config(url: &str, token_file: &str) -> EmbedderConfig {
    EmbedderConfig {
        kind: EmbedderKind::Static,
        model: "hub:org/small@v1".to_owned(),
        hub: format!("{url}/mirror"),
        token_file: token_file.to_owned(),
        ..EmbedderConfig::default()
    }
}

async fn files(config: &EmbedderConfig) -> Hub {
    Hub::open(config, "org/small@v1").await.unwrap()
}

#[tokio::test]
async fn a_model_comes_from_a_hub_and_the_token_stays_there() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let store = Server::start(|_, _| found(weights())).await;
    // Another host to HTTP, on the same machine.
    let elsewhere = store.url.replace("127.0.0.1", "localhost");
    let server = Server::start(move |_, asked| hub(asked, &elsewhere)).await;
    let config = config(&server.url, token.to_str().unwrap());
    let embedder = open(&config, &files(&config).await).await.unwrap().unwrap();
    let vectors = embedder.embed(vec!["refund".to_owned(), "order".to_owned()]);
    assert_eq!(vectors.await.unwrap(), [[0.6, 0.8], [1.0, 0.0]]);
    let asked = server.asked();
    // The model has no config.json: that is no error.
    assert_eq!(asked.len(), 3);
    let bearer = Some("Bearer s3cret");
    assert!(
        asked
            .iter()
            .all(|asked| asked.authorization.as_deref() == bearer)
    );
    let [signed] = &store.asked()[..] else {
        panic!("{:?}", store.asked());
    };
    assert_eq!(
        (signed.path.as_str(), &signed.authorization),
        ("/signed", &None)
    );
}

/// Names come out of the model's files: they must not choose who is asked, nor be shown the
/// token.
#[tokio::test]
async fn no_name_leads_away_from_the_model() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let evil = Server::start(|_, _| found(b"{}".to_vec())).await;
    let server = Server::start(|_, _| found(b"{}".to_vec())).await;
    let config = config(&server.url, token.to_str().unwrap());
    let files = files(&config).await;
    let host = evil.url.strip_prefix("http://").unwrap();
    for name in [
        format!("{}/config.json", evil.url),
        format!("//{host}/config.json"),
        format!("http:{host}/config.json"),
        "https:evil.example/config.json".to_owned(),
        "http:169.254.169.254/x?/config.json".to_owned(),
        "%2e%2e/%2e%2e/config.json".to_owned(),
        "../../config.json".to_owned(),
        "/config.json".to_owned(),
        "a/./config.json".to_owned(),
        "a\\config.json".to_owned(),
        "config.json?x".to_owned(),
        "config.json#x".to_owned(),
        String::new(),
    ] {
        let error = files.read(&name, 10).await.unwrap_err();
        assert!(!error.is_transient(), "{name}: {error}");
    }
    assert!(evil.asked().is_empty() && server.asked().is_empty());
    assert!(files.read("1_Pooling/config.json", 10).await.is_ok());
}

/// The same, as a model would have it.
#[cfg(feature = "bert")]
#[tokio::test]
async fn modules_elsewhere_are_refused() {
    for path in [
        "https:evil.example",
        "http:169.254.169.254/x?",
        "%2e%2e/%2e%2e",
    ] {
        let modules = json!([{ "path": path, "type": "models.Transformer" }]).to_string();
        let server = Server::start(move |_, asked| match asked.path.rsplit('/').next() {
            Some("modules.json") => found(modules.clone().into_bytes()),
            _ => (404, String::new()).into(),
        })
        .await;
        let config = EmbedderConfig {
            kind: EmbedderKind::Bert,
            ..config(&server.url, "")
        };
        let error = open(&config, &files(&config).await).await.unwrap_err();
        assert!(error.to_string().contains("leaves the model"), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let server = Server::start(|number, _| match number {
        1 => (503, String::new()),
        2 => (429, String::new()),
        _ => (200, "{}".to_owned()),
    })
    .await;
    let files = files(&config(&server.url, "")).await;
    assert_eq!(
        files.read("config.json", 10).await,
        Ok(Some(b"{}".to_vec()))
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn what_the_hub_will_not_give_is_named() {
    let server = Server::start(|_, asked| match asked.path.rsplit('/').next() {
        Some("large.json") => (200, "x".repeat(11)),
        _ => (403, "secret".to_owned()),
    })
    .await;
    let files = files(&config(&server.url, "")).await;
    for (name, named) in [
        ("large.json", "larger than 10 bytes"),
        ("gated.json", "status 403"),
    ] {
        let error = files.read(name, 10).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("hub:org/small@v1/{name}: ")),
            "{text}"
        );
        assert!(text.contains(named) && !text.contains("secret"), "{text}");
    }
    let unknown = config("http://127.0.0.1:1", "");
    let error = Hub::open(&unknown, "org/small")
        .await
        .unwrap()
        .read("config.json", 10)
        .await;
    assert!(
        matches!(error, Err(OpenError::Unreadable { .. })),
        "{error:?}"
    );
}
