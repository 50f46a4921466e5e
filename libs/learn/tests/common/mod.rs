//! Made-up traffic that several tests share.

#![allow(dead_code, reason = "each test file uses some of it")]

use tracer_learn::{Dataset, FitConfig, Outcome, Row, refit};

/// Labels with the phrases they are asked in.
pub(crate) const TOPICS: [(&str, [&str; 4]); 4] = [
    (
        "card_lost",
        [
            "lost my card",
            "card is gone",
            "cannot find my card",
            "misplaced the card",
        ],
    ),
    (
        "refund",
        [
            "want a refund",
            "money back please",
            "refund my order",
            "return and refund",
        ],
    ),
    (
        "login",
        [
            "cannot log in",
            "password does not work",
            "login fails",
            "locked out of my account",
        ],
    ),
    (
        "fees",
        [
            "why was I charged",
            "what are the fees",
            "strange fee on my bill",
            "charged twice",
        ],
    ),
];

/// Texts of four topics; every `wrong`-th label is that of the next topic.
pub(crate) fn topics(n: usize, wrong: usize, embeddings: bool) -> Dataset {
    let mut data = Dataset::new();
    for i in 0..n {
        let topic = i % 4;
        let label = if wrong > 0 && i % wrong == 0 {
            TOPICS[(topic + 1) % 4].0
        } else {
            TOPICS[topic].0
        };
        let embedding = embedding(i, topic);
        push(
            &mut data,
            &phrase(i),
            embeddings.then_some(embedding.as_slice()),
            label,
        );
    }
    data
}

/// The text of row `i`, of the topic `i % 4`.
pub(crate) fn phrase(i: usize) -> String {
    format!("{} {}", TOPICS[i % 4].1[(i / 4) % 4], word(i))
}

/// A word of its own for each number.
pub(crate) fn word(i: usize) -> String {
    i.to_string()
        .bytes()
        .map(|b| char::from(b'a' + (b - b'0')))
        .collect()
}

/// Six dimensions in which a topic is an axis, and a little noise.
pub(crate) fn embedding(i: usize, topic: usize) -> Vec<f32> {
    (0..6)
        .map(|j| f32::from(u8::from(j == topic)) + 0.1 * ((i * 7 + j * 13) % 11) as f32 / 11.0)
        .collect()
}

pub(crate) fn push(data: &mut Dataset, text: &str, embedding: Option<&[f32]>, label: &str) {
    data.push(Row {
        text: Some(text),
        embedding,
        label,
    })
    .unwrap();
}

pub(crate) fn config(targets: &[f64]) -> FitConfig {
    FitConfig {
        targets: targets.to_vec(),
        ..FitConfig::default()
    }
}

/// `config` with these candidates alone.
pub(crate) fn only(targets: &[f64], names: &[&str]) -> FitConfig {
    FitConfig {
        only: names.iter().map(|&name| name.to_owned()).collect(),
        ..config(targets)
    }
}

pub(crate) fn fit(data: &Dataset, config: &FitConfig) -> Vec<Outcome> {
    refit("desk", data, config, &mut |_| {}).unwrap()
}

pub(crate) fn fit_one(data: &Dataset, config: &FitConfig) -> Outcome {
    fit(data, config).remove(0)
}

/// Numbers in [0, 1) that depend on the seed alone (`SplitMix64`).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    pub(crate) fn sign(&mut self) -> f64 {
        if self.next() < 0.5 { -1.0 } else { 1.0 }
    }

    /// A whole number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() * n as f64) as usize).min(n - 1)
    }

    /// Roughly normal: the sum of twelve uniform draws.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// Classes around random centres, with teacher noise where `noisy`: what a refit
/// handles some of and defers the rest.
pub(crate) struct Clouds {
    centres: Vec<Vec<f64>>,
    spread: f64,
}

impl Clouds {
    pub(crate) fn new(classes: usize, dimension: usize, spread: f64, random: &mut Random) -> Self {
        Self {
            centres: (0..classes)
                .map(|_| (0..dimension).map(|_| random.normal()).collect())
                .collect(),
            spread,
        }
    }

    /// An input and its class.
    pub(crate) fn draw(&self, random: &mut Random) -> (Vec<f32>, usize) {
        let class = random.below(self.centres.len());
        let x = self.centres[class]
            .iter()
            .map(|centre| (centre + self.spread * random.normal()) as f32)
            .collect();
        (x, class)
    }
}
