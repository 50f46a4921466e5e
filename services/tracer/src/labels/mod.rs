//! Which inputs a person should label: of those that the active version defers, the ones
//! from whose labels most is learned.
//!
//! The value of a label is the surrogate's doubt times the density of deferred traffic
//! around the input (information density: Settles and Craven, *An Analysis of Active
//! Learning Strategies for Sequence Labeling Tasks*, EMNLP 2008). Of inputs that are nearly
//! alike, one is asked about.
//!
//! The traces are read a shard at a time, to draw a sample of the deferred inputs that stands
//! for all of them. What an input is worth is known when the sample is, so where more is
//! deferred than a pool may hold they are read again to rank it. What is held in memory is
//! bounded by the sample, the pool and one shard, whatever the traces.

mod pool;
mod sketch;

use std::collections::HashMap;

use anyhow::Context as _;
use serde::Serialize;
use tracer_features::{
    HashedText, Hasher, Withheld, Withholder,
    embed::{Embedder, embed_all},
    normalise, stable_hash,
};
use tracer_learn::{Dataset, DecideError, Decision, DeferReason, Pipeline, Row, Scratch};
use tracer_store::ShardLog;
use tracer_trace::{StoredTrace, TaskName, Trace};

use self::{
    pool::{First, Pool},
    sketch::{Sketch, Sketcher},
};

/// Labels of the surrogate that are shown.
const SHOWN: usize = 3;

/// An input that a person should label.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Question {
    /// Of the trace.
    pub(crate) id: String,
    /// The text; absent where it may not be kept.
    pub(crate) input: Option<String>,
    /// A hash of the text, where it may not be kept.
    pub(crate) input_hash: Option<String>,
    /// What the teacher said.
    pub(crate) teacher: String,
    /// The most probable labels of the surrogate.
    pub(crate) surrogate: Vec<Probable>,
    /// The acceptor's score, which is below the threshold unless the input is foreign.
    pub(crate) score: f32,
    /// Why it is deferred.
    pub(crate) reason: &'static str,
    /// Doubt times density.
    pub(crate) value: f64,
    /// How little the surrogate knows, from 0 to 1.
    pub(crate) doubt: f64,
    /// How much of the deferred traffic is like it, from 0 to 1.
    pub(crate) density: f64,
    /// The group of inputs nearly like it, of which it is the one asked about.
    pub(crate) group: Group,
}

/// A label and its probability.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probable {
    pub(crate) label: String,
    pub(crate) probability: f32,
}

/// Inputs that are nearly alike.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Group {
    /// Its number, in the order of the queue.
    pub(crate) id: usize,
    /// Ranked inputs in it.
    pub(crate) inputs: usize,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Looked {
    pub(crate) traces: u64,
    pub(crate) handled: u64,
    pub(crate) deferred: u64,
    /// With a true label already.
    pub(crate) labelled: u64,
    /// That the version cannot decide for want of a feature: no label helps it.
    pub(crate) undecidable: u64,
}

/// An input that was deferred, on its way into the pool.
pub(crate) struct Deferred {
    pub(crate) key: u64,
    pub(crate) question: Question,
    pub(crate) sketch: Sketch,
}

/// The traces of a task.
pub(crate) struct Traces<'a> {
    pub(crate) shards: &'a ShardLog,
    pub(crate) task: &'a TaskName,
    /// What makes the embeddings that the version stands on, of texts that have none of it.
    pub(crate) embedder: Option<&'a dyn Embedder>,
}

/// The questions worth most, the best first.
pub(crate) async fn queue(
    traces: &Traces<'_>,
    pipeline: Pipeline,
    limit: usize,
) -> anyhow::Result<(Vec<Question>, Looked)> {
    let (teller, mut first) = (Teller::new(pipeline), First::default());
    let mut teller = look(
        traces,
        teller,
        |deferred, state: &mut First| state.take(deferred),
        &mut first,
    )
    .await?;
    let looked = std::mem::take(&mut teller.looked);
    let (mut pool, all) = first.into_pool(limit);
    if !all {
        look(
            traces,
            teller,
            |deferred, state: &mut Pool| state.take(deferred),
            &mut pool,
        )
        .await?;
    }
    Ok((pool.finish(limit), looked))
}

