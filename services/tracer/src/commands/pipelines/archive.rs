//! `tracer pipelines export` and `import`: a version in one file.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tracer_learn::{FitConfig, GateMode, Pipeline};
use tracer_store::{Archive, Manifest, Registry};
use tracer_trace::TaskName;

use super::{VersionArgs, show::named};
use crate::{commands::deployment::ByArgs, config::Config, output};

/// The most bytes of an archive that is imported.
const MOST: u64 = 4 << 30;

/// Arguments of `tracer pipelines export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    of: VersionArgs,
    /// The file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `tracer pipelines import`.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The task that it must be of [default: the one it says]
    #[arg(long, value_name = "NAME")]
    task: Option<TaskName>,
    /// Take it although its embeddings are another model's than those of the active version
    #[arg(long)]
    other_embedder: bool,
    /// Take it although it promises less than is asked of the task here
    #[arg(long)]
    other_target: bool,
    /// Check everything, and publish nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    by: ByArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Writes a version to a file.
pub(crate) async fn export(args: &ExportArgs, registry: &Registry) -> anyhow::Result<()> {
    let (of, path) = (&args.of, &args.out);
    let version = named(registry, &of.task, of.version).await?;
    let bytes = registry.export(&of.task, version).await?;
    let mut file =
        fs::File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    let written = std::io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    let sha256 = tracer_store::FileEntry::of(&bytes).sha256;
    if of.json {
        output::json(&json!({
            "task": of.task,
            "version": version,
            "file": path,
            "bytes": bytes.len(),
            "sha256": sha256,
        }));
    } else {
        output::line(format_args!(
            "version {} of task {} is in {}: {} bytes, SHA-256 {sha256}",
            version.get(),
            of.task,
            path.display(),
            bytes.len()
        ));
    }
    Ok(())
}

/// Checks a file and publishes its version.
pub(crate) async fn import(
    args: &ImportArgs,
    registry: &Registry,
    config: &Config,
) -> anyhow::Result<()> {
    let path = args.file.display();
    let size = fs::metadata(&args.file)
        .with_context(|| format!("cannot read {path}"))?
        .len();
    if size > MOST {
        bail!("{path} is refused: it is larger than {MOST} bytes");
    }
    let bytes = fs::read(&args.file).with_context(|| format!("cannot read {path}"))?;
    let archive = Archive::read(&bytes, MOST).with_context(|| format!("{path} is refused"))?;
    let task = args.task.clone().unwrap_or(archive.manifest.task.clone());
    check(&archive, &task).with_context(|| format!("{path} is refused"))?;
    if !args.other_target {
        promises_enough(&archive.manifest, &config.plans().of(&task).fit)
            .with_context(|| format!("{path} is refused"))?;
    }
    if !args.other_embedder {
        let active = registry.active(&task).await?.version;
        if let Some(active) = active {
            let active = registry.manifest(&task, active).await?;
            same_embedder(&archive.manifest, &active)
                .with_context(|| format!("{path} is refused"))?;
        }
    }
    let version = if args.dry_run {
        None
    } else {
        Some(registry.import(&task, &archive, &args.by.author()).await?)
    };
    if args.json {
        output::json(&json!({
            "task": task,
            "version": version,
            "from": archive.manifest.version,
            "dry_run": args.dry_run,
        }));
    } else if let Some(version) = version {
        output::line(format_args!(
            "task {task}: version {} serves, imported from {path} (version {} there)",
            version.get(),
            archive.manifest.version.get()
        ));
    } else {
        output::line(format_args!(
            "{path} is whole, and could be imported for task {task}"
        ));
    }
    Ok(())
}

/// The model can serve, is of the task, and is what the manifest says.
fn check(archive: &Archive, task: &TaskName) -> anyhow::Result<()> {
    let manifest = &archive.manifest;
    let pipeline = Pipeline::from_bytes(archive.model()).context("the model cannot be read")?;
    let card = pipeline.card();
    if manifest.task != *task || card.task != task.as_str() {
        bail!("it is of task {}, not of task {task}", card.task);
    }
    let same = card.family.as_str() == manifest.family
        && card.surrogate == manifest.surrogate
        && card.target_agreement == manifest.target_agreement
        && f64::from(card.threshold) == manifest.threshold
        && card.embedding_dimension == manifest.embedding_dimension
        && pipeline.labels().len() as u64 == manifest.labels;
    if !same || pipeline.labels().is_empty() {
        bail!("its model is not the one that its manifest describes");
    }
    Ok(())
}

/// It was certified for no less than what refits of the task are certified for here.
fn promises_enough(new: &Manifest, asked: &FitConfig) -> anyhow::Result<()> {
    let target = asked.targets.first().copied().unwrap_or_default();
    if new.target_agreement < target || new.delta > asked.delta {
        bail!(
            "it promises an agreement of {} at delta {}, and {target} at delta {} is asked of the task here; --other-target takes it all the same",
            new.target_agreement,
            new.delta,
            asked.delta
        );
    }
    if asked.gate == GateMode::Bound && new.shadow.agreement_lower < target {
        bail!(
            "the lower bound of its agreement, {}, is below the target {target}: it was certified by another gate; --other-target takes it all the same",
            new.shadow.agreement_lower
        );
    }
    Ok(())
}

/// Callers send the embeddings of one model.
fn same_embedder(new: &Manifest, active: &Manifest) -> anyhow::Result<()> {
    let (Some(new_dimension), Some(dimension)) =
        (new.embedding_dimension, active.embedding_dimension)
    else {
        return Ok(());
    };
    if new_dimension != dimension || new.embedder != active.embedder {
        let name = |embedder: &Option<String>| embedder.clone().unwrap_or("unnamed".to_owned());
        bail!(
            "it needs embeddings of {} ({new_dimension} dimensions), the active version those of {} ({dimension}); --other-embedder takes it all the same",
            name(&new.embedder),
            name(&active.embedder)
        );
    }
    Ok(())
}
