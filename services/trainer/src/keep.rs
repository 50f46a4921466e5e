//! Which traces count: the latest of each id, and one of the copies within a window.
//!
//! Traces are told apart by hashes, keyed anew in every process so that nobody can make
//! two of them meet: some tens of bytes a trace, however long its texts.

use std::hash::{BuildHasher as _, RandomState};

use chrono::{DateTime, Utc};
use tracer_features::normalise;
use tracer_trace::Trace;

/// What is kept of a trace to tell it from others.
#[derive(Clone, Copy, Debug)]
struct Key {
    id: [u64; 2],
    /// Of the normalised text and the label; `None` without a text.
    copy: Option<u64>,
    /// Milliseconds; `None` where nobody knows.
    time: Option<i64>,
    partition: u32,
}

/// The keys of some traces, in the order in which they were read.
pub(crate) struct Keys {
    hashers: [RandomState; 3],
    seen: Vec<Key>,
    /// Milliseconds; 0 for none.
    window: i64,
}

impl Keys {
    /// Within a window of so many milliseconds, copies of a text with the same label
    /// count once: they are retries. Copies with another label stay, as they tell how sure
    /// the teacher is.
    pub(crate) fn new(window: i64) -> Self {
        Self {
            hashers: std::array::from_fn(|_| RandomState::new()),
            seen: Vec::new(),
            window,
        }
    }

    /// Takes in a trace. Those of a partition come in the order of their offsets.
    pub(crate) fn push(&mut self, partition: u32, trace: &Trace) {
        let [first, second, copies] = &self.hashers;
        let text = match (&trace.input, &trace.withheld) {
            _ if self.window == 0 => None,
            (Some(text), _) => Some(normalise(text)),
            (None, Some(withheld)) => Some(withheld.hash.clone()),
            (None, None) => None,
        };
        self.seen.push(Key {
            id: [first.hash_one(&trace.id), second.hash_one(&trace.id)],
            copy: text.map(|text| copies.hash_one((text, normalise(&trace.teacher)))),
            time: trace.timestamp.map(|time| time.timestamp_millis()),
            partition,
        });
    }

    /// The time of the trace at a place.
    pub(crate) fn time(&self, place: u32) -> Option<DateTime<Utc>> {
        let time = self.seen[place as usize].time?;
        DateTime::from_timestamp_millis(time)
    }

    /// The latest trace of each id, by its place, in order of their time: the learner takes
    /// the order of the rows for that of their arrival. Traces without a time come first,
    /// and traces of one time in the order in which their ids came.
    ///
    /// Within a partition the later offset is the later trace. Partitions have no common
    /// order, so across them the later time wins.
    pub(crate) fn latest(&self) -> Vec<u32> {
        let key = |place: u32| &self.seen[place as usize];
        let mut order: Vec<u32> = (0..self.seen.len() as u32).collect();
        order.sort_unstable_by_key(|&place| (key(place).id, place));
        // The latest of each id, and where the id came first.
        let mut latest: Vec<(u32, u32)> = Vec::new();
        for same in order.chunk_by(|a, b| key(*a).id == key(*b).id) {
            let last = same.iter().copied().reduce(|old, new| {
                let later =
                    key(new).partition == key(old).partition || key(new).time >= key(old).time;
                if later { new } else { old }
            });
            latest.extend(last.map(|last| (last, same[0])));
        }
        drop(order);
        latest.sort_unstable_by_key(|&(last, first)| (key(last).time, first));
        latest.into_iter().map(|(last, _)| last).collect()
    }

