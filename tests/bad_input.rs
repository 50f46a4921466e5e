//! Bad input against the real binary: every piece of it is a clear error or a
//! counted rejection, and `tracer up` goes on and answers after each.

// The lint's exception for tests does not reach the functions they share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    ops::{Deref, DerefMut},
};

use common::Up;
use tonic::{Code, Status, transport::Channel};
use tracer_proto::v1::{self, Decision, DeferReason, router_client::RouterClient};

const CONFIG: &str = r"
[aggregator]
max_age_ms = 200

[trainer]
poll_interval_ms = 200

[inference]
poll_interval_ms = 200

[task_defaults]
min_traces = 200
refit_after_traces = 200
refit_every_minutes = 0

[tasks.dense]
target_agreement = 0.8

[tasks.one-class]

[tasks.no-traces]
";

/// `tracer up` on a directory of its own.
struct Server {
    up: Up,
    dir: tempfile::TempDir,
}

impl Deref for Server {
    type Target = Up;

    fn deref(&self) -> &Up {
        &self.up
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Up {
        &mut self.up
    }
}

impl Server {
    fn start(spool: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tracer.toml"), CONFIG).unwrap();
        let up = Up::start(dir.path());
        let server = Self { up, dir };
        server.append(spool);
        server.ready();
        server
    }

