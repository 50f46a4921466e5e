//! Composes services in one process: opens what they stand on, binds what they
//! listen on, runs them, and takes them down together.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    net::TcpListener,
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracer_aggregator::{AggregatorConfig, InputPolicies};
use tracer_features::embed::Embedders;
use tracer_inference::Security;
use tracer_source::LogWriter;
use tracer_store::{Leases, Registry, ShardLog, Store};
use tracer_telemetry::{Health, Metrics, Spans, metric, serve_http_with};
use tracer_trainer::{RefitEvent, TrainerConfig};

use crate::{
    config::{Config, ConfigError},
    console, embedders, environment, retention,
};

/// How long the services may take to flush and to drain.
const DRAIN: Duration = Duration::from_secs(30);

/// Refits a listener may lag behind.
const EVENTS: usize = 64;

/// Which services run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) aggregator: bool,
    pub(crate) trainer: bool,
    pub(crate) inference: bool,
}

impl Roles {
    pub(crate) const ALL: Self = Self {
        aggregator: true,
        trainer: true,
        inference: true,
    };
    pub(crate) const NONE: Self = Self {
        aggregator: false,
        trainer: false,
        inference: false,
    };
    pub(crate) const AGGREGATOR: Self = Self {
        aggregator: true,
        ..Self::NONE
    };
    pub(crate) const TRAINER: Self = Self {
        trainer: true,
        ..Self::NONE
    };
    pub(crate) const INFERENCE: Self = Self {
        inference: true,
        ..Self::NONE
    };

    /// Those of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            aggregator: self.aggregator || other.aggregator,
            trainer: self.trainer || other.trainer,
            inference: self.inference || other.inference,
        }
    }

    /// Their names.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all = [
            (self.aggregator, "aggregator"),
            (self.trainer, "trainer"),
            (self.inference, "inference"),
        ];
        let chosen = all.into_iter().filter(|(chosen, _)| *chosen);
        chosen.map(|(_, name)| name).collect()
    }

    /// Whether some are in both.
    pub(crate) fn meet(self, other: Self) -> bool {
        self.aggregator && other.aggregator
            || self.trainer && other.trainer
            || self.inference && other.inference
    }
}

/// Running services.
pub(crate) struct Host {
    /// Where gRPC is, when inference runs.
    pub(crate) grpc: Option<SocketAddr>,
    /// Where metrics and health are.
    pub(crate) http: SocketAddr,
    /// The writing end of the source, when it is open.
    pub(crate) writer: Option<Arc<dyn LogWriter>>,
    events: broadcast::Sender<RefitEvent>,
    services: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: CancellationToken,
    /// Sends spans until the last service has ended.
    exporter: Option<(JoinHandle<()>, CancellationToken)>,
    /// Metrics and health are served until the last service has ended.
    http_server: (JoinHandle<io::Result<()>>, CancellationToken),
}

