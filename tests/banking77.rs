//! The main job on real input, through real parts: traces replayed through Apache
//! Kafka in five batches, shards, five refits, published versions, and 1,000
//! held-out queries answered over gRPC by a process of its own.
//!
//! `tests/run banking77` starts Kafka and says where it is; `TRACER_TEST_TRACES`
//! names the traces (JSONL), `TRACER_TEST_EMBEDDINGS` their embeddings (float32 .npy).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on should panic; the table is its result

use std::{
    env,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tracer_proto::v1::{
    Decision, GetPipelineRequest, Input, RouteBatchRequest, RouteResponse,
    router_client::RouterClient,
};

const BATCHES: usize = 5;
const QUERIES: usize = 1000;
const ALPHA: f64 = 0.95;

/// A service of the real binary; ended with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn required(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this by tests/run banking77"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn tracer(directory: &Path, kafka: &str, grpc: u16, http: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
    let topic = format!(
        "banking77-{}",
        directory
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace('.', "")
    );
    command
        .current_dir(directory)
        .env("TRACER__SOURCE__KIND", "kafka")
        .env("TRACER__SOURCE__BROKERS", kafka)
        .env("TRACER__SOURCE__TOPICS", format!("[{topic}]"))
        .env("TRACER__STORE__URL", directory.join("store"))
        .env("TRACER__LISTEN__GRPC", format!("127.0.0.1:{grpc}"))
        .env("TRACER__LISTEN__HTTP", format!("127.0.0.1:{http}"))
        .env("TRACER__AGGREGATOR__MAX_AGE_MS", "1000")
        .env("TRACER__TRAINER__POLL_INTERVAL_MS", "500")
        .env("TRACER__TASK_DEFAULTS__TARGET_AGREEMENT", ALPHA.to_string())
        .env("TRACER__TASK_DEFAULTS__REFIT_EVERY_MINUTES", "0");
    command
}

fn start(mut command: Command, service: &str, directory: &Path) -> Service {
    let log = std::fs::File::create(directory.join(format!("{service}.log"))).unwrap();
    Service(
        command
            .arg(service)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap(),
    )
}

