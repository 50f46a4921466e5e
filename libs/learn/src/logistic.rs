//! Multinomial logistic regression on dense or sparse rows, in f32.
//!
//! The loss is the weighted mean cross-entropy plus `1 / (2 C n) · ‖W‖²` over the
//! weights (not the intercepts), the rows' weights being scaled to mean 1 over the
//! `n` rows of the fit: scikit-learn's objective divided by `C n`.

use ndarray::{Array2, Axis, Slice};
use pulp::Arch;
use rayon::prelude::*;

use crate::{
    design::{Design, stride_of},
    lbfgs::Lbfgs,
};

/// Parameters of a fit.
#[derive(Clone, Copy, Debug)]
pub struct LogisticParams {
    /// Inverse strength of the regularisation.
    pub c: f64,
    /// Iterations at the most.
    pub max_iterations: usize,
    /// The search ends when an iteration lowers the loss by less than this share of it.
    pub tolerance: f64,
}

/// A fitted multinomial logistic regression.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    classes: usize,
    /// features × stride, padded classes 0.
    weights: Vec<f32>,
    /// stride; padded classes −∞ is left to the softmax, which never looks at them.
    intercepts: Vec<f32>,
}

/// A model a fold and one of all rows.
#[derive(Clone, Debug)]
pub struct FoldFits {
    /// By fold: the model that has not seen the fold's rows.
    pub folds: Vec<Logistic>,
    /// The model of all rows.
    pub all: Logistic,
}

