//! Agreement and time on real traces. Not part of a test run: it reads files named
//! by environment variables and prints a table.
//!
//! `TRACER_TEST_TRACES=… TRACER_TEST_EMBEDDINGS=… cargo test -p tracer-learn
//! model::measure -- --ignored --nocapture`

use std::collections::HashMap;

use ndarray::{Array2, ArrayView2, Axis};

use super::*;

struct Traces {
    x: Array2<f32>,
    labels: Vec<u32>,
    classes: usize,
}

fn traces() -> Option<Traces> {
    let path = std::env::var("TRACER_TEST_TRACES").ok()?;
    let text = std::fs::read_to_string(path).unwrap();
    let mut ids = HashMap::new();
    let labels: Vec<u32> = text
        .lines()
        .map(|line| {
            let trace: serde_json::Value = serde_json::from_str(line).unwrap();
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
        labels,
        classes: ids.len(),
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

fn softmax_rows(mut logits: Array2<f32>) -> Array2<f32> {
    for mut row in logits.rows_mut() {
        crate::logistic::softmax(row.as_slice_mut().unwrap());
    }
    logits
}

fn report(name: &str, seconds: f64, probabilities: ArrayView2<'_, f32>, labels: &[u32]) {
    let (agreement, at_95, at_98) = quality(probabilities, labels);
    println!(
        "{name:<60} cpu {seconds:6.2} s  agreement {agreement:.4}  coverage@.95 {at_95:.3} @.98 {at_98:.3}"
    );
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn mlp() {
    let Some(t) = traces() else { return };
    let split = t.labels.len() - t.labels.len() / 5 - 1;
    let (train, test) = t.x.view().split_at(Axis(0), split);
    let (y, y_test) = t.labels.split_at(split);
    let rows = std::env::var("ROWS").map_or(split, |r| r.parse().unwrap());
    let (train, y) = (train.split_at(Axis(0), rows).0, &y[..rows]);
    let base = MlpParams::default();
    let variants: Vec<(String, MlpParams)> = std::env::var("VARIANTS")
        .unwrap_or_default()
        .split(';')
        .map(|spec| {
            let mut p = base.clone();
            for pair in spec.split(',').filter(|s| !s.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap();
                let number = || value.parse::<f32>().unwrap();
                match key {
                    "h" => p.hidden = value.split('x').map(|w| w.parse().unwrap()).collect(),
                    "e" => p.epochs = number() as usize,
                    "b" => p.batch = number() as usize,
                    "lr" => p.rate = number(),
                    "wd" => p.decay = number(),
                    "do" => p.dropout = number(),
                    "rms" => p.input_rms = number(),
                    "val" => p.validation = number(),
                    "pat" => p.patience = number() as usize,
                    _ => panic!("{key}"),
                }
            }
            (spec.to_owned(), p)
        })
        .collect();
    for (name, params) in variants {
        let mut sums = (0.0, 0.0, 0.0, 0.0);
        let seeds = 2;
        for seed in 0..seeds {
            let begin = cpu();
            let model = Mlp::fit(train, y, None, t.classes, &params, seed).unwrap();
            let seconds = cpu() - begin;
            let p = softmax_rows(model.logits_batch(test));
            let q = quality(p.view(), y_test);
            sums = (sums.0 + seconds, sums.1 + q.0, sums.2 + q.1, sums.3 + q.2);
        }
        let k = seeds as f64;
        println!(
            "{name:<50} cpu {:5.2} agr {:.4} cov95 {:.3} cov98 {:.3}",
            sums.0 / k,
            sums.1 / k,
            sums.2 / k,
            sums.3 / k
        );
    }
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn forest() {
    let Some(t) = traces() else { return };
    let split = t.labels.len() - t.labels.len() / 5 - 1;
    let (train, test) = t.x.view().split_at(Axis(0), split);
    let (y, y_test) = t.labels.split_at(split);
    let trees = std::env::var("TREES").map_or(100, |v| v.parse().unwrap());
    for (kind, min_leaf) in [
        (ForestKind::Tree, 1),
        (ForestKind::RandomForest, 1),
        (ForestKind::RandomForest, 2),
        (ForestKind::ExtraTrees, 1),
        (ForestKind::ExtraTrees, 2),
    ] {
        let params = ForestParams {
            kind,
            trees,
            min_leaf,
            ..ForestParams::default()
        };
        let begin = cpu();
        let model = Forest::fit(train, y, None, t.classes, &params, 0).unwrap();
        let seconds = cpu() - begin;
        let begin = cpu();
        let p = model.probabilities_batch(test);
        let predict = cpu() - begin;
        let bytes: usize = model
            .parts()
            .iter()
            .map(|t| {
                t.data.len()
                    * if matches!(t.data, TensorData::U16(_)) {
                        2
                    } else {
                        4
                    }
            })
            .sum();
        let name = format!(
            "{kind:?} {} trees, leaf {min_leaf}: {} nodes, {:.1} MB, predict {predict:.2} s",
            model.trees(),
            model.nodes(),
            bytes as f64 / 1e6
        );
        report(&name, seconds, p.view(), y_test);
    }
}

#[test]
#[ignore = "reads files named by the environment and measures time"]
fn sgd() {
    let Some(t) = traces() else { return };
    let split = t.labels.len() - t.labels.len() / 5 - 1;
    let (train, test) = t.x.view().split_at(Axis(0), split);
    let (y, y_test) = t.labels.split_at(split);
    let texts = texts().unwrap();
    let config = tracer_features::LexiconConfig::default();
    let mut hasher = tracer_features::Hasher::new(&config);
    let hashed: Vec<_> = texts.iter().map(|t| hasher.hash(t)).collect();
    let lexicon = tracer_features::Lexicon::fit(&config, hashed[..split].iter());
    let mut sparse = crate::design::Sparse::new(lexicon.len());
    let mut row = tracer_features::SparseRow::default();
    let mut held_out = Vec::new();
    for (i, text) in hashed.iter().enumerate() {
        lexicon.weigh(text, &mut row);
        if i < split {
            sparse.push(&row);
        } else {
            held_out.push(row.clone());
        }
    }
    println!("lexicon of {}", lexicon.len());
    let designs = [
        crate::design::Design::Dense(train),
        crate::design::Design::Sparse(&sparse),
    ];
    for spec in std::env::var("VARIANTS").unwrap_or("".into()).split(';') {
        let (which, spec2) = spec.split_once(':').unwrap_or((spec, ""));
        let (design, mut params) = if which == "s" {
            (&designs[1], sgd::SgdParams::SPARSE)
        } else {
            (&designs[0], sgd::SgdParams::DENSE)
        };
        for pair in spec2.split(',').filter(|s| !s.is_empty()) {
            let (k, v) = pair.split_once('=').unwrap();
            match k {
                "e" => params.epochs = v.parse().unwrap(),
                "lr" => params.rate = v.parse().unwrap(),
                _ => panic!(),
            }
        }
        let begin = cpu();
        let model = sgd::fit(design, y, None, t.classes, params, 0).unwrap();
        let seconds = cpu() - begin;
        let stride = model.intercepts.len();
        let mut p = Array2::zeros((test.nrows(), t.classes));
        for (i, mut out) in p.rows_mut().into_iter().enumerate() {
            let mut scores = model.intercepts.clone();
            let mut add = |column: usize, value: f32| {
                for (s, w) in scores.iter_mut().zip(&model.weights[column * stride..]) {
                    *s += value * w;
                }
            };
            if which == "s" {
                held_out[i]
                    .columns
                    .iter()
                    .zip(&held_out[i].values)
                    .for_each(|(&c, &v)| add(c as usize, v));
            } else {
                test.row(i).iter().enumerate().for_each(|(c, &v)| add(c, v));
            }
            scores.truncate(t.classes);
            out.assign(&ndarray::ArrayView1::from(&scores));
        }
        report(spec, seconds, softmax_rows(p).view(), y_test);
    }
}

fn texts() -> Option<Vec<String>> {
    let path = std::env::var("TRACER_TEST_TRACES").ok()?;
    let text = std::fs::read_to_string(path).unwrap();
    Some(
        text.lines()
            .map(|line| {
                let trace: serde_json::Value = serde_json::from_str(line).unwrap();
                trace["input"].as_str().unwrap().to_owned()
            })
            .collect(),
    )
}
