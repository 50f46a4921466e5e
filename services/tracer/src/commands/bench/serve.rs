//! The servers that the benchmark starts for itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use tracer_proto::v1::{
    self,
    router_server::{Router, RouterServer},
};

use super::child::READY;
use crate::{
    config::Config,
    host::{Host, Roles},
    output,
};

/// Arguments of `tracer bench serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The directory with the pipelines to serve; without one, an empty echo
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Serves until standard input ends: with the benchmark, however that ends.
pub(crate) async fn run(args: ServeArgs, mut config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let parent_is_gone = shutdown.clone().drop_guard();
    // A thread of its own: the end of the process does not wait for it.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(parent_is_gone);
    });
    config.listen.grpc.set_port(0);
    config.listen.http.set_port(0);
    let Some(directory) = args.directory else {
        return echo(shutdown).await;
    };
    config.keep_in(&directory);
    let roles = Roles {
        inference: true,
        ..Roles::default()
    };
    let host = Host::start(&config, roles, shutdown).await?;
    let addr = host.grpc.context("inference was asked for")?;
    output::line(format_args!("{READY}{addr}"));
    host.run().await
}

/// The same protocol, the same messages, and nothing in between.
async fn echo(shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    output::line(format_args!("{READY}{addr}"));
    Server::builder()
        .add_service(RouterServer::new(Echo))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await?;
    Ok(())
}

/// Decodes what is sent and answers a message of the size of the router's.
struct Echo;

fn answer(task: String, request_id: String) -> v1::RouteResponse {
    let label = "label_00".to_owned();
    v1::RouteResponse {
        decision: v1::Decision::Handled.into(),
        label: label.clone(),
        score: 0.9,
        threshold: 0.5,
        pipeline_version: 1,
        routing: Some(v1::Routing {
            pipeline_version: 1,
            decision: v1::Decision::Handled.into(),
            label: Some(label),
            score: Some(0.9),
            audit: false,
            propensity: 0.02,
        }),
        task,
        request_id,
        ..v1::RouteResponse::default()
    }
}

fn not_echoed<T>() -> Result<T, Status> {
    Err(Status::unimplemented("an echo"))
}

#[tonic::async_trait]
impl Router for Echo {
    async fn route(
        &self,
        request: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(answer(request.task, request.request_id)))
    }

    async fn route_batch(
        &self,
        request: Request<v1::RouteBatchRequest>,
    ) -> Result<Response<v1::RouteBatchResponse>, Status> {
        let request = request.into_inner();
        let answer = |_| answer(request.task.clone(), String::new());
        let responses = request.inputs.iter().map(answer).collect();
        Ok(Response::new(v1::RouteBatchResponse { responses }))
    }

    type RouteStreamStream = tokio_stream::Empty<Result<v1::RouteResponse, Status>>;

    async fn route_stream(
        &self,
        _: Request<Streaming<v1::RouteRequest>>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        not_echoed()
    }

    async fn record(
        &self,
        _: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        not_echoed()
    }

    async fn get_pipeline(
        &self,
        _: Request<v1::GetPipelineRequest>,
    ) -> Result<Response<v1::Pipeline>, Status> {
        not_echoed()
    }

    async fn list_pipelines(
        &self,
        _: Request<v1::ListPipelinesRequest>,
    ) -> Result<Response<v1::ListPipelinesResponse>, Status> {
        not_echoed()
    }
}
