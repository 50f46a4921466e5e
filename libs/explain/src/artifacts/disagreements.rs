//! Disagreement cards: where surrogate and teacher part, by what the surrogate said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::held_out::{Example, HeldOut, name};

/// Groups, cards of a group and labels of a group, at the most.
const GROUPS: usize = 40;
const CARDS: usize = 3;
const LABELS: usize = 5;

/// The disagreements of one label of the surrogate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DisagreementGroup {
    /// What the surrogate said.
    pub predicted: String,
    /// How often it said so in the shadow split.
    pub predictions: usize,
    /// How often the teacher said something else.
    pub disagreements: usize,
    /// How many of these are handled all the same.
    pub handled: usize,
    /// What the teacher said in its place, the commonest first.
    pub teacher: Vec<LabelCount>,
    /// Some of them: the handled ones first, then those of the highest score.
    pub examples: Vec<Example>,
}

/// A label and how often it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelCount {
    /// The label.
    pub label: String,
    /// How often.
    pub n: usize,
}

/// The groups of the most disagreements first.
pub(crate) fn disagreements(held: &HeldOut<'_>) -> Vec<DisagreementGroup> {
    let mut groups: BTreeMap<usize, (usize, Vec<usize>)> = BTreeMap::new();
    for (i, seen) in held.rows.iter().enumerate() {
        let (predictions, wrong) = groups.entry(seen.predicted).or_default();
        *predictions += 1;
        if !seen.agrees {
            wrong.push(i);
        }
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .filter(|(_, (_, wrong))| !wrong.is_empty())
        .collect();
    groups.sort_by_key(|(_, (_, wrong))| std::cmp::Reverse(wrong.len()));
    groups.truncate(GROUPS);
    groups
        .into_iter()
        .map(|(class, (predictions, mut wrong))| {
            let mut teacher: BTreeMap<u32, usize> = BTreeMap::new();
            for &i in &wrong {
                *teacher.entry(held.rows[i].label).or_default() += 1;
            }
            let mut teacher: Vec<_> = teacher.into_iter().collect();
            teacher.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
            teacher.truncate(LABELS);
            let handled = wrong.iter().filter(|&&i| held.rows[i].handled).count();
            let disagreements = wrong.len();
            wrong.sort_by(|&a, &b| {
                let (a, b) = (&held.rows[a], &held.rows[b]);
                let surest = b.score.total_cmp(&a.score);
                b.handled.cmp(&a.handled).then(surest)
            });
            let label = |(label, n): (u32, usize)| LabelCount {
                label: name(&held.data.label_names()[label as usize]),
                n,
            };
            DisagreementGroup {
                predicted: name(held.class(class)),
                predictions,
                disagreements,
                handled,
                teacher: teacher.into_iter().map(label).collect(),
                examples: wrong[..wrong.len().min(CARDS)]
                    .iter()
                    .map(|&i| held.example(i))
                    .collect(),
            }
        })
        .collect()
}
