//! From a configuration to an embedder.

use std::sync::Arc;

use super::{
    Embedder, EmbedderConfig, EmbedderKind, ModelFiles, OpenError, http::Http, table::Static,
};

/// Opens the embedder that is configured; `None` where embeddings are sent by the client.
///
/// `files` are those of the model, for the kinds that have one. A model is read whole and
/// tried on a text before it is answered. A server is not asked: whether it answers shows
/// when it is needed.
pub async fn open(
    config: &EmbedderConfig,
    files: &dyn ModelFiles,
) -> Result<Option<Arc<dyn Embedder>>, OpenError> {
    config.check()?;
    let embedder: Arc<dyn Embedder> = match config.kind {
        EmbedderKind::None => return Ok(None),
        EmbedderKind::Static => Arc::new(Static::open(config, files).await?),
        EmbedderKind::Http => Arc::new(Http::open(config).await?),
        #[cfg(feature = "bert")]
        EmbedderKind::Bert => Arc::new(super::bert::Bert::open(config, files).await?),
        #[cfg(not(feature = "bert"))]
        EmbedderKind::Bert => {
            let problem = "this build has no \"bert\": build with --features bert";
            return Err(OpenError::setting("kind", problem));
        }
    };
    if config.kind != EmbedderKind::Http {
        let tried = embedder.embed(vec!["where is my order".to_owned()]).await;
        tried.map_err(|error| OpenError::file(files.place("model.safetensors"), error))?;
    }
    tracing::debug!(identity = %embedder.identity(), "an embedder is ready");
    Ok(Some(embedder))
}
