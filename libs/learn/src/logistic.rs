//! Multinomial logistic regression on dense or sparse rows, in f32.
//!
//! The loss is the weighted mean cross-entropy plus `1 / (2 C n) · ‖W‖²` over the
//! weights (not the intercepts), the rows' weights being scaled to mean 1 over the
//! `n` rows of the fit: scikit-learn's objective divided by `C n`.

use std::ops::Range;

use ndarray::{Array2, Axis, Slice};
use pulp::Arch;
use rayon::prelude::*;

use crate::{
    design::{Design, stride_of},
    gemm::{Strided, accumulate},
    lbfgs::{Lbfgs, Problem},
    objective::{Objective, Rows},
    precondition::Preconditioner,
    simd::gather_lines,
    softmax::softmax,
};

/// Parameters of a fit.
#[derive(Clone, Copy, Debug)]
pub struct LogisticParams {
    /// Inverse strength of the regularisation.
    pub c: f64,
    /// Iterations at the most.
    pub max_iterations: usize,
    /// The search ends when an iteration lowers the loss by less than this share of
    /// it, over the last three iterations.
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

/// Rows whose scores are computed at a time.
const LOGITS_BLOCK: usize = 120;

/// How a search went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchSummary {
    /// The objective at the model returned.
    pub loss: f64,
    /// Steps taken.
    pub iterations: usize,
    /// Times the loss and its gradient were computed.
    pub evaluations: usize,
}

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
        Self::search(design, labels, weights, classes, params, start).0
    }

    /// As [`Logistic::fit`], with how the search went.
    pub fn search(
        design: &Design,
        labels: &[u32],
        weights: Option<&[f32]>,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> (Self, SearchSummary) {
        let rows = Rows::whole(design, labels, weights);
        Self::on(&rows, rows.all(), classes, params, start)
    }

    /// Fits a model for each of `k` folds, which has not seen the fold's rows, and
    /// one on all rows, which begins at the mean of the folds' models. `folds`
    /// names each row's fold.
    ///
    /// `start` serves the model of all rows alone: an earlier model may have seen
    /// the rows of any fold.
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
        Self::fit_folds_path(design, labels, weights, folds, k, classes, &[params], start)
            .pop()
            .expect("a fit for the parameters")
    }

    /// As [`Logistic::fit_folds`] for each of `path` in order, best from strong to
    /// weak regularisation: a fold's model begins at the fold's model before it.
    #[allow(clippy::too_many_arguments)] // a fit is what it is
    pub fn fit_folds_path(
        design: &Design,
        labels: &[u32],
        weights: Option<&[f32]>,
        folds: &[u32],
        k: usize,
        classes: usize,
        path: &[LogisticParams],
        start: Option<&Self>,
    ) -> Vec<FoldFits> {
        let rows = Rows::folded(design, labels, weights, folds, k);
        let mut by_fold: Vec<_> = (0..k)
            .into_par_iter()
            .with_max_len(1)
            .map(|fold| {
                let mut models: Vec<Self> = Vec::with_capacity(path.len());
                for &params in path {
                    let ranges = rows.without(fold);
                    let model = Self::on(&rows, ranges, classes, params, models.last()).0;
                    models.push(model);
                }
                models.into_iter()
            })
            .collect();
        path.iter()
            .map(|&params| {
                let folds: Vec<Self> = by_fold.iter_mut().filter_map(Iterator::next).collect();
                let mean = Self::mean(&folds);
                let start = start.or(mean.as_ref());
                let all = Self::on(&rows, rows.all(), classes, params, start).0;
                FoldFits { folds, all }
            })
            .collect()
    }

    fn on(
        rows: &Rows<'_>,
        ranges: Vec<Range<usize>>,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> (Self, SearchSummary) {
        let objective = Objective::new(rows, ranges, classes, params.c);
        let split = objective.columns() * objective.stride();
        let mut parameters =
            match start.filter(|s| s.classes == classes && s.weights.len() == split) {
                Some(start) => [start.weights.as_slice(), &start.intercepts].concat(),
                None => vec![0.0; objective.len()],
            };
        let lbfgs = Lbfgs {
            memory: if objective.dense().is_some() { 8 } else { 4 },
            max_iterations: params.max_iterations,
            tolerance: params.tolerance,
            refresh: &[8, 24],
        };
        let mut problem = Preconditioned {
            objective,
            preconditioner: None,
        };
        let search = lbfgs.minimise(&mut parameters, &mut problem);
        let intercepts = parameters.split_off(split);
        let model = Self {
            classes,
            weights: parameters,
            intercepts,
        };
        let summary = SearchSummary {
            loss: search.loss,
            iterations: search.iterations,
            evaluations: search.evaluations,
        };
        (model, summary)
    }

    /// The mean of several models of one shape.
    fn mean(models: &[Self]) -> Option<Self> {
        let mut mean = models.first()?.clone();
        let scale = 1.0 / models.len() as f32;
        let add = |sum: &mut [f32], other: &[f32]| {
            for (a, b) in sum.iter_mut().zip(other) {
                *a += b;
            }
        };
        for model in &models[1..] {
            add(&mut mean.weights, &model.weights);
            add(&mut mean.intercepts, &model.intercepts);
        }
        for v in mean.weights.iter_mut().chain(&mut mean.intercepts) {
            *v *= scale;
        }
        Some(mean)
    }

    /// Raw scores of all rows, rows × classes: the same bits as for each row alone.
    pub fn logits(&self, design: &Design) -> Array2<f32> {
        let stride = self.intercepts.len();
        let mut scores = Array2::zeros((design.rows(), stride));
        let flat = scores.as_slice_mut().expect("made in standard layout");
        flat.par_chunks_mut(LOGITS_BLOCK * stride)
            .enumerate()
            .for_each(|(block, scores)| {
                self.padded_logits(design, block * LOGITS_BLOCK, scores);
            });
        scores.slice_axis_inplace(Axis(1), Slice::from(..self.classes));
        scores
    }

    /// Raw scores of the row `row` into `out`, which becomes `classes` long.
    pub fn logits_into(&self, design: &Design, row: usize, out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.intercepts.len(), 0.0);
        self.padded_logits(design, row, out);
        out.truncate(self.classes);
    }

    /// Scores of the rows from `start` on, as many as `scores` has.
    fn padded_logits(&self, design: &Design, start: usize, scores: &mut [f32]) {
        assert_eq!(
            design.columns(),
            self.features(),
            "rows of the model's shape"
        );
        let arch = Arch::new();
        let stride = self.intercepts.len();
        let rows = scores.len() / stride;
        for row in scores.chunks_exact_mut(stride) {
            row.copy_from_slice(&self.intercepts);
        }
        match design {
            Design::Dense(x) => {
                let part = x.slice_axis(Axis(0), Slice::from(start..start + rows));
                let part = part.as_standard_layout();
                let data = part.as_slice().expect("in standard layout");
                let a = Strided {
                    data,
                    row: x.ncols(),
                    column: 1,
                };
                accumulate(arch, a, x.ncols(), &self.weights, stride, scores);
            }
            Design::Sparse(x) => {
                let lines = x.lines(start..start + rows);
                gather_lines(arch, lines, &self.weights, stride, scores);
            }
        }
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
        softmax(Arch::new(), out, self.classes);
        out.truncate(self.classes);
    }
}

/// The objective with its preconditioner.
struct Preconditioned<'a> {
    objective: Objective<'a>,
    preconditioner: Option<Preconditioner>,
}

impl Problem for Preconditioned<'_> {
    fn evaluate(&mut self, x: &[f32], gradient: &mut [f32]) -> f64 {
        self.objective.evaluate(x, gradient)
    }

    fn precondition(&self, gradient: &[f32], out: &mut [f32]) {
        self.preconditioner
            .as_ref()
            .expect("a search refreshes before it preconditions")
            .apply(gradient, out);
    }

    fn refresh(&mut self, x: &[f32]) {
        let earlier = self.preconditioner.take();
        self.preconditioner = Some(Preconditioner::at(&self.objective, x, earlier));
    }
}
