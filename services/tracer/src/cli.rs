//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracer_telemetry::init_logging;

use crate::{
    commands::{
        backtest, bench, config, dead_letters, demo, deployment, doctor, fit, health, labels,
        pipelines, refit, replay, route, scan, services, shards, up,
    },
    config::{Config, ConfigError},
    environment,
};

/// Learns cheap surrogates of an LLM classifier from its traces, and answers the
/// traffic they can answer as the LLM would.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, after_help = environment::HELP, propagate_version = true)]
pub(crate) struct Cli {
    /// Configuration file; without it ./tracer.toml is read if it is there
    #[arg(long, global = true, env = environment::CONFIG, value_name = "FILE", hide_env = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, on this machine's disk unless configured otherwise
    Up(up::UpArgs),
    /// Run everything, and five days of a made-up support desk through it
    Demo(demo::DemoArgs),
    /// Run the aggregator: traces from the source into shards, exactly once
    Aggregator(services::AggregatorArgs),
    /// Run the trainer: refits on schedule, gates, publishes
    Trainer(services::TrainerArgs),
    /// Run the inference service: answers routes over gRPC
    Inference(services::InferenceArgs),
    /// Fit and certify a pipeline on a file of traces
    Fit(fit::FitArgs),
    /// Replay a file of traces batch by batch, and measure on held-out ones
    Backtest(backtest::BacktestArgs),
    /// Look at a file of traces: what could be certified, and what it would save
    Scan(scan::ScanArgs),
    /// List, show, compare, export, import and remove published versions
    Pipelines(pipelines::PipelinesArgs),
    /// Have an earlier version serve again
    Rollback(deployment::RollbackArgs),
    /// Have everything of a task be deferred
    Suspend(deployment::TaskArgs),
    /// Have the suspended version of a task serve again
    Resume(deployment::TaskArgs),
    /// Find the inputs whose labels are most worth a person's time
    Labels(labels::LabelsArgs),
    /// Ask the trainers for a refit of a task
    Refit(refit::RefitArgs),
    /// Ask a running server to route a text
    Route(route::RouteArgs),
    /// Send a file of traces to the source
    Replay(replay::ReplayArgs),
    /// List, verify and maintain the shards of the store
    Shards(shards::ShardsArgs),
    /// List payloads that were no traces, or send them back after a fix
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Check the configuration, show it, or print the reference of its keys
    Config(config::ConfigArgs),
    /// Try everything that the configuration names, and say what to do where it fails
    Doctor(doctor::DoctorArgs),
    /// Ask a running service whether it is ready: a probe for containers
    Health(health::HealthArgs),
    /// Measure what this machine and its parts can do
    Bench(bench::BenchArgs),
}

impl Cli {
    /// Reads the configuration, starts the log and runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        // What says what is wrong with a configuration does not begin by ending there.
        let command = match self.command {
            Command::Config(args) => return config::run(&args, self.config.as_deref()),
            command => command,
        };
        let mut config = Config::load(self.config.as_deref())?;
        // Where the result is what there is to see.
        let quiet = match command {
            Command::Demo(_) => Some("warn"),
            Command::Doctor(_) | Command::Health(_) => Some("off"),
            _ => None,
        };
        if let Some(filter) = quiet
            && config.telemetry == Config::default().telemetry
        {
            filter.clone_into(&mut config.telemetry.log_filter);
        }
        let telemetry = &config.telemetry;
        init_logging(telemetry.log_format, &telemetry.log_filter)
            .map_err(|error| ConfigError::new(format!("telemetry.log_filter: {error}")))?;
        match command {
            Command::Doctor(args) => doctor::run(args, config, self.config.as_deref()).await,
            Command::Health(args) => health::run(args, &config).await,
            // Was run above.
            Command::Config(_) => Ok(()),
            Command::Up(args) => up::run(args, config).await,
            Command::Demo(args) => demo::run(args, config).await,
            Command::Aggregator(args) => services::aggregator(args, config).await,
            Command::Trainer(args) => services::trainer(args, config).await,
            Command::Inference(args) => services::inference(args, config).await,
            Command::Fit(args) => fit::run(args, &config).await,
            Command::Backtest(args) => backtest::run(args, &config).await,
            Command::Scan(args) => scan::run(args).await,
            Command::Pipelines(args) => pipelines::run(args, config).await,
            Command::Rollback(args) => deployment::rollback(args, config).await,
            Command::Suspend(args) => deployment::suspend(args, config).await,
            Command::Resume(args) => deployment::resume(args, config).await,
            Command::Labels(args) => labels::run(args, config).await,
            Command::Refit(args) => refit::run(args, config).await,
            Command::Route(args) => route::run(args).await,
            Command::Replay(args) => replay::run(args, config).await,
            Command::Shards(args) => shards::run(args, config).await,
            Command::DeadLetters(args) => dead_letters::run(args, config).await,
            Command::Bench(args) => bench::run(args, config, self.config).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
