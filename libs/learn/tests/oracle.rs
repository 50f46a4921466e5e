//! The solver against linfa-logistic, on the same problem.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use linfa::{DatasetBase, traits::Fit};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};
use tracer_learn::{Design, Logistic, LogisticParams};

/// Deterministic numbers in [-1, 1).
fn noise(i: usize) -> f64 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Mean cross-entropy plus `1 / (2 C n) ‖W‖²`, from any weights (features × classes).
fn loss(x: &Array2<f64>, y: &[u32], weights: &Array2<f64>, intercepts: &[f64], c: f64) -> f64 {
    let n = y.len() as f64;
    let mut total = 0.0;
    for (row, &label) in x.rows().into_iter().zip(y) {
        let scores: Vec<f64> = (0..intercepts.len())
            .map(|k| row.dot(&weights.column(k)) + intercepts[k])
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
        total += log_sum - scores[label as usize];
    }
    total / n + weights.iter().map(|w| w * w).sum::<f64>() / (2.0 * c * n)
}

#[test]
fn reaches_the_optimum_that_linfa_reaches() {
    let (n, d, k, c) = (300, 8, 5, 2.0);
    let x = Array2::from_shape_fn((n, d), |(i, j)| noise(i * d + j));
    let y: Vec<u32> = (0..n)
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

    let targets: Array1<usize> = y.iter().map(|&l| l as usize).collect();
    // linfa minimises the summed cross-entropy plus α/2 ‖W‖²: α = 1 / C.
    let theirs = MultiLogisticRegression::default()
        .alpha(1.0 / c)
        .max_iterations(500)
        .gradient_tolerance(1e-8)
        .fit(&DatasetBase::new(x.clone(), targets))
        .unwrap();
    let their_loss = loss(
        &x,
        &y,
        theirs.params(),
        theirs.intercept().as_slice().unwrap(),
        c,
    );

    let single = x.mapv(|v| v as f32);
    let design = Design::Dense(single.view());
    let ours = Logistic::fit(
        design,
        &y,
        None,
        k,
        LogisticParams {
            c,
            max_iterations: 500,
            tolerance: 1e-7,
        },
        None,
    );
    let stride = ours.intercepts().len();
    let weights = Array2::from_shape_fn((d, k), |(j, class)| {
        f64::from(ours.weights()[j * stride + class])
    });
    let intercepts: Vec<f64> = ours.intercepts()[..k]
        .iter()
        .map(|&b| f64::from(b))
        .collect();
    let our_loss = loss(&x, &y, &weights, &intercepts, c);
    assert!(
        (our_loss - their_loss).abs() < 1e-3,
        "ours {our_loss}, linfa's {their_loss}"
    );

    // A start elsewhere ends in the same place.
    let again = Logistic::fit(
        design,
        &y,
        None,
        k,
        LogisticParams {
            c,
            max_iterations: 500,
            tolerance: 1e-7,
        },
        Some(&ours),
    );
    let again = Array2::from_shape_fn((d, k), |(j, class)| {
        f64::from(again.weights()[j * stride + class])
    });
    assert!((loss(&x, &y, &again, &intercepts, c) - our_loss).abs() < 1e-3);
}
