//! From stored traces to the rows of a dataset.

use std::collections::{HashMap, btree_map::BTreeMap};

use tracer_learn::{Dataset, Row};
use tracer_trace::{StoredTrace, Trace};

/// A dataset and what did not make it into it.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) data: Dataset,
    /// Traces before duplicates were removed.
    pub(crate) read: usize,
    /// Traces whose embedding has another dimension than most.
    pub(crate) other_dimension: usize,
    /// Traces whose embedding has that dimension, but names another embedder than most.
    pub(crate) other_embedder: usize,
    /// Traces that are no row without that embedding.
    pub(crate) left_out: usize,
    /// The embedder most rows name.
    pub(crate) embedder: Option<String>,
}

/// Keeps the latest trace of every id, by their time: the learner takes the order of
/// the rows for that of their arrival. Traces without a time come first, and traces
/// of one time in the order in which their ids came.
///
/// Within a partition the later offset is the later trace. Partitions have no
/// common order, so across them the later time wins.
pub(crate) fn latest_by_id(partitions: Vec<Vec<StoredTrace>>) -> Vec<Trace> {
    let mut kept: Vec<(usize, Trace)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (partition, traces) in partitions.into_iter().enumerate() {
        for StoredTrace { trace, .. } in traces {
            match places.get(&trace.id) {
                None => {
                    places.insert(trace.id.clone(), kept.len());
                    kept.push((partition, trace));
                }
                Some(&place) => {
                    let (from, old) = &kept[place];
                    if *from == partition || trace.timestamp >= old.timestamp {
                        kept[place] = (partition, trace);
                    }
                }
            }
        }
    }
    kept.sort_by_key(|(_, trace)| trace.timestamp);
    kept.into_iter().map(|(_, trace)| trace).collect()
}

/// Builds the dataset. A row whose embedding has not the dimension of most rows, or names
/// another embedder than most that name one, takes part with its text alone, or not at
/// all when it has none.
pub(crate) fn dataset(traces: &[Trace], read: usize) -> Rows {
    let dimension = most_frequent(
        traces
            .iter()
            .filter_map(|t| Some(t.embedding.as_ref()?.len())),
    );
    let embedder = most_frequent(
        traces
            .iter()
            .filter(|t| {
                t.embedding
                    .as_ref()
                    .is_some_and(|e| Some(e.len()) == dimension)
            })
            .filter_map(|t| t.embedder.as_deref()),
    )
    .map(str::to_owned);
    let mut rows = Rows {
        read,
        embedder,
        ..Rows::default()
    };
    for trace in traces {
        let fits = |e: &&Vec<f32>| Some(e.len()) == dimension;
        let embedding = trace.embedding.as_ref().filter(fits);
        rows.other_dimension += usize::from(trace.embedding.is_some() && embedding.is_none());
        let foreign = trace.embedder.is_some() && trace.embedder != rows.embedder;
        rows.other_embedder += usize::from(embedding.is_some() && foreign);
        let embedding = embedding.filter(|_| !foreign);
        let row = Row {
            text: trace.input.as_deref(),
            embedding: embedding.map(Vec::as_slice),
            label: &trace.teacher,
        };
        rows.left_out += usize::from(rows.data.push(row).is_err());
    }
    rows
}

/// The most frequent item; of several the greatest.
fn most_frequent<T: Ord + Copy>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::<T, usize>::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(item, _)| item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_trace::TaskName;

    fn trace(id: &str, label: &str, seconds: i64) -> StoredTrace {
        StoredTrace {
            offset: 0,
            trace: Trace {
                id: id.to_owned(),
                task: TaskName::default(),
                input: Some(format!("text of {id}")),
                embedding: None,
                embedder: None,
                teacher: label.to_owned(),
                ground_truth: None,
                timestamp: chrono::DateTime::from_timestamp(seconds, 0),
                metadata: std::collections::BTreeMap::new(),
                routing: None,
            },
        }
    }

    fn labels(traces: &[Trace]) -> Vec<(&str, &str)> {
        traces
            .iter()
            .map(|t| (t.id.as_str(), t.teacher.as_str()))
            .collect()
    }

    #[test]
    fn the_latest_trace_of_an_id_counts() {
        let one = vec![
            trace("a", "old", 9),
            trace("b", "kept", 1),
            trace("a", "new", 3),
        ];
        assert_eq!(
            labels(&latest_by_id(vec![one])),
            [("b", "kept"), ("a", "new")]
        );
    }

    #[test]
    fn partitions_are_merged_by_time() {
        let partitions = vec![
            vec![trace("a", "first", 1), trace("b", "third", 3)],
            vec![trace("c", "second", 2), trace("d", "third too", 3)],
        ];
        assert_eq!(
            labels(&latest_by_id(partitions)),
            [
                ("a", "first"),
                ("c", "second"),
                ("b", "third"),
                ("d", "third too")
            ]
        );
    }

    #[test]
    fn across_partitions_the_later_time_counts() {
        let early = || vec![trace("a", "early", 1)];
        let late = || vec![trace("a", "late", 2)];
        assert_eq!(
            labels(&latest_by_id(vec![early(), late()])),
            [("a", "late")]
        );
        assert_eq!(
            labels(&latest_by_id(vec![late(), early()])),
            [("a", "late")]
        );
    }

    #[test]
    fn a_foreign_dimension_leaves_the_text_only() {
        let with = |id: &str, embedding: Vec<f32>, embedder: &str, text: bool| {
            let mut trace = trace(id, "x", 0).trace;
            trace.embedding = Some(embedding);
            trace.embedder = Some(embedder.to_owned());
            trace.input = trace.input.filter(|_| text);
            trace
        };
        let traces = [
            with("a", vec![1.0, 2.0], "small", true),
            with("b", vec![1.0, 2.0, 3.0], "large", true),
            with("c", vec![1.0, 2.0], "small", true),
            with("d", vec![1.0, 2.0, 3.0], "large", false),
            with("e", vec![1.0, 2.0], "small", true),
            with("f", vec![1.0, 2.0], "tiny", true),
            with("g", vec![1.0, 2.0], "tiny", false),
        ];
        let rows = dataset(&traces, 7);
        assert_eq!(
            (rows.data.len(), rows.other_dimension, rows.left_out),
            (5, 2, 2)
        );
        assert_eq!(rows.other_embedder, 2);
        assert_eq!(rows.embedder.as_deref(), Some("small"));
        for row in [1, 4] {
            assert!(rows.data.embedding(row).is_none() && rows.data.text(row).is_some());
        }
    }

    #[test]
    fn no_traces_are_an_empty_dataset() {
        assert_eq!(dataset(&latest_by_id(vec![]), 0).data.len(), 0);
    }
}
