//! `tracer bench route`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use tracer_proto::v1::{self, router_client::RouterClient};

use super::{
    child::Server,
    fixture::{self, BATCH, BLEND, DENSE, DIMENSION, Parts, TEXT, World},
    load::{Client, Payload},
    overload,
    report::{OpenLoop, Report, Round, Series},
    swaps,
};
use crate::output;

/// Drives a router and an empty gRPC echo of the same payload in turn.
///
/// By itself it fits small pipelines of 77 labels, starts a server with them and an
/// echo, each in a process of its own, and stops both again. The rounds of all kinds
/// of load alternate, so that what else the machine does weighs on all alike; a ratio is the
/// median of the rounds' ratios.
#[derive(Args, Clone, Debug)]
pub(crate) struct RouteBenchArgs {
    /// Drive the server at this address instead of one of its own
    #[arg(long, value_name = "URL", requires = "task")]
    addr: Option<String>,
    /// The task to ask for, with --addr
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Rounds of each kind of load
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// Connections to each server
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Requests under way, over all connections
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    under_way: u32,
    /// Rates of the open loop, as shares of what the echo does in a closed one
    #[arg(long, default_value = "0.2,0.5", value_name = "SHARES", value_delimiter = ',', value_parser = share)]
    open: Vec<f64>,
    /// Instead: half as much again as the server can do, for so many minutes
    #[arg(long, value_name = "MINUTES", value_parser = seconds, conflicts_with = "addr")]
    overload: Option<f64>,
    /// Instead: publish so many versions one after the other under full load, and look
    /// at every answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000), conflicts_with_all = ["addr", "overload"])]
    swaps: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e5 => Ok(value),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a share from 0 to 1".to_owned()),
    }
}

/// One kind of load.
struct Load<'a> {
    name: &'static str,
    beside: &'static str,
    rows: usize,
    payload: Payload,
    client: Client,
    /// The process that answers, where the benchmark started it.
    server: Option<&'a Server>,
    /// Whether the open loop drives it as well.
    open: bool,
}

/// Runs the command.
pub(crate) async fn run(args: RouteBenchArgs) -> anyhow::Result<()> {
    if let Some(swaps) = args.swaps {
        let directory = directory()?;
        // Before and after, together as long as the rounds of another run.
        let seconds = args.seconds * f64::from(args.rounds) / 2.0;
        let connections = args.connections as usize;
        return swaps::run(directory.path(), connections, swaps, seconds, args.json).await;
    }
    let load_before = load_average();
    let echo = Server::start(&[]).await?;
    if let Some(addr) = &args.addr {
        let report = drive_running(&args, addr, &echo, load_before).await?;
        print(&args, &report);
        return Ok(());
    }
    let directory = directory()?;
    let pipelines = fixture::publish(directory.path()).await?;
    let path = directory.path().to_string_lossy().into_owned();
    let server = Server::start(&[&path]).await?;
    if let Some(minutes) = args.overload {
        return overload::run(&server, args.connections as usize, minutes, args.json).await;
    }
    let mut report = drive_own(&args, &server, &echo).await?;
    report.pipelines = pipelines;
    report.load_before = load_before;
    print(&args, &report);
    Ok(())
}

fn directory() -> anyhow::Result<tempfile::TempDir> {
    tempfile::tempdir().context("cannot make a directory for the store")
}

fn print(args: &RouteBenchArgs, report: &Report) {
    if args.json {
        output::json(&report.json());
    } else {
        output::line(report.table());
    }
}

/// Processes that want to run, on average over the last minute.
fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

