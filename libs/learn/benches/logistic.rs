//! Multinomial logistic regression: time, iterations and loss.
//!
//!     cargo bench -p tracer-learn --bench logistic
//!
//! without anything else: on synthetic rows with a planted structure. On rows of
//! one's own:
//!
//! - `LOGISTIC_X`: a .npy of float32, a row a trace;
//! - `LOGISTIC_TRACES`: the .jsonl of the traces, with the label in `teacher`;
//! - `LOGISTIC_LEXICAL=1`: fit on lexical features of the texts as well;
//! - `LOGISTIC_C`, `LOGISTIC_TOLERANCE`, `LOGISTIC_ROWS` (the first so many),
//!   `LOGISTIC_REPEAT`;
//! - `LOGISTIC_SKLEARN`: a Python with scikit-learn; each fit is then followed by
//!   one of `bench/sklearn_logistic.py` on the same rows, and the ratio is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a program for the terminal

use std::{env, fs, path::Path, process::Command, time::Instant};

use ndarray::{Array1, Array2};
use tracer_features::{Hasher, Lexicon, LexiconConfig, SparseRow};
use tracer_learn::{Design, Logistic, LogisticParams, Sparse};

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Numbers in [-1, 1) from a counter.
fn noise(i: u64) -> f32 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

/// Rows around one centre a class, of length 1; one label in twenty is wrong.
fn planted(n: usize, d: usize, classes: usize) -> (Array2<f32>, Vec<u32>) {
    let labels: Vec<u32> = (0..n)
        .map(|i| (noise(i as u64 + (1 << 40)).abs() * classes as f32) as u32)
        .collect();
    let mut x = Array2::from_shape_fn((n, d), |(i, j)| {
        let centre = noise((u64::from(labels[i]) << 20) + j as u64 + (1 << 50));
        0.35 * centre + noise((i * d + j) as u64) + 0.3
    });
    for mut row in x.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    let labels = labels
        .into_iter()
        .enumerate()
        .map(|(i, l)| {
            if i % 20 == 0 {
                (l + 1) % classes as u32
            } else {
                l
            }
        })
        .collect();
    (x, labels)
}

struct Traces {
    labels: Vec<u32>,
    classes: usize,
    texts: Vec<String>,
}

fn read_traces(path: &str, most: usize) -> Traces {
    let rows: Vec<serde_json::Value> = fs::read_to_string(path)
        .unwrap()
        .lines()
        .take(most)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut names: Vec<String> = rows.iter().map(|r| word(r, "teacher")).collect();
    names.sort();
    names.dedup();
    Traces {
        labels: rows
            .iter()
            .map(|r| names.binary_search(&word(r, "teacher")).unwrap() as u32)
            .collect(),
        classes: names.len(),
        texts: rows.iter().map(|r| word(r, "input")).collect(),
    }
}

fn lexical(texts: &[String]) -> Sparse {
    let config = LexiconConfig::default();
    let hasher = Hasher::new(&config);
    let hashed: Vec<_> = texts.iter().map(|t| hasher.hash(t)).collect();
    let lexicon = Lexicon::fit(&config, hashed.iter());
    let mut x = Sparse::new(lexicon.len());
    let mut row = SparseRow::default();
    for text in &hashed {
        lexicon.weigh(text, &mut row);
        x.push(&row);
    }
    x
}

/// Processor seconds of this process so far, where the system tells (Linux): wall
/// time means little on a busy machine.
fn cpu_seconds() -> f64 {
    fs::read_to_string("/proc/self/stat").map_or(f64::NAN, |stat| {
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // utime and stime in ticks, of which Linux reports a hundred a second.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    })
}

fn run<'a>(
    name: &str,
    design: Design<'a>,
    labels: &'a [u32],
    classes: usize,
    sklearn: Option<&str>,
) {
    let params = LogisticParams {
        c: setting("LOGISTIC_C", 10.0),
        max_iterations: setting("LOGISTIC_ITERATIONS", 200),
        tolerance: setting("LOGISTIC_TOLERANCE", 1e-3),
    };
    println!(
        "{name}: {} rows × {} × {classes}, C {}, tolerance {}",
        design.rows(),
        design.columns(),
        params.c,
        params.tolerance
    );
    for _ in 0..setting("LOGISTIC_REPEAT", 3) {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let (_, search) = Logistic::search(design, labels, None, classes, params, None);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "  tracer        {seconds:8.3} s ({:.2} s CPU)  {:4} evaluations  loss {:.6}",
            cpu_seconds() - cpu,
            search.evaluations,
            search.loss
        );
        if let Some(python) = sklearn {
            against_sklearn(python, params.c, search.loss, seconds);
        }
    }
}

/// One fit by scikit-learn on the files in the temporary directory, stopped at our
/// loss. Its script prints time and loss.
fn against_sklearn(python: &str, c: f64, loss: f64, ours: f64) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/sklearn_logistic.py");
    let directory = env::temp_dir().join("tracer-logistic");
    let output = Command::new(python)
        .arg(script)
        .arg(directory.join("x.npy"))
        .arg(directory.join("y.npy"))
        .args(["--c", &c.to_string(), "--loss", &loss.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    let theirs = answer["seconds"].as_f64().unwrap();
    println!(
        "  scikit-learn  {theirs:8.3} s ({:.2} s CPU)  {:4} iterations   loss {:.6}  ({:.1} times our time)",
        answer["cpu_seconds"].as_f64().unwrap(),
        answer["iterations"].as_f64().unwrap(),
        answer["loss"].as_f64().unwrap(),
        theirs / ours
    );
}

fn main() {
    let most = setting("LOGISTIC_ROWS", 8000);
    let sklearn = env::var("LOGISTIC_SKLEARN").ok();
    let traces = env::var("LOGISTIC_TRACES")
        .ok()
        .map(|path| read_traces(&path, most));
    let (x, labels, classes) = if let (Some(traces), Ok(path)) = (&traces, env::var("LOGISTIC_X")) {
        let x: Array2<f32> = ndarray_npy::read_npy(path).unwrap();
        let x = x.select(
            ndarray::Axis(0),
            &(0..traces.labels.len()).collect::<Vec<_>>(),
        );
        (x, traces.labels.clone(), traces.classes)
    } else {
        let (x, labels) = planted(most, 384, 77);
        (x, labels, 77)
    };
    if sklearn.is_some() {
        let directory = env::temp_dir().join("tracer-logistic");
        fs::create_dir_all(&directory).unwrap();
        ndarray_npy::write_npy(directory.join("x.npy"), &x).unwrap();
        let y: Array1<i32> = labels.iter().map(|&l| l as i32).collect();
        ndarray_npy::write_npy(directory.join("y.npy"), &y).unwrap();
    }
    if setting("LOGISTIC_DENSE", 1) == 1 {
        run(
            "dense",
            Design::Dense(x.view()),
            &labels,
            classes,
            sklearn.as_deref(),
        );
    }
    if let Some(traces) = traces.filter(|_| setting("LOGISTIC_LEXICAL", 0) == 1) {
        let x = lexical(&traces.texts);
        run(
            "lexical",
            Design::Sparse(&x),
            &traces.labels,
            traces.classes,
            None,
        );
    }
}
