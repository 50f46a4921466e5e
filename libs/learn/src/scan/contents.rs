//! What is in a set of traces, before anything is learned.

use std::collections::HashMap;

use serde::Serialize;
use tracer_features::{normalise, stable_hash};

use crate::dataset::Dataset;

/// Names, inputs and the like that are listed, at the most.
const LISTED: usize = 10;

/// What is in a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contents {
    /// Rows.
    pub traces: usize,
    /// Rows with text.
    pub with_text: usize,
    /// Rows with an embedding.
    pub with_embedding: usize,
    /// Dimension of the embeddings, where there are any.
    pub dimension: Option<usize>,
    /// Length of the texts, in characters: the shortest, the median, the 95th percentile
    /// and the longest; absent without text.
    pub text_length: Option<[usize; 4]>,
    /// Distinct labels, those that differ in case or white space alone being one.
    pub labels: usize,
    /// The commonest label and its rows.
    pub commonest: Option<(String, usize)>,
    /// The rarest label and its rows.
    pub rarest: Option<(String, usize)>,
    /// Labels with one row.
    pub single: usize,
    /// The first few of them.
    pub single_labels: Vec<String>,
    /// Labels that came in several spellings, which count as one.
    pub folded: usize,
    /// The first few of them, with the number of spellings.
    pub folded_labels: Vec<(String, usize)>,
    /// Rows whose input, up to case and white space, stands in an earlier row.
    pub duplicates: usize,
    /// Inputs, up to case and white space, that came with several labels.
    pub contradictory: usize,
    /// Rows with such an input.
    pub contradictory_traces: usize,
    /// The contradictory inputs of most rows: by row, which means nothing in a document.
    #[serde(skip)]
    pub contradictions: Vec<Contradiction>,
    /// No function of the input agrees with the labels on a larger share of the rows:
    /// on a contradictory input only its commonest label can be met. 1 without rows.
    pub ceiling: f64,
}

/// An input with several labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contradiction {
    /// The first row with the input.
    pub row: usize,
    /// Rows with it.
    pub traces: usize,
    /// Its labels and their rows, the commonest first.
    pub labels: Vec<(String, usize)>,
}

/// The rows of one input.
#[derive(Default)]
struct Group {
    row: usize,
    /// (label, rows), few.
    labels: Vec<(u32, usize)>,
}

impl Group {
    fn traces(&self) -> usize {
        self.labels.iter().map(|(_, count)| count).sum()
    }
}

impl Contents {
    /// Looks through the rows.
    pub fn of(data: &Dataset) -> Self {
        let rows = 0..data.len();
        let mut counts = vec![0_usize; data.label_names().len()];
        let mut lengths = Vec::new();
        let mut groups: HashMap<u64, Group> = HashMap::with_capacity(data.len());
        for row in rows.clone() {
            let label = data.label(row);
            counts[label as usize] += 1;
            lengths.extend(data.text(row).map(|text| text.chars().count()));
            let group = groups.entry(input(data, row)).or_insert_with(|| Group {
                row,
                labels: Vec::new(),
            });
            match group.labels.iter_mut().find(|(l, _)| *l == label) {
                Some((_, count)) => *count += 1,
                None => group.labels.push((label, 1)),
            }
        }
        lengths.sort_unstable();
        let name = |label: usize| data.label_names()[label].clone();
        let labels = 0..counts.len();
        // Of equals the label that came first.
        let commonest = labels
            .clone()
            .max_by_key(|&l| (counts[l], std::cmp::Reverse(l)));
        let rarest = labels.clone().min_by_key(|&l| (counts[l], l));
        let single = labels.clone().filter(|&l| counts[l] == 1);
        let folded = labels.filter(|&l| data.spellings(l as u32) > 1);
        let met: usize = groups
            .values()
            .map(|g| g.labels.iter().map(|(_, n)| *n).max().unwrap_or(0))
            .sum();
        let mut contradictory: Vec<&Group> =
            groups.values().filter(|g| g.labels.len() > 1).collect();
        contradictory.sort_by_key(|g| (std::cmp::Reverse(g.traces()), g.row));
        Self {
            traces: data.len(),
            with_text: lengths.len(),
            with_embedding: rows.filter(|&i| data.embedding(i).is_some()).count(),
            dimension: data.dimension(),
            text_length: lengths.last().map(|longest| {
                let at = |share: f64| lengths[(share * (lengths.len() - 1) as f64) as usize];
                [lengths[0], at(0.5), at(0.95), *longest]
            }),
            labels: counts.len(),
            commonest: commonest.map(|l| (name(l), counts[l])),
            rarest: rarest.map(|l| (name(l), counts[l])),
            single: single.clone().count(),
            single_labels: single.take(LISTED).map(name).collect(),
            folded: folded.clone().count(),
            folded_labels: folded
                .take(LISTED)
                .map(|l| (name(l), data.spellings(l as u32)))
                .collect(),
            duplicates: data.len() - groups.len(),
            contradictory: contradictory.len(),
            contradictory_traces: contradictory.iter().map(|g| g.traces()).sum(),
            contradictions: contradictory
                .iter()
                .take(LISTED)
                .map(|group| {
                    let mut labels = group.labels.clone();
                    labels.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
                    Contradiction {
                        row: group.row,
                        traces: group.traces(),
                        labels: labels.iter().map(|&(l, n)| (name(l as usize), n)).collect(),
                    }
                })
                .collect(),
            ceiling: if data.is_empty() {
                1.0
            } else {
                met as f64 / data.len() as f64
            },
        }
    }
}

