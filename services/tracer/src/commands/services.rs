//! `tracer aggregator`, `tracer trainer`, `tracer inference`: one service each.

use clap::{Args, Subcommand};
use tracer_telemetry::shutdown_on_signal;

use crate::{
    commands::reset,
    config::Config,
    host::{Host, Roles},
};

/// Runs the aggregator.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AggregatorArgs {
    #[command(subcommand)]
    command: Option<AggregatorCommand>,
    #[command(flatten)]
    http: HttpArgs,
}

/// What is done beside a running aggregator.
#[derive(Debug, Subcommand)]
enum AggregatorCommand {
    /// Decide where a partition of Kafka goes on that stands still
    Reset(reset::ResetArgs),
}

/// Runs the trainer.
#[derive(Args, Debug)]
pub(crate) struct TrainerArgs {
    #[command(flatten)]
    http: HttpArgs,
}

/// Runs the inference service.
#[derive(Args, Debug)]
pub(crate) struct InferenceArgs {
    #[command(flatten)]
    grpc: GrpcArgs,
    #[command(flatten)]
    http: HttpArgs,
}

/// Where HTTP listens.
#[derive(Args, Debug)]
pub(crate) struct HttpArgs {
    /// Port of HTTP (metrics, health); 0 takes a free one [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
}

/// Where gRPC listens.
#[derive(Args, Debug)]
pub(crate) struct GrpcArgs {
    /// Port of gRPC; 0 takes a free one [default: 50051]
    #[arg(long, value_name = "PORT")]
    pub(crate) grpc_port: Option<u16>,
}

impl HttpArgs {
    pub(crate) fn apply(&self, config: &mut Config) {
        if let Some(port) = self.http_port {
            config.listen.http.set_port(port);
        }
    }
}

impl GrpcArgs {
    pub(crate) fn apply(&self, config: &mut Config) {
        if let Some(port) = self.grpc_port {
            config.listen.grpc.set_port(port);
        }
    }
}

/// Runs the command.
pub(crate) async fn aggregator(args: AggregatorArgs, mut config: Config) -> anyhow::Result<()> {
    if let Some(AggregatorCommand::Reset(args)) = args.command {
        return reset::run(args, config).await;
    }
    args.http.apply(&mut config);
    serve(&config, Roles::AGGREGATOR).await
}

/// Runs the command.
pub(crate) async fn trainer(args: TrainerArgs, mut config: Config) -> anyhow::Result<()> {
    args.http.apply(&mut config);
    serve(&config, Roles::TRAINER).await
}

/// Runs the command.
pub(crate) async fn inference(args: InferenceArgs, mut config: Config) -> anyhow::Result<()> {
    args.grpc.apply(&mut config);
    args.http.apply(&mut config);
    serve(&config, Roles::INFERENCE).await
}

async fn serve(config: &Config, roles: Roles) -> anyhow::Result<()> {
    let host = Host::start(config, roles, shutdown_on_signal()).await?;
    if let Some(grpc) = host.grpc {
        tracing::info!(address = %grpc, "gRPC listens");
    }
    tracing::info!(address = %host.http, store = config.store.url, "HTTP listens");
    host.run().await
}
