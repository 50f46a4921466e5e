//! `tracer doctor`: tries everything that the configuration names, as the services will,
//! and says what to do about what fails.
//!
//! Nothing is left behind: objects of the store are put below `probes/` and deleted, Kafka
//! is asked in ways that it refuses (`tracer_source::KafkaProbe`), and nothing joins the
//! consumer group. Every check has a limit of time.

mod certificates;
mod embedders;
mod finding;
mod kafka;
mod local;
mod store;

use std::{path::Path, time::Duration};

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tracer_source::SourceConfig;

use self::finding::{Finding, Report};
use super::role::Role;
use crate::{
    config::{Config, check},
    host::Roles,
    output,
};

/// Tries everything that the configuration names.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// The service it is for
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// How long each check may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    timeout_ms: u64,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command. `file` is the configuration's, as it was named.
pub(crate) async fn run(
    args: DoctorArgs,
    config: Config,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    let roles = args.role.roles();
    let limit = Duration::from_millis(args.timeout_ms);
    let mut report = Report::new(args.json);
    of_configuration(&mut report, file, roles);
    examine(&mut report, &config, roles, limit).await;
    let failed = report.failed();
    if args.json {
        output::json(&json!({
            "ok": failed == 0,
            "services": roles.names(),
            "timeout_ms": args.timeout_ms,
            "findings": report.findings,
            "not_tried": report.not_tried,
        }));
    } else {
        report.end();
    }
    if failed > 0 {
        let found = report.findings.len();
        bail!("{failed} of {found} checks failed");
    }
    Ok(())
}

/// What `tracer config check` says.
fn of_configuration(report: &mut Report, file: Option<&Path>, roles: Roles) {
    let checked = check(file, roles);
    if checked.problems.is_empty() && checked.warnings.is_empty() {
        report.add(Finding::ok("configuration", "is in order"));
    }
    for problem in checked.problems {
        let found = format!("{}: {}", problem.key, problem.problem);
        let remedy =
            "correct the key; docs/config.md and `tracer config reference` say what it takes";
        report.add(Finding::failed("configuration", found, remedy));
    }
    for warning in checked.warnings {
        let remedy = "leave it where it is meant; `tracer config show` says where it comes from";
        report.add(Finding::warning("configuration", warning, remedy));
    }
}

/// Everything that can be tried.
async fn examine(report: &mut Report, config: &Config, roles: Roles, limit: Duration) {
    local::limits(report, roles);
    certificates::examine(report, config, roles);
    let store = store::open(report, config, limit).await;
    if let Some(store) = &store {
        store::examine(report, store, limit).await;
    }
    if roles.aggregator || roles.inference {
        match &config.source {
            SourceConfig::Kafka(kafka) => {
                kafka::examine(report, kafka, config, roles, limit).await;
            }
            SourceConfig::Spool(spool) => local::spool(report, &spool.path),
        }
    }
    if roles.trainer || roles.inference {
        embedders::examine(report, config, store.as_ref(), limit).await;
    }
}

#[cfg(test)]
mod tests;
