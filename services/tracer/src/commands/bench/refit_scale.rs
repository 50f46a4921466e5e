//! `tracer bench refit-scale`: what a trainer needs for many traces of many tasks.
//!
//! Writes synthetic traces into shards of a store, then runs `tracer trainer` on it as a
//! process of its own until every task has a verdict, and looks at its memory.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use chrono::DateTime;
use clap::Args;
use serde_json::json;
use tracer_store::{Leases, ShardLog, Store};
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, TopicName, Trace};
use tracer_trainer::Record;

use crate::{
    demo::rng::Rng,
    environment::{CONFIG, OVERRIDE_PREFIX},
    output,
};

/// Traces of a shard, as compaction leaves them.
const SHARD: u64 = 100_000;

/// Labels of each task.
const LABELS: usize = 20;

/// Words that one label's inputs are made of, and words of all.
const OWN_WORDS: usize = 12;
const COMMON_WORDS: usize = 2_000;

/// How many arenas glibc's allocator may have: by default as many as threads that allocate at
/// the same time, and what one thread freed is of no use to the others.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Time between two looks at the trainer.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `tracer bench refit-scale`.
#[derive(Args, Debug)]
pub(crate) struct RefitScaleArgs {
    /// Traces of all tasks together
    #[arg(long, default_value_t = 1_000_000)]
    traces: u64,
    /// Tasks
    #[arg(long, default_value_t = 20)]
    tasks: u64,
    /// Dimensions of the embeddings; 0 for text alone
    #[arg(long, default_value_t = 32)]
    dimension: usize,
    /// Refit only so many of the tasks; the others are in the shards all the same
    #[arg(long)]
    refit: Option<u64>,
    /// Keep the store here, and use it again if it is there
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: RefitScaleArgs) -> anyhow::Result<()> {
    if args.traces == 0 || args.tasks == 0 {
        bail!("there must be traces and tasks");
    }
    let temporary = tempfile::tempdir()?;
    let path = match &args.store {
        Some(path) => std::path::absolute(path)?,
        None => temporary.path().join("store"),
    };
    let url = path.to_str().context("the path of the store is no text")?;
    let store = Store::open(url, &BTreeMap::new())?;
    let tasks: Vec<TaskName> = (0..args.tasks)
        .map(|task| TaskName::new(&format!("task-{task:02}")))
        .collect::<Result<_, _>>()?;
    let shards = ShardLog::new(store.clone());
    let partition = PartitionId::new(TopicName::default(), 0);
    let began = Instant::now();
    let start = shards
        .resume(&partition)
        .await?
        .position()
        .map_or(0, Offset::get);
    let mut desk = Desk::new(args.dimension);
    for from in (start..args.traces).step_by(SHARD as usize) {
        let range = from..(from + SHARD).min(args.traces);
        let rows = range
            .clone()
            .map(|offset| desk.trace(&tasks, offset))
            .collect();
        let range = OffsetRange::new(Offset(range.start), Offset(range.end)).context("a range")?;
        shards.append(&partition, range, rows).await?;
        output::say(format_args!(
            "{} of {} traces are written",
            range.end, args.traces
        ));
    }
    let written = began.elapsed();

    let wanted = &tasks[..args.refit.unwrap_or(args.tasks).min(args.tasks) as usize];
    let began = Instant::now();
    let mut trainer = Trainer::start(url, &temporary)?;
    let leases = Leases::new(store);
    let mut verdicts = BTreeMap::new();
    let mut requests = BTreeMap::new();
    for task in wanted {
        let id = leases.request(task, "bench", "a measurement").await?;
        requests.insert(task.clone(), id);
    }
    while verdicts.len() < wanted.len() {
        tokio::time::sleep(LOOK).await;
        trainer.look()?;
        for (task, standing) in leases.look().await? {
            let record = Record::of(standing.last.as_deref());
            let Some(id) = requests.get(&task) else {
                continue;
            };
            if record.answer_to(id).is_some()
                && let Some(last) = record.last
                && !verdicts.contains_key(&task)
            {
                let seconds = (last.ended - last.began).as_seconds_f64();
                output::say(format_args!(
                    "{task}: {} in {seconds:.0} s, {:.0} MiB at most so far",
                    last.verdict, trainer.peak_mib
                ));
                verdicts.insert(task, (last.verdict, last.traces, seconds));
            }
        }
    }
    let seconds: f64 = verdicts.values().map(|(_, _, seconds)| seconds).sum();
    let passed = verdicts
        .values()
        .filter(|(verdict, ..)| verdict == "passed")
        .count();
    let fitted: u64 = verdicts
        .values()
        .map(|(_, traces, _)| *traces)
        .max()
        .unwrap_or(0);
    if args.json {
        output::json(&json!({
            "traces": args.traces,
            "tasks": args.tasks,
            "dimension": args.dimension,
            "refits": verdicts.len(),
            "passed": passed,
            "rows_in_the_largest_refit": fitted,
            "peak_rss_mib": trainer.peak_mib,
            "seconds_writing": written.as_secs_f64(),
            "seconds_refitting": began.elapsed().as_secs_f64(),
            "seconds_a_refit": seconds / verdicts.len().max(1) as f64,
        }));
    } else {
        output::line(format_args!(
            "{} traces of {} tasks, embeddings of {} dimensions: {} refits ({passed} passed) in {:.0} s, {:.0} s each, \
             on {fitted} rows at the most; peak resident memory {:.0} MiB",
            args.traces,
            args.tasks,
            args.dimension,
            verdicts.len(),
            began.elapsed().as_secs_f64(),
            seconds / verdicts.len().max(1) as f64,
            trainer.peak_mib
        ));
    }
    Ok(())
}

