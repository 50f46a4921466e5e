//! Whether the newest traces are still what the active version was certified on.
//!
//! The version is replayed over the newest traces that came after those it was fitted on.
//! Two exact tests at level [`LEVEL`] each (Clopper and Pearson, 1934):
//!
//! * *agreement*: of the traces that it handles so few agree with the teacher that the
//!   agreement is below the target. Which of the handled inputs have a teacher label is
//!   chance, not hardness, so this holds with audits alone as well;
//! * *coverage*: it handles a share that differs from the one on its shadow split by more
//!   than both samples explain. Where callers route before they ask the teacher, traces
//!   are mostly of deferred inputs, and it is not tested.
//!
//! Each distinct input counts once. A look that finds nothing says nothing: it starts a
//! refit early, and certifies nothing.

use std::{collections::HashSet, sync::Arc};

use tracer_features::{embed::Embedder, normalise, stable_hash};
use tracer_learn::{
    Decision, Input, Pipeline, Scratch, clopper_pearson_interval, clopper_pearson_upper,
};
use tracer_store::{Registry, ShardInfo, ShardLog, StoreError};
use tracer_trace::{StoredTrace, TaskName, Trace};

use crate::{
    earlier::{Base, active_pipeline},
    embed::embed,
    publish::{Ends, ends_of},
    refit::Partition,
};

/// Newest traces that are looked at.
const NEWEST: usize = 2_000;

/// Fewer than this tell nothing.
const LEAST: u64 = 50;

/// Probability of an alarm by chance, of either test.
const LEVEL: f64 = 0.005;

/// What the newest traces show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    inputs: u64,
    handled: u64,
    agreed: u64,
    /// Whether any was routed before the teacher was asked.
    routed: bool,
}

/// Why the active version is to be refitted, or `None`.
pub(crate) async fn drift(
    shards: &ShardLog,
    registry: &Registry,
    embedder: Option<&Arc<dyn Embedder>>,
    task: &TaskName,
    partitions: &[Partition],
) -> Result<Option<String>, StoreError> {
    let Some(version) = registry.active(task).await?.version else {
        return Ok(None);
    };
    let manifest = match registry.manifest(task, version).await {
        Err(error) if error.is_refusal() => return Ok(None),
        read => read?,
    };
    let Some(earlier) = active_pipeline(registry, task).await? else {
        return Ok(None);
    };
    let newest = newest(shards, task, partitions, &ends_of(&manifest)).await?;
    let newest = newest.into_iter().map(|stored| stored.trace).collect();
    let Some(newest) = with_its_vectors(&earlier, embedder, task, newest).await else {
        return Ok(None);
    };
    let seen = tokio::task::spawn_blocking(move || {
        let pipeline = earlier.pipeline;
        let seen = replay(&pipeline, newest.iter());
        (seen, pipeline.card().target_agreement)
    });
    let Ok((seen, target)) = seen.await else {
        return Ok(None);
    };
    Ok(verdict(
        seen,
        target,
        manifest.shadow.coverage,
        manifest.shadow.n,
    ))
}

/// The traces with the embeddings that a version stands on, if on any; those of another
/// embedder mean nothing to it. `None` when they cannot be made.
async fn with_its_vectors(
    earlier: &Base,
    embedder: Option<&Arc<dyn Embedder>>,
    task: &TaskName,
    mut traces: Vec<Trace>,
) -> Option<Vec<Trace>> {
    if earlier.pipeline.card().embedding_dimension.is_none() {
        return Some(traces);
    }
    if let Some(embedder) = embedder {
        if !earlier.stands_on(Some(embedder.identity().as_str())) {
            return None;
        }
        // Not from the cache: a few texts are made sooner than all that is kept is read.
        let made = embed(task, embedder.as_ref(), None, &mut traces, &|_, _| ()).await;
        if let Err(error) = made {
            tracing::warn!(%task, %error, "the newest traces cannot be embedded, drift is not looked for");
            return None;
        }
    }
    traces.retain(|trace| trace.embedder.is_none() || trace.embedder == earlier.embedder);
    Some(traces)
}

/// The newest traces behind what was seen, at least [`NEWEST`] where there are as many.
async fn newest(
    shards: &ShardLog,
    task: &TaskName,
    partitions: &[Partition],
    seen: &Ends,
) -> Result<Vec<StoredTrace>, StoreError> {
    let rows = |shard: &ShardInfo| shard.rows_by_task.get(task).copied().unwrap_or(0);
    let share = NEWEST.div_ceil(partitions.len().max(1)) as u64;
    let mut all = Vec::new();
    for (partition, infos) in partitions {
        let end = seen.get(partition).copied().unwrap_or_default();
        let mut enough = 0;
        let mut last: Vec<ShardInfo> = Vec::new();
        for shard in infos.iter().rev().take_while(|shard| shard.range.end > end) {
            if enough >= share {
                break;
            }
            enough += rows(shard);
            last.push(shard.clone());
        }
        last.reverse();
        let read = shards.read_all(&last, Some(task)).await?;
        let mut new: Vec<StoredTrace> = read
            .into_iter()
            .filter(|row| row.offset >= end.get())
            .collect();
        // A compacted shard may hold far more than is wanted.
        let beyond = new.len().saturating_sub(share as usize);
        new.drain(..beyond);
        all.extend(new);
    }
    Ok(all)
}

