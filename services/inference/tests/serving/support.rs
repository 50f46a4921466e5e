//! A server, its registry and its clients.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracer_features::embed::Embedders;
use tracer_inference::{Deps, Error, InferenceConfig, Recorder, Security, TaskPolicies, run};
use tracer_learn::{Dataset, FitConfig, Pipeline, Row, refit};
use tracer_proto::v1::{self, router_client::RouterClient};
use tracer_store::{LogEvent, Manifest, Registry, Store, VersionFiles};
use tracer_telemetry::{Health, Metrics, Spans};
use tracer_trace::{Limits, TaskName};

pub(crate) const TASK: &str = "desk";

/// Another task, which has secrets.
pub(crate) const OTHER_TASK: &str = "vault";

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Repeats `probe` until it answers `Some`, or fails the test.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn task() -> TaskName {
    TaskName::new(TASK).unwrap()
}

/// A running server.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

/// What differs from a server's defaults.
pub(crate) struct Options {
    pub(crate) config: InferenceConfig,
    pub(crate) policies: TaskPolicies,
    pub(crate) limits: Limits,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) embedders: Embedders,
    pub(crate) security: Security,
    pub(crate) spans: Spans,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: InferenceConfig {
                poll_interval_ms: 50,
                audit_seed: Some(1),
                // A busy machine must not turn a test away.
                queue_target_ms: 60_000,
                ..InferenceConfig::default()
            },
            policies: TaskPolicies::default(),
            limits: Limits::default(),
            recorder: None,
            embedders: Embedders::default(),
            security: Security::default(),
            spans: Spans::default(),
        }
    }
}

impl Options {
    /// A drain that is longer than any test waits: what keeps a connection open
    /// at a shutdown is seen.
    pub(crate) fn patient() -> Self {
        let mut options = Self::default();
        options.config.drain_timeout_ms = 3_600_000;
        options
    }
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(registry: Registry, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (metrics, health) = (Metrics::new(), Health::new());
        let shutdown = CancellationToken::new();
        // Registered before the server does, or the wait below could be over
        // before it began.
        let started = health.condition("inference");
        let deps = Deps {
            registry,
            recorder: options.recorder,
            policies: options.policies,
            limits: options.limits,
            embedders: options.embedders,
            security: options.security,
            spans: options.spans,
            metrics: metrics.clone(),
            health: health.clone(),
        };
        let running = tokio::spawn(run(options.config, listener, deps, shutdown.clone()));
        drop(started);
        let server = Self {
            addr,
            metrics,
            health,
            shutdown,
            running,
        };
        eventually("the server is ready", async || {
            assert!(!server.running.is_finished(), "the server ended");
            server.health.ready().ok()
        })
        .await;
        server
    }

    pub(crate) async fn client(&self) -> RouterClient<Channel> {
        RouterClient::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Waits until this version serves.
    pub(crate) async fn serves(&self, version: u64) -> v1::Pipeline {
        let mut client = self.client().await;
        eventually(&format!("version {version} serves"), async || {
            let request = v1::GetPipelineRequest { task: TASK.into() };
            let pipeline = client.get_pipeline(request).await.ok()?.into_inner();
            (pipeline.version == version).then_some(pipeline)
        })
        .await
    }

    /// The value of a series on `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics.render();
        let line = text.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Tells the server to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("the server stops")
            .unwrap()
            .unwrap();
    }
}

pub(crate) fn text(text: &str) -> v1::RouteRequest {
    v1::RouteRequest {
        task: TASK.into(),
        input: Some(v1::Input {
            text: text.into(),
            ..v1::Input::default()
        }),
        ..v1::RouteRequest::default()
    }
}

pub(crate) fn embedding(values: &[f32], embedder: &str) -> v1::RouteRequest {
    v1::RouteRequest {
        task: TASK.into(),
        input: Some(v1::Input {
            text: String::new(),
            embedding: values.to_vec(),
            embedder: embedder.into(),
        }),
        ..v1::RouteRequest::default()
    }
}

/// A text the lexical pipelines are sure about.
pub(crate) const PLAIN: &str = "please refund the payment for order 77";

/// A text that the teacher itself labels by a coin.
pub(crate) const AMBIGUOUS: &str = "it is about my thing number 9 again";

const INTENTS: [(&str, &str); 4] = [
    ("refund", "please refund the payment for order"),
    ("track", "where is my parcel, tracking number"),
    ("password", "I forgot the password of account"),
    ("cancel", "cancel my subscription with contract"),
];

