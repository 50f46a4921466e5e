//! `tracer fit`: one refit on files, or a published version made again.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use tracer_explain::{Reporter, TraceRef};
use tracer_learn::{FitConfig, Verdict};
use tracer_store::PipelineVersion;
use tracer_trace::TaskName;

use super::{
    backtest::{Features, Gate, LearningArgs},
    embedding::{EmbeddingArgs, embed},
    refit_progress, reproduce,
};
use crate::{
    config::Config,
    files::{TraceFile, dataset},
};

/// Arguments of `tracer fit`.
#[derive(Args, Debug)]
pub(crate) struct FitArgs {
    /// Traces, one JSON object a line.
    #[arg(long, value_name = "FILE", required_unless_present = "reproduce")]
    traces: Option<PathBuf>,
    /// Make this version of the store again, and compare the bytes.
    #[arg(long, value_name = "VERSION", requires = "task", conflicts_with_all = ["traces", "embeddings", "embedder", "seed"])]
    reproduce: Option<PipelineVersion>,
    /// The task of that version.
    #[arg(long, value_name = "NAME", requires = "reproduce")]
    task: Option<TaskName>,
    /// Their embeddings: float32, C order, a row a line of the traces.
    #[arg(long, value_name = "NPY")]
    embeddings: Option<PathBuf>,
    #[command(flatten)]
    embedding: EmbeddingArgs,
    /// Target agreement.
    #[arg(long, default_value_t = 0.95)]
    alpha: f64,
    /// Allowed probability that the promise is broken.
    #[arg(long, default_value_t = 0.05)]
    delta: f64,
    /// The gate's rule.
    #[arg(long, value_enum, default_value_t = Gate::Bound)]
    gate: Gate,
    /// What the candidates may stand on.
    #[arg(long, value_enum, default_value_t = Features::Auto)]
    features: Features,
    /// Varies the splits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    learning: LearningArgs,
    /// Where model.safetensors, report.json and report.html go.
    #[arg(long, value_name = "DIR", required_unless_present = "reproduce")]
    out: Option<PathBuf>,
    /// Print report.json.
    #[arg(long)]
    json: bool,
}

/// Fits, writes the files and says how it went. A refusal writes the report
/// alone and fails.
pub(crate) async fn run(args: FitArgs, config: &Config) -> anyhow::Result<()> {
    if let (Some(version), Some(task)) = (args.reproduce, &args.task) {
        return reproduce::run(task, version, args.out.as_deref(), args.json, config).await;
    }
    // clap asks for both.
    let (traces, to) =
        (args.traces.clone().zip(args.out.clone())).context("--traces and --out are needed")?;
    let embedder = args.embedding.open(config).await?;
    let mut file = TraceFile::read(&traces, args.embeddings.as_ref())?;
    if let Some(embedder) = embedder {
        embed(embedder.as_ref(), &mut file.traces).await?;
    }
    // A refit keeps its thread busy for long.
    tokio::task::spawn_blocking(move || fit(&args, &file, &to)).await?
}

fn fit(args: &FitArgs, file: &TraceFile, to: &Path) -> anyhow::Result<()> {
    let data = dataset(&file.traces)?;
    let config = args.learning.apply(FitConfig {
        targets: vec![args.alpha],
        delta: args.delta,
        gate: args.gate.into(),
        features: args.features.into(),
        seed: args.seed,
        ..FitConfig::default()
    })?;
    let result = refit_progress("fit", |progress| {
        tracer_learn::refit(file.task(), &data, &config, progress)
    });
    let result = match result {
        Ok(mut outcomes) => Ok(outcomes
            .pop()
            .context("a refit gives an outcome for its target")?),
        Err(error) => Err(error),
    };
    let traces = file.traces.iter().map(|trace| TraceRef {
        id: trace.id.clone(),
        time: trace.timestamp,
    });
    let traces: Vec<TraceRef> = traces.collect();
    let report = Reporter::new(file.task(), &data, result.as_ref(), &config)
        .traces(&traces)
        .files();
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = to.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    write("report.json", &report.json)?;
    write("report.html", &report.html)?;
    let pipeline = result.as_ref().ok().and_then(|o| o.pipeline.as_ref());
    if let Some(pipeline) = pipeline {
        write("model.safetensors", &pipeline.to_bytes())?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        out.write_all(&report.json)?;
        writeln!(out)?;
    } else if let Ok(outcome) = &result {
        writeln!(
            out,
            "{} {}: coverage {:.3}, agreement {:.3} (at least {:.3} at confidence {:.2}) on {} shadow traces; {} trained on",
            outcome.family,
            outcome.surrogate,
            outcome.shadow.coverage,
            outcome.shadow.agreement,
            outcome.shadow.agreement_lower,
            1.0 - args.delta,
            outcome.shadow.n,
            outcome.training_traces,
        )?;
        writeln!(out, "written to {}", to.display())?;
    }
    match result?.verdict {
        Verdict::Passed => Ok(()),
        Verdict::Refused { reason } => bail!("refused: {reason}"),
    }
}
