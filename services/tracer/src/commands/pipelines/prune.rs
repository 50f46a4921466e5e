//! `tracer pipelines prune`: the retention of versions, by hand.

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tracer_store::{PipelineVersion, Registry, Retention};
use tracer_trace::TaskName;

use crate::{
    config::{Config, ConfigError},
    output,
};

/// Arguments of `tracer pipelines prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Only this task
    #[arg(long, value_name = "NAME")]
    task: Option<TaskName>,
    /// Keep the newest so many versions [default: as configured in `[registry]`]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Keep what is younger than so many days [default: as configured in `[registry]`]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// Delete the files of what was retired so long ago [default: as configured in `[registry]`]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(
    args: &PruneArgs,
    registry: &Registry,
    config: &Config,
) -> anyhow::Result<()> {
    let mut section = config.registry.clone();
    section.keep_versions = args.keep.unwrap_or(section.keep_versions);
    section.keep_days = args.days.unwrap_or(section.keep_days);
    section.grace_seconds = args.grace.unwrap_or(section.grace_seconds);
    section.check()?;
    let Some(rule) = section.rule() else {
        bail!(ConfigError::new(
            "registry.keep_versions is 0, which keeps all versions; --keep says how many to keep"
        ));
    };
    let tasks = match &args.task {
        Some(task) => vec![task.clone()],
        None => registry.tasks().await?,
    };
    let mut all = Vec::new();
    for task in tasks {
        let author = "retention";
        let done = registry.retire(&task, &rule, author, args.dry_run).await?;
        if !args.json {
            output::line(format_args!("{task}: {}", said(&done, args.dry_run)));
        }
        all.push(json!({ "task": task, "done": done }));
    }
    if args.json {
        output::json(&json!({ "dry_run": args.dry_run, "tasks": all }));
    }
    Ok(())
}

fn said(done: &Retention, dry_run: bool) -> String {
    let list = |versions: &[PipelineVersion]| {
        if versions.is_empty() {
            return "none".to_owned();
        }
        let versions: Vec<String> = versions.iter().map(|v| v.get().to_string()).collect();
        versions.join(", ")
    };
    format!(
        "kept {}; {}retired {}; {}deleted {} ({} files, {} bytes)",
        list(&done.kept),
        if dry_run { "to be " } else { "" },
        list(&done.retired),
        if dry_run { "to be " } else { "" },
        list(&done.deleted),
        done.objects,
        done.bytes
    )
}
