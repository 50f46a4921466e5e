//! Many texts at once, for refits and files.

use std::time::Duration;

use super::{EmbedError, Embedder};

/// How often a busy embedder is asked again, and how long is waited in between. Others
/// may keep it busy: requests that are served go before a refit.
const PATIENCE: (u32, Duration) = (600, Duration::from_millis(100));

/// Embeds a list of texts, in order, a part at a time. `progress` is told how many are
/// done. All or none.
///
/// The vectors of a text are made anew each time: whoever embeds the same texts again
/// and again keeps them.
pub async fn embed_all(
    embedder: &dyn Embedder,
    texts: &[&str],
    mut progress: impl FnMut(usize) + Send,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let mut vectors = Vec::with_capacity(texts.len());
    for part in texts.chunks(embedder.bulk_size().max(1)) {
        let mut asked = 0;
        let part = loop {
            let owned = part.iter().map(|text| (*text).to_owned()).collect();
            match embedder.embed(owned).await {
                Err(EmbedError::Busy) if asked < PATIENCE.0 => {
                    asked += 1;
                    tokio::time::sleep(PATIENCE.1).await;
                }
                answer => break answer?,
            }
        };
        vectors.extend(part);
        progress(vectors.len());
    }
    Ok(vectors)
}
