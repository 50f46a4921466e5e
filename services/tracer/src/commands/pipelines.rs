//! `tracer pipelines`: the published versions of tasks.

mod archive;
mod diff;
mod prune;
mod show;

pub(crate) use show::{named, said, state};

use clap::{Args, Subcommand};
use tracer_store::PipelineVersion;
use tracer_trace::TaskName;

use super::deployment::registry;
use crate::config::Config;

/// Arguments of `tracer pipelines`.
#[derive(Args, Debug)]
pub(crate) struct PipelinesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the versions of every task, and which serves
    List(show::ListArgs),
    /// Show one version: what it is, what it was made of, and what became of it
    Show(VersionArgs),
    /// Compare two versions
    Diff(diff::DiffArgs),
    /// Write a version to one file
    Export(archive::ExportArgs),
    /// Publish the version of such a file, once everything in it is checked
    Import(archive::ImportArgs),
    /// Remove versions that are too many and too old
    Prune(prune::PruneArgs),
}

/// Which version, and in which form.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// The task
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    /// The version [default: the active one]
    #[arg(id = "pipeline", value_name = "VERSION")]
    version: Option<PipelineVersion>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: PipelinesArgs, config: Config) -> anyhow::Result<()> {
    let registry = registry(&config)?;
    match args.command {
        Command::List(args) => show::list(&args, &registry).await,
        Command::Show(args) => show::show(&args, &registry).await,
        Command::Diff(args) => diff::run(&args, &registry).await,
        Command::Export(args) => archive::export(&args, &registry).await,
        Command::Import(args) => archive::import(&args, &registry, &config).await,
        Command::Prune(args) => prune::run(&args, &registry, &config).await,
    }
}
