//! Embeddings of texts that come without one, where the task has an embedder and its
//! pipeline stands on embeddings.
//!
//! An embedder that fails is no error of the request: the input is then decided without
//! an embedding, which a pipeline that needs one defers. One with more to do than it can
//! is: the request is turned away as any other that comes when there is too much.

use std::{sync::Arc, time::Instant};

use tracer_features::embed::{EmbedError, Embedder, embed_each};
use tracer_proto::v1;
use tracer_trace::Limits;

use crate::{
    catalog::Task,
    metrics::EmbedMetrics,
    validate::{self, Place},
};

/// Texts of a request that are searched for because the embedder refuses them. Further
/// ones share the fate of those that came with them.
const MOST_REFUSED: usize = 16;

/// The embedder has too much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy;

/// What embeds the texts of a task that come without an embedding. Nothing is embedded
/// for a pipeline that decides nothing, or was fitted on the vectors of another embedder.
pub(crate) fn by(task: &Task) -> Option<&Arc<dyn Embedder>> {
    let embedder = task.embedder.as_ref()?;
    let serving = task.serving.as_deref().filter(|_| !task.suspended)?;
    let stands_on_them = serving.embedding_dimension.is_some() && !task.embeds_otherwise(serving);
    stands_on_them.then_some(embedder)
}

/// Whether an input is one that its task's embedder embeds.
pub(crate) fn needs(input: &v1::Input) -> bool {
    input.embedding.is_empty() && !input.text.trim().is_empty()
}

/// Embeds those of the inputs that need it, all together. Nothing is embedded for a
/// request that will be refused. A text that the embedder refuses stays without an
/// embedding, the others do not.
pub(crate) async fn complete(
    task: &Task,
    inputs: &mut [v1::Input],
    limits: &Limits,
    metrics: &EmbedMetrics,
) -> Result<(), Busy> {
    let Some(embedder) = by(task) else {
        return Ok(());
    };
    let refused = |input| validate::input(input, Place::Single, limits).is_err();
    if inputs.iter().any(refused) {
        return Ok(());
    }
    let needy: Vec<&mut v1::Input> = inputs.iter_mut().filter(|input| needs(input)).collect();
    if needy.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let texts: Vec<&str> = needy.iter().map(|input| input.text.as_str()).collect();
    let embedded = embed_each(embedder.as_ref(), &texts, MOST_REFUSED).await;
    metrics.seconds.record(started.elapsed().as_secs_f64());
    match embedded {
        Ok(embedded) => {
            if let Some(error) = embedded.refusal {
                metrics.failures.increment(1);
                tracing::debug!(task = %task.name, inputs = embedded.refused, %error, "inputs are decided without embeddings");
            }
            for (input, vector) in needy.into_iter().zip(embedded.vectors) {
                if let Some(vector) = vector {
                    input.embedding = vector;
                    embedder.identity().as_str().clone_into(&mut input.embedder);
                }
            }
        }
        Err(EmbedError::Busy) => return Err(Busy),
        Err(error) => {
            metrics.failures.increment(1);
            tracing::debug!(task = %task.name, %error, "a request is decided without embeddings");
        }
    }
    Ok(())
}