    /// Adds lines to the log of traces, as any program may.
    fn append(&self, lines: &str) {
        let path = self.dir.path().join("data/spool/traces/00000.jsonl");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    fn rejected(&self, reason: &str) -> f64 {
        self.metric(&format!(
            r#"tracer_traces_rejected_total{{reason="{reason}"}}"#
        ))
    }

    fn refits(&self, task: &str, verdict: &str) -> f64 {
        self.metric(&format!(
            r#"tracer_refits_total{{task="{task}",verdict="{verdict}"}}"#
        ))
    }

    /// Adds a line and waits until it is counted as rejected for this reason.
    fn rejects(&self, line: &str, reason: &str) {
        let before = self.rejected(reason);
        self.append(&format!("{line}\n"));
        self.until(&format!("a line is rejected as {reason}"), || {
            self.rejected(reason) > before
        });
    }

    async fn client(&self) -> RouterClient<Channel> {
        let endpoint = Channel::from_shared(self.grpc.clone()).unwrap();
        RouterClient::new(endpoint.connect().await.unwrap()).max_encoding_message_size(64 << 20)
    }

    /// It is alive, ready, and answers.
    async fn goes_on(&mut self) {
        assert!(self.runs(), "it ended; the log: {}", self.log());
        assert!(self.get("/livez").starts_with("HTTP/1.1 200"));
        assert!(
            self.get("/readyz").starts_with("HTTP/1.1 200"),
            "{}",
            self.get("/readyz")
        );
        let answer = self.client().await.route(text("", "hello")).await.unwrap();
        assert_eq!(answer.into_inner().decision(), Decision::Deferred);
    }

    /// Ends it in order.
    fn stop(self) {
        self.up.stop();
    }
}

fn text(task: &str, text: &str) -> v1::RouteRequest {
    v1::RouteRequest {
        task: task.into(),
        input: Some(v1::Input {
            text: text.into(),
            ..v1::Input::default()
        }),
        request_id: String::new(),
    }
}

fn embedding(values: &[f32]) -> v1::RouteRequest {
    v1::RouteRequest {
        task: "dense".into(),
        input: Some(v1::Input {
            embedding: values.to_vec(),
            ..v1::Input::default()
        }),
        request_id: String::new(),
    }
}

fn refused(status: &Status, message: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(message), "{status}");
}

#[tokio::test]
async fn lines_of_the_log_that_are_no_traces() {
    let mut up = Server::start("");
    let ten_megabytes = "x".repeat(10 << 20);
    let long_label = "y".repeat(1000);
    for (line, reason) in [
        (
            r#"{"input": "hi", "teacher": "#.to_owned(),
            "malformed_json",
        ),
        ("not JSON at all".to_owned(), "malformed_json"),
        (
            r#"{"input":"hi","teacher":"a","embedding":[NaN]}"#.to_owned(),
            "malformed_json",
        ),
        (
            r#"{"input":"hi","teacher":"a","embedding":["NaN"]}"#.to_owned(),
            "bad_embedding",
        ),
        (
            r#"{"input":"hi","teacher":"a","embedding":[]}"#.to_owned(),
            "bad_embedding",
        ),
        (r#"{"input":"hi","teacher":"  "}"#.to_owned(), "empty_label"),
        (r#"{"teacher":"a"}"#.to_owned(), "missing_input"),
        (
            r#"{"input":"hi","teacher":"a","task":"../x"}"#.to_owned(),
            "invalid_task",
        ),
        (
            format!(r#"{{"input":"hi","teacher":"{long_label}"}}"#),
            "label_too_large",
        ),
        (
            format!(r#"{{"input":"{ten_megabytes}","teacher":"a"}}"#),
            "payload_too_large",
        ),
    ] {
        up.rejects(&line, reason);
        up.goes_on().await;
    }
    let consumed = up.metric("tracer_traces_consumed_total");
    up.append("{\"input\":\"where is my order\",\"teacher\":\"track\"}\n");
    up.until("a good line is consumed", || {
        up.metric("tracer_traces_consumed_total") > consumed
    });
    up.goes_on().await;
    up.stop();
}

#[tokio::test]
async fn calls_that_make_no_sense() {
    let mut up = Server::start("");
    let mut client = up.client().await;

    for bytes in [10 << 20, 20 << 20] {
        let status = client
            .route(text("", &"x".repeat(bytes)))
            .await
            .unwrap_err();
        if bytes < 16 << 20 {
            refused(
                &status,
                "input.text has 10485760 bytes; at most 65536 are allowed",
            );
        } else {
            assert_eq!(status.code(), Code::OutOfRange, "{status}");
            assert!(status.message().contains("16777216"), "{status}");
        }
        up.goes_on().await;
    }
    let trace = v1::Trace {
        input: "x".repeat(10 << 20),
        teacher: "a".into(),
        ..v1::Trace::default()
    };
    let request = v1::RecordRequest { trace: Some(trace) };
    let status = client.record(request).await.unwrap_err();
    refused(&status, "10485760 bytes");
    up.goes_on().await;

    let trace = v1::Trace {
        input: "hello".into(),
        teacher: " ".into(),
        ..v1::Trace::default()
    };
    let request = v1::RecordRequest { trace: Some(trace) };
    let status = client.record(request).await.unwrap_err();
    refused(&status, "label must not be empty");

    let status = client.route(text("a/b", "hello")).await.unwrap_err();
    refused(&status, r#"task: invalid task name "a/b""#);
    let status = client.route(text("", " ")).await.unwrap_err();
    refused(&status, "input: neither text nor an embedding was sent");
    let request = v1::RouteBatchRequest {
        task: String::new(),
        inputs: vec![v1::Input::default(); 1025],
    };
    let status = client.route_batch(request).await.unwrap_err();
    refused(&status, "inputs has 1025 entries; at most 1024 are allowed");

    for (task, counted) in [("never-heard-of", "unknown"), ("no-traces", "no-traces")] {
        let series = format!(
            r#"tracer_routes_total{{task="{counted}",decision="deferred",reason="no_pipeline"}}"#
        );
        let before = up.metric(&series);
        let answer = client
            .route(text(task, "hello"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.decision(), Decision::Deferred);
        assert_eq!(answer.reason(), DeferReason::NoPipeline);
        assert_eq!(up.metric(&series), before + 1.0, "{task}");
    }
    assert!(!up.get("/metrics").contains("never-heard-of"));
    // Without a trace there is nothing to refit, and nothing to complain of.
    assert_eq!(up.refits("no-traces", "refused"), 0.0);
    up.goes_on().await;
    up.stop();
}

const LABELS: [&str; 4] = ["refund", "track", "password", "cancel"];

/// Embeddings around the unit vectors.
fn dense_lines(from: usize, to: usize) -> String {
    let mut lines = String::new();
    for i in from..to {
        let class = i % LABELS.len();
        let mut values = [0.0_f32; LABELS.len()];
        for (axis, value) in values.iter_mut().enumerate() {
            let noise = ((i * 31 + axis * 17) % 101) as f32 / 1000.0;
            *value = noise + f32::from(u8::from(axis == class));
        }
        let label = LABELS[class];
        writeln!(
            lines,
            r#"{{"task":"dense","embedding":{values:?},"teacher":"{label}"}}"#
        )
        .unwrap();
    }
    lines
}

#[tokio::test]
async fn tasks_that_cannot_be_learnt_and_embeddings_of_another_length() {
    let mut lines = dense_lines(0, 600);
    for i in 0..300 {
        writeln!(
            lines,
            r#"{{"task":"one-class","input":"text {i}","teacher":"always"}}"#
        )
        .unwrap();
    }
    let mut up = Server::start(&lines);
    let mut client = up.client().await;

    up.until("one class is refused", || {
        up.refits("one-class", "refused") > 0.0
    });
    assert!(up.log().contains("nothing to classify"), "{}", up.log());
    let answer = client
        .route(text("one-class", "text 7"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.reason(), DeferReason::NoPipeline);
    up.goes_on().await;

    let version = r#"tracer_pipeline_version{task="dense"}"#;
    up.until("the dense task serves", || up.metric(version) >= 1.0);
    let plain = [1.0, 0.0, 0.0, 0.0];
    let answer = client.route(embedding(&plain)).await.unwrap().into_inner();
    assert_eq!(
        (answer.decision(), answer.label.as_str()),
        (Decision::Handled, "refund")
    );
    let status = client.route(embedding(&plain[..3])).await.unwrap_err();
    refused(
        &status,
        "input.embedding has 3 values; version 1 of task dense takes 4",
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let status = client
            .route(embedding(&[0.0, bad, 0.0, 0.0]))
            .await
            .unwrap_err();
        refused(&status, "at index 1; every value must be finite");
    }
    let answer = client
        .route(text("dense", "hello"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.reason(), DeferReason::NoEmbedding);
    up.goes_on().await;

    // Traces of another length are valid traces, but of no use to this task: it
    // is refitted on the others.
    let mut lines = String::new();
    for i in 0..50 {
        writeln!(
            lines,
            r#"{{"task":"dense","embedding":[{i},1],"teacher":"track"}}"#
        )
        .unwrap();
    }
    up.append(&lines);
    up.append(&dense_lines(600, 900));
    up.until("the dense task is refitted", || up.metric(version) >= 2.0);
    let answer = client.route(embedding(&plain)).await.unwrap().into_inner();
    assert_eq!(
        (answer.decision(), answer.label.as_str()),
        (Decision::Handled, "refund")
    );
    up.goes_on().await;
    up.stop();
}