    /// The latest traces without copies: of those in one window the latest stays. A window begins at the first copy that no
    /// earlier one holds.
    pub(crate) fn without_copies(&self, mut kept: Vec<u32>) -> Vec<u32> {
        if self.window == 0 {
            return kept;
        }
        let key = |place: u32| &self.seen[place as usize];
        // Ranks of those with a text and a time, copies beside each other.
        let mut ranks: Vec<u32> = (0..kept.len() as u32)
            .filter(|&rank| {
                let key = key(kept[rank as usize]);
                key.copy.is_some() && key.time.is_some()
            })
            .collect();
        ranks.sort_unstable_by_key(|&rank| (key(kept[rank as usize]).copy, rank));
        let mut dropped = vec![false; kept.len()];
        for same in
            ranks.chunk_by(|a, b| key(kept[*a as usize]).copy == key(kept[*b as usize]).copy)
        {
            let time = |rank: u32| key(kept[rank as usize]).time.unwrap_or(i64::MIN);
            let mut begins = time(same[0]);
            for pair in same.windows(2) {
                if time(pair[1]).saturating_sub(begins) <= self.window {
                    dropped[pair[0] as usize] = true;
                } else {
                    begins = time(pair[1]);
                }
            }
        }
        let mut dropped = dropped.into_iter();
        kept.retain(|_| !dropped.next().unwrap_or(false));
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_trace::TaskName;

    fn trace(id: &str, text: &str, label: &str, millis: Option<i64>) -> Trace {
        Trace {
            id: id.to_owned(),
            task: TaskName::default(),
            input: Some(text.to_owned()),
            withheld: None,
            embedding: None,
            embedder: None,
            teacher: label.to_owned(),
            ground_truth: None,
            timestamp: millis.and_then(chrono::DateTime::from_timestamp_millis),
            metadata: std::collections::BTreeMap::new(),
            routing: None,
        }
    }

    fn kept(window: i64, traces: &[(u32, Trace)]) -> Vec<u32> {
        let mut keys = Keys::new(window);
        for (partition, trace) in traces {
            keys.push(*partition, trace);
        }
        keys.without_copies(keys.latest())
    }

    #[test]
    fn the_latest_trace_of_an_id_counts() {
        let traces = [
            (0, trace("a", "1", "x", Some(9))),
            (0, trace("b", "2", "x", Some(1))),
            (0, trace("a", "3", "x", Some(3))),
            (1, trace("b", "4", "x", Some(0))),
            (1, trace("c", "5", "x", None)),
        ];
        assert_eq!(kept(0, &traces), [4, 1, 2]);
    }

    #[test]
    fn across_partitions_the_later_time_counts() {
        let (early, late) = (trace("a", "1", "x", Some(1)), trace("a", "1", "x", Some(2)));
        let of = |first: &Trace, second: &Trace| [(0, first.clone()), (1, second.clone())];
        assert_eq!(kept(0, &of(&early, &late)), [1]);
        assert_eq!(kept(0, &of(&late, &early)), [0]);
    }

    #[test]
    fn partitions_are_merged_by_time() {
        let traces = [
            (0, trace("a", "1", "x", Some(1))),
            (0, trace("b", "2", "x", Some(3))),
            (1, trace("c", "3", "x", Some(2))),
            (1, trace("d", "4", "x", Some(3))),
        ];
        assert_eq!(kept(0, &traces), [0, 2, 1, 3]);
    }

    #[test]
    fn copies_in_a_window_count_once_unless_their_labels_differ() {
        let traces = [
            (0, trace("a", "Where is  it?", "x", Some(0))),
            (0, trace("b", "where is it?", "X", Some(600))),
            (0, trace("c", "where is it?", "y", Some(700))),
            (0, trace("d", "where is it?", "x", Some(1000))),
            // Its window has begun at the first.
            (0, trace("e", "where is it?", "x", Some(1001))),
            (0, trace("f", "where is it?", "x", Some(2001))),
            (0, trace("g", "other", "x", Some(2002))),
            (0, trace("h", "where is it?", "x", None)),
            (0, trace("i", "where is it?", "x", None)),
        ];
        assert_eq!(kept(1000, &traces), [7, 8, 2, 3, 5, 6]);
        assert_eq!(kept(0, &traces).len(), 9);
    }

    #[test]
    fn no_traces_are_none() {
        assert!(kept(1000, &[]).is_empty());
    }
}
