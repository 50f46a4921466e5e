//! `tracer rollback`, `suspend` and `resume`: what serves, decided by people.

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tracer_store::{Changed, PipelineVersion, Registry, Store};
use tracer_trace::TaskName;

use crate::{
    config::{Config, ConfigError},
    output,
};

/// Whose change it is.
#[derive(Args, Debug)]
pub(crate) struct ByArgs {
    /// Who does it, for the log [default: $USER]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl ByArgs {
    pub(crate) fn author(&self) -> String {
        let named = self.author.clone();
        named
            .or_else(|| std::env::var("USER").ok())
            .filter(|name| !name.trim().is_empty())
            .unwrap_or_else(|| "operator".to_owned())
    }
}

/// Arguments of `tracer rollback`.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The task
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    /// The version that is to serve [default: the one that served before]
    #[arg(long, value_name = "VERSION")]
    to: Option<PipelineVersion>,
    #[command(flatten)]
    by: ByArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Arguments of `tracer suspend` and `tracer resume`.
#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    /// The task
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    #[command(flatten)]
    by: ByArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The registry of the configured store.
pub(crate) fn registry(config: &Config) -> anyhow::Result<Registry> {
    Ok(Registry::new(store(config)?))
}

/// The configured store.
pub(crate) fn store(config: &Config) -> anyhow::Result<Store> {
    Ok(Store::open(&config.store.url, &config.store.options)
        .map_err(|error| ConfigError::new(format!("store: {error}")))?)
}

/// Has an earlier version serve again.
pub(crate) async fn rollback(args: RollbackArgs, config: Config) -> anyhow::Result<()> {
    let registry = registry(&config)?;
    let (author, reason) = (args.by.author(), args.by.reason.as_deref());
    let changed = registry
        .roll_back(&args.task, args.to, &author, reason)
        .await
        .context("nothing is rolled back")?;
    say(&args.task, &changed, args.json);
    Ok(())
}

/// Has everything of a task be deferred.
pub(crate) async fn suspend(args: TaskArgs, config: Config) -> anyhow::Result<()> {
    let registry = registry(&config)?;
    let reason = args.by.reason.as_deref().unwrap_or("suspended by hand");
    let changed = registry
        .suspend(&args.task, &args.by.author(), reason)
        .await
        .context("nothing is suspended")?;
    say(&args.task, &changed, args.json);
    Ok(())
}

/// Ends a suspension.
pub(crate) async fn resume(args: TaskArgs, config: Config) -> anyhow::Result<()> {
    let registry = registry(&config)?;
    let (author, reason) = (args.by.author(), args.by.reason.as_deref());
    let changed = registry
        .resume(&args.task, &author, reason)
        .await
        .context("nothing is resumed")?;
    say(&args.task, &changed, args.json);
    Ok(())
}

fn say(task: &TaskName, changed: &Changed, as_json: bool) {
    let state = |active: &tracer_store::Active| {
        json!({
            "version": active.version,
            "suspended": active.suspended,
            "reason": active.reason,
        })
    };
    if as_json {
        output::json(&json!({
            "task": task,
            "changed": changed.entry.is_some(),
            "entry": changed.entry,
            "before": state(&changed.before),
            "after": state(&changed.after),
        }));
        return;
    }
    let now = words(&changed.after);
    match &changed.entry {
        Some(entry) => output::line(format_args!(
            "task {task}: {now} (entry {} of the log; before: {})",
            entry.seq,
            words(&changed.before)
        )),
        None => output::line(format_args!("task {task}: nothing to do, {now}")),
    }
}

/// What serves, in words.
pub(crate) fn words(active: &tracer_store::Active) -> String {
    let Some(version) = active.version else {
        return "no version serves".to_owned();
    };
    let version = version.get();
    match &active.reason {
        Some(reason) => format!("version {version} is suspended ({reason})"),
        None => format!("version {version} serves"),
    }
}
