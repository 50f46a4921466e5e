//! Embeddings for the traces of files, made by an embedder.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use tracer_features::embed::{Embedder, EmbedderConfig, EmbedderKind, embed_all};
use tracer_trace::{TaskName, Trace};

use crate::{
    config::{Config, ConfigError},
    embedders::open_one,
};

/// Which embedder makes the embeddings of a file's traces.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EmbeddingArgs {
    /// Embed the traces: `static:DIR`, `bert:DIR`, or `task:NAME` as that task's
    /// configuration says
    #[arg(long, value_name = "EMBEDDER", conflicts_with = "embeddings")]
    embedder: Option<String>,
}

impl EmbeddingArgs {
    /// Opens the embedder that is asked for.
    pub(crate) async fn open(&self, config: &Config) -> anyhow::Result<Option<Arc<dyn Embedder>>> {
        let Some(asked) = &self.embedder else {
            return Ok(None);
        };
        let embedder = asked_for(asked, config)?;
        let opened = open_one("--embedder", &embedder, None).await?;
        if opened.is_none() {
            bail!("--embedder {asked}: no embedder is configured for this task");
        }
        Ok(opened)
    }
}

/// What `--embedder` asks for.
fn asked_for(asked: &str, config: &Config) -> anyhow::Result<EmbedderConfig> {
    let model = |kind, model: &str| EmbedderConfig {
        kind,
        model: model.to_owned(),
        ..EmbedderConfig::default()
    };
    match asked.split_once(':') {
        Some(("static", directory)) => Ok(model(EmbedderKind::Static, directory)),
        Some(("bert", directory)) => Ok(model(EmbedderKind::Bert, directory)),
        Some(("task", name)) => {
            let name = TaskName::new(name).with_context(|| format!("--embedder {asked}"))?;
            let task = config.tasks.get(&name).unwrap_or(&config.task_defaults);
            Ok(task.embedder.clone())
        }
        _ => {
            let expected = "expected static:DIR, bert:DIR or task:NAME";
            Err(ConfigError::new(format!("--embedder {asked}: {expected}")).into())
        }
    }
}

/// Gives every trace with a text an embedding.
pub(crate) async fn embed(embedder: &dyn Embedder, traces: &mut [Trace]) -> anyhow::Result<()> {
    let texts: Vec<(usize, &str)> = traces
        .iter()
        .enumerate()
        .filter_map(|(place, trace)| Some((place, trace.input.as_deref()?)))
        .filter(|(_, text)| !text.trim().is_empty())
        .collect();
    let (places, texts): (Vec<usize>, Vec<&str>) = texts.into_iter().unzip();
    let vectors = embed_all(embedder, &texts, |_| {}).await;
    for (place, vector) in places
        .into_iter()
        .zip(vectors.context("cannot embed the traces")?)
    {
        traces[place].embedding = Some(vector);
        traces[place].embedder = Some(embedder.identity().as_str().to_owned());
    }
    Ok(())
}