/// Texts of four intents, every tenth one beyond telling.
fn lexical(task: &str, prefix: &str) -> Pipeline {
    let mut data = Dataset::new();
    for i in 0..1600_usize {
        let (mut intent, phrase) = INTENTS[i % INTENTS.len()];
        let mut text = format!("{phrase} {i}");
        if i % 10 == 3 {
            // A multiplicative hash: nothing in the text tells the label.
            intent = INTENTS[((i as u32).wrapping_mul(2_654_435_761) >> 30) as usize].0;
            text = format!("it is about my thing number {i} again");
        }
        let label = format!("{prefix}{intent}");
        let row = Row {
            text: Some(&text),
            embedding: None,
            label: &label,
        };
        data.push(row).unwrap();
    }
    fitted(task, &data)
}

/// The dimension of the dense pipeline.
pub(crate) const DIMENSION: usize = 4;

/// Embeddings around the unit vectors.
fn dense() -> Pipeline {
    let mut data = Dataset::new();
    let mut noise = 1_u32;
    for i in 0..800_usize {
        let class = i % DIMENSION;
        let embedding: Vec<f32> = (0..DIMENSION)
            .map(|axis| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (noise >> 8) as f32 / (1 << 24) as f32 - 0.5;
                f32::from(u8::from(axis == class)) + 0.2 * noise
            })
            .collect();
        let row = Row {
            text: None,
            embedding: Some(&embedding),
            label: INTENTS[class].0,
        };
        data.push(row).unwrap();
    }
    fitted(TASK, &data)
}

fn fitted(task: &str, data: &Dataset) -> Pipeline {
    let outcome = refit(task, data, &FitConfig::default(), &mut |_| {}).unwrap();
    let outcome = outcome.into_iter().next().unwrap();
    assert!(outcome.pipeline.is_some(), "{:?}", outcome.verdict);
    outcome.pipeline.unwrap()
}

/// A pipeline whose labels start with `a:`.
pub(crate) fn pipeline_a() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| lexical(TASK, "a:"))
}

/// A pipeline whose labels start with `b:`.
pub(crate) fn pipeline_b() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| lexical(TASK, "b:"))
}

/// A pipeline of [`OTHER_TASK`] whose labels start with `secret:`.
pub(crate) fn pipeline_of_other_task() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| lexical(OTHER_TASK, "secret:"))
}

/// A pipeline on embeddings of four dimensions.
pub(crate) fn pipeline_dense() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(dense)
}

/// An empty registry in memory.
pub(crate) fn registry() -> Registry {
    Registry::new(Store::open("memory://", &BTreeMap::new()).unwrap())
}

/// An empty registry in a directory.
pub(crate) fn disk() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let store = Store::open(&url, &BTreeMap::new()).unwrap();
    (dir, Registry::new(store))
}

/// Publishes a pipeline and answers its version.
pub(crate) async fn publish(registry: &Registry, pipeline: &Pipeline) -> u64 {
    publish_with_embedder(registry, pipeline, None).await
}

/// Publishes a pipeline that was fitted on this model's embeddings.
pub(crate) async fn publish_with_embedder(
    registry: &Registry,
    pipeline: &Pipeline,
    embedder: Option<&str>,
) -> u64 {
    publish_model(registry, pipeline, pipeline.to_bytes(), embedder).await
}

/// Publishes these bytes as the model.
pub(crate) async fn publish_model(
    registry: &Registry,
    pipeline: &Pipeline,
    model: Vec<u8>,
    embedder: Option<&str>,
) -> u64 {
    publish_files(registry, &task(), pipeline, model, embedder).await
}

/// Publishes a pipeline of another task than [`TASK`].
pub(crate) async fn publish_of(registry: &Registry, task: &str, pipeline: &Pipeline) -> u64 {
    let task = TaskName::new(task).unwrap();
    publish_files(registry, &task, pipeline, pipeline.to_bytes(), None).await
}

async fn publish_files(
    registry: &Registry,
    task: &TaskName,
    pipeline: &Pipeline,
    model: Vec<u8>,
    embedder: Option<&str>,
) -> u64 {
    let card = pipeline.card();
    let files = VersionFiles {
        model: model.into(),
        report_json: "{}".into(),
        report_html: "<p>".into(),
        manifest: Manifest {
            family: card.family.to_string(),
            surrogate: card.surrogate.clone(),
            embedder: embedder.map(ToOwned::to_owned),
            ..Manifest::default()
        },
    };
    registry.publish(task, files, "test").await.unwrap().get()
}

/// Adds an entry to the task's log.
pub(crate) async fn append(registry: &Registry, event: LogEvent) {
    registry.append(&task(), event, "test").await.unwrap();
}
