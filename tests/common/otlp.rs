//! A receiver of OTLP that keeps the spans it gets.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tracer_telemetry::otlp_proto::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Span, Value,
};

/// The receiver. It ends with the test.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Receiver {
    /// Listens; answers itself and its endpoint.
    pub(crate) async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self::default();
        let server = Server::builder().add_service(receiver.clone());
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (receiver, endpoint)
    }

    /// All spans so far, each with what it is of.
    pub(crate) fn spans(&self) -> Vec<(BTreeMap<String, String>, Span)> {
        let got = self.got.lock().unwrap();
        let mut all = Vec::new();
        for resource_spans in got.iter().flat_map(|request| &request.resource_spans) {
            let resource = attributes(&resource_spans.resource.as_ref().unwrap().attributes);
            for span in resource_spans.scope_spans.iter().flat_map(|s| &s.spans) {
                all.push((resource.clone(), span.clone()));
            }
        }
        all
    }
}

/// Attributes as text.
pub(crate) fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
    };
    let of = |entry: &KeyValue| {
        let value = entry.value.as_ref().and_then(|value| value.value.as_ref());
        (entry.key.clone(), value.map(text).unwrap_or_default())
    };
    list.iter().map(of).collect()
}

impl NamedService for Receiver {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let receiver = self.clone();
        let codec = ProstCodec::<ExportTraceServiceResponse, ExportTraceServiceRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).unary(receiver, request).await) })
    }
}

impl UnaryService<ExportTraceServiceRequest> for Receiver {
    type Response = ExportTraceServiceResponse;
    type Future = Ready<Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<ExportTraceServiceRequest>) -> Self::Future {
        self.got.lock().unwrap().push(request.into_inner());
        ready(Ok(Response::new(ExportTraceServiceResponse::default())))
    }
}
