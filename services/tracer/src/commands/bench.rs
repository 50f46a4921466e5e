//! `tracer bench`: measurements against real parts.

mod ingest;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Config;

/// Measures.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How fast the aggregator drains a backlog of Kafka, beside a bare consumer
    Ingest(ingest::IngestArgs),
}

/// Runs the command. `file` is the configuration file, if one was named.
pub(crate) async fn run(
    args: BenchArgs,
    config: Config,
    file: Option<PathBuf>,
) -> anyhow::Result<()> {
    match args.what {
        What::Ingest(args) => ingest::run(args, config, file).await,
    }
}
