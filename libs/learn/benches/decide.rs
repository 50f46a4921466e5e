//! What a decision costs in process: one input at a time and 256 together, for each
//! kind of model and for blends.
//!
//!     cargo bench -p tracer-learn --bench decide
//!
//! 77 labels, 384 dimensions, texts of about 40 characters; made up. The numbers are
//! the median over many passes of a pass's mean.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a program for the terminal

use std::{hint::black_box, time::Instant};

use tracer_learn::{Dataset, FitConfig, GateMode, Input, Pipeline, Row, Scratch, refit};

const CLASSES: usize = 77;
const DIMENSION: usize = 384;
const PASSES: usize = 60;

/// Numbers in [-1, 1) from a counter (`SplitMix64`).
fn noise(i: usize) -> f32 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

fn pick(i: usize, n: usize) -> usize {
    (noise(i).abs() * n as f32) as usize % n
}

/// Row `i` of label `i % CLASSES`: seldom clear, so that blends are worth it.
fn row(i: usize) -> (String, Vec<f32>) {
    let class = i % CLASSES;
    let word = |n: usize| {
        let letter = |j: usize| char::from(b'a' + pick(n * 8 + j, 26) as u8);
        (0..4 + n % 4).map(letter).collect::<String>()
    };
    let words: Vec<String> = (0..6)
        .map(|j| match pick(i * 6 + j + (1 << 30), 10) {
            0..4 => word(class * 5 + pick(i + j, 5)),
            4 | 5 => word(pick(i + 2 * j, CLASSES * 5)),
            _ => word(10_000 + pick(i * 3 + j, 60)),
        })
        .collect();
    let mut x: Vec<f32> = (0..DIMENSION)
        .map(|j| noise((class << 12) + j + (1 << 50)) + 4.0 * noise(i * DIMENSION + j))
        .collect();
    let length = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    for v in &mut x {
        *v /= length;
    }
    (words.join(" "), x)
}

fn fit(candidates: &[&str], text: bool, embedding: bool) -> Pipeline {
    let mut data = Dataset::new();
    for i in 0..CLASSES * 40 {
        let (words, x) = row(i);
        data.push(Row {
            text: text.then_some(words.as_str()),
            embedding: embedding.then_some(x.as_slice()),
            label: &format!("label {}", i % CLASSES),
        })
        .unwrap();
    }
    let config = FitConfig {
        only: candidates.iter().map(|&name| name.to_owned()).collect(),
        targets: vec![0.5],
        gate: GateMode::Point,
        ..FitConfig::default()
    };
    let outcome = refit("bench", &data, &config, &mut |_| {})
        .unwrap()
        .remove(0);
    let verdict = outcome.verdict;
    outcome.pipeline.unwrap_or_else(|| panic!("{verdict:?}"))
}

/// The median over the passes, in microseconds an input.
fn median(inputs: usize, mut pass: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..PASSES)
        .map(|_| {
            let started = Instant::now();
            pass();
            started.elapsed().as_secs_f64() * 1e6 / inputs as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[PASSES / 2]
}

fn main() {
    let probes: Vec<(String, Vec<f32>)> = (1..513).map(|i| row(i + (1 << 20))).collect();
    println!("| surrogate | family | one at a time, µs | 256 together, µs an input |");
    println!("| --- | --- | --- | --- |");
    let kinds: [(&[&str], bool, bool); 7] = [
        (&["dense_logistic"], false, true),
        (&["lexical_logistic"], true, false),
        (&["fused_logistic"], true, true),
        (&["mlp_1"], false, true),
        (&["mlp_2"], false, true),
        (&["dense_logistic", "lexical_logistic"], true, true),
        (&["dense_logistic", "lexical_logistic", "mlp_1"], true, true),
    ];
    for (candidates, text, embedding) in kinds {
        let pipeline = fit(candidates, text, embedding);
        let inputs: Vec<Input<'_>> = probes
            .iter()
            .map(|(words, x)| Input {
                text: text.then_some(words.as_str()),
                embedding: embedding.then_some(x.as_slice()),
            })
            .collect();
        let mut scratch = Scratch::default();
        let alone = median(inputs.len(), || {
            for input in &inputs {
                let _ = black_box(pipeline.decide(*input, &mut scratch));
            }
        });
        let together = median(inputs.len(), || {
            for part in inputs.chunks(256) {
                pipeline.decide_batch(part.iter().copied(), &mut scratch, |told, _| {
                    let _ = black_box(told);
                });
            }
        });
        let card = pipeline.card();
        println!(
            "| {} | {} | {alone:.2} | {together:.2} |",
            card.surrogate, card.family
        );
    }
}
