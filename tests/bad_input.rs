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
    process::Command,
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

    /// The dead letters so far, in the order of the rejections.
    fn dead_letters(&self) -> Vec<serde_json::Value> {
        let path = "data/spool/traces.dead-letters/00000.jsonl";
        let text = std::fs::read_to_string(self.dir.path().join(path)).unwrap_or_default();
        // What follows the last newline is being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
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
        ..v1::RouteRequest::default()
    }
}

fn embedding(values: &[f32]) -> v1::RouteRequest {
    v1::RouteRequest {
        task: "dense".into(),
        input: Some(v1::Input {
            embedding: values.to_vec(),
            ..v1::Input::default()
        }),
        ..v1::RouteRequest::default()
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
    let cases = [
        (
            r#"{"input": "hi", "teacher": "#.to_owned(),
            "malformed_json",
            "line 1 column 27",
        ),
        (
            "not JSON at all".to_owned(),
            "malformed_json",
            "not a JSON object",
        ),
        (
            r#"{"input":"hi","teacher":"a","embedding":[NaN]}"#.to_owned(),
            "malformed_json",
            "column 42",
        ),
        (
            r#"{"input":"hi","teacher":"a","embedding":["NaN"]}"#.to_owned(),
            "bad_embedding",
            r#"has "NaN" at index 0"#,
        ),
        (
            r#"{"input":"hi","teacher":"a","embedding":[]}"#.to_owned(),
            "bad_embedding",
            "has no values",
        ),
        (
            r#"{"input":"hi","teacher":"  "}"#.to_owned(),
            "empty_label",
            r#""teacher" is blank"#,
        ),
        (
            r#"{"input":"hi","teacher":""}"#.to_owned(),
            "empty_label",
            r#""teacher" is blank"#,
        ),
        (
            r#"{"teacher":"a"}"#.to_owned(),
            "missing_input",
            r#""input" is missing"#,
        ),
        (
            r#"{"input":"hi","teacher":"a","task":"../x"}"#.to_owned(),
            "invalid_task",
            r#"invalid task name "../x""#,
        ),
        (
            format!(r#"{{"input":"hi","teacher":"{long_label}"}}"#),
            "label_too_large",
            "1000 bytes; at most 256",
        ),
        (
            format!(r#"{{"input":"{ten_megabytes}","teacher":"a"}}"#),
            "payload_too_large",
            "10485786 bytes; at most 1048576",
        ),
    ];
    for (line, reason, _) in &cases {
        up.rejects(line, reason);
        up.goes_on().await;
    }
    // Each is a dead letter with its bytes and a clear error.
    up.until("every line is a dead letter", || {
        up.dead_letters().len() >= cases.len()
    });
    let letters = up.dead_letters();
    assert_eq!(letters.len(), cases.len());
    for (letter, (line, reason, error)) in letters.iter().zip(&cases) {
        assert_eq!(letter["reason"], *reason);
        assert_eq!(letter["payload_bytes"], line.len());
        assert!(
            letter["error"].as_str().unwrap().contains(error),
            "{}",
            letter["error"]
        );
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

    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let trace = v1::Trace {
            embedding: vec![0.0, bad],
            teacher: "a".into(),
            ..v1::Trace::default()
        };
        let request = v1::RecordRequest { trace: Some(trace) };
        let status = client.record(request).await.unwrap_err();
        refused(&status, "at index 1; every value must be finite");
    }

    let unknown = v1::GetPipelineRequest {
        task: "never-heard-of".into(),
    };
    let status = client.get_pipeline(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("never-heard-of"), "{status}");

    let status = client.route(text("a/b", "hello")).await.unwrap_err();
    refused(&status, r#"task: invalid task name "a/b""#);
    let status = client.route(text("", " ")).await.unwrap_err();
    refused(&status, "input: neither text nor an embedding was sent");
    let request = v1::RouteBatchRequest {
        task: String::new(),
        inputs: vec![v1::Input::default(); 1025],
        top_k: 0,
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
    // One of the traces: the traces stand on a line, and what does not is foreign.
    let plain = [1.0, 0.017, 0.034, 0.051];
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
    assert!(
        up.log()
            .contains("embeddings of another dimension than most are not used"),
        "{}",
        up.log()
    );
    let answer = client.route(embedding(&plain)).await.unwrap().into_inner();
    assert_eq!(
        (answer.decision(), answer.label.as_str()),
        (Decision::Handled, "refund")
    );
    up.goes_on().await;
    up.stop();
}

/// The same input as files of the commands that learn from them.
#[test]
fn files_that_nothing_can_be_learnt_from() {
    let dir = tempfile::tempdir().unwrap();
    let of = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).map(|i| line(i) + "\n").collect::<String>()
    };
    let good = |i: usize| format!(r#"{{"input":"text {i}","teacher":"label {}"}}"#, i % 3);
    let dense = |i: usize| {
        let more = if i == 6 { "" } else { ",2" };
        format!(
            r#"{{"embedding":[{i},1{more}],"teacher":"label {}"}}"#,
            i % 3
        )
    };
    let one = |i: usize| format!(r#"{{"input":"text {i}","teacher":"always"}}"#);
    let with = |line: &str| of(6, &good) + line + "\n" + &of(200, &good);
    for (file, text, error) in [
        ("empty", String::new(), "empty holds no traces"),
        ("one-class", of(300, &one), "nothing to classify"),
        ("dimension", of(300, &dense), "has 2 dimensions"),
        ("malformed", with("not json"), "malformed:7: malformed JSON"),
        (
            "nan",
            with(r#"{"embedding":[NaN],"teacher":"a"}"#),
            "nan:7: malformed JSON",
        ),
        (
            "label",
            with(r#"{"input":"hi","teacher":" "}"#),
            r#"label:7: field "teacher" is blank"#,
        ),
        (
            "large",
            with(&format!(
                r#"{{"input":"{}","teacher":"a"}}"#,
                "x".repeat(10 << 20)
            )),
            "large:7: the payload has 10485786 bytes",
        ),
    ] {
        std::fs::write(dir.path().join(file), text).unwrap();
        for command in [&["fit", "--out", "out"][..], &["backtest"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
                .args(command)
                .args(["--alpha", "0.9", "--traces", file])
                .current_dir(dir.path())
                .output()
                .unwrap();
            let said =
                String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(error), "{command:?} {file}: {said}");
            // A backtest of one class is a table whose runs were refused.
            let refused = file == "one-class" && command[0] == "backtest";
            let code = i32::from(!refused);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{command:?} {file}: {said}"
            );
            assert!(
                !dir.path().join("out/model.safetensors").exists(),
                "{file} left a pipeline"
            );
        }
    }
}
