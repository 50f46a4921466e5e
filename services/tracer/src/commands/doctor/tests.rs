//! The whole examination, against parts that are there, are not, or lie.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path as UrlPath, Query, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{any, get},
};
use tracer_source::SourceConfig;

use super::{finding::Status, *};

const LIMIT: Duration = Duration::from_secs(20);

fn config(json: serde_json::Value) -> Config {
    let config: Config = serde_json::from_value(json).unwrap();
    config.check().unwrap();
    config
}

async fn examined(config: &Config, roles: Roles) -> Report {
    let mut report = Report::new(true);
    examine(&mut report, config, roles, LIMIT).await;
    report
}

fn the<'a>(report: &'a Report, check: &str) -> &'a Finding {
    let found = report.findings.iter().find(|f| f.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {:#?}", report.findings))
}

fn assert_failed(report: &Report, check: &str, found: &str, remedy: &str) {
    let finding = the(report, check);
    assert_eq!(finding.status, Status::Failed, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    let told = finding.remedy.as_deref().unwrap_or_default();
    assert!(told.contains(remedy), "{finding:?}");
}

#[tokio::test]
async fn what_is_in_order_passes_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, store) = (
        directory.path().join("spool"),
        directory.path().join("store"),
    );
    for made in [&spool, &store] {
        std::fs::create_dir(made).unwrap();
    }
    let config = config(json!({"source": {"path": spool}, "store": {"url": store}}));
    let report = examined(&config, Roles::ALL).await;
    assert_eq!(report.failed(), 0, "{:#?}", report.findings);
    for check in [
        "store: reached",
        "store: put",
        "store: put-if-absent",
        "store: put-if-absent at the same time",
        "store: listing",
        "store: delete",
        "clock",
        "spool: written",
    ] {
        let finding = the(&report, check);
        assert_eq!(finding.status, Status::Ok, "{finding:?}");
    }
    for made in [&spool, &store.join("probes")] {
        let left: Vec<_> = std::fs::read_dir(made).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_or_takes_nothing_fails_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let config = config(json!({"source": {"path": missing}, "store": {"url": missing}}));
    let report = examined(&config, Roles::ALL).await;
    assert_failed(&report, "store: directory", "is not there", "mkdir -p");
    assert_failed(
        &report,
        "spool: directory",
        "is not there",
        "mount the volume",
    );
    assert!(!missing.exists(), "it was made");

    // Even the superuser writes nothing here.
    let config = super::tests::config(
        json!({"source": {"path": "/proc/self/task"}, "store": {"url": "/proc/self/task"}}),
    );
    let report = examined(&config, Roles::ALL).await;
    assert_failed(&report, "store: put", "cannot write", "");
    assert_failed(&report, "spool: written", "/proc/self/task", "writable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_fails_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = config(json!({
        "source": {"kind": "kafka", "brokers": closed},
        "store": {"url": "memory://"},
    }));
    let mut report = Report::new(true);
    let SourceConfig::Kafka(kafka) = &config.source else {
        panic!("not kafka");
    };
    let limit = Duration::from_secs(2);
    kafka::examine(&mut report, kafka, &config, Roles::ALL, limit).await;
    assert_failed(
        &report,
        "kafka: reached",
        "nothing listens",
        "source.brokers",
    );
    assert!(report.not_tried[0].contains("access lists"));
}

#[tokio::test]
async fn an_embedder_that_does_not_answer_fails_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = config(json!({
        "task_defaults": {"embedder": {
            "kind": "http", "url": url, "model": "m", "dimension": 3, "retries": 0,
        }},
    }));
    let mut report = Report::new(true);
    embedders::examine(&mut report, &config, None, LIMIT).await;
    assert_failed(
        &report,
        "embedder: task_defaults.embedder",
        "",
        "docs/embedders.md",
    );
    // A check has its limit.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let config = super::tests::config(json!({
        "task_defaults": {"embedder": {
            "kind": "http", "url": url, "model": "m", "dimension": 3, "timeout_ms": 600_000,
        }},
    }));
    let mut report = Report::new(true);
    embedders::examine(&mut report, &config, None, Duration::from_millis(200)).await;
    assert_failed(
        &report,
        "embedder: task_defaults.embedder",
        "within 200 ms",
        "server",
    );
}

