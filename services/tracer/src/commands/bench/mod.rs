//! `tracer bench`: measures a server under load.

mod child;
mod fixture;
mod load;
mod overload;
mod report;
mod route;
mod serve;

use clap::{Args, Subcommand};

use crate::config::Config;

/// Measures a server under load.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Load on the router, and on an empty gRPC echo of the same payload, in turn
    Route(route::RouteBenchArgs),
    /// A server of the benchmark's own: it answers until its standard input ends
    #[command(hide = true)]
    Serve(serve::ServeArgs),
}

/// Runs the command.
pub(crate) async fn run(args: BenchArgs, config: Config) -> anyhow::Result<()> {
    match args.command {
        BenchCommand::Route(args) => route::run(args).await,
        BenchCommand::Serve(args) => serve::run(args, config).await,
    }
}
