//! Sends spans to a receiver.

use std::{sync::Arc, sync::atomic::AtomicU64, time::Duration};

use ::metrics::Counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    Queue, Spans,
    proto::{
        EXPORT, ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope,
        KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
    },
};
use crate::{Metrics, metric};

/// Spans that wait at the most.
const QUEUE: usize = 4096;

/// Spans of one message.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(200);

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanConfig {
    /// A receiver of OTLP over gRPC, such as `http://collector:4317`.
    pub endpoint: String,
    /// The share of requests without a caller's span that are recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// The process, as `service.name`.
    pub service: String,
    /// Its release, as `service.version`.
    pub version: String,
}

/// The endpoint is none.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint:?} is no endpoint of OTLP over gRPC, such as http://collector:4317: {detail}")]
pub struct ExportError {
    endpoint: String,
    detail: String,
}

/// Sends what is in the queue; to be run beside the services.
pub struct Exporter {
    receiver: mpsc::Receiver<Span>,
    client: Grpc<Channel>,
    resource: Resource,
    scope: InstrumentationScope,
    exported: Counter,
    dropped: Counter,
    failing: bool,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl SpanConfig {
    /// Checks the endpoint without connecting.
    pub fn check(&self) -> Result<(), ExportError> {
        self.endpoint().map(|_| ())
    }

    fn endpoint(&self) -> Result<Endpoint, ExportError> {
        let error = |detail: String| ExportError {
            endpoint: self.endpoint.clone(),
            detail,
        };
        let scheme = self.endpoint.split("://").next();
        if !matches!(scheme, Some("http" | "https")) || !self.endpoint.contains("://") {
            return Err(error("it must begin with http:// or https://".to_owned()));
        }
        let endpoint = Endpoint::from_shared(self.endpoint.clone());
        let mut endpoint = endpoint.map_err(|e| error(e.to_string()))?;
        if scheme == Some("https") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(|e| error(e.to_string()))?;
        }
        Ok(endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT))
    }

    /// Spans that are exported, and who does it. Connects when there is something to send.
    pub fn open(&self, metrics: &Metrics) -> Result<(Spans, Exporter), ExportError> {
        use std::hash::BuildHasher as _;
        let channel = self.endpoint()?.connect_lazy();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let dropped = metrics.counter(&metric::SPANS_DROPPED_TOTAL, &[]);
        let draw = || std::hash::RandomState::new().hash_one(&self.service);
        let queue = Queue {
            sender,
            dropped: dropped.clone(),
            sampled_below: (self.sample_ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64,
            state: AtomicU64::new(draw()),
        };
        let exporter = Exporter {
            receiver,
            client: Grpc::new(channel),
            resource: Resource {
                attributes: vec![
                    KeyValue::new("service.name", self.service.as_str().into()),
                    KeyValue::new("service.version", self.version.as_str().into()),
                    KeyValue::new("service.instance.id", format!("{:016x}", draw()).into()),
                ],
            },
            scope: InstrumentationScope {
                name: "tracer".to_owned(),
                version: self.version.clone(),
            },
            exported: metrics.counter(&metric::SPANS_EXPORTED_TOTAL, &[]),
            dropped,
            failing: false,
        };
        let queue = Some(Arc::new(queue));
        Ok((Spans { queue }, exporter))
    }
}

impl Exporter {
    /// Sends until `stop`, and then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let got = tokio::select! {
                got = self.receiver.recv_many(&mut batch, BATCH) => got,
                () = stop.cancelled() => 0,
            };
            if got > 0 && got < BATCH {
                tokio::select! {
                    () = tokio::time::sleep(LINGER) => {}
                    () = stop.cancelled() => {}
                }
            }
            while let Ok(span) = self.receiver.try_recv() {
                batch.push(span);
                if batch.len() >= BATCH {
                    self.send(&mut batch).await;
                }
            }
            if !batch.is_empty() {
                self.send(&mut batch).await;
            }
            if got == 0 {
                return;
            }
        }
    }

    /// Sends a batch. One that is not taken is dropped: spans are no traces.
    async fn send(&mut self, batch: &mut Vec<Span>) {
        let spans = std::mem::take(batch);
        let count = spans.len() as u64;
        match tokio::time::timeout(TIMEOUT, self.call(spans)).await {
            Ok(Ok(rejected)) => {
                let rejected = rejected.min(count);
                self.exported.increment(count - rejected);
                self.dropped.increment(rejected);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("spans are exported again");
                }
            }
            failed => {
                self.dropped.increment(count);
                if !std::mem::replace(&mut self.failing, true) {
                    let error = match failed {
                        Ok(Err(status)) => status.to_string(),
                        _ => "no answer in time".to_owned(),
                    };
                    tracing::warn!(error, "spans cannot be exported and are dropped");
                }
            }
        }
    }

    /// Answers how many the receiver did not want.
    async fn call(&mut self, spans: Vec<Span>) -> Result<u64, Status> {
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(self.scope.clone()),
                    spans,
                }],
            }],
        };
        let ready = self.client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
        let path = PathAndQuery::from_static(EXPORT);
        let answer = self
            .client
            .unary(Request::new(request), path, codec)
            .await?;
        let partial = answer.into_inner().partial_success;
        let rejected = partial.map_or(0, |partial| partial.rejected_spans);
        Ok(rejected.try_into().unwrap_or(0))
    }
}