impl Host {
    /// Opens everything first, so that what cannot work is known before anything runs.
    pub(crate) async fn start(
        config: &Config,
        roles: Roles,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let security = if roles.inference {
            secured(config)?
        } else {
            Security::default()
        };
        let store = Store::open(&config.store.url, &config.store.options)
            .map_err(|error| ConfigError::new(format!("store: {error}")))?;
        let embedders = if roles.inference || roles.trainer {
            embedders::open_all(config, &store).await?
        } else {
            Embedders::default()
        };
        let (shards, registry) = (ShardLog::new(store.clone()), Registry::new(store.clone()));
        let leases = Leases::new(store.clone());
        let http_listener = bind(config.listen.http, "HTTP", "--http-port").await?;
        let http = http_listener.local_addr()?;
        let grpc_listener = if roles.inference {
            Some(bind(config.listen.grpc, "gRPC", "--grpc-port").await?)
        } else {
            None
        };
        let (metrics, health) = (Metrics::new(), Health::new());
        // Whoever builds an image says which revision it is of.
        let revision = option_env!("TRACER_REVISION").unwrap_or_default();
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", revision),
        ];
        metrics.gauge(&metric::BUILD_INFO, &build).set(1.0);
        // From the first answer on: a service adds its condition when it runs.
        let starting = [
            (roles.aggregator, "aggregator"),
            (roles.trainer, "trainer"),
            (roles.inference, "inference"),
        ];
        for (_, name) in starting.into_iter().filter(|(runs, _)| *runs) {
            let _ = health.condition(name);
        }
        let (spans, exporter) = export_spans(config, roles, &metrics)?;
        let http_shutdown = CancellationToken::new();
        let mut routes = axum::Router::new();
        if roles.trainer || roles.inference {
            routes = routes.merge(console::router(registry.clone()));
        }
        if roles.trainer {
            routes = routes.merge(tracer_trainer::admin_router(shards.clone(), leases.clone()));
        }
        let serve = serve_http_with(
            http_listener,
            metrics.clone(),
            health.clone(),
            routes,
            http_shutdown.clone(),
        );
        let mut host = Self {
            grpc: None,
            http,
            writer: None,
            events: broadcast::channel(EVENTS).0,
            services: JoinSet::new(),
            shutdown,
            exporter,
            http_server: (tokio::spawn(serve), http_shutdown),
        };
        if roles.aggregator || roles.inference {
            let opened = config.source.open_writer();
            host.writer = Some(opened.context("cannot open the writing end of the source")?);
        }
        let inputs = if roles.aggregator || roles.trainer {
            config.inputs(std::env::var(environment::INPUT_SECRET).ok())?
        } else {
            InputPolicies::default()
        };
        if roles.aggregator {
            let config = config.clone();
            let seen = (metrics.clone(), spans.clone());
            host.aggregate(config, inputs.clone(), shards.clone(), seen, &health)?;
        }
        if let Some(rule) = config.registry.rule().filter(|_| roles.trainer) {
            let interval = Duration::from_secs(config.registry.interval_seconds.into());
            let run = retention::run(registry.clone(), rule, interval, host.shutdown.clone());
            host.spawn("retention", async {
                run.await;
                Ok(())
            });
        }
        if roles.trainer {
            let deps = tracer_trainer::Deps {
                shards,
                registry: registry.clone(),
                leases,
                embedders: embedders.clone(),
                embeddings: config.trainer.keep_embeddings.then(|| store.clone()),
                spans: spans.clone(),
                metrics: metrics.clone(),
                health: health.clone(),
                events: Some(host.events.clone()),
            };
            let run = tracer_trainer::run(
                TrainerConfig {
                    input_key: inputs.key,
                    ..config.trainer.clone()
                },
                config.plans(),
                deps,
                host.shutdown.clone(),
            );
            host.spawn("trainer", async { Ok(Box::pin(run).await?) });
        }
        if let Some(listener) = grpc_listener {
            host.grpc = Some(listener.local_addr()?);
            let deps = tracer_inference::Deps {
                registry,
                recorder: host
                    .writer
                    .clone()
                    .map(|writer| tracer_inference::Recorder {
                        writer,
                        topic: config.source.write_topic(),
                    }),
                policies: config.policies(),
                limits: config.limits.clone(),
                embedders,
                security,
                spans,
                metrics,
                health,
            };
            let run = tracer_inference::run(
                config.inference.clone(),
                listener,
                deps,
                host.shutdown.clone(),
            );
            host.spawn("inference", async { Ok(run.await?) });
        }
        Ok(host)
    }

    fn aggregate(
        &mut self,
        config: Config,
        inputs: InputPolicies,
        shards: ShardLog,
        seen: (Metrics, Spans),
        health: &Health,
    ) -> anyhow::Result<()> {
        let mut source = config.source.clone();
        if let Some(dead_letters) = &config.aggregator.dead_letter_topic {
            // A pattern may fit it, and what was rejected would be rejected for ever.
            source.exclude(dead_letters);
        }
        let source = source.open_source().context("cannot open the source")?;
        let aggregator = AggregatorConfig {
            maintenance: config.maintenance.clone(),
            inputs,
            ..config.aggregator.clone()
        };
        let run = tracer_aggregator::run_with_spans(
            aggregator,
            source,
            self.writer.clone(),
            shards,
            config.limits,
            seen,
            health.clone(),
            self.shutdown.clone(),
        );
        self.spawn("aggregator", async { Ok(run.await?) });
        Ok(())
    }

    fn spawn(
        &mut self,
        name: &'static str,
        service: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.services.spawn(async move { (name, service.await) });
    }

    /// Refits from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<RefitEvent> {
        self.events.subscribe()
    }

    /// Waits for the first service that ends by itself: a failure in any case.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.services.join_next().await {
            Some(ended) if !self.shutdown.is_cancelled() => early(ended),
            // Not a failure: the shutdown has begun.
            _ => std::future::pending().await,
        }
    }

    /// Runs until the shutdown, or until a service fails, and then takes all down.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        let failure = tokio::select! {
            () = shutdown.cancelled() => None,
            failure = self.failed() => Some(failure),
        };
        let stopped = self.stop().await;
        failure.map_or(stopped, Err)
    }

    /// Takes the services down: they flush and drain, within a deadline.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut result = Ok(());
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(ended) = self.services.join_next().await {
                if let Ok((name, Err(error))) = ended {
                    result = Err(error.context(format!("the {name} service failed")));
                }
            }
        });
        if drained.await.is_err() {
            result = Err(anyhow!(
                "the services did not end within {} seconds",
                DRAIN.as_secs()
            ));
        }
        if let Some(writer) = &self.writer
            && let Err(error) = writer.flush().await
        {
            tracing::warn!(%error, "the last records may not be in the log");
        }
        if let Some((exporter, stop)) = self.exporter {
            stop.cancel();
            // A receiver that does not answer does not hold up the exit.
            let _ = tokio::time::timeout(Duration::from_secs(2), exporter).await;
        }
        let (server, shutdown) = self.http_server;
        shutdown.cancel();
        // A reader of metrics that keeps its connection does not hold up the exit.
        let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
        result
    }
}