fn replay(mut command: Command, file: &Path) {
    let output = command.arg("replay").arg(file).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A metric's value, summed over its series that hold all of `labels`.
async fn metric(port: u16, name: &str, labels: &[&str]) -> f64 {
    let Ok(text) = http_get(port, "/metrics").await else {
        return 0.0;
    };
    text.lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|l| line.contains(l)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

async fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn until<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "{what}: not after {limit:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Apache Kafka and TRACER_TEST_TRACES: tests/run banking77"]
async fn banking77_in_five_days() {
    let kafka = required("TRACER_TEST_KAFKA");
    let (training, queries) = read(
        &required("TRACER_TEST_TRACES"),
        env::var("TRACER_TEST_EMBEDDINGS").ok(),
    );
    let task = training[0]["task"].as_str().unwrap_or("default").to_owned();
    let batch = training.len().div_ceil(BATCHES);

    let directory = tempfile::tempdir().unwrap();
    let (grpc, http) = (free_port(), [free_port(), free_port(), free_port()]);
    let command = |port| {
        let mut command = tracer(directory.path(), &kafka, grpc, port);
        // Every batch sets off one refit: the last, smaller one as well.
        command.env(
            "TRACER__TASK_DEFAULTS__REFIT_AFTER_TRACES",
            (batch - BATCHES).to_string(),
        );
        command
    };
    let _aggregator = start(command(http[0]), "aggregator", directory.path());
    let _trainer = start(command(http[1]), "trainer", directory.path());
    let _inference = start(command(http[2]), "inference", directory.path());
    until(
        "the inference service is ready",
        Duration::from_secs(60),
        || async {
            http_get(http[2], "/readyz")
                .await
                .is_ok_and(|t| t.starts_with("HTTP/1.1 200"))
        },
    )
    .await;
    let mut client = RouterClient::connect(format!("http://127.0.0.1:{grpc}"))
        .await
        .unwrap();

    println!(
        "| day | traces | version | family | surrogate | shadow coverage | shadow TA (lower) | coverage on {QUERIES} queries | TA on them |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut last = (0.0, 0.0);
    let mut sent = 0;
    for (day, traces) in training.chunks(batch).enumerate() {
        let file = directory.path().join(format!("day{day}.jsonl"));
        write_lines(&file, traces);
        replay(command(free_port()), &file);
        sent += traces.len();
        until(
            "the day's traces are in shards",
            Duration::from_secs(120),
            || async {
                metric(http[0], "tracer_traces_consumed_total", &[]).await as usize == sent
            },
        )
        .await;
        until(
            "the day's refit is done",
            Duration::from_secs(600),
            || async { metric(http[1], "tracer_refits_total", &[&task]).await as usize == day + 1 },
        )
        .await;
        let passed = metric(http[1], "tracer_refits_total", &[&task, "passed"]).await as u64;
        let request = || GetPipelineRequest { task: task.clone() };
        if passed > 0 {
            // Followed within two seconds of the publication; the deadline is for slow machines.
            let mut follower = client.clone();
            let deadline = Instant::now() + Duration::from_secs(20);
            while follower
                .get_pipeline(request())
                .await
                .map_or(0, |p| p.into_inner().version)
                < passed
            {
                assert!(Instant::now() < deadline, "version {passed} is not served");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let answers = ask(&mut client, &task, &queries).await;
        last = score(&queries, &answers);
        let pipeline = client
            .get_pipeline(request())
            .await
            .map(tonic::Response::into_inner)
            .unwrap_or_default();
        println!(
            "| {} | {sent} | {} | {} | {} | {:.3} | {:.3} ({:.3}) | {:.3} | {:.3} |",
            day + 1,
            pipeline.version,
            pipeline.family,
            pipeline.surrogate,
            pipeline.shadow_coverage,
            pipeline.shadow_agreement,
            pipeline.shadow_agreement_lower,
            last.0,
            last.1,
        );
    }
    // Nothing was lost on the way, and everything went through shards.
    assert_eq!(
        metric(http[0], "tracer_traces_rejected_total", &[]).await,
        0.0
    );
    assert!(metric(http[0], "tracer_shards_written_total", &[]).await >= BATCHES as f64);
    assert_eq!(
        metric(http[1], "tracer_refits_total", &["failed"]).await,
        0.0
    );
    let handled = metric(http[2], "tracer_routes_total", &[&task, "handled"]).await;
    let deferred = metric(http[2], "tracer_routes_total", &[&task, "deferred"]).await;
    assert_eq!(handled + deferred, (BATCHES * QUERIES) as f64);
    // 1,000 queries put a standard error of 0.007 on an agreement of 0.95.
    let (coverage, agreement) = last;
    assert!(agreement >= ALPHA - 0.02, "agreement {agreement}");
    assert!(coverage >= 0.75, "coverage {coverage}");
}

/// Training traces and held-out queries, with the embeddings attached.
fn read(traces: &str, embeddings: Option<String>) -> (Vec<Value>, Vec<Value>) {
    let text = std::fs::read_to_string(traces).unwrap();
    let mut rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    if let Some(path) = embeddings.map(PathBuf::from) {
        let bytes = std::fs::read(path).unwrap();
        let dimension = 384;
        let (values, _) = bytes[bytes.len() - rows.len() * dimension * 4..].as_chunks::<4>();
        for (row, values) in rows.iter_mut().zip(values.chunks(dimension)) {
            row["embedding"] = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        }
    }
    let queries = rows.split_off(rows.len() - QUERIES);
    (rows, queries)
}

fn write_lines(path: &Path, rows: &[Value]) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for row in rows {
        writeln!(file, "{row}").unwrap();
    }
}

async fn ask(
    client: &mut RouterClient<tonic::transport::Channel>,
    task: &str,
    queries: &[Value],
) -> Vec<RouteResponse> {
    let mut answers = Vec::new();
    for queries in queries.chunks(250) {
        let inputs = queries.iter().map(|q| Input {
            text: q["input"].as_str().unwrap().to_owned(),
            embedding: q
                .get("embedding")
                .unwrap_or(&json!([]))
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap() as f32)
                .collect(),
            embedder: String::new(),
        });
        let request = RouteBatchRequest {
            task: task.to_owned(),
            inputs: inputs.collect(),
            top_k: 0,
        };
        answers.extend(
            client
                .route_batch(request)
                .await
                .unwrap()
                .into_inner()
                .responses,
        );
    }
    answers
}

/// (coverage, teacher agreement) of some answers.
fn score(queries: &[Value], answers: &[RouteResponse]) -> (f64, f64) {
    assert_eq!(queries.len(), answers.len());
    let handled: Vec<bool> = queries
        .iter()
        .zip(answers)
        .filter(|(_, a)| a.decision() == Decision::Handled)
        .map(|(q, a)| q["teacher"].as_str() == Some(&a.label))
        .collect();
    let right = handled.iter().filter(|agrees| **agrees).count();
    (
        handled.len() as f64 / queries.len() as f64,
        right as f64 / handled.len().max(1) as f64,
    )
}