fn replay<'a>(pipeline: &Pipeline, traces: impl Iterator<Item = &'a Trace>) -> Seen {
    let labels: Vec<String> = pipeline.labels().iter().map(|l| normalise(l)).collect();
    let (mut seen, mut scratch, mut inputs) = (Seen::default(), Scratch::default(), HashSet::new());
    for trace in traces {
        seen.routed |= trace
            .routing
            .as_ref()
            .is_some_and(|routing| routing.pipeline_version > 0);
        let embedding = trace.embedding.as_deref();
        let input = match &trace.input {
            Some(text) => stable_hash(&[normalise(text).as_bytes()]),
            // Of a text that is withheld there is nothing to replay.
            None if trace.withheld.is_some() => continue,
            None => {
                let values = embedding.into_iter().flatten();
                let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
                stable_hash(&[&bytes])
            }
        };
        let of = Input {
            text: trace.input.as_deref(),
            embedding,
        };
        // One of another shape is no input of this version.
        let Ok(decision) = pipeline.decide(of, &mut scratch) else {
            continue;
        };
        if !inputs.insert(input) {
            continue;
        }
        seen.inputs += 1;
        if let Decision::Handled { label, .. } = decision {
            seen.handled += 1;
            seen.agreed += u64::from(labels[label] == normalise(&trace.teacher));
        }
    }
    seen
}

fn verdict(seen: Seen, target: f64, coverage: f64, shadow: u64) -> Option<String> {
    if seen.handled >= LEAST {
        let upper = clopper_pearson_upper(seen.agreed, seen.handled, LEVEL);
        if upper < target {
            return Some(format!(
                "{} of the {} newest inputs that it handles agree with the teacher: at most {upper:.3}, and {target} is promised",
                seen.agreed, seen.handled
            ));
        }
    }
    if !seen.routed && seen.inputs >= LEAST && shadow >= LEAST {
        let before = (coverage * shadow as f64).round() as u64;
        let was = clopper_pearson_interval(before.min(shadow), shadow, LEVEL / 2.0);
        let is = clopper_pearson_interval(seen.handled, seen.inputs, LEVEL / 2.0);
        if is.1 < was.0 || was.1 < is.0 {
            return Some(format!(
                "it handles {:.3} of the {} newest inputs, and handled {coverage:.3} of its shadow split",
                seen.handled as f64 / seen.inputs as f64,
                seen.inputs
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(inputs: u64, handled: u64, agreed: u64) -> Seen {
        Seen {
            inputs,
            handled,
            agreed,
            routed: false,
        }
    }

    #[test]
    fn what_chance_explains_is_no_drift() {
        for fine in [
            seen(0, 0, 0),
            seen(1000, 800, 760),
            seen(1000, 830, 790),
            seen(1000, 800, 745),
            seen(40, 40, 0),
        ] {
            assert_eq!(verdict(fine, 0.95, 0.8, 1000), None, "{fine:?}");
        }
    }

    #[test]
    fn a_broken_promise_and_another_coverage_are_drift() {
        let broken = verdict(seen(1000, 800, 700), 0.95, 0.8, 1000).unwrap();
        assert!(broken.contains("agree"), "{broken}");
        for coverage in [seen(1000, 600, 590), seen(1000, 950, 945)] {
            let found = verdict(coverage, 0.95, 0.8, 1000).unwrap();
            assert!(found.contains("handles"), "{found}");
            // Of routed traffic mostly what is deferred comes back.
            let routed = Seen {
                routed: true,
                ..coverage
            };
            assert_eq!(verdict(routed, 0.95, 0.8, 1000), None);
        }
    }

    /// Both tests together raise a false alarm no more often than they may.
    #[test]
    fn false_alarms_are_as_rare_as_they_should_be() {
        let mut state = 1_u64;
        let mut chance = |p: f64, n: u64| -> u64 {
            let mut successes = 0;
            for _ in 0..n {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                successes += u64::from(((state >> 11) as f64 / (1_u64 << 53) as f64) < p);
            }
            successes
        };
        let alarms = (0..2000)
            .filter(|_| {
                let (shadow, inputs) = (chance(0.7, 500), 400);
                let handled = chance(0.7, inputs);
                let agreed = chance(0.95, handled);
                verdict(
                    seen(inputs, handled, agreed),
                    0.95,
                    shadow as f64 / 500.0,
                    500,
                )
                .is_some()
            })
            .count();
        assert!(alarms <= 20, "{alarms} of 2000");
    }
}