/// The trainer as a process of its own, so that its memory is its own.
struct Trainer {
    child: Child,
    peak_mib: f64,
}

impl Trainer {
    fn start(store: &str, directory: &tempfile::TempDir) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_remove(CONFIG).current_dir(directory.path());
        // As the chart and compose start it.
        if std::env::var_os(ARENAS).is_none() {
            command.env(ARENAS, "2");
        }
        for (key, value) in [
            ("STORE__URL", store),
            ("TASK_DEFAULTS__REFIT_EVERY_MINUTES", "0"),
            ("TASK_DEFAULTS__REFIT_AFTER_TRACES", "0"),
            ("TRAINER__POLL_INTERVAL_MS", "200"),
            ("TELEMETRY__LOG_FILTER", "warn"),
        ] {
            command.env(format!("{OVERRIDE_PREFIX}{key}"), value);
        }
        let child = command
            .args(["trainer", "--http-port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a trainer")?;
        Ok(Self {
            child,
            peak_mib: 0.0,
        })
    }

    /// Looks at its memory, and whether it runs.
    fn look(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the trainer has ended: {status}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.context("its memory can be looked at on Linux alone")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        self.peak_mib = self.peak_mib.max(kib.unwrap_or(0.0) / 1024.0);
        Ok(())
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes traces: inputs of about sixty characters, embeddings around a centre for each
/// label, and a teacher who errs once in thirty.
struct Desk {
    rng: Rng,
    dimension: usize,
    centres: Vec<Vec<f32>>,
}

impl Desk {
    fn new(dimension: usize) -> Self {
        let mut rng = Rng::new(7);
        let centres = (0..LABELS)
            .map(|_| (0..dimension).map(|_| rng.unit() as f32 - 0.5).collect())
            .collect();
        Self {
            rng,
            dimension,
            centres,
        }
    }

    fn trace(&mut self, tasks: &[TaskName], offset: u64) -> StoredTrace {
        let rng = &mut self.rng;
        let label = rng.below(LABELS);
        let mut input = String::new();
        for _ in 0..8 + rng.below(4) {
            if !input.is_empty() {
                input.push(' ');
            }
            if rng.chance(0.3) {
                input.push_str(&format!("own{label}x{}", rng.below(OWN_WORDS)));
            } else {
                input.push_str(&format!("w{}", rng.below(COMMON_WORDS)));
            }
        }
        let centre = &self.centres[label];
        let embedding: Vec<f32> = centre
            .iter()
            .map(|value| value + 0.8 * (rng.unit() as f32 - 0.5))
            .collect();
        let teacher = if rng.chance(1.0 / 30.0) {
            rng.below(LABELS)
        } else {
            label
        };
        StoredTrace {
            offset,
            trace: Trace {
                id: format!("trace-{offset}"),
                task: tasks[(offset % tasks.len() as u64) as usize].clone(),
                input: Some(input),
                withheld: None,
                embedder: (self.dimension > 0).then(|| "synthetic".to_owned()),
                embedding: (self.dimension > 0).then_some(embedding),
                teacher: format!("label-{teacher:02}"),
                ground_truth: None,
                timestamp: DateTime::from_timestamp(1_700_000_000 + (offset / 10) as i64, 0),
                metadata: BTreeMap::new(),
                routing: None,
            },
        }
    }
}
