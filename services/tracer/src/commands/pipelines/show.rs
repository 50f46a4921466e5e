//! `tracer pipelines list` and `show`.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tracer_store::{
    Active, LogEntry, LogEvent, Manifest, PipelineVersion, Registry, StoreError, retired,
};
use tracer_trace::TaskName;

use super::VersionArgs;
use crate::{commands::deployment::words, output};

/// Arguments of `tracer pipelines list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only this task
    #[arg(long, value_name = "NAME")]
    task: Option<TaskName>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Lists tasks and their versions.
pub(crate) async fn list(args: &ListArgs, registry: &Registry) -> anyhow::Result<()> {
    let tasks = match &args.task {
        Some(task) => vec![task.clone()],
        None => registry.tasks().await?,
    };
    let mut listed = Vec::new();
    for task in tasks {
        let log = registry.log(&task).await?;
        let active = Active::fold(&log);
        if !args.json {
            output::line(format_args!("{task}: {}", words(&active)));
        }
        let mut versions = Vec::new();
        for version in registry.versions(&task).await? {
            let state = state(&log, &active, version);
            let read = match registry.manifest(&task, version).await {
                // It was deleted since it was listed.
                Err(StoreError::NotFound { .. } | StoreError::Retired { .. }) => continue,
                Err(error) if error.is_refusal() => Err(error.to_string()),
                read => Ok(read?),
            };
            if !args.json {
                output::line(match &read {
                    Ok(manifest) => line(manifest, state),
                    Err(error) => format!("  {:>5}  {state:<10}  {error}", version.get()),
                });
            }
            versions.push(match read {
                Ok(manifest) => entry(&manifest, state),
                Err(error) => json!({"version": version, "state": state, "error": error}),
            });
        }
        listed.push(json!({
            "task": task,
            "active": active.version,
            "suspended": active.suspended,
            "reason": active.reason,
            "versions": versions,
        }));
    }
    if args.json {
        output::json(&json!({ "tasks": listed }));
    }
    Ok(())
}

/// What a version is now: `active`, `suspended`, `retired`, `unpublished` or `inactive`.
pub(crate) fn state(log: &[LogEntry], active: &Active, version: PipelineVersion) -> &'static str {
    if retired(log).contains(&version) {
        return "retired";
    }
    if active.version == Some(version) {
        return if active.suspended {
            "suspended"
        } else {
            "active"
        };
    }
    let published = log.iter().any(|entry| match entry.event {
        LogEvent::Published { version: known } => known == version,
        LogEvent::RolledBack { to_version } => to_version == version,
        _ => false,
    });
    if published { "inactive" } else { "unpublished" }
}

fn line(manifest: &Manifest, state: &str) -> String {
    format!(
        "  {:>5}  {state:<10}  {}  {} {}  coverage {:.3}  agreement {:.3} (at least {:.3})  {} traces  by {}",
        manifest.version.get(),
        manifest.created_at.format("%Y-%m-%d %H:%M:%S"),
        manifest.family,
        manifest.surrogate,
        manifest.shadow.coverage,
        manifest.shadow.agreement,
        manifest.shadow.agreement_lower,
        manifest.training_traces,
        manifest.author,
    )
}

fn entry(manifest: &Manifest, state: &str) -> Value {
    json!({
        "version": manifest.version,
        "state": state,
        "created_at": manifest.created_at,
        "author": manifest.author,
        "family": manifest.family,
        "surrogate": manifest.surrogate,
        "target_agreement": manifest.target_agreement,
        "shadow": manifest.shadow,
        "training_traces": manifest.training_traces,
        "labels": manifest.labels,
        "imported": manifest.imported,
    })
}

/// The version that was asked for, or the active one.
pub(crate) async fn named(
    registry: &Registry,
    task: &TaskName,
    version: Option<PipelineVersion>,
) -> anyhow::Result<PipelineVersion> {
    match version {
        Some(version) => Ok(version),
        None => (registry.active(task).await?.version)
            .with_context(|| format!("task {task} has no active version; name one")),
    }
}

/// Shows one version.
pub(crate) async fn show(args: &VersionArgs, registry: &Registry) -> anyhow::Result<()> {
    let version = named(registry, &args.task, args.version).await?;
    let manifest = registry.manifest(&args.task, version).await?;
    let log = registry.log(&args.task).await?;
    let state = state(&log, &Active::fold(&log), version);
    let about: Vec<&LogEntry> = log
        .iter()
        .filter(|entry| concerns(entry, version))
        .collect();
    if args.json {
        output::json(&json!({ "state": state, "manifest": manifest, "log": about }));
        return Ok(());
    }
    output::line(format_args!("task {}", args.task));
    output::line(line(&manifest, state));
    let fact = |name: &str, value: &dyn std::fmt::Display| {
        output::line(format_args!("  {name:<22}{value}"));
    };
    fact("target agreement", &manifest.target_agreement);
    fact("labels", &manifest.labels);
    if let Some(embedder) = &manifest.embedder {
        fact("embedder", embedder);
    }
    for span in &manifest.shards {
        let text = format!(
            "{}-{} [{}, {})",
            span.topic, span.partition, span.start, span.end
        );
        fact("traces", &text);
    }
    if let Some(from) = &manifest.provenance {
        fact(
            "rows",
            &format_args!("{} of {} traces", from.rows, from.traces),
        );
        if let Some(base) = from.base {
            fact("began at version", &base.get());
        }
        if let Some(embedder) = &from.embedder {
            fact("embedded by", embedder);
        }
        fact("revision", &from.revision);
        fact("instructions", &from.instructions);
    }
    if let Some(from) = &manifest.imported {
        let text = format!("version {} of {}", from.version.get(), from.created_at);
        fact("imported from", &text);
    }
    if let Some(cost) = manifest
        .cost
        .as_ref()
        .filter(|cost| cost.call_dollars > 0.0)
    {
        let share = 100.0 * cost.saved_share;
        let text = format!("{} dollars, {share:.1} % saved", cost.call_dollars);
        fact("a call of the teacher", &text);
    }
    for entry in about {
        output::line(said(entry));
    }
    Ok(())
}

fn concerns(entry: &LogEntry, version: PipelineVersion) -> bool {
    match &entry.event {
        LogEvent::Published { version: of } => *of == version,
        LogEvent::RolledBack { to_version } => *to_version == version,
        LogEvent::Retired { versions } => versions.contains(&version),
        LogEvent::Suspended { .. } | LogEvent::Resumed | LogEvent::Fenced { .. } => false,
    }
}

/// An entry of the log, in words.
pub(crate) fn said(entry: &LogEntry) -> String {
    let mut reason = entry.reason.as_deref();
    let what = match &entry.event {
        LogEvent::Published { version } => format!("version {} published", version.get()),
        LogEvent::RolledBack { to_version } => {
            format!("rolled back to version {}", to_version.get())
        }
        LogEvent::Suspended { reason: why } => {
            reason = Some(why);
            "suspended".to_owned()
        }
        LogEvent::Resumed => "resumed".to_owned(),
        LogEvent::Retired { versions } => {
            let versions: Vec<String> = versions.iter().map(|v| v.get().to_string()).collect();
            format!("versions {} retired", versions.join(", "))
        }
        LogEvent::Fenced { .. } => "refits taken over from another trainer".to_owned(),
    };
    let at = entry.at.format("%Y-%m-%d %H:%M:%S");
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    format!("  {at}  {what} by {}{reason}", entry.author)
}
