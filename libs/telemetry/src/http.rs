//! The HTTP endpoints for operators: `/metrics`, `/livez`, `/readyz`.

use std::{io, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, Metrics};

/// How often histograms are folded when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The operators' routes, to be merged with others that share the port.
///
/// `/livez` answers 200 while the process answers at all; `/readyz` answers 200,
/// or 503 with a line for every condition that is not ready. Either way a line
/// follows for everything that is wrong without keeping the process from its work.
pub fn http_router(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(async move || ([(CONTENT_TYPE, TEXT_FORMAT)], metrics.render())),
        )
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || {
                let (status, mut lines) = match health.ready() {
                    Ok(()) => (StatusCode::OK, vec!["ready".to_owned()]),
                    Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
                };
                lines.extend(health.notes());
                (status, lines.join("\n") + "\n").into_response()
            }),
        )
}

/// Serves the operators' routes until `shutdown`, and keeps histograms small.
pub async fn serve_http(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_http_with(listener, metrics, health, Router::new(), shutdown).await
}

/// [`serve_http`], with the routes of services that share the port.
pub async fn serve_http_with(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    others: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = http_router(metrics.clone(), health).merge(others);
    let upkeep = async {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            metrics.upkeep();
        }
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()) => served,
        () = upkeep => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::metric;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_operators_until_shutdown() {
        let (metrics, health) = (Metrics::new(), Health::new());
        metrics
            .counter(&metric::SHARDS_WRITTEN_TOTAL, &[])
            .increment(3);
        let store = health.condition("store");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve_http(listener, metrics, health, shutdown.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
        assert!(unready.ends_with("store: starting\n"), "{unready}");
        store.set_ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        store.note("shard 7", Some("is damaged".to_owned()));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(
            ready.ends_with("ready\nstore: shard 7: is damaged\n"),
            "{ready}"
        );
        let text = get(address, "/metrics").await;
        assert!(
            text.contains("content-type: text/plain; version=0.0.4"),
            "{text}"
        );
        assert!(text.contains("tracer_shards_written_total 3\n"), "{text}");
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        shutdown.cancel();
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
