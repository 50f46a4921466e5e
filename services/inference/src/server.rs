//! Assembles the service, and takes it down again.

use std::sync::Arc;

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    codec::CompressionEncoding,
    service::interceptor::InterceptedService,
    transport::{
        Server,
        server::{Router, TcpIncoming},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracer_features::embed::Embedders;
use tracer_proto::{FILE_DESCRIPTOR_SET, v1::router_server::RouterServer};
use tracer_store::Registry;
use tracer_telemetry::{Health, Metrics, Spans};
use tracer_trace::Limits;

use crate::{
    Error, InferenceConfig, Recorder, Security, TaskPolicies,
    admission::{Admission, Admitted},
    catalog::Catalog,
    follower::Follower,
    identify::{Identified, Identities},
    metrics::ServiceMetrics,
    security::{Tls, incoming},
    service::RouterService,
};

/// What the service stands on.
#[derive(Clone)]
pub struct Deps {
    /// Where pipelines are published.
    pub registry: Registry,
    /// Where `Record` publishes traces; without one it is refused.
    pub recorder: Option<Recorder>,
    /// Audit rates and prices by task.
    pub policies: TaskPolicies,
    /// Bounds on inputs and traces.
    pub limits: Limits,
    /// What makes the embeddings of texts that come without.
    pub embedders: Embedders,
    /// TLS and tokens.
    pub security: Security,
    /// Where spans of requests go.
    pub spans: Spans,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's health; the service adds the condition `inference`.
    pub health: Health,
}

/// The names under which the standard health service answers: the server as a
/// whole, and the router.
const HEALTH_NAMES: [&str; 2] = ["", "tracer.v1.Router"];

/// Serves on `listener` until `shutdown`, then lets requests under way finish.
///
/// It answers from the start. It is ready once every published pipeline has
/// been loaded (or refused), and until then defers what it cannot answer.
pub async fn run(
    config: InferenceConfig,
    listener: TcpListener,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    config.validate()?;
    let tls = deps.security.tls();
    let registered = deps.metrics.clone();
    let metrics = Arc::new(ServiceMetrics::new(deps.metrics));
    let catalog = Arc::new(Catalog::default());
    let condition = deps.health.condition("inference");
    let (ready, became_ready) = watch::channel(false);
    // Cancelled after readiness is withdrawn.
    let stop = CancellationToken::new();

    let admission = Arc::new(Admission::new(
        config.max_in_flight,
        config.queue_target(),
        Arc::clone(&metrics),
    ));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let auth = deps.security.auth(Arc::clone(&metrics));
    let identities = Arc::new(Identities::new(deps.spans));
    let service = RouterService {
        identities: Arc::clone(&identities),
        auth: auth.clone(),
        admission: Arc::clone(&admission),
        heavy: Arc::new(Semaphore::new(processors)),
        catalog: Arc::clone(&catalog),
        recorder: deps.recorder,
        limits: Arc::new(deps.limits),
        max_batch: config.max_batch,
        metrics: Arc::clone(&metrics),
        shutdown: stop.clone(),
    };
    let show = tokio::spawn(Arc::clone(&admission).show());
    let follower = Follower {
        config: config.clone(),
        registry: deps.registry,
        policies: deps.policies,
        embedders: deps.embedders,
        catalog,
        metrics,
        condition: condition.clone(),
        ready,
    };
    let (mut reporter, health) = tonic_health::server::health_reporter();
    set_health(&reporter, ServingStatus::NotServing).await;
    let router = RouterServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(config.max_message_bytes);
    let router = Admitted {
        service: router,
        admission,
    };
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let server = Server::builder().add_service(health);
    // Who asks is known before a request takes room: a stranger's takes none.
    let server = match auth.interceptor() {
        None => server
            .add_service(identified(router, &identities))
            .add_service(v1)
            .add_service(v1alpha),
        Some(asks) => server
            .add_service(identified(
                InterceptedService::new(router, asks.clone()),
                &identities,
            ))
            .add_service(InterceptedService::new(v1, asks.clone()))
            .add_service(InterceptedService::new(v1alpha, asks)),
    };
    let server = serve(server, listener, tls, stop.clone());
    tokio::pin!(server);
    let watch_files = tokio::spawn(deps.security.watch(registered, stop.clone()));
    let follower_stop = stop.clone().drop_guard();
    let mut follower = tokio::spawn(follower.run(stop.clone()));
    let report = tokio::spawn(report_readiness(reporter.clone(), became_ready));

    let mut stopped = tokio::select! {
        served = &mut server => Some(served.map_err(Error::from)),
        ended = &mut follower => Some(ended.map_err(Error::from)),
        () = shutdown.cancelled() => None,
    };
    report.abort();
    watch_files.abort();
    show.abort();
    condition.set_unready("shutting down");
    set_health(&reporter, ServingStatus::NotServing).await;
    if stopped.is_none() && !config.settle().is_zero() {
        // Balancers learn of it with a delay; until then they still send requests.
        tokio::select! {
            served = &mut server => stopped = Some(served.map_err(Error::from)),
            () = tokio::time::sleep(config.settle()) => {}
        }
    }
    drop(follower_stop);
    // Whoever watches the health has been told, and would else keep the
    // connection open until the drain is cut off.
    for name in HEALTH_NAMES {
        reporter.clear_service_status(name).await;
    }
    if let Some(stopped) = stopped {
        return stopped;
    }
    let deadline = config.drain_timeout();
    if let Ok(drained) = tokio::time::timeout(deadline, server).await {
        drained?;
    } else {
        let deadline_ms = deadline.as_millis();
        tracing::warn!(
            deadline_ms,
            "connections were still open at the end of the drain"
        );
    }
    follower.await?;
    Ok(())
}

/// Outermost, so that a refusal by any part below has an id.
fn identified<S>(service: S, identities: &Arc<Identities>) -> Identified<S> {
    Identified {
        service,
        identities: Arc::clone(identities),
    }
}

async fn serve(
    server: Router,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let stop = stop.cancelled_owned();
    match tls {
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
        Some(tls) => {
            let incoming = incoming(listener, tls);
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn report_readiness(reporter: HealthReporter, mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_ok() {
        set_health(&reporter, ServingStatus::Serving).await;
    }
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, status).await;
    }
}
