//! From stored traces to the rows of a dataset.

use std::collections::BTreeMap;

use tracer_explain::TraceRef;
use tracer_features::{HashedText, InputKey, LexiconConfig, Withheld, Withholder};
use tracer_learn::{Dataset, Row};
use tracer_trace::{Trace, WithheldInput};

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
    /// Traces whose inputs are withheld in another way than most: under another key, or
    /// with n-grams that are not made so any more.
    pub(crate) other_scheme: usize,
    /// The trace of each row.
    pub(crate) taken: Vec<usize>,
    /// Traces that are no row without what was not used of them.
    pub(crate) left_out: usize,
    /// Which trace each row of the dataset was.
    pub(crate) traces: Vec<TraceRef>,
    /// The embedder most rows name.
    pub(crate) embedder: Option<String>,
}

/// Builds the dataset. A row whose embedding has not the dimension of most rows, or names
/// another embedder than most that name one, takes part with its text alone, or not at
/// all when it has none.
///
/// Once the text of a single trace is withheld, that of all is taken so, in the way and
/// under the key of most: else copies of one input would be told apart, and one of them
/// trained on while another certifies.
pub(crate) fn dataset(
    traces: &[Trace],
    read: usize,
    lexicon: &LexiconConfig,
    key: &InputKey,
) -> Rows {
    let schemes = traces.iter().filter_map(|trace| trace.withheld.as_ref());
    let usable = schemes
        .map(|kept| kept.scheme.as_str())
        .filter(|scheme| Withholder::is_cut_as(scheme, lexicon));
    let scheme = most_frequent(usable);
    let withholder = Withholder::new(key, lexicon);
    let own = withholder.scheme();
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
    rows.data.split_by(scheme.unwrap_or_default());
    for (place, trace) in traces.iter().enumerate() {
        let fits = |e: &&Vec<f32>| Some(e.len()) == dimension;
        let embedding = trace.embedding.as_ref().filter(fits);
        rows.other_dimension += usize::from(trace.embedding.is_some() && embedding.is_none());
        let foreign = trace.embedder.is_some() && trace.embedder != rows.embedder;
        rows.other_embedder += usize::from(embedding.is_some() && foreign);
        let embedding = embedding.filter(|_| !foreign).map(Vec::as_slice);
        let withheld = match (&trace.withheld, &trace.input, scheme) {
            (Some(kept), _, Some(scheme)) => read_withheld(kept, scheme, lexicon),
            (None, Some(text), Some(scheme)) if scheme == own => Some(withholder.withhold(text)),
            _ => None,
        };
        let asked = trace.withheld.is_some() || (scheme.is_some() && trace.input.is_some());
        if asked && withheld.is_none() {
            // Not by its embedding alone either: that would stand on a side of its own.
            rows.other_scheme += 1;
            rows.left_out += 1;
            continue;
        }
        let pushed = match withheld {
            Some(withheld) => rows.data.push_withheld(withheld, embedding, &trace.teacher),
            None => rows.data.push(Row {
                text: trace.input.as_deref().filter(|_| scheme.is_none()),
                embedding,
                label: &trace.teacher,
            }),
        };
        match pushed {
            Ok(()) => {
                rows.taken.push(place);
                rows.traces.push(TraceRef {
                    id: trace.id.clone(),
                    time: trace.timestamp,
                });
            }
            Err(_) => rows.left_out += 1,
        }
    }
    rows
}

fn read_withheld(kept: &WithheldInput, scheme: &str, lexicon: &LexiconConfig) -> Option<Withheld> {
    if kept.scheme != scheme {
        return None;
    }
    let hashed = HashedText::from_counts(lexicon, kept.counts.clone()).ok()?;
    Some(Withheld {
        hash: kept.hash.clone(),
        hashed,
    })
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
    use tracer_trace::{StoredTrace, TaskName};

    fn trace(id: &str, label: &str, seconds: i64) -> StoredTrace {
        StoredTrace {
            offset: 0,
            trace: Trace {
                id: id.to_owned(),
                task: TaskName::default(),
                input: Some(format!("text of {id}")),
                withheld: None,
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

    fn plain(traces: &[Trace], read: usize) -> Rows {
        dataset(
            traces,
            read,
            &LexiconConfig::default(),
            &InputKey::default(),
        )
    }

    #[test]
    fn one_withheld_text_withholds_all_and_copies_stay_copies() {
        let (lexicon, key) = (LexiconConfig::default(), InputKey::new("secret"));
        let withholder = Withholder::new(&key, &lexicon);
        let text = "where is my card";
        let Withheld { hash, hashed } = withholder.withhold(text);
        let kept = WithheldInput {
            hash: hash.clone(),
            scheme: withholder.scheme(),
            counts: hashed.counts().to_vec(),
        };
        let with = |id: &str, input: Option<&str>, withheld: Option<WithheldInput>| Trace {
            input: input.map(str::to_owned),
            withheld: withheld.map(Box::new),
            ..trace(id, "x", 0).trace
        };
        let foreign = WithheldInput {
            scheme: "v0".to_owned(),
            ..kept.clone()
        };
        let damaged = WithheldInput {
            counts: vec![(u32::MAX, 1)],
            ..kept.clone()
        };
        let traces = [
            with("a", None, Some(kept)),
            with("b", Some("Where is my  CARD"), None),
            with("c", None, Some(foreign)),
            with("d", None, Some(damaged)),
        ];
        let rows = dataset(&traces, 4, &lexicon, &key);
        assert_eq!(
            (rows.data.len(), rows.other_scheme, rows.left_out),
            (2, 2, 2)
        );
        for row in 0..2 {
            assert_eq!(rows.data.text(row), None);
            let withheld = rows.data.withheld(row).unwrap();
            assert_eq!((&withheld.hash, &withheld.hashed), (&hash, &hashed));
        }
        // Without the key a text is not known as the copy of one that is withheld.
        let rows = dataset(&traces, 4, &lexicon, &InputKey::new("another"));
        assert_eq!(
            (rows.data.len(), rows.other_scheme, rows.left_out),
            (1, 3, 3)
        );
        // Without any withheld, texts are texts.
        assert!(plain(&traces[1..2], 1).data.text(0).is_some());
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
        let rows = plain(&traces, 7);
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
        assert_eq!(plain(&[], 0).data.len(), 0);
    }
}
