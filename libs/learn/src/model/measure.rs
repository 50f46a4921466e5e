//! Agreement and time on real traces, all but the last fifth fitted. Not part of a
//! test run: it reads files named by environment variables and prints a table.
//!
//! `TRACER_TEST_TRACES=… TRACER_TEST_EMBEDDINGS=… cargo test -p tracer-learn --lib
//! model::measure -- --ignored --nocapture --test-threads 1`

use std::collections::HashMap;

use ndarray::{Array2, ArrayView2, Axis};

use tracer_features::{Hasher, Lexicon, LexiconConfig, SparseRow};

use super::*;
use crate::design::{Design, Sparse};

struct Traces {
    texts: Vec<String>,
    x: Array2<f32>,
    labels: Vec<u32>,
    classes: usize,
    /// Rows to fit: the first ones.
    split: usize,
}

impl Traces {
    fn train(&self) -> ArrayView2<'_, f32> {
        self.x.view().split_at(Axis(0), self.split).0
    }
}

fn traces() -> Option<Traces> {
    let path = std::env::var("TRACER_TEST_TRACES").ok()?;
    let text = std::fs::read_to_string(path).unwrap();
    let (mut ids, mut texts) = (HashMap::new(), Vec::new());
    let labels: Vec<u32> = text
        .lines()
        .map(|line| {
            let trace: serde_json::Value = serde_json::from_str(line).unwrap();
            texts.push(trace["input"].as_str().unwrap().to_owned());
            let label = trace["teacher"].as_str().unwrap().to_owned();
            let next = ids.len() as u32;
            *ids.entry(label).or_insert(next)
        })
        .collect();
    let bytes = std::fs::read(std::env::var("TRACER_TEST_EMBEDDINGS").ok()?).unwrap();
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> = bytes[begin..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    let columns = values.len() / labels.len();
    Some(Traces {
        x: Array2::from_shape_vec((labels.len(), columns), values).unwrap(),
        classes: ids.len(),
        split: labels.len() - labels.len() / 5 - 1,
        texts,
        labels,
    })
}

/// Seconds of processor time of this process so far, all threads.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Agreement at full coverage, and the largest coverages at which the most certain
/// answers agree in 95 % and 98 %.
fn quality(probabilities: ArrayView2<'_, f32>, labels: &[u32]) -> (f64, f64, f64) {
    let mut rows: Vec<(f32, bool)> = probabilities
        .rows()
        .into_iter()
        .zip(labels)
        .map(|(row, &label)| {
            let mut best = 0;
            for (k, p) in row.iter().enumerate() {
                if *p > row[best] {
                    best = k;
                }
            }
            (row[best], best == label as usize)
        })
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let n = rows.len() as f64;
    let mut hits = 0.0;
    let mut coverage = [0.0; 2];
    for (i, row) in rows.iter().enumerate() {
        hits += f64::from(u8::from(row.1));
        let seen = (i + 1) as f64;
        for (c, target) in coverage.iter_mut().zip([0.95, 0.98]) {
            if hits / seen >= target {
                *c = seen / n;
            }
        }
    }
    (hits / n, coverage[0], coverage[1])
}

fn softmax_rows(logits: Array2<f32>) -> Array2<f32> {
    crate::component::probabilities_of(logits)
}

/// Fits the first rows, predicts the others' probabilities, and prints a line.
fn measure<M>(
    name: &str,
    t: &Traces,
    fit: impl FnOnce(&Traces, usize) -> M,
    predict: impl FnOnce(&M, ArrayView2<'_, f32>) -> Array2<f32>,
) -> M {
    let begin = cpu();
    let model = fit(t, t.split);
    let seconds = cpu() - begin;
    let test = t.x.view().split_at(Axis(0), t.split).1;
    let p = predict(&model, test);
    let (agreement, at_95, at_98) = quality(p.view(), &t.labels[t.split..]);
    println!(
        "{name:<36} fit {seconds:5.2} s  agreement {agreement:.4}  coverage at .95 {at_95:.3}, at .98 {at_98:.3}"
    );
    model
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn mlp() {
    let Some(t) = traces() else { return };
    for hidden in [vec![256], vec![128], vec![256, 128]] {
        for seed in 0..3 {
            let params = MlpParams {
                hidden: hidden.clone(),
                ..MlpParams::default()
            };
            let model = measure(
                &format!("mlp {hidden:?}, seed {seed}"),
                &t,
                |t, n| {
                    Mlp::fit(
                        Design::Dense(t.train()),
                        &t.labels[..n],
                        None,
                        t.classes,
                        &params,
                        seed,
                    )
                    .unwrap()
                },
                |m, x| softmax_rows(m.logits_batch(Design::Dense(x))),
            );
            if seed == 0 {
                let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
                let rounds = 20;
                let begin = cpu();
                for _ in 0..rounds {
                    for row in t.x.rows() {
                        model.logits((&[], &[]), row.as_slice().unwrap(), &mut scratch, &mut out);
                    }
                }
                let rows = (rounds * t.x.nrows()) as f64;
                println!("  a row {:.2} µs", (cpu() - begin) / rows * 1e6);
            }
        }
    }
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn text_mlp() {
    let Some(t) = traces() else { return };
    let config = LexiconConfig::default();
    let hasher = Hasher::new(&config);
    let hashed: Vec<_> = t.texts.iter().map(|text| hasher.hash(text)).collect();
    let lexicon = Lexicon::fit(&config, &hashed[..t.split]);
    let rows = |texts: &[tracer_features::HashedText]| {
        let mut sparse = Sparse::new(lexicon.len());
        let mut row = SparseRow::default();
        for text in texts {
            lexicon.weigh(text, &mut row);
            sparse.push(&row);
        }
        sparse
    };
    let (train, test) = (rows(&hashed[..t.split]), rows(&hashed[t.split..]));
    let list = |name: &str, default: &str| -> Vec<f32> {
        let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        text.split(',').map(|v| v.parse().unwrap()).collect()
    };
    let default = MlpParams::default();
    for width in list("MLP_WIDTH", "128") {
        for norm in list("MLP_NORM", &default.text_norm.to_string()) {
            for rate in list("MLP_RATE", &default.rate.to_string()) {
                for epochs in list("MLP_EPOCHS", &default.epochs.to_string()) {
                    for columns in list("MLP_COLUMNS", &default.text_columns.to_string()) {
                        let params = MlpParams {
                            hidden: vec![width as usize],
                            text_norm: norm,
                            rate,
                            epochs: epochs as usize,
                            text_columns: columns as usize,
                            ..MlpParams::default()
                        };
                        let name = format!(
                            "width {width} norm {norm} rate {rate} epochs {epochs} columns {columns}"
                        );
                        measure(
                            &format!("lexical, {name}"),
                            &t,
                            |t, n| {
                                Mlp::fit(
                                    Design::Sparse(&train),
                                    &t.labels[..n],
                                    None,
                                    t.classes,
                                    &params,
                                    0,
                                )
                                .unwrap()
                            },
                            |m, _| softmax_rows(m.logits_batch(Design::Sparse(&test))),
                        );
                        measure(
                            &format!("fused, {name}"),
                            &t,
                            |t, n| {
                                Mlp::fit(
                                    Design::Joint(&train, t.train()),
                                    &t.labels[..n],
                                    None,
                                    t.classes,
                                    &params,
                                    0,
                                )
                                .unwrap()
                            },
                            |m, x| softmax_rows(m.logits_batch(Design::Joint(&test, x.view()))),
                        );
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn forests() {
    let Some(t) = traces() else { return };
    for (kind, trees) in [
        (ForestKind::Tree, 1),
        (ForestKind::RandomForest, 30),
        (ForestKind::RandomForest, 100),
        (ForestKind::ExtraTrees, 30),
        (ForestKind::ExtraTrees, 100),
    ] {
        let params = ForestParams {
            kind,
            trees,
            ..ForestParams::default()
        };
        let model = measure(
            &format!("{kind:?}, {trees}"),
            &t,
            |t, n| Forest::fit(t.train(), &t.labels[..n], None, t.classes, &params, 0).unwrap(),
            Forest::probabilities_batch,
        );
        let size = |part: &Tensor| match part.data {
            TensorData::I8(_) => part.data.len(),
            TensorData::U16(_) => 2 * part.data.len(),
            TensorData::F32(_) | TensorData::U32(_) => 4 * part.data.len(),
        };
        let bytes: usize = model.parts().iter().map(size).sum();
        let mut out = Vec::new();
        let begin = cpu();
        for row in t.x.rows() {
            model.probabilities(row.as_slice().unwrap(), &mut out);
        }
        println!(
            "  {} nodes, {:.1} MB, a row {:.1} µs",
            model.nodes(),
            bytes as f64 / 1e6,
            (cpu() - begin) / t.x.nrows() as f64 * 1e6
        );
    }
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn sgd_dense() {
    let Some(t) = traces() else { return };
    measure(
        "sgd, dense",
        &t,
        |t, n| {
            let params = sgd::SgdParams::DENSE;
            sgd::fit_dense(t.train(), &t.labels[..n], None, t.classes, params, 0).unwrap()
        },
        |model, x| {
            softmax_rows(Array2::from_shape_fn((x.nrows(), t.classes), |(i, k)| {
                let weights = model.weights.iter().skip(k).step_by(model.intercepts.len());
                let products = x.row(i).into_iter().zip(weights).map(|(x, w)| x * w);
                model.intercepts[k] + products.sum::<f32>()
            }))
        },
    );
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn sgd_lexical() {
    let Some(t) = traces() else { return };
    let config = LexiconConfig::default();
    let hasher = Hasher::new(&config);
    let hashed: Vec<_> = t.texts.iter().map(|text| hasher.hash(text)).collect();
    let lexicon = Lexicon::fit(&config, &hashed[..t.split]);
    let rows: Vec<SparseRow> = hashed
        .iter()
        .map(|text| {
            let mut row = SparseRow::default();
            lexicon.weigh(text, &mut row);
            row
        })
        .collect();
    let mut design = Sparse::new(lexicon.len());
    rows[..t.split].iter().for_each(|row| design.push(row));
    let design = Design::Sparse(&design);
    measure(
        "sgd, lexical",
        &t,
        |t, n| {
            let params = sgd::SgdParams::SPARSE;
            sgd::fit(&design, &t.labels[..n], None, t.classes, params, 0).unwrap()
        },
        |model, x| {
            let stride = model.intercepts.len();
            softmax_rows(Array2::from_shape_fn((x.nrows(), t.classes), |(i, k)| {
                let row = &rows[t.split + i];
                let products = row.columns.iter().zip(&row.values);
                let sum: f32 = products
                    .map(|(&c, v)| model.weights[c as usize * stride + k] * v)
                    .sum();
                model.intercepts[k] + sum
            }))
        },
    );
}
