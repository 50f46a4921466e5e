//! `tracer demo`: everything in one process, and five days of a made-up support
//! desk through it.
//!
//! Each day the desk's messages are first routed, over gRPC, by the version that
//! is active that morning; in the evening their traces go into the source like
//! anybody's, and the trainer refits. In the demo the teacher labels every trace,
//! handled or not (shadow mode), so that agreement can be seen. "Teacher calls"
//! are those that would have been needed: for what is deferred or audited.

mod day;
mod table;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tracer_telemetry::shutdown_on_signal;
use tracer_trace::TaskName;

use self::{
    day::{Day, Desk},
    table::Table,
};
use super::{client::ClientArgs, up::banner};
use crate::{
    config::{Config, TaskConfig},
    demo::data::{DataConfig, Utterance, generate},
    host::{Host, Roles, reachable},
    output,
};

/// The demo's task.
const TASK: &str = "support";

/// How many daily batches there are.
const DAYS: usize = 5;

/// Runs everything, and five days of a made-up support desk through it.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep log and store in this directory, which must be empty or new
    /// [default: a fresh one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Varies the messages
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Messages in all, over five days
    #[arg(long, default_value_t = 6000, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..=20000))]
    messages: u32,
    /// Price of one teacher call in dollars
    #[arg(long, default_value_t = 0.002, value_name = "DOLLARS", value_parser = price)]
    price: f64,
    /// Port of gRPC; 0 takes a free one [default: 50051, or a free one]
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// Port of HTTP; 0 takes a free one [default: 8080, or a free one]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    #[command(flatten)]
    client: ClientArgs,
    /// End after the last day
    #[arg(long)]
    exit: bool,
    /// Print the days as one JSON document; ends after the last day
    #[arg(long)]
    json: bool,
}

fn price(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|price: &f64| *price >= 0.0 && price.is_finite())
        .ok_or_else(|| "a price is 0 or more".to_owned())
}

/// Runs the command.
pub(crate) async fn run(args: DemoArgs, mut config: Config) -> anyhow::Result<()> {
    let task = TaskName::new(TASK)?;
    let directory = Directory::of(args.data.as_deref())?;
    let daily = args.messages as usize / DAYS;
    configure(&mut config, &task, &directory.path, daily, args.price);
    config.listen.grpc = listen(50051, args.grpc_port, "gRPC");
    config.listen.http = listen(8080, args.http_port, "HTTP");

    let shutdown = shutdown_on_signal();
    let mut host = Host::start(&config, Roles::ALL, shutdown.clone()).await?;
    if !args.json {
        banner(&host, &config);
    }
    let messages = generate(&DataConfig {
        utterances: daily * DAYS,
        newcomers: daily,
        seed: args.seed,
        ..DataConfig::default()
    });
    let mut desk = Desk::open(&host, &config, task, args.seed, &args.client).await?;
    let mut table = Table::new(args.price, args.json);
    let days = live_through(&mut desk, &messages, daily, &mut table);
    let lived = tokio::select! {
        lived = days => lived,
        failure = host.failed() => Err(failure),
        () = shutdown.cancelled() => {
            host.stop().await?;
            bail!("interrupted before the last day");
        }
    };
    let days = match lived {
        Ok(days) => days,
        Err(error) => {
            let _ = host.stop().await;
            return Err(error);
        }
    };
    if args.json {
        let days: Vec<_> = days.iter().map(Day::to_json).collect();
        output::json(&json!({ "task": TASK, "price": args.price, "days": days }));
    } else {
        table.end();
    }
    if args.exit || args.json {
        drop(desk);
        return host.stop().await;
    }
    let last_day = messages.chunks(daily).last().unwrap_or_default();
    let examples = desk.examples(last_day).await?;
    drop(desk);
    let version = days.iter().filter_map(|day| day.result.version()).max();
    let report = version.map(|version| {
        directory
            .path
            .join(format!("store/pipelines/{TASK}/v{version:06}/report.html"))
    });
    invite(&host, &examples, report.as_deref());
    host.run().await
}

async fn live_through(
    desk: &mut Desk,
    messages: &[Utterance],
    daily: usize,
    table: &mut Table,
) -> anyhow::Result<Vec<Day>> {
    let mut days = Vec::with_capacity(DAYS);
    for (i, messages) in messages.chunks(daily).enumerate() {
        let progress = table.progress(i + 1, messages.len());
        let day = desk.live(i + 1, messages, &progress).await?;
        progress.end();
        table.row(&day);
        days.push(day);
    }
    Ok(days)
}

/// Quick to react, refitted once a day, everything in one directory.
fn configure(config: &mut Config, task: &TaskName, directory: &Path, daily: usize, price: f64) {
    config.keep_in(directory);
    config.aggregator.max_age_ms = 200;
    config.trainer.poll_interval_ms = 100;
    config.inference.poll_interval_ms = 100;
    let desk = TaskConfig {
        refit_every_minutes: 0,
        refit_after_traces: daily as u64,
        teacher_call_dollars: price,
        ..config.task_defaults.clone()
    };
    config.tasks.insert(task.clone(), desk);
}

/// The address to listen on. A default port that is taken is replaced by a free
/// one; a port that was asked for is not.
fn listen(default: u16, asked: Option<u16>, what: &str) -> SocketAddr {
    let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    if let Some(port) = asked {
        return at(port);
    }
    if TcpListener::bind(at(default)).is_ok() {
        return at(default);
    }
    output::say(format_args!(
        "port {default} is taken, {what} listens on a free one"
    ));
    at(0)
}

/// Says what to try.
fn invite(host: &Host, examples: &[String; 2], report: Option<&Path>) {
    let Some(grpc) = host.grpc.map(reachable) else {
        return;
    };
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "tracer".to_owned());
    let body = json!({ "task": TASK, "input": { "text": examples[0] } });
    output::line("Still up. To try:");
    for text in examples {
        output::line(format_args!(
            "  {program} route --addr http://{grpc} --task {TASK} \"{text}\""
        ));
    }
    output::line(format_args!(
        "  grpcurl -plaintext -d '{body}' {grpc} tracer.v1.Router/Route"
    ));
    output::line(format_args!(
        "  curl -s http://{}/metrics",
        reachable(host.http)
    ));
    if let Some(report) = report {
        output::line(format_args!(
            "  the report of the latest refit, in a browser: {}",
            report.display()
        ));
    }
    output::line("Ctrl-C ends it.");
}

/// Where log and store are kept. A directory of our own making goes away again.
struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    fn of(asked: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = asked {
            let used = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
            if used {
                bail!(
                    "{} is not empty; the demo starts from nothing, `tracer up --data` goes on from what is there",
                    path.display()
                );
            }
            return Ok(Self {
                path: path.to_owned(),
                temporary: false,
            });
        }
        let name = format!(
            "tracer-demo-{}-{}",
            std::process::id(),
            chrono::Utc::now().timestamp_millis()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            temporary: true,
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the demo's directory");
        }
    }
}
