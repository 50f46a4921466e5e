//! `tracer backtest`: the paper's protocol on files. Traces arrive in batches;
//! after each batch a refit on all so far, scored on held-out rows.

mod baseline;

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tracer_features::normalise;
use tracer_learn::{
    Decision, FeatureMode, FitConfig, FitError, GateMode, Input, Outcome, Pipeline, Scratch,
    Verdict,
};
use tracer_trace::Trace;

use self::baseline::Baseline;
use super::{
    embedding::{EmbeddingArgs, embed},
    refit_progress,
};
use crate::{
    config::Config,
    files::{TraceFile, dataset},
};

/// Arguments of `tracer backtest`.
#[derive(Args, Debug)]
pub(crate) struct BacktestArgs {
    /// Traces, one JSON object a line, in the order of their arrival.
    #[arg(long, value_name = "FILE")]
    traces: PathBuf,
    /// Their embeddings: float32, C order, a row a line of the traces.
    #[arg(long, value_name = "NPY")]
    embeddings: Option<PathBuf>,
    #[command(flatten)]
    embedding: EmbeddingArgs,
    /// Test traces; without them the last fifth of the traces is held out.
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Embeddings of the test traces.
    #[arg(long, value_name = "NPY", requires = "test")]
    test_embeddings: Option<PathBuf>,
    /// Out-of-distribution inputs, as traces, none of which should be handled.
    #[arg(long, value_name = "FILE")]
    ood: Option<PathBuf>,
    /// Embeddings of the out-of-distribution inputs.
    #[arg(long, value_name = "NPY", requires = "ood")]
    ood_embeddings: Option<PathBuf>,
    /// Target agreements.
    #[arg(long, value_delimiter = ',', default_value = "0.95")]
    alpha: Vec<f64>,
    /// Allowed probability that the promise is broken.
    #[arg(long, default_value_t = 0.05)]
    delta: f64,
    /// The gate's rule.
    #[arg(long, value_enum, default_value_t = Gate::Bound)]
    gate: Gate,
    /// Refit after each of this many equal parts of the traces.
    #[arg(long, default_value_t = 1)]
    batches: usize,
    /// Varies the splits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also give the paper's comparator: one logistic regression on all traces, its gate included,
    /// and the best threshold on its top probability in hindsight, on the test rows themselves.
    #[arg(long)]
    baseline: bool,
    /// Refits after the first one begin at the version before them.
    #[arg(long)]
    incremental: bool,
    #[command(flatten)]
    learning: LearningArgs,
    /// What the candidates may stand on.
    #[arg(long, value_enum, default_value_t = Features::Auto)]
    features: Features,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What a fit on files may be told of the learner.
#[derive(Args, Clone, Debug)]
pub(crate) struct LearningArgs {
    /// Share of in-distribution traffic that the out-of-distribution guard may defer; 0 for no guard.
    #[arg(long, value_name = "SHARE", default_value_t = FitConfig::default().ood_budget)]
    ood_budget: f64,
    /// Candidates to try, separated by commas; all without it.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Candidates not to try.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    skip: Vec<String>,
    /// Above so many training traces a sample stands for all; 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = FitConfig::default().max_fit_traces)]
    max_fit_traces: usize,
    /// What the acceptor looks at, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "CUES")]
    cues: Vec<String>,
}

impl LearningArgs {
    /// Puts the arguments into a configuration.
    pub(crate) fn apply(&self, config: FitConfig) -> anyhow::Result<FitConfig> {
        let mut config = FitConfig {
            ood_budget: self.ood_budget,
            only: self.only.clone(),
            skip: self.skip.clone(),
            max_fit_traces: self.max_fit_traces,
            ..config
        };
        if !self.cues.is_empty() {
            let cues = self
                .cues
                .iter()
                .map(|name| {
                    serde_json::from_value(serde_json::Value::from(name.as_str()))
                        .with_context(|| format!("--cues {name}"))
                })
                .collect::<anyhow::Result<_>>()?;
            config.acceptors = vec![cues];
        }
        config.check().context("bad setting")?;
        Ok(config)
    }
}

/// The gate's rule, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Gate {
    /// The exact lower bound must reach the target.
    Bound,
    /// The point estimate must.
    Point,
}

/// The features, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Features {
    /// Whatever the traces carry.
    Auto,
    /// Embeddings only.
    Dense,
    /// Text only.
    Lexical,
}

impl From<Gate> for GateMode {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Bound => Self::Bound,
            Gate::Point => Self::Point,
        }
    }
}

impl From<Features> for FeatureMode {
    fn from(features: Features) -> Self {
        match features {
            Features::Auto => Self::Auto,
            Features::Dense => Self::Dense,
            Features::Lexical => Self::Lexical,
        }
    }
}

#[derive(Serialize)]
struct Document {
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    baseline: Vec<Baseline>,
}

