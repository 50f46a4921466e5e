//! `tracer labels`: inputs whose labels are worth a person's time.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tracer_learn::Pipeline;
use tracer_store::{PipelineVersion, Registry, ShardLog};
use tracer_trace::TaskName;

use super::{deployment::store, pipelines::named};
use crate::{
    config::Config,
    embedders::open_of,
    labels::{self, Traces},
    output,
};

/// The most lines of a queue.
const MOST: usize = 2_000;

/// Arguments of `tracer labels`.
#[derive(Args, Debug)]
pub(crate) struct LabelsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the deferred inputs that are most worth a label, one JSON object a line
    Queue(QueueArgs),
}

#[derive(Args, Debug)]
struct QueueArgs {
    /// The task
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    /// The version whose deferrals count [default: the active one]
    #[arg(id = "pipeline", long = "pipeline", value_name = "VERSION")]
    version: Option<PipelineVersion>,
    /// At most so many lines
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// The file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(args: LabelsArgs, config: Config) -> anyhow::Result<()> {
    let Command::Queue(args) = args.command;
    if args.limit == 0 || args.limit > MOST {
        bail!("--limit is {}: it must be from 1 to {MOST}", args.limit);
    }
    let store = store(&config)?;
    let (shards, registry) = (ShardLog::new(store.clone()), Registry::new(store.clone()));
    let version = named(&registry, &args.task, args.version).await?;
    let loaded = registry.load(&args.task, version).await?;
    let pipeline = Pipeline::from_bytes(&loaded.model)
        .with_context(|| format!("version {} cannot be read", version.get()))?;
    // Opened for a version alone that stands on embeddings, and used for its own alone.
    let embedder = match &loaded.manifest.embedder {
        Some(made_by) => open_of(&config, &args.task, &store)
            .await?
            .filter(|embedder| embedder.identity().as_str() == made_by),
        None => None,
    };
    let traces = Traces {
        shards: &shards,
        task: &args.task,
        embedder: embedder.as_deref(),
    };
    let (questions, looked) = labels::queue(&traces, pipeline, args.limit).await?;
    let mut lines = Vec::new();
    for question in &questions {
        serde_json::to_writer(&mut lines, question)?;
        lines.push(b'\n');
    }
    match &args.out {
        Some(path) => {
            let written = File::create(path).and_then(|file| {
                let mut file = BufWriter::new(file);
                file.write_all(&lines)?;
                file.flush()
            });
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        // A reader who has gone away is no error.
        None => drop(std::io::stdout().lock().write_all(&lines)),
    }
    output::say(format_args!(
        "{} lines: of {} traces version {} defers {} and handles {}; {} have a true label, {} it cannot decide",
        questions.len(),
        looked.traces,
        version.get(),
        looked.deferred,
        looked.handled,
        looked.labelled,
        looked.undecidable,
    ));
    Ok(())
}
