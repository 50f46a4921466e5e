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

/// Gives every trace an embedding of this embedder, as a refit does: one that was sent stays
/// where it is this embedder's, any other is made anew of the text. A trace that has neither
/// then is left out.
pub(crate) async fn embed(embedder: &dyn Embedder, traces: &mut Vec<Trace>) -> anyhow::Result<()> {
    let identity = embedder.identity();
    for trace in traces.iter_mut() {
        let dimension = trace.embedding.as_ref().map(Vec::len);
        let own = trace.embedder.as_deref() == Some(identity.as_str())
            && dimension == Some(identity.dimension());
        if !own {
            (trace.embedding, trace.embedder) = (None, None);
        }
    }
    let texts: Vec<(usize, &str)> = traces
        .iter()
        .enumerate()
        .filter(|(_, trace)| trace.embedding.is_none())
        .filter_map(|(place, trace)| Some((place, text(trace)?)))
        .collect();
    let (places, texts): (Vec<usize>, Vec<&str>) = texts.into_iter().unzip();
    let embedded = embed_all(embedder, &texts, |_| {}).await;
    let embedded = embedded.context("cannot embed the traces")?;
    if let Some(error) = &embedded.refusal {
        let texts = embedded.refused;
        tracing::warn!(texts, %error, "texts that the embedder refuses have no embedding");
    }
    for (place, vector) in places.into_iter().zip(embedded.vectors) {
        let named = vector.is_some().then(|| identity.as_str().to_owned());
        (traces[place].embedding, traces[place].embedder) = (vector, named);
    }
    let all = traces.len();
    traces.retain(|trace| trace.embedding.is_some() || text(trace).is_some());
    if traces.is_empty() {
        bail!("no trace has a text, or an embedding of {identity}");
    }
    if traces.len() < all {
        let left_out = all - traces.len();
        tracing::warn!(left_out, %identity, "traces without a text, and without an embedding of this embedder, are left out");
    }
    Ok(())
}

fn text(trace: &Trace) -> Option<&str> {
    let text = trace.input.as_deref();
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use tracer_features::embed::{EmbedError, Identity};
    use tracer_trace::{Format, Limits, Origin, decode};

    use super::*;

    /// A text becomes its length.
    #[derive(Debug)]
    struct Fake(Identity);

    #[async_trait::async_trait]
    impl Embedder for Fake {
        fn identity(&self) -> &Identity {
            &self.0
        }

        async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
            if texts.iter().any(|text| text == "refused") {
                let detail = "no".to_owned();
                return Err(EmbedError::Refused { detail });
            }
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    fn traces(lines: &[&str]) -> Vec<Trace> {
        let origin = Origin {
            topic: "t",
            partition: 0,
            offset: 0,
            timestamp_ms: None,
        };
        let read = |line: &&str| {
            let line = format!(r#"{{"teacher": "x", {line}}}"#);
            decode(line.as_bytes(), &origin, Format::Json, &Limits::default()).unwrap()
        };
        lines.iter().map(read).collect()
    }

    #[tokio::test]
    async fn another_models_embeddings_are_not_used_and_who_has_none_is_left_out() {
        let fake = Fake(Identity::named("fake", 1));
        let mut all = traces(&[
            r#""input": "bb""#,
            r#""embedding": [9], "embedder": "other""#,
            r#""embedding": [9], "embedder": "fake""#,
            r#""input": "ccc", "embedding": [9], "embedder": "other""#,
            r#""input": "d", "embedding": [8], "embedder": "fake""#,
            r#""input": "refused", "embedding": [9]"#,
        ]);
        embed(&fake, &mut all).await.unwrap();
        let vectors: Vec<Option<f32>> = all
            .iter()
            .map(|trace| trace.embedding.as_ref().map(|vector| vector[0]))
            .collect();
        assert_eq!(vectors, [Some(2.0), Some(9.0), Some(3.0), Some(8.0), None]);
        let mut foreign = traces(&[r#""embedding": [9], "embedder": "other""#]);
        let error = embed(&fake, &mut foreign).await.unwrap_err().to_string();
        assert!(error.contains("embedding of fake"), "{error}");
    }
}
