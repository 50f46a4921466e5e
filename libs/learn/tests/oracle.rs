//! The solver against linfa-logistic and scikit-learn on the same problem, and what
//! a fit promises besides: no leak between folds, no dependence on threads.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use linfa::{DatasetBase, traits::Fit};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};
use tracer_features::SparseRow;
use tracer_learn::{Design, FoldFits, Logistic, LogisticParams, Sparse};

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

fn dense(x: &Array2<f64>) -> Design {
    Design::Dense(x.mapv(|v| v as f32))
}

fn sparse(x: &Array2<f64>, keep: impl Fn(usize, usize) -> bool) -> Design {
    let mut out = Sparse::new(x.ncols());
    for (i, row) in x.rows().into_iter().enumerate() {
        let kept = row.iter().enumerate().filter(|&(j, _)| keep(i, j));
        let (columns, values) = kept.map(|(j, &v)| (j as u32, v as f32)).unzip();
        out.push(&SparseRow { columns, values });
    }
    Design::Sparse(out)
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

    let (ours, search) = Logistic::search(&dense(&x), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&ours, &x, &y, |_| 1.0), optimum);
    // The loss it says is the loss it has.
    assert!((search.loss - loss_of(&ours, &x, &y, |_| 1.0)).abs() < 1e-5);

    let of_sparse = Logistic::fit(&sparse(&x, |_, _| true), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&of_sparse, &x, &y, |_| 1.0), optimum);

    // A start at the optimum stays there, and gets there sooner.
    let (again, warm) = Logistic::search(&dense(&x), &y, None, 5, TIGHT, Some(&ours));
    at_optimum(loss_of(&again, &x, &y, |_| 1.0), optimum);
    assert!(warm.iterations < search.iterations);
}

/// The optima are scikit-learn 1.9.1's, printed by `oracle_sklearn.py`.
#[test]
fn reaches_the_optimum_that_scikit_learn_reaches() {
    let (x, y) = problem(300, 8, 5);
    let model = Logistic::fit(&dense(&x), &y, None, 5, TIGHT, None);
    at_optimum(loss_of(&model, &x, &y, |_| 1.0), 0.465_042_795_8);

    let weight = |i: usize| 0.5 + (i % 4) as f64;
    let weights: Vec<f32> = (0..y.len()).map(|i| weight(i) as f32).collect();
    for design in [dense(&x), sparse(&x, |_, _| true)] {
        let model = Logistic::fit(&design, &y, Some(&weights), 5, TIGHT, None);
        at_optimum(loss_of(&model, &x, &y, weight), 0.471_291_479_4);
    }
}

fn fit_folds(design: &Design, y: &[u32], classes: usize, params: LogisticParams) -> FoldFits {
    let folds: Vec<u32> = (0..y.len()).map(|i| (i * 7 % 5) as u32).collect();
    let weights: Vec<f32> = (0..y.len()).map(|i| 1.0 + (i % 3) as f32).collect();
    Logistic::fit_folds(design, y, Some(&weights), &folds, 5, classes, params, None)
}

#[test]
fn a_fold_model_is_the_fit_on_the_other_rows() {
    let (x, y) = problem(400, 8, 5);
    for design in [dense(&x), sparse(&x, |i, j| (i + j) % 3 > 0)] {
        let fits = fit_folds(&design, &y, 5, TIGHT);
        let rows: Vec<usize> = (0..y.len()).filter(|i| i * 7 % 5 != 2).collect();
        let labels: Vec<u32> = rows.iter().map(|&i| y[i]).collect();
        let weights: Vec<f32> = rows.iter().map(|&i| 1.0 + (i % 3) as f32).collect();
        let alone = Logistic::fit(
            &design.select(&rows),
            &labels,
            Some(&weights),
            5,
            TIGHT,
            None,
        );
        let difference = fits.folds[2]
            .weights()
            .iter()
            .zip(alone.weights())
            .fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(difference < 0.02, "{difference}");

        // Other labels on the fold's rows change nothing of its model, bit for bit.
        let mut other = y.clone();
        for i in (0..y.len()).filter(|i| i * 7 % 5 == 2) {
            other[i] = (other[i] + 1) % 5;
        }
        let others = fit_folds(&design, &other, 5, TIGHT);
        assert_eq!(others.folds[2], fits.folds[2]);
        assert_ne!(others.folds[1], fits.folds[1]);
        assert_ne!(others.all, fits.all);
    }
}

/// The second fit of a path is the fit alone, and as free of the fold's labels.
#[test]
fn a_path_ends_where_a_single_fit_does() {
    let (x, y) = problem(400, 8, 5);
    let folds: Vec<u32> = (0..y.len()).map(|i| (i * 7 % 5) as u32).collect();
    let strong = LogisticParams { c: 0.1, ..TIGHT };
    let path = |y: &[u32]| {
        let path = [strong, TIGHT];
        Logistic::fit_folds_path(&dense(&x), y, None, &folds, 5, 5, &path, None)
    };
    let fits = path(&y);
    let alone = Logistic::fit(&dense(&x), &y, None, 5, TIGHT, None);
    at_optimum(
        loss_of(&fits[1].all, &x, &y, |_| 1.0),
        loss_of(&alone, &x, &y, |_| 1.0),
    );
    let mut other = y.clone();
    for i in (0..y.len()).filter(|&i| folds[i] == 2) {
        other[i] = (other[i] + 1) % 5;
    }
    assert_eq!(path(&other)[1].folds[2], fits[1].folds[2]);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (x, y) = problem(2600, 40, 20);
    let params = LogisticParams {
        max_iterations: 12,
        ..TIGHT
    };
    for design in [dense(&x), sparse(&x, |i, j| (i + j) % 4 == 0)] {
        let fits: Vec<_> = [1, 2, 3]
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                pool.build().unwrap().install(|| {
                    let alone = Logistic::fit(&design, &y, None, 20, params, None);
                    (alone, fit_folds(&design, &y, 20, params))
                })
            })
            .into();
        for (alone, folds) in &fits[1..] {
            assert_eq!(*alone, fits[0].0);
            assert_eq!(folds.folds, fits[0].1.folds);
            assert_eq!(folds.all, fits[0].1.all);
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
    for design in [dense(&x), sparse(&x, |i, j| (i + j) % 4 == 0)] {
        let model = Logistic::fit(&design, &y, None, 21, params, None);
        let scores = model.logits(&design);
        assert_eq!(scores.dim(), (250, 21));
        let mut row = Vec::new();
        for (i, expected) in scores.rows().into_iter().enumerate() {
            model.logits_into(&design, i, &mut row);
            assert_eq!(expected.to_vec(), row);
        }
    }
}