/// Passes every deferred input to `each`, in the order of the log.
async fn look<S: Send + 'static + Default>(
    traces: &Traces<'_>,
    mut teller: Teller,
    each: fn(Deferred, &mut S),
    state: &mut S,
) -> anyhow::Result<Teller> {
    let Traces { shards, task, .. } = traces;
    for partition in shards.partitions().await? {
        for info in shards.shards(&partition).await? {
            if !info.rows_by_task.contains_key(task) {
                continue;
            }
            // One that was compacted since it was listed is read where it went.
            let mut rows = shards
                .read_all(std::slice::from_ref(&info), Some(task))
                .await?;
            if let Some(embedder) = traces.embedder {
                embed(embedder, &mut rows).await?;
            }
            let mut taken = std::mem::take(state);
            let done = tokio::task::spawn_blocking(move || {
                for row in rows {
                    if let Some(deferred) = teller.tell(&row) {
                        each(deferred, &mut taken);
                    }
                }
                (teller, taken)
            });
            (teller, *state) = done.await.context("a shard could not be decided")?;
        }
    }
    Ok(teller)
}

/// Gives every trace with a text and without a true label an embedding of this embedder, and
/// takes that of another from it: what it would be decided on is no other's.
async fn embed(embedder: &dyn Embedder, rows: &mut [StoredTrace]) -> anyhow::Result<()> {
    let identity = embedder.identity();
    let mut wanted = Vec::new();
    for (place, StoredTrace { trace, .. }) in rows.iter_mut().enumerate() {
        if trace.embedder.as_deref() == Some(identity.as_str()) && trace.embedding.is_some() {
            continue;
        }
        trace.embedding = None;
        if trace.ground_truth.is_none()
            && trace
                .input
                .as_deref()
                .is_some_and(|text| !text.trim().is_empty())
        {
            wanted.push(place);
        }
    }
    let texts = wanted.iter();
    let texts: Vec<&str> = texts
        .filter_map(|&place| rows[place].trace.input.as_deref())
        .collect();
    let embedded = embed_all(embedder, &texts, |_| {}).await;
    let vectors = embedded.context("the texts cannot be embedded")?.vectors;
    for (place, vector) in wanted.into_iter().zip(vectors) {
        rows[place].trace.embedding = vector;
    }
    Ok(())
}

/// Asks the pipeline about traces.
struct Teller {
    pipeline: Pipeline,
    hasher: Hasher,
    scheme: LexiconScheme,
    sketcher: Sketcher,
    scratch: Scratch,
    looked: Looked,
}

/// Whether withheld texts are cut as the pipeline cuts them; by scheme, for few differ.
type LexiconScheme = HashMap<String, bool>;

impl Teller {
    fn new(pipeline: Pipeline) -> Self {
        Self {
            hasher: Hasher::new(&pipeline.lexicon_config().cloned().unwrap_or_default()),
            pipeline,
            scheme: HashMap::new(),
            sketcher: Sketcher::default(),
            scratch: Scratch::default(),
            looked: Looked::default(),
        }
    }

    /// A trace that is deferred, and that nobody has labelled.
    fn tell(&mut self, row: &StoredTrace) -> Option<Deferred> {
        let trace = &row.trace;
        self.looked.traces += 1;
        if trace.ground_truth.is_some() {
            self.looked.labelled += 1;
            return None;
        }
        let (data, hashed) = self.dataset(trace)?;
        let decision = self.pipeline.decide_row(&data, 0, &mut self.scratch);
        let (reason, score, label) = match decision {
            Ok(Decision::Handled { .. }) => {
                self.looked.handled += 1;
                return None;
            }
            Ok(Decision::Deferred {
                reason: DeferReason::NoEmbedding | DeferReason::NoText,
                ..
            })
            | Err(DecideError::WrongDimension { .. } | DecideError::NotFinite { .. }) => {
                self.looked.undecidable += 1;
                return None;
            }
            Ok(Decision::Deferred {
                reason,
                label,
                score,
            }) => (reason, score, label),
        };
        self.looked.deferred += 1;
        let probabilities = match label {
            Some(_) => self.pipeline.probabilities(&self.scratch),
            None => &[],
        };
        let (reason, doubt) = match reason {
            DeferReason::OutOfDistribution => ("out_of_distribution", 1.0),
            _ => ("low_score", doubt(probabilities)),
        };
        let surrogate = top(&self.pipeline, probabilities);
        let sketch = match &trace.embedding {
            Some(embedding) if data.embedding(0).is_some() => self.sketcher.of_values(embedding),
            _ => Sketcher::of_counts(hashed.as_ref()?.counts()),
        };
        let withheld = trace.withheld.as_ref();
        let key = match (&trace.input, withheld) {
            (Some(text), _) => stable_hash(&[normalise(text).as_bytes()]),
            (None, Some(kept)) => stable_hash(&[kept.hash.as_bytes()]),
            (None, None) => stable_hash(&[trace.id.as_bytes()]),
        };
        Some(Deferred {
            key,
            sketch,
            question: Question {
                id: trace.id.clone(),
                input: trace.input.clone(),
                input_hash: withheld.map(|kept| kept.hash.clone()),
                teacher: trace.teacher.clone(),
                surrogate,
                score,
                reason,
                value: 0.0,
                doubt,
                density: 0.0,
                group: Group::default(),
            },
        })
    }