/// Starts what sends spans, where they are to be sent.
#[allow(clippy::type_complexity, reason = "it is taken apart at once")]
fn export_spans(
    config: &Config,
    roles: Roles,
    metrics: &Metrics,
) -> Result<(Spans, Option<(JoinHandle<()>, CancellationToken)>), ConfigError> {
    let service = match (roles.aggregator, roles.trainer, roles.inference) {
        (true, false, false) => "tracer-aggregator",
        (false, true, false) => "tracer-trainer",
        (false, false, true) => "tracer-inference",
        _ => "tracer",
    };
    for counter in [&metric::SPANS_EXPORTED_TOTAL, &metric::SPANS_DROPPED_TOTAL] {
        let _ = metrics.counter(counter, &[]);
    }
    let Some(spans) = config.telemetry.spans(service) else {
        return Ok((Spans::default(), None));
    };
    let opened = spans.open(metrics);
    let (spans, exporter) =
        opened.map_err(|error| ConfigError::new(format!("telemetry.otlp_endpoint: {error}")))?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(exporter.run(stop.clone()));
    Ok((spans, Some((running, stop))))
}

/// Reads certificates and tokens, and says where they would be of little use.
fn secured(config: &Config) -> Result<Security, ConfigError> {
    let security = Security::open(&config.security);
    let security = security.map_err(|error| ConfigError::new(error.to_string()))?;
    if security.has_tokens() && !security.has_tls() && !config.listen.grpc.ip().is_loopback() {
        tracing::warn!("tokens travel in plain text: security.tls_cert is not set");
    }
    Ok(security)
}

fn early(
    ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow!("the {name} service ended"),
        Ok((name, Err(error))) => error.context(format!("the {name} service failed")),
        Err(panic) => anyhow!("a service panicked: {panic}"),
    }
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for {what}; {flag} chooses another port, 0 a free one")
    })
}

/// The address as others reach it from this machine.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            ([0, 0, 0, 0, 0, 0, 0, 1], v6.port()).into()
        }
        other => other,
    }
}
