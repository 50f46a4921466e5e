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
        rate: 3.0,
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

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};
    use tracer_features::SparseRow;

    use super::*;
    use crate::{
        logistic::Logistic,
        model::testing::{agreement, noise, octants, with_threads},
    };

    /// 3,000 rows of 20 columns, `noise(20 i + j)`, in 12 classes: the largest of
    /// linear scores of weights `noise(10⁶ + 20 k + j)` plus half of
    /// `noise(2·10⁶ + 12 i + k)`.
    ///
    /// scikit-learn, fitted on the first 2,000 rows, agrees on the last 1,000 so often:
    /// `LogisticRegression(C=10)` 0.795, `SGDClassifier(loss="log_loss")`
    /// 0.755, 0.745, 0.742 (three seeds).
    fn planes() -> (Array2<f32>, Vec<u32>) {
        let x = Array2::from_shape_fn((3000, 20), |(i, j)| noise(20 * i + j));
        let w = Array2::from_shape_fn((20, 12), |(j, k)| noise(1_000_000 + 20 * k + j));
        let mut scores = x.dot(&w);
        scores
            .indexed_iter_mut()
            .for_each(|((i, k), s)| *s += 0.5 * noise(2_000_000 + 12 * i + k));
        let labels = scores
            .rows()
            .into_iter()
            .map(|r| crate::confidence::top(r.as_slice().unwrap()).label as u32)
            .collect();
        (x, labels)
    }

    fn scores(linear: &Linear, x: ArrayView2<'_, f32>, classes: usize) -> Array2<f32> {
        let stride = linear.intercepts.len();
        let shape = (x.ncols(), stride);
        let weights = ArrayView2::from_shape(shape, &linear.weights).unwrap();
        let padded = x.dot(&weights) + ndarray::ArrayView1::from(&linear.intercepts);
        Array2::from_shape_fn((x.nrows(), classes), |at| padded[at])
    }

    fn sparse(x: ArrayView2<'_, f32>) -> Sparse {
        let mut out = Sparse::new(x.ncols());
        for row in x.rows() {
            let (columns, values) = row
                .iter()
                .enumerate()
                .filter(|(_, v)| **v != 0.0)
                .map(|(j, &v)| (j as u32, v))
                .unzip();
            out.push(&SparseRow { columns, values });
        }
        out
    }

    const PARAMS: SgdParams = SgdParams {
        epochs: 20,
        rate: 3.0,
    };

    #[test]
    fn as_good_as_scikit_learn() {
        let (x, labels) = planes();
        let (train, test) = x.view().split_at(Axis(0), 2000);
        for seed in 0..3 {
            let linear = fit_dense(train, &labels[..2000], None, 12, PARAMS, seed).unwrap();
            let share = agreement(scores(&linear, test, 12).view(), &labels[2000..]);
            assert!(share >= 0.77, "{share}");
        }
    }

    /// The loss comes close to the optimum without a penalty (scikit-learn with
    /// `C=1e4`: 0.4016), and the parts are those of a logistic regression.
    #[test]
    fn close_to_the_optimum() {
        let (x, labels) = planes();
        let linear = fit_dense(x.view(), &labels, None, 12, PARAMS, 1).unwrap();
        let loss = |linear: &Linear| -> f64 {
            let scores = scores(linear, x.view(), 12);
            let losses = scores.rows().into_iter().zip(&labels).map(|(row, &label)| {
                let sum: f64 = row.iter().map(|&s| f64::from(s).exp()).sum();
                sum.ln() - f64::from(row[label as usize])
            });
            losses.sum::<f64>() / 3000.0
        };
        let here = loss(&linear);
        assert!(here < 0.4016 + 0.05, "{here}");
        let same = Logistic::from_parts(12, linear.weights, linear.intercepts).unwrap();
        assert_eq!((same.features(), same.classes()), (20, 12));
    }

    #[test]
    fn dense_and_sparse_rows_give_one_model() {
        let (mut x, labels) = planes();
        x.mapv_inplace(|v| if v.abs() < 0.7 { 0.0 } else { v });
        let dense = fit(&Design::Dense(x.view()), &labels, None, 12, PARAMS, 1).unwrap();
        assert_eq!(
            dense,
            fit(
                &Design::Sparse(&sparse(x.view())),
                &labels,
                None,
                12,
                PARAMS,
                1
            )
            .unwrap()
        );
    }

    #[test]
    fn a_seed_gives_one_model_whatever_the_threads() {
        let (x, labels) = planes();
        let fit = |seed| fit_dense(x.view(), &labels, None, 12, SgdParams::DENSE, seed).unwrap();
        let one = with_threads(1, || fit(5));
        assert_eq!(one, with_threads(2, || fit(5)));
        assert_ne!(one, fit(6));
    }

    /// Rows of weight 0 teach nothing, and a common factor in the weights changes nothing.
    #[test]
    fn weights_count() {
        let (x, mut labels) = planes();
        let truth = labels.clone();
        labels[..1000].fill(12);
        let weights: Vec<f32> = (0..3000).map(|i| f32::from(u8::from(i >= 1000))).collect();
        let fit =
            |weights: &[f32]| fit_dense(x.view(), &labels, Some(weights), 13, PARAMS, 1).unwrap();
        let linear = fit(&weights);
        let share = agreement(scores(&linear, x.view(), 13).view(), &truth);
        assert!(share > 0.8, "{share}");
        let doubled: Vec<f32> = weights.iter().map(|w| w * 2.0).collect();
        assert_eq!(linear, fit(&doubled));
    }

    #[test]
    fn a_thousand_classes() {
        let x = Array2::from_shape_fn((2000, 64), |(i, j)| noise(64 * (i % 1000) + j));
        let labels: Vec<u32> = (0..2000).map(|i| i % 1000).collect();
        let linear = fit_dense(x.view(), &labels, None, 1000, PARAMS, 1).unwrap();
        let share = agreement(scores(&linear, x.view(), 1000).view(), &labels);
        assert!(share > 0.9, "{share}");
    }

    #[test]
    fn a_fit_that_cannot_be_is_a_failure() {
        let (x, labels) = octants();
        let fit_to = |x: &Array2<f32>, labels: &[u32], params| {
            let dense = fit(&Design::Dense(x.view()), labels, None, 8, params, 0);
            let sparse = fit(
                &Design::Sparse(&sparse(x.view())),
                labels,
                None,
                8,
                params,
                0,
            );
            assert_eq!(dense.as_ref().err(), sparse.as_ref().err());
            dense.map(|_| ())
        };
        let mut broken = x.clone();
        broken[(7, 3)] = f32::NAN;
        assert_eq!(
            fit_to(&broken, &labels, PARAMS),
            Err(FitFailure::NotFinite { row: 7 })
        );
        assert_eq!(
            fit_to(&x, &[1; 3000], PARAMS),
            Err(FitFailure::OneClass { rows: 3000 })
        );
        let one = Array2::ones((1, 4));
        assert_eq!(
            fit_to(&one, &[1], PARAMS),
            Err(FitFailure::OneClass { rows: 1 })
        );
        let wild = SgdParams {
            rate: f32::INFINITY,
            ..PARAMS
        };
        assert!(matches!(
            fit_to(&x, &labels, wild),
            Err(FitFailure::Diverged { .. })
        ));
        // Rows of zeros leave the intercepts.
        assert_eq!(fit_to(&Array2::zeros((3000, 2)), &labels, PARAMS), Ok(()));
    }
}