/// The same for inputs that are the same: by the text where there is one.
fn input(data: &Dataset, row: usize) -> u64 {
    if let Some(withheld) = data.withheld(row) {
        return stable_hash(&[b"withheld", withheld.hash.as_bytes()]);
    }
    match (data.text(row), data.embedding(row)) {
        (Some(text), _) => stable_hash(&[b"text", normalise(text).as_bytes()]),
        (None, embedding) => {
            let values = embedding.into_iter().flatten();
            let bytes: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
            stable_hash(&[b"embedding", &bytes])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;

    fn data(rows: &[(&str, &str)]) -> Dataset {
        let mut data = Dataset::new();
        for &(text, label) in rows {
            data.push(Row {
                text: Some(text),
                embedding: None,
                label,
            })
            .unwrap();
        }
        data
    }

    #[test]
    fn counts_by_hand() {
        let contents = Contents::of(&data(&[
            ("Card lost", "lost"),
            ("card  LOST", "Lost"),
            ("card lost", "stolen"),
            ("refund me", "refund"),
            ("refund us all", "refund"),
        ]));
        assert_eq!(contents.labels, 3);
        assert_eq!(contents.commonest, Some(("lost".into(), 2)));
        assert_eq!(contents.rarest, Some(("stolen".into(), 1)));
        assert_eq!((contents.single, contents.folded), (1, 1));
        assert_eq!(contents.folded_labels, [("lost".into(), 2)]);
        assert_eq!(contents.duplicates, 2);
        assert_eq!(
            (contents.contradictory, contents.contradictory_traces),
            (1, 3)
        );
        assert_eq!(
            contents.contradictions[0].labels,
            [("lost".into(), 2), ("stolen".into(), 1)]
        );
        // Of three equal inputs two can be met.
        assert!((contents.ceiling - 0.8).abs() < 1e-12);
        assert_eq!(contents.text_length, Some([9, 9, 10, 13]));
    }

    #[test]
    fn nothing_is_in_nothing() {
        let contents = Contents::of(&Dataset::new());
        assert_eq!((contents.traces, contents.labels), (0, 0));
        assert_eq!((contents.ceiling, contents.text_length), (1.0, None));
    }

    #[test]
    fn rows_without_text_are_told_apart_by_their_embedding() {
        let mut data = Dataset::new();
        for (values, label) in [([1.0, 0.0], "a"), ([1.0, 0.0], "b"), ([0.0, 1.0], "a")] {
            data.push(Row {
                text: None,
                embedding: Some(&values),
                label,
            })
            .unwrap();
        }
        let contents = Contents::of(&data);
        assert_eq!((contents.duplicates, contents.contradictory), (1, 1));
        assert_eq!((contents.with_text, contents.with_embedding), (0, 3));
    }
}
