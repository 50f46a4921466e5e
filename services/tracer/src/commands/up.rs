//! `tracer up`: everything in one process.

use std::path::PathBuf;

use clap::Args;
use tracer_source::SourceConfig;
use tracer_telemetry::shutdown_on_signal;

use super::services::{GrpcArgs, HttpArgs};
use crate::{
    config::Config,
    host::{Host, Roles, reachable},
    output,
};

/// Runs everything in one process.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Keep log and store in this directory, whatever is configured [default: ./tracer-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    grpc: GrpcArgs,
    #[command(flatten)]
    http: HttpArgs,
}

/// Runs the command.
pub(crate) async fn run(args: UpArgs, mut config: Config) -> anyhow::Result<()> {
    args.grpc.apply(&mut config);
    args.http.apply(&mut config);
    if let Some(data) = &args.data {
        config.keep_in(data);
    }
    let host = Host::start(&config, Roles::ALL, shutdown_on_signal()).await?;
    banner(&host, &config);
    host.run().await?;
    output::line("stopped: everything taken in is in the store");
    Ok(())
}

/// Says where everything is.
pub(crate) fn banner(host: &Host, config: &Config) {
    let source = match &config.source {
        SourceConfig::Spool(spool) => spool.path.display().to_string(),
        SourceConfig::Kafka(kafka) => format!("Kafka at {}", kafka.brokers),
    };
    output::line(format_args!("Tracer {} is up", env!("CARGO_PKG_VERSION")));
    if let Some(grpc) = host.grpc {
        output::line(format_args!("  gRPC    {}", reachable(grpc)));
    }
    output::line(format_args!(
        "  HTTP    http://{}  (/metrics, /livez, /readyz)",
        reachable(host.http)
    ));
    output::line(format_args!(
        "  traces  {source}, topic {}",
        config.source.write_topic()
    ));
    output::line(format_args!("  store   {}", config.store.url));
}
