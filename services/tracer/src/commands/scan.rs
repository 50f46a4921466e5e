//! `tracer scan`: the first look at a file of traces. Nothing is trained to serve,
//! certified or published.

mod read;

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tracer_explain::scan::{Prices, ScanReport};
use tracer_learn::{FitConfig, FitError, scan_config};

use super::{backtest::Features, refit_progress};
use crate::output;

/// Targets at the most.
const TARGETS: usize = 10;
/// The audits that a router asks for unless configured otherwise.
const AUDIT_RATE: f64 = 0.02;

/// Arguments of `tracer scan`.
#[derive(Args, Debug)]
pub(crate) struct ScanArgs {
    /// Traces, one JSON object a line, in the order of their arrival
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Their embeddings: float32, C order, a row a line of the traces
    #[arg(long, value_name = "NPY")]
    embeddings: Option<PathBuf>,
    /// The task to look at; without it the commonest of the file
    #[arg(long)]
    task: Option<String>,
    /// Target agreements
    #[arg(long, value_delimiter = ',', default_value = "0.90,0.95,0.98")]
    alpha: Vec<f64>,
    /// Allowed probability that the promise is broken
    #[arg(long, default_value_t = 0.05)]
    delta: f64,
    /// What the surrogates may stand on
    #[arg(long, value_enum, default_value_t = Features::Auto)]
    features: Features,
    /// Calls of the teacher a day
    #[arg(long, value_name = "CALLS", value_parser = amount)]
    calls_per_day: Option<f64>,
    /// What one call costs
    #[arg(long, value_name = "DOLLARS", value_parser = amount)]
    call_dollars: Option<f64>,
    /// Varies the splits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write a page to this file
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn amount(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|amount: &f64| (0.0..=1e12).contains(amount))
        .ok_or_else(|| "expected a number from 0 to 10^12".to_owned())
}

/// Looks at the file and says what can be said. Fails only where the file is unusable.
pub(crate) async fn run(args: ScanArgs) -> anyhow::Result<()> {
    // The fits keep their thread busy for long.
    tokio::task::spawn_blocking(move || scan(&args)).await?
}

fn scan(args: &ScanArgs) -> anyhow::Result<()> {
    if args.alpha.len() > TARGETS {
        bail!("--alpha: {} targets; at most {TARGETS}", args.alpha.len());
    }
    let config = FitConfig {
        targets: args.alpha.clone(),
        delta: args.delta,
        features: args.features.into(),
        seed: args.seed,
        ..scan_config()
    };
    config.check().context("bad setting")?;
    let found = read::read(&args.file, args.embeddings.as_deref(), args.task.as_deref())?;
    let scanned = refit_progress("scan", |progress| {
        tracer_learn::scan(&found.facts.task, &found.data, &config, progress)
    });
    let prices = Prices {
        calls_per_day: args.calls_per_day,
        call_dollars: args.call_dollars,
        audit_rate: AUDIT_RATE,
    };
    let scanned = match &scanned {
        Err(FitError::Setting(error)) => return Err(error.clone().into()),
        Err(FitError::TooFewTraces { have, need }) => Err(format!(
            "{have} usable traces; a first look needs at least {need}, a refit {}",
            config.min_traces
        )),
        other => other.as_ref().map_err(ToString::to_string),
    };
    let report = ScanReport::new(found.facts, &found.data, scanned, args.delta, prices);
    if let Some(path) = &args.html {
        fs::write(path, report.html())
            .with_context(|| format!("cannot write {}", path.display()))?;
        output::say(format_args!("written to {}", path.display()));
    }
    if args.json {
        let document = serde_json::to_string_pretty(&report)?;
        output::line(document);
    } else {
        // A reader who has gone away is no error.
        let _ = std::io::stdout().lock().write_all(report.text().as_bytes());
    }
    Ok(())
}
