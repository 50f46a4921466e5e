//! The solver against linfa-logistic and scikit-learn on the same problem, and what
//! a fit promises besides: no dependence on threads, nor on the kind of design.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use linfa::{DatasetBase, traits::Fit};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use tracer_features::SparseRow;
use tracer_learn::{Design, Logistic, LogisticParams, Sparse};

/// Deterministic numbers in [-1, 1).
fn noise(i: usize) -> f64 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

const C: f64 = 2.0;

const TIGHT: LogisticParams = LogisticParams {
    c: C,
    max_iterations: 500,
    tolerance: 1e-6,
};

/// Rows and labels of a linear model with noise. `oracle_sklearn.py` makes the same.
fn problem(n: usize, d: usize, k: usize) -> (Array2<f64>, Vec<u32>) {
    let x = Array2::from_shape_fn((n, d), |(i, j)| noise(i * d + j));
    let y = (0..n)
        .map(|i| {
            let score = |class: usize| -> f64 {
                (0..d)
                    .map(|j| x[(i, j)] * noise(1_000_000 + class * d + j) * 2.0)
                    .sum::<f64>()
                    + 0.5 * noise(2_000_000 + i * k + class)
            };
            (0..k)
                .max_by(|&a, &b| score(a).total_cmp(&score(b)))
                .unwrap() as u32
        })
        .collect();
    (x, y)
}

/// A design that owns its rows.
enum Rows {
    Dense(Array2<f32>),
    Sparse(Sparse),
    Joint(Sparse, Array2<f32>),
}

impl Rows {
    fn design(&self) -> Design<'_> {
        match self {
            Self::Dense(x) => Design::Dense(x.view()),
            Self::Sparse(x) => Design::Sparse(x),
            Self::Joint(sparse, dense) => Design::Joint(sparse, dense.view()),
        }
    }
}

fn dense(x: &Array2<f64>) -> Rows {
    Rows::Dense(x.mapv(|v| v as f32))
}

fn compressed(x: ArrayView2<'_, f64>, keep: impl Fn(usize, usize) -> bool) -> Sparse {
    let mut out = Sparse::new(x.ncols());
    for (i, row) in x.rows().into_iter().enumerate() {
        let kept = row.iter().enumerate().filter(|&(j, _)| keep(i, j));
        let (columns, values) = kept.map(|(j, &v)| (j as u32, v as f32)).unzip();
        out.push(&SparseRow { columns, values });
    }
    out
}

fn sparse(x: &Array2<f64>, keep: impl Fn(usize, usize) -> bool) -> Rows {
    Rows::Sparse(compressed(x.view(), keep))
}

/// The first third of the columns as lexical ones, the rest as an embedding.
fn joint(x: &Array2<f64>) -> Rows {
    let (lexical, embedding) = x.view().split_at(Axis(1), x.ncols() / 3);
    Rows::Joint(
        compressed(lexical, |_, _| true),
        embedding.mapv(|v| v as f32),
    )
}

/// Weighted mean cross-entropy plus `1 / (2 C n) ‖W‖²`, from any weights (features × classes).
fn loss(
    x: &Array2<f64>,
    y: &[u32],
    row_weights: impl Fn(usize) -> f64,
    weights: &Array2<f64>,
    intercepts: &[f64],
) -> f64 {
    let n = y.len() as f64;
    let (mut total, mut sum) = (0.0, 0.0);
    for (i, (row, &label)) in x.rows().into_iter().zip(y).enumerate() {
        let scores: Vec<f64> = (0..intercepts.len())
            .map(|k| row.dot(&weights.column(k)) + intercepts[k])
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
        total += row_weights(i) * (log_sum - scores[label as usize]);
        sum += row_weights(i);
    }
    total / sum + weights.iter().map(|w| w * w).sum::<f64>() / (2.0 * C * n)
}

fn loss_of(
    model: &Logistic,
    x: &Array2<f64>,
    y: &[u32],
    row_weights: impl Fn(usize) -> f64,
) -> f64 {
    let stride = model.intercepts().len();
    let weights = Array2::from_shape_fn((model.features(), model.classes()), |(j, class)| {
        f64::from(model.weights()[j * stride + class])
    });
    let intercepts: Vec<f64> = model.intercepts()[..model.classes()]
        .iter()
        .map(|&b| f64::from(b))
        .collect();
    loss(x, y, row_weights, &weights, &intercepts)
}