#[derive(Serialize)]
struct Run {
    alpha: f64,
    batch: usize,
    traces: usize,
    verdict: &'static str,
    reason: Option<String>,
    family: Option<String>,
    surrogate: Option<String>,
    shadow: Shadow,
    test: Test,
    #[serde(skip_serializing_if = "Option::is_none")]
    ood: Option<Ood>,
    fit_seconds: f64,
}

#[derive(Serialize, Default)]
struct Shadow {
    coverage: f64,
    agreement: f64,
    agreement_lower: f64,
    n: usize,
}

#[derive(Serialize)]
struct Test {
    coverage: f64,
    agreement: Option<f64>,
    n: usize,
    /// Accuracy of surrogate and teacher together against the ground truth, where it is known.
    accuracy: Option<f64>,
}

#[derive(Serialize)]
struct Ood {
    handled: usize,
    n: usize,
}

/// Runs the backtest and prints its table or document.
pub(crate) async fn run(args: BacktestArgs, config: &Config) -> anyhow::Result<()> {
    let embedder = args.embedding.open(config).await?;
    let read = |path: &Option<PathBuf>, embeddings: &Option<PathBuf>| {
        let path = path.as_ref();
        path.map(|path| TraceFile::read(path, embeddings.as_ref()))
            .transpose()
    };
    let mut files = Files {
        traces: TraceFile::read(&args.traces, args.embeddings.as_ref())?,
        test: read(&args.test, &args.test_embeddings)?,
        ood: read(&args.ood, &args.ood_embeddings)?,
    };
    if let Some(embedder) = embedder {
        let others = files.test.iter_mut().chain(&mut files.ood);
        for file in std::iter::once(&mut files.traces).chain(others) {
            embed(embedder.as_ref(), &mut file.traces).await?;
        }
    }
    // A refit keeps its thread busy for long.
    tokio::task::spawn_blocking(move || backtest(&args, files)).await?
}

/// What is read, with the embeddings that were asked for.
struct Files {
    traces: TraceFile,
    test: Option<TraceFile>,
    ood: Option<TraceFile>,
}

fn backtest(args: &BacktestArgs, files: Files) -> anyhow::Result<()> {
    let Files { traces, test, ood } = files;
    let task = traces.task().to_owned();
    let mut traces = traces.traces;
    let test = match test {
        Some(test) => test.traces,
        None => traces.split_off(traces.len() - traces.len() / 5),
    };
    if args.batches == 0 || args.batches > traces.len() {
        bail!(
            "--batches {}: expected 1 to the number of traces, {}",
            args.batches,
            traces.len()
        );
    }
    let config = args.learning.apply(FitConfig {
        targets: args.alpha.clone(),
        delta: args.delta,
        gate: args.gate.into(),
        features: args.features.into(),
        seed: args.seed,
        ..FitConfig::default()
    })?;

    let mut document = Document {
        runs: Vec::new(),
        baseline: Vec::new(),
    };
    let mut last: Option<Pipeline> = None;
    for batch in 1..=args.batches {
        let arrived = traces.len() * batch / args.batches;
        let data = dataset(&traces[..arrived])?;
        let outcomes =
            refit_progress(
                &format!("batch {batch}/{}", args.batches),
                |progress| match last.as_ref().filter(|_| args.incremental) {
                    Some(previous) => {
                        tracer_learn::refit_from(&task, &data, &config, previous, progress)
                    }
                    None => tracer_learn::refit(&task, &data, &config, progress),
                },
            );
        match outcomes {
            Ok(outcomes) => {
                for outcome in &outcomes {
                    document
                        .runs
                        .push(scored_run(batch, arrived, outcome, &test, ood.as_ref())?);
                }
                last = outcomes.into_iter().find_map(|o| o.pipeline).or(last);
            }
            Err(FitError::Setting(e)) => return Err(e.into()),
            Err(refusal) => {
                document.runs.extend(
                    args.alpha
                        .iter()
                        .map(|&a| refused_run(a, batch, arrived, &refusal, test.len())),
                );
            }
        }
    }
    if args.baseline {
        document.baseline = baseline::hindsight(&dataset(&traces)?, &config, &test);
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        print_table(&mut out, &document)?;
    }
    Ok(())
}

fn refused_run(alpha: f64, batch: usize, traces: usize, refusal: &FitError, n: usize) -> Run {
    Run {
        alpha,
        batch,
        traces,
        verdict: "refused",
        reason: Some(refusal.to_string()),
        family: None,
        surrogate: None,
        shadow: Shadow::default(),
        test: Test {
            coverage: 0.0,
            agreement: None,
            n,
            accuracy: None,
        },
        ood: None,
        fit_seconds: 0.0,
    }
}

