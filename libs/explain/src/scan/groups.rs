//! Labels, and pairs of them that are confused.

use std::collections::HashMap;

use serde::Serialize;
use tracer_learn::{Dataset, Scan};

use super::{LONGEST, words::tidy};

/// Pairs that are told, at the most.
const PAIRS: usize = 20;

/// The traces of one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelGroup {
    /// The teacher's label.
    pub label: String,
    /// Traces with it, of those looked at.
    pub traces: usize,
    /// The share of them for which the surrogate gives it too, out of fold.
    pub agreement: f64,
    /// The two-sided exact interval of that, for this label alone.
    pub agreement_interval: [f64; 2],
    /// The share of them that would be handled at the middle target.
    pub handled: f64,
}

/// Two labels of which one is taken for the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// The two, first the one that the teacher gives more often where they are confused.
    pub labels: [String; 2],
    /// Traces with the first label that the surrogate gives the second.
    pub first_for_second: usize,
    /// Traces with the second label that the surrogate gives the first.
    pub second_for_first: usize,
    /// One such trace, of the commoner kind where that has text.
    pub example: Option<Example>,
}

/// A trace on which surrogate and teacher disagree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Its text, shortened.
    pub text: String,
    /// The teacher's label.
    pub teacher: String,
    /// The surrogate's, out of fold.
    pub surrogate: String,
}

#[derive(Default)]
struct Count {
    traces: u64,
    right: u64,
    handled: u64,
}

/// Rows of a pair whose teacher's label is the lower and the higher of the two, and the
/// first of either with text.
#[derive(Default)]
struct Pair {
    lower: usize,
    higher: usize,
    examples: [Option<usize>; 2],
}

/// All labels, those with most disagreements first, and the pairs confused most.
pub(super) fn label_groups(
    data: &Dataset,
    scan: &Scan,
    interval: impl Fn(u64, u64) -> (f64, f64),
) -> (Vec<LabelGroup>, Vec<Confusion>) {
    let name = |label: u32| data.label_names()[label as usize].clone();
    let mut counts: HashMap<u32, Count> = HashMap::new();
    let mut pairs: HashMap<(u32, u32), Pair> = HashMap::new();
    for (i, row) in scan.rows.iter().enumerate() {
        let label = data.label(row.row);
        let count = counts.entry(label).or_default();
        count.traces += 1;
        count.handled += u64::from(row.handled);
        if label == row.predicted {
            count.right += 1;
            continue;
        }
        let key = (label.min(row.predicted), label.max(row.predicted));
        let pair = pairs.entry(key).or_default();
        if label == key.0 {
            pair.lower += 1;
        } else {
            pair.higher += 1;
        }
        let example = &mut pair.examples[usize::from(label == key.1)];
        if example.is_none() && data.text(row.row).is_some() {
            *example = Some(i);
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(label, c)| (std::cmp::Reverse(c.traces - c.right), *label));
    let labels = counts
        .into_iter()
        .map(|(label, count)| LabelGroup {
            label: name(label),
            traces: count.traces as usize,
            agreement: count.right as f64 / count.traces as f64,
            agreement_interval: interval(count.right, count.traces).into(),
            handled: count.handled as f64 / count.traces as f64,
        })
        .collect();
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(key, pair)| (std::cmp::Reverse(pair.lower + pair.higher), *key));
    let confusions = pairs
        .into_iter()
        .take(PAIRS)
        .map(|((lower, higher), pair)| {
            let swapped = pair.higher > pair.lower;
            let (first, second) = if swapped {
                (higher, lower)
            } else {
                (lower, higher)
            };
            Confusion {
                labels: [name(first), name(second)],
                first_for_second: pair.lower.max(pair.higher),
                second_for_first: pair.lower.min(pair.higher),
                example: pair.examples[usize::from(swapped)]
                    .or(pair.examples[usize::from(!swapped)])
                    .and_then(|i| {
                        let row = scan.rows[i];
                        Some(Example {
                            text: tidy(data.text(row.row)?, LONGEST),
                            teacher: name(data.label(row.row)),
                            surrogate: name(row.predicted),
                        })
                    }),
            }
        })
        .collect();
    (labels, confusions)
}
