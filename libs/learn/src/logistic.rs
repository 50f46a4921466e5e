//! Multinomial logistic regression on dense or sparse rows, in f32.
//!
//! The loss is the weighted mean cross-entropy plus `1 / (2 C n) · ‖W‖²` over the
//! weights (not the intercepts), the rows' weights being scaled to mean 1 over the
//! `n` rows of the fit: scikit-learn's objective divided by `C n`.

use ndarray::{Array2, Axis, Slice};
use pulp::Arch;
use rayon::prelude::*;

use crate::{
    design::{Design, Sparse, stride_of},
    gemm::{Strided, accumulate},
    lbfgs::{Lbfgs, Problem},
    model::FitFailure,
    objective::{Objective, Rows},
    precondition::Preconditioner,
    simd::gather_lines,
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
    pub fn fit<'a>(
        design: Design<'a>,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> Self {
        Self::search(design, labels, weights, classes, params, start).0
    }

    /// As [`Logistic::fit`], with how the search went.
    pub fn search<'a>(
        design: Design<'a>,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        classes: usize,
        params: LogisticParams,
        start: Option<&Self>,
    ) -> (Self, SearchSummary) {
        if start.is_none()
            && let Some(found) = Self::search_narrowed(design, labels, weights, classes, params)
        {
            return found;
        }
        let rows = Rows::new(design, labels, weights);
        let objective = Objective::new(&rows, classes, params.c);
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

    /// The same search without the lexical columns that no row has, whose weights stay
    /// 0: few rows of a large lexicon would else spend their time on those. `None` where
    /// most columns are in use.
    fn search_narrowed(
        design: Design<'_>,
        labels: &[u32],
        weights: Option<&[f32]>,
        classes: usize,
        params: LogisticParams,
    ) -> Option<(Self, SearchSummary)> {
        let (sparse, dense) = match design {
            Design::Dense(_) => return None,
            Design::Sparse(x) => (x, None),
            Design::Joint(x, dense) => (x, Some(dense)),
        };
        let used = sparse.commonest(usize::MAX);
        if 2 * used.len() >= sparse.columns() {
            return None;
        }
        let narrow = sparse.narrowed(&used, 1.0);
        let narrow = match &dense {
            None => Design::Sparse(&narrow),
            Some(x) => Design::Joint(&narrow, x.view()),
        };
        let (found, summary) = Self::search(narrow, labels, weights, classes, params, None);
        let stride = found.intercepts.len();
        let (lexical, embedded) = found.weights.split_at(used.len() * stride);
        let mut weights = vec![0.0; sparse.columns() * stride];
        for (&column, from) in used.iter().zip(lexical.chunks_exact(stride)) {
            let at = column as usize * stride;
            weights[at..at + stride].copy_from_slice(from);
        }
        weights.extend_from_slice(embedded);
        Some((Self { weights, ..found }, summary))
    }

    /// Raw scores of all rows, rows × classes: the same bits as for each row alone.
    pub fn logits_of(&self, design: Design<'_>) -> Array2<f32> {
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
    pub fn logits_into(&self, design: Design<'_>, row: usize, out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.intercepts.len(), 0.0);
        self.padded_logits(design, row, out);
        out.truncate(self.classes);
    }

    /// Scores of the rows from `start` on, as many as `scores` has.
    fn padded_logits(&self, design: Design<'_>, start: usize, scores: &mut [f32]) {
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
        let (sparse, dense) = match design {
            Design::Dense(x) => (None, Some(x)),
            Design::Sparse(x) => (Some(x), None),
            Design::Joint(sparse, dense) => (Some(sparse), Some(dense)),
        };
        let lexical = sparse.map_or(0, Sparse::columns) * stride;
        let (lexical, embedded) = self.weights.split_at(lexical);
        if let Some(x) = sparse {
            let lines = x.lines(start..start + rows);
            gather_lines(arch, lines, lexical, stride, scores);
        }
        if let Some(x) = dense {
            let part = x.slice_axis(Axis(0), Slice::from(start..start + rows));
            let part = part.as_standard_layout();
            let a = Strided {
                data: part.as_slice().expect("in standard layout"),
                row: x.ncols(),
                column: 1,
            };
            accumulate(arch, a, x.ncols(), embedded, stride, scores);
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

    /// This model, unless the search left the finite numbers.
    pub(crate) fn finite(self) -> Result<Self, FitFailure> {
        if self
            .weights
            .iter()
            .chain(&self.intercepts)
            .all(|w| w.is_finite())
        {
            Ok(self)
        } else {
            Err(FitFailure::Diverged { pass: 0 })
        }
    }

    /// Raw scores of one row: `multiply` adds the row's product with the weights
    /// to the scores it is given. `out` becomes `classes` long.
    pub(crate) fn logits(&self, out: &mut Vec<f32>, multiply: impl FnOnce(&[f32], &mut [f32])) {
        out.clear();
        out.extend_from_slice(&self.intercepts);
        multiply(&self.weights, out);
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

#[cfg(test)]
mod tests {
    use tracer_features::SparseRow;

    use super::*;

    /// Columns that no row has change nothing, beside an embedding or alone.
    #[test]
    fn unused_columns_cost_nothing() {
        let rows = |columns: usize, spread: u32| {
            let mut x = Sparse::new(columns);
            for i in 0..60_u32 {
                x.push(&SparseRow {
                    columns: vec![spread * (i % 5), spread * (5 + i % 3)],
                    values: vec![0.8, 0.6],
                });
            }
            x
        };
        let (wide, narrow) = (rows(100, 12), rows(8, 1));
        let dense = Array2::from_shape_fn((60, 2), |(i, j)| ((3 * i + j) as f32).sin());
        let labels: Vec<u32> = (0..60).map(|i| (i % 5) % 3).collect();
        let params = LogisticParams {
            c: 10.0,
            max_iterations: 200,
            tolerance: 1e-6,
        };
        let fit = |design| Logistic::fit(design, &labels, None, 3, params, None);
        for (wide, narrow) in [
            (Design::Sparse(&wide), Design::Sparse(&narrow)),
            (
                Design::Joint(&wide, dense.view()),
                Design::Joint(&narrow, dense.view()),
            ),
        ] {
            let (of_wide, of_narrow) = (fit(wide), fit(narrow));
            assert_eq!(of_wide.features(), wide.columns());
            assert_eq!(of_wide.logits_of(wide), of_narrow.logits_of(narrow));
            assert_eq!(
                of_wide.weights()[stride_of(3)..12 * stride_of(3)],
                vec![0.0; 11 * stride_of(3)]
            );
        }
    }
}
