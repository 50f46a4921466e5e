//! Representative cards: of each label what is handled typically, and what is deferred.

use serde::{Deserialize, Serialize};

use super::{
    held_out::{Example, HeldOut, name},
    space::Space,
};

/// Labels with cards, at the most: those of the most traces.
const LABELS: usize = 200;

/// The typical traces of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelCards {
    /// The teacher's label.
    pub label: String,
    /// Of the handled traces, the one nearest to their centroid.
    pub handled: Option<Card>,
    /// Of the deferred ones.
    pub deferred: Option<Card>,
}

/// The trace that stands for a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Card {
    /// Traces of the group.
    pub of: usize,
    /// The cosine between it and the group's centroid.
    pub similarity: f64,
    /// The trace.
    pub example: Example,
}

/// Cards of each label, those of the most traces first.
pub(crate) fn label_cards(held: &HeldOut<'_>, space: &Space<'_>) -> Vec<LabelCards> {
    let mut groups: Vec<[Vec<usize>; 2]> =
        vec![<[Vec<usize>; 2]>::default(); held.data.label_names().len()];
    for (i, seen) in held.rows.iter().enumerate() {
        groups[seen.label as usize][usize::from(!seen.handled)].push(i);
    }
    let mut labels: Vec<usize> = (0..groups.len()).collect();
    let size = |label: usize| groups[label].iter().map(Vec::len).sum::<usize>();
    labels.retain(|&label| size(label) > 0);
    labels.sort_by_key(|&label| std::cmp::Reverse(size(label)));
    labels.truncate(LABELS);
    let mut centre = Vec::new();
    let mut card = |members: &[usize]| {
        space.centre(members, &mut centre);
        let (i, similarity) = space.nearest(&centre, members.iter().copied())?;
        Some(Card {
            of: members.len(),
            similarity: f64::from(similarity),
            example: held.example(i),
        })
    };
    labels
        .into_iter()
        .map(|label| {
            let [handled, deferred] = &groups[label];
            LabelCards {
                label: name(&held.data.label_names()[label]),
                handled: card(handled),
                deferred: card(deferred),
            }
        })
        .filter(|cards| cards.handled.is_some() || cards.deferred.is_some())
        .collect()
}