/// A stored model whose parts do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged logistic model: {0}")]
pub struct DamagedLogistic(&'static str);

/// Rows of a block: the block's scores stay in the cache.
const BLOCK: usize = 256;

impl Logistic {
    /// Fits the rows `design` with their labels, each below `classes`, and their
    /// weights (all 1 when `None`). With `start` the search begins at an earlier
    /// fit of the same shape; one of another shape is passed over.
    pub fn fit(
        design: &Design,
        labels: &[u32],
        weights: Option<&[f32]>,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> Self {
        assert_eq!(design.rows(), labels.len(), "a label a row");
        let arch = Arch::new();
        let n = design.rows().max(1);
        let stride = stride_of(classes);
        let features = design.columns();
        let split = features * stride;
        let mut parameters =
            match start.filter(|s| s.classes == classes && s.weights.len() == split) {
                Some(start) => [start.weights.as_slice(), &start.intercepts].concat(),
                None => vec![0.0; split + stride],
            };
        let ridge = (1.0 / (params.c * n as f64)) as f32;
        let row_weights = relative_weights(labels.len(), weights);
        let mut scores = vec![0.0_f32; BLOCK * stride];
        let lbfgs = Lbfgs {
            memory: 6,
            max_iterations: params.max_iterations,
            gradient_tolerance: 1e-6,
            loss_tolerance: params.tolerance,
        };
        lbfgs.minimise(&mut parameters, |parameters, gradient| {
            let (weights, intercepts) = parameters.split_at(split);
            let (weight_gradient, intercept_gradient) = gradient.split_at_mut(split);
            let mut square = 0.0_f64;
            for (g, w) in weight_gradient.chunks_mut(4096).zip(weights.chunks(4096)) {
                let mut sum = 0.0_f32;
                for (g, &w) in g.iter_mut().zip(w) {
                    *g = ridge * w;
                    sum += w * w;
                }
                square += f64::from(sum);
            }
            intercept_gradient.fill(0.0);
            let mut cross_entropy = 0.0_f64;
            for (block, labels) in labels.chunks(BLOCK).enumerate() {
                let begin = block * BLOCK;
                let scores = &mut scores[..labels.len() * stride];
                for row in scores.chunks_exact_mut(stride) {
                    row.copy_from_slice(intercepts);
                }
                design.multiply(arch, begin, weights, stride, scores);
                let row_weights = &row_weights[begin..begin + labels.len()];
                for ((row, &label), &weight) in
                    scores.chunks_exact_mut(stride).zip(labels).zip(row_weights)
                {
                    let scale = weight / n as f32;
                    softmax(&mut row[..classes]);
                    row[classes..].fill(0.0);
                    let p = row[label as usize];
                    cross_entropy -= f64::from(weight) * f64::from(p.max(f32::MIN_POSITIVE)).ln();
                    row[label as usize] -= 1.0;
                    for (r, g) in row.iter_mut().zip(intercept_gradient.iter_mut()) {
                        *r *= scale;
                        *g += *r;
                    }
                }
                design.multiply_transposed(arch, begin, scores, stride, weight_gradient);
            }
            cross_entropy / n as f64 + 0.5 * f64::from(ridge) * square
        });
        let intercepts = parameters.split_off(split);
        Self {
            classes,
            weights: parameters,
            intercepts,
        }
    }

    /// Fits a model for each of `k` folds, which has not seen the fold's rows, and
    /// one on all rows. `folds` names each row's fold. Only the model of all rows
    /// begins at `start`: an earlier model has seen the rows of every fold.
    #[allow(clippy::too_many_arguments)] // a fit is what it is
    pub fn fit_folds(
        design: &Design,
        labels: &[u32],
        weights: Option<&[f32]>,
        folds: &[u32],
        k: usize,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> FoldFits {
        let models: Vec<Self> = (0..k as u32)
            .into_par_iter()
            .map(|fold| {
                let rows: Vec<usize> = (0..folds.len()).filter(|&i| folds[i] != fold).collect();
                let labels: Vec<u32> = rows.iter().map(|&i| labels[i]).collect();
                let weights: Option<Vec<f32>> =
                    weights.map(|w| rows.iter().map(|&i| w[i]).collect());
                let part = design.select(&rows);
                Self::fit(&part, &labels, weights.as_deref(), classes, params, None)
            })
            .collect();
        let all = Self::fit(design, labels, weights, classes, params, start);
        FoldFits { folds: models, all }
    }

    /// Raw scores of all rows, rows × classes.
    pub fn logits(&self, design: &Design) -> Array2<f32> {
        let stride = self.intercepts.len();
        let arch = Arch::new();
        let mut scores = self.intercepts.repeat(design.rows());
        design.multiply(arch, 0, &self.weights, stride, &mut scores);
        let mut scores =
            Array2::from_shape_vec((design.rows(), stride), scores).expect("a row a row");
        scores.slice_axis_inplace(Axis(1), Slice::from(..self.classes));
        scores
    }

    /// Puts a stored model together again: `weights` is features × stride,
    /// `intercepts` stride long.
    pub fn from_parts(
        classes: usize,
        weights: Vec<f32>,
        intercepts: Vec<f32>,
    ) -> Result<Self, DamagedLogistic> {
        let stride = stride_of(classes);
        if classes == 0 {
            return Err(DamagedLogistic("there are no classes"));
        }
        if intercepts.len() != stride {
            return Err(DamagedLogistic("the intercepts do not match the classes"));
        }
        if !weights.len().is_multiple_of(stride) {
            return Err(DamagedLogistic("the weights do not match the classes"));
        }
        if weights.iter().chain(&intercepts).any(|w| !w.is_finite()) {
            return Err(DamagedLogistic("a weight is not finite"));
        }
        Ok(Self {
            classes,
            weights,
            intercepts,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.weights.len() / self.intercepts.len()
    }

    /// The weights, features × padded classes.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The intercepts, padded.
    pub fn intercepts(&self) -> &[f32] {
        &self.intercepts
    }

    /// Class probabilities of one row: `multiply` adds the row's product with
    /// the weights to the scores it is given. `out` becomes `classes` long.
    pub(crate) fn probabilities(
        &self,
        out: &mut Vec<f32>,
        multiply: impl FnOnce(&[f32], &mut [f32]),
    ) {
        out.clear();
        out.extend_from_slice(&self.intercepts);
        multiply(&self.weights, out);
        out.truncate(self.classes);
        softmax(out);
    }
}

/// Scores to probabilities, in place.
pub(crate) fn softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - top).exp();
        sum += *v;
    }
    let scale = 1.0 / sum;
    for v in row {
        *v *= scale;
    }
}

/// The rows' weights scaled to mean 1.
fn relative_weights(rows: usize, weights: Option<&[f32]>) -> Vec<f32> {
    let Some(weights) = weights else {
        return vec![1.0; rows];
    };
    assert_eq!(weights.len(), rows, "a weight a row");
    let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    assert!(rows == 0 || sum > 0.0, "some row weighs something");
    let scale = rows as f64 / sum;
    weights
        .iter()
        .map(|&w| (f64::from(w) * scale) as f32)
        .collect()
}
