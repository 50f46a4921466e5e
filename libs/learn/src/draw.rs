//! The sample of a refit, drawn before its rows are read.
//!
//! Of more rows than [`FitConfig::max_fit_traces`] a refit keeps a sample. To draw it, it
//! need not have the rows: numbers of each are enough ([`Facts`]). So of rows that do not
//! fit into memory the facts are gathered first, and then the rows of the sample are read
//! and put into a [`Dataset`](crate::Dataset), which is told so
//! ([`Dataset::drawn`](crate::Dataset::drawn)). The sides and the draws are those of
//! [`refit`](crate::refit()) on all rows; which rows lack a feature is not known yet, so
//! those are left out of the sample afterwards.

use std::collections::HashSet;

use crate::{
    config::FitConfig,
    sample::{Purpose, Sampled, to_certify_on, to_train_on},
    split::{Identity, side_of},
};

/// What a draw must know of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    side: u64,
    train: u64,
    certify: u64,
    label: u32,
}

/// What tells a row's input from others.
#[derive(Clone, Copy, Debug)]
pub enum RowInput<'a> {
    /// Its text.
    Text(&'a str),
    /// The hash of a text that is withheld.
    Withheld(&'a str),
    /// Its embedding, where there is no text.
    Embedding(&'a [f32]),
}

impl Facts {
    /// Of a row of a task. `label` numbers its label, from 0: equal labels have equal ones.
    pub fn of(task: &str, seed: u64, input: RowInput<'_>, label: u32) -> Self {
        let identity = match input {
            RowInput::Text(text) => Identity::text(text),
            RowInput::Withheld(hash) => Identity::Withheld(hash),
            RowInput::Embedding(values) => Identity::Embedding(values),
        };
        Self {
            side: identity.hash(task, seed),
            train: identity.hash(Purpose::Train.as_str(), seed),
            certify: identity.hash(Purpose::Certify.as_str(), seed),
            label,
        }
    }
}

/// A sample of some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draw {
    /// The rows, ascending, and what each stands for when it trains. Those that certify
    /// are drawn evenly and weigh 1.
    pub rows: Vec<(usize, f64)>,
    /// Rows that were not drawn. Copies of what certifies are among them: they certify once.
    pub left_out: usize,
}

/// Draws the sample of some rows, which are in order of their arrival.
pub fn draw(facts: &[Facts], config: &FitConfig) -> Draw {
    let (mut training, mut shadow, mut inputs) = (Vec::new(), Vec::new(), HashSet::new());
    for (row, fact) in facts.iter().enumerate() {
        if !side_of(fact.side, config.shadow_share, facts.len()) {
            training.push(row);
        } else if inputs.insert(fact.side) {
            shadow.push(row);
        }
    }
    drop(inputs);
    let labels = facts.iter().map(|fact| fact.label as usize + 1).max();
    let all = Listed {
        facts,
        labels: labels.unwrap_or(0),
    };
    let cap = config.max_fit_traces;
    let train = to_train_on(&all, &training, cap, config.seed);
    drop(training);
    let certify = to_certify_on(&all, &shadow, cap.div_ceil(4), config.seed);
    let mut rows: Vec<(usize, f64)> = train.rows.into_iter().zip(train.weights).collect();
    rows.extend(certify.rows.into_iter().map(|row| (row, 1.0)));
    rows.sort_unstable_by_key(|(row, _)| *row);
    Draw {
        left_out: facts.len() - rows.len(),
        rows,
    }
}

struct Listed<'a> {
    facts: &'a [Facts],
    labels: usize,
}

impl Sampled for Listed<'_> {
    fn labels(&self) -> usize {
        self.labels
    }

    fn label(&self, row: usize) -> u32 {
        self.facts[row].label
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn drawn_by(&self, row: usize, purpose: Purpose, _: u64) -> u64 {
        match purpose {
            Purpose::Train => self.facts[row].train,
            Purpose::Certify => self.facts[row].certify,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::{Dataset, Row},
        sample::distinct,
        split::split,
    };

    /// What is drawn by facts is what a refit draws of the rows themselves.
    #[test]
    fn facts_draw_what_the_rows_would() {
        let config = FitConfig {
            max_fit_traces: 800,
            seed: 3,
            ..FitConfig::default()
        };
        let (mut data, mut facts) = (Dataset::new(), Vec::new());
        for i in 0..12_000 {
            // A third are copies.
            let text = format!("Text {}", i % 8000);
            let label = if i % 100 == 0 { "rare" } else { "common" };
            let row = Row {
                text: Some(&text),
                embedding: None,
                label,
            };
            data.push(row).unwrap();
            let input = RowInput::Text(&text);
            facts.push(Facts::of("t", config.seed, input, data.label(i)));
        }
        let all: Vec<usize> = (0..data.len()).collect();
        let sides = split("t", &data, &all, all.len(), 0.2, 5, config.seed);
        let train = to_train_on(&data, &sides.training, 800, config.seed);
        let shadow = distinct(&data, &sides.shadow);
        let certify = to_certify_on(&data, &shadow, 200, config.seed);
        let drawn = draw(&facts, &config);
        let expected = train.rows.iter().zip(&train.weights);
        let mut expected: Vec<(usize, f64)> = expected.map(|(r, w)| (*r, *w)).collect();
        expected.extend(certify.rows.iter().map(|row| (*row, 1.0)));
        expected.sort_unstable_by_key(|(row, _)| *row);
        assert_eq!(drawn.rows, expected);
        assert!(
            (900..1100).contains(&drawn.rows.len()),
            "{}",
            drawn.rows.len()
        );
        assert_eq!(drawn.rows.len() + drawn.left_out, 12_000);
    }

    #[test]
    fn inputs_of_every_kind_are_told_apart() {
        let of = |input| Facts::of("t", 0, input, 0);
        assert_eq!(of(RowInput::Text(" A  b")), of(RowInput::Text("a B")));
        let kinds = [
            of(RowInput::Text("a")),
            of(RowInput::Withheld("a")),
            of(RowInput::Embedding(&[1.0])),
            of(RowInput::Embedding(&[2.0])),
        ];
        for (i, one) in kinds.iter().enumerate() {
            assert!(kinds[i + 1..].iter().all(|other| one != other));
        }
        assert_eq!(draw(&[], &FitConfig::default()), Draw::default());
    }
}