fn scored_run(
    batch: usize,
    traces: usize,
    outcome: &Outcome,
    test: &[Trace],
    ood: Option<&TraceFile>,
) -> anyhow::Result<Run> {
    let (verdict, reason) = match &outcome.verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Refused { reason } => ("refused", Some(reason.clone())),
    };
    let (test, ood) = match &outcome.pipeline {
        Some(pipeline) => {
            let ood = ood.map(|file| -> anyhow::Result<Ood> {
                let handled = answers(pipeline, &file.traces)?
                    .iter()
                    .filter(|a| a.is_some())
                    .count();
                Ok(Ood {
                    handled,
                    n: file.traces.len(),
                })
            });
            (score(pipeline, test)?, ood.transpose()?)
        }
        None => (
            Test {
                coverage: 0.0,
                agreement: None,
                n: test.len(),
                accuracy: None,
            },
            ood.map(|file| Ood {
                handled: 0,
                n: file.traces.len(),
            }),
        ),
    };
    Ok(Run {
        alpha: outcome.target,
        batch,
        traces,
        verdict,
        reason,
        family: Some(outcome.family.to_string()),
        surrogate: Some(outcome.surrogate.clone()),
        shadow: Shadow {
            coverage: outcome.shadow.coverage,
            agreement: outcome.shadow.agreement,
            agreement_lower: outcome.shadow.agreement_lower,
            n: outcome.shadow.n,
        },
        test,
        ood,
        fit_seconds: outcome.fit_seconds,
    })
}

/// The surrogate's label for each handled trace; `None` where the pipeline defers.
fn answers<'p>(pipeline: &'p Pipeline, traces: &[Trace]) -> anyhow::Result<Vec<Option<&'p str>>> {
    let mut scratch = Scratch::default();
    traces
        .iter()
        .map(|trace| {
            let decision = pipeline
                .decide(input(trace), &mut scratch)
                .with_context(|| format!("trace {}", trace.id))?;
            Ok(match decision {
                Decision::Handled { label, .. } => Some(pipeline.labels()[label].as_str()),
                Decision::Deferred { .. } => None,
            })
        })
        .collect()
}

fn input(trace: &Trace) -> Input<'_> {
    Input {
        text: trace.input.as_deref(),
        embedding: trace.embedding.as_deref(),
    }
}

fn score(pipeline: &Pipeline, test: &[Trace]) -> anyhow::Result<Test> {
    let answers = answers(pipeline, test)?;
    let handled = answers.iter().flatten().count();
    let agree = answers
        .iter()
        .zip(test)
        .filter(|(a, t)| a.is_some_and(|a| normalise(a) == normalise(&t.teacher)))
        .count();
    let known: Vec<bool> = answers
        .iter()
        .zip(test)
        .filter_map(|(a, t)| {
            t.ground_truth
                .as_deref()
                .map(|truth| normalise(a.unwrap_or(&t.teacher)) == normalise(truth))
        })
        .collect();
    Ok(Test {
        coverage: handled as f64 / test.len().max(1) as f64,
        agreement: (handled > 0).then(|| agree as f64 / handled as f64),
        n: test.len(),
        accuracy: (!known.is_empty())
            .then(|| known.iter().filter(|k| **k).count() as f64 / known.len() as f64),
    })
}

fn print_table(out: &mut impl std::io::Write, document: &Document) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>6} {:>5} {:>7}  {:<8} {:<7} {:<17} {:>8} {:>7} {:>7}  {:>8} {:>7} {:>7}",
        "alpha",
        "batch",
        "traces",
        "verdict",
        "family",
        "surrogate",
        "coverage",
        "TA",
        "lower",
        "test cov",
        "test TA",
        "fit s"
    )?;
    for run in &document.runs {
        writeln!(
            out,
            "{:>6} {:>5} {:>7}  {:<8} {:<7} {:<17} {:>8.3} {:>7.3} {:>7.3}  {:>8.3} {:>7} {:>7.1}",
            run.alpha,
            run.batch,
            run.traces,
            run.verdict,
            run.family.as_deref().unwrap_or("–"),
            run.surrogate.as_deref().unwrap_or("–"),
            run.shadow.coverage,
            run.shadow.agreement,
            run.shadow.agreement_lower,
            run.test.coverage,
            run.test
                .agreement
                .map_or_else(|| "–".to_owned(), |a| format!("{a:.3}")),
            run.fit_seconds,
        )?;
        if let Some(reason) = &run.reason {
            writeln!(out, "{:>22}{reason}", "")?;
        }
        if let Some(ood) = &run.ood {
            writeln!(
                out,
                "{:>22}out of distribution: {} of {} handled",
                "", ood.handled, ood.n
            )?;
        }
    }
    for b in &document.baseline {
        writeln!(
            out,
            "baseline, with hindsight, at {}: coverage {:.3}, agreement {:.3}",
            b.alpha, b.coverage, b.agreement
        )?;
    }
    Ok(())
}
