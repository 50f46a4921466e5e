//! Embeddings of texts that come without one, where the task has an embedder and its
//! pipeline stands on embeddings.
//!
//! An embedder that fails is no error of the request: the input is then decided without
//! an embedding, which a pipeline that needs one defers.

use std::time::Instant;

use tracer_proto::v1;
use tracer_trace::Limits;

use crate::{catalog::Task, metrics::EmbedMetrics};

/// Embeds those of the inputs that need it, all together.
///
/// Nothing is embedded for a pipeline that decides nothing or was fitted on the vectors
/// of another embedder, nor for a request that will be refused.
pub(crate) async fn complete(
    task: &Task,
    inputs: &mut [v1::Input],
    limits: &Limits,
    metrics: &EmbedMetrics,
) {
    let Some(embedder) = &task.embedder else {
        return;
    };
    let Some(serving) = task.serving.as_deref().filter(|_| !task.suspended) else {
        return;
    };
    if serving.embedding_dimension.is_none() || task.embeds_otherwise(serving) {
        return;
    }
    if inputs
        .iter()
        .any(|input| input.text.len() > limits.max_input_bytes)
    {
        return;
    }
    let needs =
        |input: &&mut v1::Input| input.embedding.is_empty() && !input.text.trim().is_empty();
    let needy: Vec<&mut v1::Input> = inputs.iter_mut().filter(needs).collect();
    if needy.is_empty() {
        return;
    }
    let started = Instant::now();
    let texts = needy.iter().map(|input| input.text.clone()).collect();
    match embedder.embed(texts).await {
        Ok(vectors) => {
            for (input, vector) in needy.into_iter().zip(vectors) {
                input.embedding = vector;
                embedder.identity().as_str().clone_into(&mut input.embedder);
            }
        }
        Err(error) => {
            metrics.failures.increment(1);
            tracing::debug!(task = %task.name, %error, "a request is decided without embeddings");
        }
    }
    metrics.seconds.record(started.elapsed().as_secs_f64());
}