/// Asserts that a loss is at the optimum, within a thousandth of it.
fn at_optimum(loss: f64, optimum: f64) {
    assert!(
        (optimum - loss).abs() < 1e-3 * optimum,
        "{loss}, optimum {optimum}"
    );
}

#[test]
fn reaches_the_optimum_that_linfa_reaches() {
    let (x, y) = problem(300, 8, 5);
    let targets: Array1<usize> = y.iter().map(|&l| l as usize).collect();
    // linfa minimises the summed cross-entropy plus α/2 ‖W‖²: α = 1 / C.
    let theirs = MultiLogisticRegression::default()
        .alpha(1.0 / C)
        .max_iterations(500)
        .gradient_tolerance(1e-8)
        .fit(&DatasetBase::new(x.clone(), targets))
        .unwrap();
    let intercepts = theirs.intercept();
    let optimum = loss(
        &x,
        &y,
        |_| 1.0,
        theirs.params(),
        intercepts.as_slice().unwrap(),
    );

    let (ours, search) = Logistic::search(dense(&x).design(), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&ours, &x, &y, |_| 1.0), optimum);
    // The loss it says is the loss it has.
    assert!((search.loss - loss_of(&ours, &x, &y, |_| 1.0)).abs() < 1e-5);

    let of_sparse = Logistic::fit(sparse(&x, |_, _| true).design(), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&of_sparse, &x, &y, |_| 1.0), optimum);

    // A start at the optimum stays there, and gets there sooner.
    let (again, warm) = Logistic::search(dense(&x).design(), &y, None, 5, TIGHT, Some(&ours));
    at_optimum(loss_of(&again, &x, &y, |_| 1.0), optimum);
    assert!(warm.iterations < search.iterations);
}

/// The optima are scikit-learn 1.9.1's, printed by `oracle_sklearn.py`.
#[test]
fn reaches_the_optimum_that_scikit_learn_reaches() {
    let (x, y) = problem(300, 8, 5);
    let model = Logistic::fit(dense(&x).design(), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&model, &x, &y, |_| 1.0), 0.465_042_795_8);

    let weight = |i: usize| 0.5 + (i % 4) as f64;
    let weights: Vec<f32> = (0..y.len()).map(|i| weight(i) as f32).collect();
    for rows in [dense(&x), sparse(&x, |_, _| true), joint(&x)] {
        let model = Logistic::fit(rows.design(), &y, Some(&weights), 5, TIGHT, None);
        at_optimum(loss_of(&model, &x, &y, weight), 0.471_291_479_4);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (x, y) = problem(2600, 40, 20);
    let params = LogisticParams {
        max_iterations: 12,
        ..TIGHT
    };
    for rows in [dense(&x), sparse(&x, |i, j| (i + j) % 4 == 0), joint(&x)] {
        let fits: Vec<_> = [1, 2, 3]
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                pool.build()
                    .unwrap()
                    .install(|| Logistic::fit(rows.design(), &y, None, 20, params, None))
            })
            .into();
        for fit in &fits[1..] {
            assert_eq!(*fit, fits[0]);
        }
    }
}

#[test]
fn scores_of_many_rows_are_those_of_each_alone() {
    let (x, y) = problem(250, 130, 21);
    let params = LogisticParams {
        max_iterations: 3,
        ..TIGHT
    };
    for rows in [dense(&x), sparse(&x, |i, j| (i + j) % 4 == 0), joint(&x)] {
        let model = Logistic::fit(rows.design(), &y, None, 21, params, None);
        let scores = model.logits_of(rows.design());
        assert_eq!(scores.dim(), (250, 21));
        let mut row = Vec::new();
        for (i, expected) in scores.rows().into_iter().enumerate() {
            model.logits_into(rows.design(), i, &mut row);
            assert_eq!(expected.to_vec(), row);
        }
    }
}
