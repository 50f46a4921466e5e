//! `tracer bench`: measurements against real parts.

mod child;
mod fixture;
mod ingest;
mod load;
mod overload;
mod refit_scale;
mod report;
mod route;
mod serve;
mod swaps;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Config;

/// Measures what this machine and its parts can do.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// How fast the aggregator drains a backlog of Kafka, beside a bare consumer
    Ingest(ingest::IngestArgs),
    /// Memory and time of a trainer with many traces of many tasks
    RefitScale(refit_scale::RefitScaleArgs),
    /// Load on the router, and on an empty gRPC echo of the same payload, in turn
    Route(route::RouteBenchArgs),
    /// A server of the benchmark's own: it answers until its standard input ends
    #[command(hide = true)]
    Serve(serve::ServeArgs),
}

/// Runs the command. `file` is the configuration file, if one was named.
pub(crate) async fn run(
    args: BenchArgs,
    config: Config,
    file: Option<PathBuf>,
) -> anyhow::Result<()> {
    match args.command {
        BenchCommand::Ingest(args) => ingest::run(args, config, file).await,
        BenchCommand::RefitScale(args) => refit_scale::run(args).await,
        BenchCommand::Route(args) => route::run(args).await,
        BenchCommand::Serve(args) => serve::run(args, config).await,
    }
}
