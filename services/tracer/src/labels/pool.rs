//! The sample that stands for the deferred traffic, and the inputs that may be asked about.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use super::{Deferred, Group, Question, sketch::Sketch};

/// Inputs of the sample.
const SAMPLED: usize = 512;

/// Inputs in the pool: so many for each that is asked about, within bounds.
const FOR_EACH: usize = 16;
const POOLED: std::ops::RangeInclusive<usize> = 1_024..=16_384;

/// Bytes of the texts in the pool.
const BYTES: usize = 64 << 20;

/// Inputs that are so much alike are one group.
const ALIKE: f32 = 0.85;

/// Similarities count by this power: what is only vaguely alike hardly counts.
const SHARPNESS: i32 = 4;

/// A sample of distinct inputs: those with the lowest keys, which are hashes. The same
/// inputs give the same sample in any order.
#[derive(Default)]
pub(crate) struct Sample(BTreeMap<u64, Sketch>);

impl Sample {
    pub(crate) fn take(&mut self, key: u64, sketch: Sketch) {
        self.0.insert(key, sketch);
        if self.0.len() > SAMPLED {
            self.0.pop_last();
        }
    }

    /// How much of the sample is like an input, from 0 to 1.
    fn density(&self, of: &Sketch) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let alike = self.0.values().map(|other| {
            let similarity = of.similarity(other).max(0.0);
            f64::from(similarity.powi(SHARPNESS))
        });
        alike.sum::<f64>() / self.0.len() as f64
    }
}

/// What a first reading has come by: the sample, and all that is deferred as long as that is
/// no more than a pool may be. Then nothing has to be read again.
#[derive(Default)]
pub(crate) struct First {
    sample: Sample,
    /// In the order of the log, copies too: so a second reading would have come by them.
    all: Vec<Deferred>,
    bytes: usize,
    too_many: bool,
}

impl First {
    pub(crate) fn take(&mut self, deferred: Deferred) {
        if self.too_many {
            self.sample.take(deferred.key, deferred.sketch);
            return;
        }
        self.sample.take(deferred.key, deferred.sketch.clone());
        self.bytes += size(&deferred);
        self.all.push(deferred);
        if self.all.len() > *POOLED.end() || self.bytes > BYTES {
            self.too_many = true;
            self.all = Vec::new();
        }
    }

    /// The pool, and whether it has seen all inputs.
    pub(crate) fn into_pool(self, limit: usize) -> (Pool, bool) {
        let mut pool = Pool::new(limit, self.sample);
        for deferred in self.all {
            pool.take(deferred);
        }
        (pool, !self.too_many)
    }
}

/// The place of an input in the pool: by value, then by key.
type Place = (Reverse<u64>, u64);

/// The most valuable inputs so far, each distinct one once.
#[derive(Default)]
pub(crate) struct Pool {
    sample: Sample,
    most: usize,
    kept: BTreeMap<Place, Deferred>,
    keys: HashSet<u64>,
    bytes: usize,
}

impl Pool {
    pub(crate) fn new(limit: usize, sample: Sample) -> Self {
        Self {
            sample,
            most: limit
                .saturating_mul(FOR_EACH)
                .clamp(*POOLED.start(), *POOLED.end()),
            ..Self::default()
        }
    }

    /// Takes an input in. Of copies the first counts.
    pub(crate) fn take(&mut self, mut deferred: Deferred) {
        if self.keys.contains(&deferred.key) {
            return;
        }
        let density = self.sample.density(&deferred.sketch);
        let question = &mut deferred.question;
        question.density = density;
        question.value = question.doubt * density;
        let place = (Reverse(question.value.to_bits()), deferred.key);
        self.keys.insert(deferred.key);
        self.bytes += size(&deferred);
        self.kept.insert(place, deferred);
        while self.kept.len() > self.most || (self.bytes > BYTES && self.kept.len() > 1) {
            let Some((_, last)) = self.kept.pop_last() else {
                return;
            };
            self.keys.remove(&last.key);
            self.bytes -= size(&last);
        }
    }

    /// One input of each group, the most valuable first.
    pub(crate) fn finish(self, limit: usize) -> Vec<Question> {
        let mut asked: Vec<(Question, Sketch)> = Vec::new();
        for deferred in self.kept.into_values() {
            let Deferred {
                mut question,
                sketch,
                ..
            } = deferred;
            let like = asked
                .iter_mut()
                .find(|(_, other)| sketch.similarity(other) >= ALIKE);
            if let Some((other, _)) = like {
                other.group.inputs += 1;
            } else if asked.len() < limit {
                question.group = Group {
                    id: asked.len() + 1,
                    inputs: 1,
                };
                asked.push((question, sketch));
            }
        }
        asked.into_iter().map(|(question, _)| question).collect()
    }
}

