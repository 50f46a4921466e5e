//! `tracer config`: what the configuration says, and what is wrong with it.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::role::Role;
use crate::{
    config::{Checked, ConfigError, Effective, check, effective, reference},
    output,
};

/// Looks at the configuration.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration as a service does, and say everything that is wrong with it
    Check(CheckArgs),
    /// Show every value and where it comes from; secrets are hidden
    Show(ShowArgs),
    /// Print the reference of all keys, in Markdown
    Reference,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// The service it is for
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Leave out what is as by default
    #[arg(long)]
    set: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ConfigArgs, file: Option<&Path>) -> anyhow::Result<()> {
    match &args.command {
        ConfigCommand::Check(args) => {
            let checked = check(file, args.role.roles());
            if args.json {
                output::json(&json!({
                    "ok": checked.problems.is_empty(),
                    "problems": checked.problems,
                    "warnings": checked.warnings,
                }));
            } else {
                tell(&checked);
            }
            match checked.problems.len() {
                0 => Ok(()),
                1 => Err(ConfigError::new("1 problem").into()),
                count => Err(ConfigError::new(format!("{count} problems")).into()),
            }
        }
        ConfigCommand::Show(args) => {
            let mut all = effective(file)?;
            all.retain(|_, value| !args.set || value.from != "default");
            if args.json {
                output::json(&json!(all));
                return Ok(());
            }
            for (key, Effective { value, from }) in all {
                output::line(format_args!("{key} = {value}  # {from}"));
            }
            Ok(())
        }
        ConfigCommand::Reference => {
            output::text(reference::markdown());
            Ok(())
        }
    }
}

fn tell(checked: &Checked) {
    for problem in &checked.problems {
        let key = if problem.key.is_empty() {
            String::new()
        } else {
            let value = problem.value.as_ref().map(|value| format!(" = {value}"));
            format!("{}{}: ", problem.key, value.unwrap_or_default())
        };
        output::line(format_args!("error    {key}{}", problem.problem));
        if let Some(allowed) = &problem.allowed {
            output::line(format_args!("         takes: {allowed}"));
        }
        if let Some(from) = &problem.from {
            output::line(format_args!("         from:  {from}"));
        }
    }
    for warning in &checked.warnings {
        output::line(format_args!("warning  {warning}"));
    }
    if checked.problems.is_empty() && checked.warnings.is_empty() {
        output::line("the configuration is in order");
    } else if checked.problems.is_empty() {
        output::line("the configuration can be used");
    }
}