/// The least of S3: puts, gets, heads, deletes and listings of one bucket.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// Whether `If-None-Match` is honoured.
    honest: bool,
    /// Seconds that the store's clock is before ours.
    clock: i64,
}

impl Bucket {
    async fn serve(self) -> String {
        let router = Router::new()
            .route("/bucket", get(list).post(delete_many))
            .route("/bucket/", get(list).post(delete_many))
            .route("/bucket/{*key}", any(object))
            .with_state(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        chrono::Utc::now() + chrono::TimeDelta::seconds(self.clock)
    }
}

async fn object(
    State(bucket): State<Bucket>,
    UrlPath(key): UrlPath<String>,
    method: axum::http::Method,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let mut objects = bucket.objects.lock().unwrap();
    let there = objects.get(&key).cloned();
    match method.as_str() {
        "PUT" if bucket.honest && headers.contains_key("if-none-match") && there.is_some() => {
            StatusCode::PRECONDITION_FAILED.into_response()
        }
        "PUT" => {
            objects.insert(key, body);
            [("etag", "\"1\"")].into_response()
        }
        "DELETE" => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match there {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(body) => {
                let at = bucket.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
                ([("etag", "\"1\"".to_owned()), ("last-modified", at)], body).into_response()
            }
        },
    }
}

async fn delete_many(State(bucket): State<Bucket>, body: String) -> impl IntoResponse {
    let mut objects = bucket.objects.lock().unwrap();
    let keys = body.split("<Key>").skip(1);
    let mut deleted = String::new();
    for key in keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0)) {
        objects.remove(key);
        deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    format!("<DeleteResult>{deleted}</DeleteResult>")
}

async fn list(
    State(bucket): State<Bucket>,
    Query(query): Query<BTreeMap<String, String>>,
) -> impl IntoResponse {
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let at = bucket
        .now()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let objects = bucket.objects.lock().unwrap();
    let mut contents = String::new();
    for (key, body) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let size = body.len();
        contents += &format!(
            "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

async fn of_bucket(bucket: Bucket) -> Report {
    let endpoint = bucket.serve().await;
    let config = config(json!({"store": {"url": "s3://bucket", "options": {
        "endpoint": endpoint, "allow_http": "true", "region": "here",
        "access_key_id": "a", "secret_access_key": "a-secret-27182818",
    }}}));
    let mut report = Report::new(true);
    let store = store::open(&mut report, &config, LIMIT)
        .await
        .expect("it is there");
    store::examine(&mut report, &store, LIMIT).await;
    let told = serde_json::to_string(&report.findings).unwrap();
    assert!(!told.contains("27182818"), "{told}");
    report
}

#[tokio::test]
async fn a_store_that_overwrites_is_found_out() {
    let honest = of_bucket(Bucket {
        honest: true,
        ..Bucket::default()
    })
    .await;
    assert_eq!(honest.failed(), 0, "{:#?}", honest.findings);
    assert_eq!(the(&honest, "clock").status, Status::Ok);

    let lies = of_bucket(Bucket::default()).await;
    let remedy = "If-None-Match";
    assert_failed(&lies, "store: put-if-absent", "was taken", remedy);
    let check = "store: put-if-absent at the same time";
    assert_failed(&lies, check, "4 of 4", remedy);
    assert_eq!(the(&lies, "store: delete").status, Status::Ok);
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    for (clock, status, side) in [
        (60, Status::Warning, "behind"),
        (-60, Status::Warning, "before"),
        (600, Status::Failed, "behind"),
    ] {
        let report = of_bucket(Bucket {
            honest: true,
            clock,
            ..Bucket::default()
        })
        .await;
        let finding = the(&report, "clock");
        assert_eq!(finding.status, status, "{finding:?}");
        assert!(finding.found.contains(side), "{finding:?}");
        assert!(finding.remedy.as_ref().unwrap().contains("NTP"));
    }
}