fn size(deferred: &Deferred) -> usize {
    let question = &deferred.question;
    let labels = question.surrogate.iter().map(|l| l.label.len());
    question.id.len()
        + question.teacher.len()
        + question.input.as_ref().map_or(0, String::len)
        + labels.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{super::sketch::Sketcher, *};

    fn deferred(key: u64, doubt: f64, values: &[f32]) -> Deferred {
        Deferred {
            key,
            sketch: Sketcher::default().of_values(values),
            question: Question {
                id: key.to_string(),
                input: None,
                input_hash: None,
                teacher: "x".to_owned(),
                surrogate: Vec::new(),
                score: 0.0,
                reason: "low_score",
                value: 0.0,
                doubt,
                density: 0.0,
                group: Group::default(),
            },
        }
    }

    /// Many inputs, every third of them a copy of one of before.
    fn inputs(count: usize, text: usize) -> impl Iterator<Item = Deferred> {
        (0..count as u64).map(move |i| {
            let key = (if i % 3 == 2 { i / 2 } else { i }).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let part = |shift: u32| (key >> shift & 255) as f32 / 256.0;
            let values = [part(0), part(8), part(16)];
            let mut deferred = deferred(key, f64::from(part(24)), &values);
            deferred.question.input = Some("a".repeat(text));
            deferred
        })
    }

    /// The pool has fewer places than there are inputs: what is pushed out of it and comes
    /// again is judged again, by either way.
    #[test]
    fn what_is_read_once_is_ranked_as_what_is_read_twice() {
        let count = 3 * POOLED.start();
        let mut first = First::default();
        inputs(count, 1).for_each(|input| first.take(input));
        let (pool, all) = first.into_pool(10);
        assert!(all);
        let once: Vec<_> = pool
            .finish(10)
            .into_iter()
            .map(|q| (q.id, q.group.inputs))
            .collect();
        assert!(once.len() > 3);
        assert_eq!(once, queue(inputs(count, 1).collect(), 10));
    }

    /// So many inputs, or so long ones, are not kept: they have to be read again.
    #[test]
    fn no_more_is_kept_than_a_pool_may_have() {
        for (count, text, all) in [
            (*POOLED.end(), 1, true),
            (POOLED.end() + 1, 1, false),
            (64, BYTES / 65, true),
            (64, BYTES / 64, false),
        ] {
            let mut first = First::default();
            inputs(count, text).for_each(|input| first.take(input));
            assert!(first.all.len() <= *POOLED.end() && first.bytes <= BYTES + text + 100);
            assert_eq!(first.all.is_empty(), !all);
            assert_eq!((first.too_many, first.sample.0.len() > 40), (!all, true));
        }
    }

    fn queue(inputs: Vec<Deferred>, limit: usize) -> Vec<(String, usize)> {
        let mut sample = Sample::default();
        for input in &inputs {
            sample.take(input.key, input.sketch.clone());
        }
        let mut pool = Pool::new(limit, sample);
        for input in inputs {
            pool.take(input);
        }
        let asked = pool.finish(limit);
        asked.into_iter().map(|q| (q.id, q.group.inputs)).collect()
    }

    #[test]
    fn dense_and_doubtful_inputs_come_first_and_one_of_each_kind() {
        // Three alike, and two of their own.
        let of = |key, doubt, at: [f32; 3]| deferred(key, doubt, &at);
        let inputs = || {
            vec![
                of(5, 0.5, [1.0, 0.0, 0.0]),
                of(4, 0.9, [0.99, 0.05, 0.0]),
                of(3, 0.4, [0.98, 0.0, 0.05]),
                of(2, 0.9, [0.0, 1.0, 0.0]),
                of(1, 0.8, [0.0, 0.0, 1.0]),
                // A copy.
                of(4, 0.9, [0.99, 0.05, 0.0]),
            ]
        };
        let all = queue(inputs(), 10);
        let expected = [("4", 3), ("2", 1), ("1", 1)].map(|(id, n)| (id.to_owned(), n));
        assert_eq!(all, expected);
        assert_eq!(queue(inputs(), 1), expected[..1]);
        // In any order.
        let mut turned = inputs();
        turned.reverse();
        assert_eq!(queue(turned, 10), expected);
    }
}