async fn drive_own(
    args: &RouteBenchArgs,
    server: &Server,
    echo: &Server,
) -> anyhow::Result<Report> {
    let world = World::new(DIMENSION);
    let connections = args.connections as usize;
    let router = Client::connect(&server.addr, connections).await?;
    let echoing = Client::connect(&echo.addr, connections).await?;
    let dense = Parts {
        text: false,
        dimension: DIMENSION,
    };
    let text = Parts {
        text: true,
        dimension: 0,
    };
    let both = Parts {
        text: true,
        dimension: DIMENSION,
    };
    let routes = |task, parts| fixture::routes(&world, task, parts);
    let load = |name, beside, method, requests: Vec<Bytes>, open| {
        let is_echo = beside == name;
        anyhow::Ok(Load {
            name,
            beside,
            rows: if method == "RouteBatch" { BATCH } else { 1 },
            payload: Payload::new(method, requests)?,
            client: if is_echo { &echoing } else { &router }.clone(),
            server: Some(if is_echo { echo } else { server }),
            open,
        })
    };
    let batches = fixture::batches(&world, DENSE, dense);
    let loads = [
        load("echo", "echo", "Route", routes(DENSE, dense), true)?,
        load("route_dense", "echo", "Route", routes(DENSE, dense), true)?,
        load("echo_text", "echo_text", "Route", routes(TEXT, text), false)?,
        load("route_text", "echo", "Route", routes(TEXT, text), true)?,
        load("route_blend", "echo", "Route", routes(BLEND, both), false)?,
        load("route_batch", "route_dense", "RouteBatch", batches, false)?,
    ];
    drive(args, &loads).await
}

async fn drive_running(
    args: &RouteBenchArgs,
    addr: &str,
    echo: &Server,
    load_before: Option<f64>,
) -> anyhow::Result<Report> {
    let task = args.task.as_deref().unwrap_or("default");
    let url = if addr.contains("://") {
        addr.to_owned()
    } else {
        format!("http://{addr}")
    };
    let mut asking = RouterClient::connect(url)
        .await
        .with_context(|| format!("no Tracer server answers at {addr}"))?;
    let request = v1::GetPipelineRequest {
        task: task.to_owned(),
    };
    let pipeline = match asking.get_pipeline(request).await {
        Ok(pipeline) => pipeline.into_inner(),
        Err(status) => bail!("{addr}: {}", status.message()),
    };
    let parts = Parts {
        text: pipeline.needs_text,
        dimension: pipeline.embedding_dimension as usize,
    };
    let world = World::new(parts.dimension);
    let router = Client::connect(addr, args.connections as usize).await?;
    let echoing = Client::connect(&echo.addr, args.connections as usize).await?;
    let routes = || Payload::new("Route", fixture::routes(&world, task, parts));
    let batches = Payload::new("RouteBatch", fixture::batches(&world, task, parts))?;
    let load = |name, beside, rows, payload, open| Load {
        name,
        beside,
        rows,
        payload,
        client: router.clone(),
        server: None,
        open,
    };
    let loads = [
        Load {
            client: echoing,
            server: Some(echo),
            ..load("echo", "echo", 1, routes()?, true)
        },
        load("route", "echo", 1, routes()?, true),
        load("route_batch", "route", BATCH, batches, false),
    ];
    let mut report = drive(args, &loads).await?;
    report.load_before = load_before;
    Ok(report)
}

async fn drive(args: &RouteBenchArgs, loads: &[Load<'_>]) -> anyhow::Result<Report> {
    let time = Duration::from_secs_f64(args.seconds);
    let under_way = args.under_way as usize;
    // Connections, caches and branch predictors, before anything counts.
    for load in loads {
        let warm = load
            .client
            .closed(
                &load.payload,
                under_way,
                time.min(Duration::from_millis(500)),
            )
            .await;
        if warm.latencies.is_empty() {
            let error = warm.error.unwrap_or_else(|| "no answer".to_owned());
            bail!("{}: {error}", load.name);
        }
    }
    let mut series: Vec<Series> = loads
        .iter()
        .map(|load| Series {
            name: load.name,
            rows: load.rows,
            beside: load.beside,
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..args.rounds {
        let mut order: Vec<usize> = (0..loads.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let load = &loads[at];
            let under_way = if load.rows > 1 {
                // A batch is many rows already.
                under_way.div_ceil(8)
            } else {
                under_way
            };
            let before = load.server.and_then(Server::cpu_seconds);
            let run = load.client.closed(&load.payload, under_way, time).await;
            let after = load.server.and_then(Server::cpu_seconds);
            series[at].rounds.push(Round {
                run,
                server_cpu: before.zip(after).map(|(before, after)| after - before),
            });
        }
    }
    let mut report = Report {
        series,
        ..Report::default()
    };
    let capacity = report.rate_of(loads[0].name);
    for share in &args.open {
        let rate = capacity * share;
        let mut runs = Vec::new();
        for load in loads.iter().filter(|load| load.open) {
            runs.push((load.name, load.client.open(&load.payload, rate, time).await));
        }
        report.open.push(OpenLoop { rate, runs });
    }
    Ok(report)
}
