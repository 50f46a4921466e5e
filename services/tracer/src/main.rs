//! Tracer: the one binary. It reads the configuration without touching anything,
//! starts the log, and runs one command.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 64 bad configuration.

mod cli;
mod commands;
mod config;
mod console;
mod demo;
mod embedders;
mod environment;
mod files;
mod host;
mod labels;
mod output;
mod retention;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::{cli::Cli, config::ConfigError};

/// How long blocking work, such as a refit that was given up, may hold up the exit.
const LINGER: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(cli.run());
    runtime.shutdown_timeout(LINGER);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    output::error(error);
    if error
        .chain()
        .any(<dyn std::error::Error>::is::<ConfigError>)
    {
        return ExitCode::from(64);
    }
    ExitCode::FAILURE
}
