//! `tracer refit`: asks the trainers for a refit.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tracer_store::{Claimable, Leases, ShardLog, Store};
use tracer_trace::TaskName;
use tracer_trainer::{Answer, Record, Running, has_traces};

use crate::{
    config::{Config, ConfigError},
    output,
};

/// How often the store is asked how the refit stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Asks for a refit of a task now, whatever its schedule says. Whichever trainer of the
/// store is free takes it up.
#[derive(Args, Debug)]
pub(crate) struct RefitArgs {
    /// The task
    #[arg(long, value_name = "TASK")]
    task: TaskName,
    /// Why, for those who ask later
    #[arg(long, default_value = "not said")]
    reason: String,
    /// Wait for the verdict. A refusal is a failure
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds; the request stays
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: RefitArgs, config: Config) -> anyhow::Result<()> {
    let store = Store::open(&config.store.url, &config.store.options)
        .map_err(|error| ConfigError::new(format!("store: {error}")))?;
    if !has_traces(&ShardLog::new(store.clone()), &args.task).await? {
        bail!(
            "there are no traces of {} in {}",
            args.task,
            config.store.url
        );
    }
    let leases = Leases::new(store);
    let author = std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned());
    let id = leases.request(&args.task, &author, &args.reason).await?;
    if !args.wait {
        if args.json {
            output::json(&json!({"task": args.task.as_str(), "request": id}));
        } else {
            output::line(format_args!(
                "asked for a refit of {}: a trainer takes it up when it is free (request {id})",
                args.task
            ));
        }
        return Ok(());
    }
    let answered = answer(&leases, &args.task, &id);
    let answer = match args.timeout {
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), answered).await {
            Ok(answer) => answer?,
            Err(_) => {
                bail!("no trainer has answered within {seconds} seconds; the request {id} stays")
            }
        },
        None => answered.await?,
    };
    if args.json {
        output::json(&json!({
            "task": args.task.as_str(),
            "request": id,
            "verdict": answer.verdict,
            "version": answer.version,
            "reason": answer.reason,
        }));
    }
    match (answer.version, answer.reason) {
        (Some(version), _) => {
            if !args.json {
                output::line(format_args!("{} passed: version {version}", args.task));
            }
            Ok(())
        }
        (None, reason) => bail!(
            "{}: {}",
            answer.verdict,
            reason.unwrap_or_else(|| "no reason was given".to_owned())
        ),
    }
}

/// How far a refit is, in words.
fn under_way(running: &Running) -> String {
    let Running {
        stage,
        step,
        done,
        total,
        ..
    } = running;
    match (stage.as_str(), total) {
        ("", _) => "a trainer has taken it up".to_owned(),
        (stage, 0) => stage.to_owned(),
        (stage, total) => format!("{stage} {step} ({done} of {total})"),
    }
}

/// Waits for the answer, and says on the way how the refit stands.
async fn answer(leases: &Leases, task: &TaskName, id: &str) -> anyhow::Result<Answer> {
    let mut said = String::new();
    loop {
        let standing = leases.look_at(task).await?;
        let record = Record::of(standing.last.as_deref());
        if let Some(answer) = record.answer_to(id) {
            return Ok(answer.clone());
        }
        let says = match &record.running {
            Some(running) if standing.claim == Claimable::Held => under_way(running),
            _ => "waiting for a trainer".to_owned(),
        };
        if says != said {
            tracing::info!(%task, "{says}");
            said = says;
        }
        // One that was answered long ago, and forgotten, is not answered again.
        if !standing.requests.iter().any(|request| request == id) {
            let standing = leases.look_at(task).await?;
            match Record::of(standing.last.as_deref()).answer_to(id) {
                Some(answer) => return Ok(answer.clone()),
                None => bail!("the request {id} has gone without an answer"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
