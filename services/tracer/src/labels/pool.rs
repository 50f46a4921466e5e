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
