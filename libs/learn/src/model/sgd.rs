//! A linear model by stochastic gradient descent: multinomial log loss, one row at a
//! time, a step length for every feature (Adagrad: Duchi, Hazan and Singer 2011) that
//! also falls to 0 over the passes, so that the last iterate needs no averaging.
//!
//! Without a penalty on the weights: few passes keep them small. The classes' steps of
//! a feature share one sum of squares, which is all the memory the method needs beside
//! the weights.

use ndarray::ArrayView2;
use pulp::Arch;

use super::{
    FitFailure, check_dense, check_labels,
    kernels::{SgdRow, sgd_step},
    random::Random,
};
use crate::{
    design::{Design, Sparse, stride_of},
    logistic::Logistic,
};

/// Parameters of a fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SgdParams {
    /// Passes over the rows.
    pub(crate) epochs: usize,
    /// Step length, for rows of a mean norm of 1. Rows of another norm are treated as
    /// if they were scaled to it.
    pub(crate) rate: f32,
}

impl SgdParams {
    /// Good for embeddings.
    pub(crate) const DENSE: Self = Self {
        epochs: 5,
        rate: 4.0,
    };
    /// Good for lexical rows.
    pub(crate) const SPARSE: Self = Self {
        epochs: 5,
        rate: 1.0,
    };
}

/// A linear model's weights, features × padded classes, and padded intercepts: what
/// `Logistic::from_parts` takes. The padding is 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    /// features × padded classes.
    pub(crate) weights: Vec<f32>,
    /// Padded classes.
    pub(crate) intercepts: Vec<f32>,
}

impl Linear {
    /// The weights as a model that scores, unless they are not finite.
    pub(crate) fn model(self, classes: usize) -> Result<Logistic, FitFailure> {
        Logistic::from_parts(classes, self.weights, self.intercepts)
            .map_err(|_| FitFailure::Diverged { pass: 0 })
    }
}

/// Fits the rows of a design, with labels below `classes` and weights.
pub(crate) fn fit(
    design: &Design<'_>,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
    params: SgdParams,
    seed: u64,
) -> Result<Linear, FitFailure> {
    match design {
        Design::Dense(x) => fit_dense(*x, labels, weights, classes, params, seed),
        Design::Sparse(x) => fit_sparse(x, design.rows(), labels, weights, classes, params, seed),
        Design::Joint(..) => Err(FitFailure::Unsupported("both kinds of features at once")),
    }
}

/// Fits dense rows.
pub(crate) fn fit_dense(
    x: ArrayView2<'_, f32>,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
    params: SgdParams,
    seed: u64,
) -> Result<Linear, FitFailure> {
    check_dense(x, labels, weights, classes)?;
    let x = x.as_standard_layout();
    let columns: Vec<u32> = (0..x.ncols() as u32).collect();
    let row = |i: usize| {
        let row = x.row(i).to_slice().expect("standard layout");
        (columns.as_slice(), row)
    };
    descend(
        x.nrows(),
        x.ncols(),
        row,
        labels,
        weights,
        classes,
        params,
        seed,
    )
}

fn fit_sparse(
    x: &Sparse,
    rows: usize,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
    params: SgdParams,
    seed: u64,
) -> Result<Linear, FitFailure> {
    check_labels(rows, labels, weights, classes)?;
    let bad = (0..rows).find(|&i| x.row(i).1.iter().any(|v| !v.is_finite()));
    if let Some(row) = bad {
        return Err(FitFailure::NotFinite { row });
    }
    descend(
        rows,
        x.columns(),
        |i| x.row(i),
        labels,
        weights,
        classes,
        params,
        seed,
    )
}

#[allow(clippy::too_many_arguments)] // what a fit is given, and how to get at a row
fn descend<'a>(
    rows: usize,
    features: usize,
    row: impl Fn(usize) -> (&'a [u32], &'a [f32]),
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
    params: SgdParams,
    seed: u64,
) -> Result<Linear, FitFailure> {
    let arch = Arch::new();
    let stride = stride_of(classes);
    let mut linear = Linear {
        weights: vec![0.0; features * stride],
        intercepts: vec![0.0; stride],
    };
    // Sums of squared gradients, by feature; the last is the intercepts'.
    let mut squares = vec![0.0_f32; features + 1];
    let mut scores = vec![0.0_f32; stride];
    let square: f64 = (0..rows)
        .flat_map(|i| row(i).1)
        .map(|&v| f64::from(v) * f64::from(v))
        .sum();
    let norm = (square / rows as f64).sqrt().max(1e-30);
    let weight_scale = weights.map_or(1.0, |w| {
        let total: f64 = w.iter().map(|&w| f64::from(w)).sum();
        (rows as f64 / total) as f32
    });
    let mut random = Random::new(seed, 0);
    let mut order: Vec<usize> = (0..rows).collect();
    let total = (params.epochs * rows) as f32;
    let mut step = 0;
    for epoch in 0..params.epochs {
        random.shuffle(&mut order);
        let mut loss = 0.0_f64;
        for &i in &order {
            let share = 1.0 - step as f32 / total;
            step += 1;
            let weight = weights.map_or(1.0, |w| w[i] * weight_scale);
            if weight == 0.0 {
                continue;
            }
            let (columns, values) = row(i);
            loss += f64::from(sgd_step(
                arch,
                SgdRow {
                    columns,
                    values,
                    label: labels[i] as usize,
                    classes,
                    weight,
                    rate: (f64::from(params.rate * share) / norm) as f32,
                    intercept_rate: params.rate * share * 0.1,
                    weights: &mut linear.weights,
                    intercepts: &mut linear.intercepts,
                    squares: &mut squares,
                    scores: &mut scores,
                },
            ));
        }
        if !loss.is_finite() {
            return Err(FitFailure::Diverged { pass: epoch + 1 });
        }
    }
    let mut all = linear.weights.iter().chain(&linear.intercepts);
    if all.any(|w| !w.is_finite()) {
        return Err(FitFailure::Diverged {
            pass: params.epochs,
        });
    }
    Ok(linear)
}
