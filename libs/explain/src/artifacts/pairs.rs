//! Boundary pairs: two inputs that the teacher labels alike and the pipeline treats
//! differently, as near to each other as there are.
//!
//! The search is exact: every deferred trace of a label is compared with every handled
//! one of it. What it costs is bounded by taking an even sample of a label's traces, and
//! the labels in which most is deferred.

use serde::{Deserialize, Serialize};

use super::{
    held_out::{Example, HeldOut, name},
    space::Space,
};

/// Labels with pairs, and pairs of a label, at the most.
const LABELS: usize = 100;
const PAIRS: usize = 3;
/// Traces of a label that are compared, at the most.
const DEFERRED: usize = 300;
const HANDLED: usize = 2000;
/// Multiplications in all, about: half a second of one core.
const WORK: usize = 2_000_000_000;

/// The boundary pairs of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelPairs {
    /// The teacher's label.
    pub label: String,
    /// Its pairs, the nearest first.
    pub pairs: Vec<Pair>,
}

/// A handled and a deferred trace of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pair {
    /// The cosine between the two.
    pub similarity: f64,
    /// The one that the surrogate answers.
    pub handled: Example,
    /// The one it defers for its low score: the handled one is the nearest to it.
    pub deferred: Example,
}

/// Pairs of each label, the labels in which most is deferred first.
pub(crate) fn boundary_pairs(held: &HeldOut<'_>, space: &Space<'_>) -> Vec<LabelPairs> {
    let labels = held.data.label_names().len();
    let mut groups: Vec<[Vec<usize>; 2]> = vec![<[Vec<usize>; 2]>::default(); labels];
    for (i, seen) in held.rows.iter().enumerate() {
        // What the guard defers lies beyond its boundary, not the acceptor's.
        if seen.foreign || !space.has(i) {
            continue;
        }
        groups[seen.label as usize][usize::from(!seen.handled)].push(i);
    }
    let mut order: Vec<usize> = (0..labels)
        .filter(|&label| groups[label].iter().all(|group| !group.is_empty()))
        .collect();
    order.sort_by_key(|&label| std::cmp::Reverse(groups[label][1].len()));
    let (mut work, mut found) = (0, Vec::new());
    for label in order.into_iter().take(LABELS) {
        let [handled, deferred] = &groups[label];
        let handled = even(handled, HANDLED);
        let deferred = even(deferred, DEFERRED);
        work += handled.len() * deferred.len() * space.cost();
        if work > WORK {
            break;
        }
        found.push(LabelPairs {
            label: name(&held.data.label_names()[label]),
            pairs: nearest_pairs(held, space, &handled, &deferred),
        });
    }
    found
}

fn nearest_pairs(
    held: &HeldOut<'_>,
    space: &Space<'_>,
    handled: &[usize],
    deferred: &[usize],
) -> Vec<Pair> {
    let mut centre = Vec::new();
    let mut pairs: Vec<(f32, usize, usize)> = deferred
        .iter()
        .filter_map(|&d| {
            space.centre(&[d], &mut centre);
            let (h, similarity) = space.nearest(&centre, handled.iter().copied())?;
            Some((similarity, h, d))
        })
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
    let mut shown: Vec<(f32, usize, usize)> = Vec::new();
    for pair in pairs {
        if shown.len() == PAIRS {
            break;
        }
        // One handled trace beside three deferred ones shows less than three of them.
        if shown.iter().all(|other| other.1 != pair.1) {
            shown.push(pair);
        }
    }
    shown
        .into_iter()
        .map(|(similarity, h, d)| Pair {
            similarity: f64::from(similarity),
            handled: held.example(h),
            deferred: held.example(d),
        })
        .collect()
}

/// All of the rows, or an even sample of so many.
fn even(rows: &[usize], most: usize) -> Vec<usize> {
    let step = rows.len().div_ceil(most).max(1);
    rows.iter().copied().step_by(step).collect()
}