    /// A dataset of the one trace, and the n-grams of its text.
    fn dataset(&mut self, trace: &Trace) -> Option<(Dataset, Option<HashedText>)> {
        let mut data = Dataset::new();
        let dimension = self.pipeline.card().embedding_dimension;
        let embedding = trace.embedding.as_deref();
        let embedding = embedding.filter(|values| dimension.is_none_or(|d| d == values.len()));
        let config = self.hasher.config();
        let kept = trace.withheld.as_ref().filter(|kept| {
            let known = self.scheme.get(&kept.scheme).copied();
            known.unwrap_or_else(|| {
                let same = Withholder::is_cut_as(&kept.scheme, config);
                self.scheme.insert(kept.scheme.clone(), same);
                same
            })
        });
        let kept = kept.and_then(|kept| {
            let hashed = HashedText::from_counts(config, kept.counts.clone()).ok()?;
            Some(Withheld {
                hash: kept.hash.clone(),
                hashed,
            })
        });
        let hashed = match (&kept, &trace.input) {
            (Some(kept), _) => Some(kept.hashed.clone()),
            (None, Some(text)) => Some(self.hasher.hash(text)),
            (None, None) => None,
        };
        let pushed = if let Some(kept) = kept {
            data.push_withheld(kept, embedding, &trace.teacher).is_ok()
        } else {
            let row = Row {
                text: trace.input.as_deref(),
                embedding,
                label: &trace.teacher,
            };
            data.push(row).is_ok()
        };
        if !pushed {
            self.looked.undecidable += 1;
            return None;
        }
        Some((data, hashed))
    }
}

/// The mean of what the two best labels leave open (one less their margin) and of the
/// entropy, as a share of the largest there is.
fn doubt(probabilities: &[f32]) -> f64 {
    if probabilities.len() < 2 {
        return 1.0;
    }
    let (mut first, mut second, mut entropy) = (0.0_f64, 0.0_f64, 0.0_f64);
    for &p in probabilities {
        let p = f64::from(p);
        if p > first {
            (first, second) = (p, first);
        } else if p > second {
            second = p;
        }
        if p > 0.0 {
            entropy -= p * p.ln();
        }
    }
    let entropy = entropy / (probabilities.len() as f64).ln();
    let doubt = f64::midpoint(1.0 - (first - second), entropy);
    if doubt.is_finite() {
        doubt.clamp(0.0, 1.0)
    } else {
        1.0
    }
}

/// The most probable labels, the first one first; of equals the lower class first.
fn top(pipeline: &Pipeline, probabilities: &[f32]) -> Vec<Probable> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| {
        probabilities[b]
            .total_cmp(&probabilities[a])
            .then(a.cmp(&b))
    });
    let best = order.into_iter().take(SHOWN).filter_map(|class| {
        Some(Probable {
            label: pipeline.labels().get(class)?.clone(),
            probability: probabilities[class],
        })
    });
    best.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_none_to_all() {
        assert_eq!(doubt(&[1.0, 0.0, 0.0]), 0.0);
        assert!((doubt(&[0.25; 4]) - 1.0).abs() < 1e-9);
        assert!(doubt(&[0.5, 0.5, 0.0]) > doubt(&[0.8, 0.1, 0.1]));
        assert_eq!(doubt(&[f32::NAN, 0.5]), doubt(&[f32::NAN, 0.5]));
        assert_eq!(doubt(&[]), 1.0);
    }
}
