//! The models of the pool beside logistic regression: multi-layer perceptrons,
//! stochastic gradient descent for linear models, trees and forests of trees.
//!
//! They are written here for the sizes a task has (10⁴ rows of some hundred
//! columns, up to 1,000 classes), in f32. A fit depends on its seed and its rows
//! alone, never on the number of threads. A fit that comes to nothing is a
//! [`FitFailure`], so that one candidate can be left out without the others.
//!
//! Every model can be taken apart into [`Tensor`]s and put together again. Putting
//! together checks everything a prediction relies on: damaged parts are a
//! [`DamagedModel`], never a panic or an endless loop later.

mod forest;
mod kernels;
mod mlp;
mod random;
pub(crate) mod sgd;
mod tensor;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod testing;

pub(crate) use forest::{Forest, ForestKind, ForestParams};
pub(crate) use mlp::{Mlp, MlpBlock, MlpParams, MlpScratch};
pub(crate) use tensor::{DamagedModel, Tensor, TensorData};

use ndarray::ArrayView2;

use crate::design::Design;

/// A fit that came to nothing. The candidate is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FitFailure {
    /// There is nothing to tell apart.
    #[error("all {rows} rows have one label; there is nothing to tell apart")]
    OneClass {
        /// Number of rows.
        rows: usize,
    },
    /// A label that is no class.
    #[error("row {row} has label {label}, but there are {classes} classes")]
    NoSuchClass {
        /// Number of the row.
        row: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// More than one thing a row, or fewer.
    #[error("{rows} rows, but {got} {what}")]
    Shape {
        /// Number of rows.
        rows: usize,
        /// What there should be one of for every row.
        what: &'static str,
        /// How many there are.
        got: usize,
    },
    /// A value that is not a number, or infinite.
    #[error("row {row} has a value that is not finite")]
    NotFinite {
        /// Number of the row.
        row: usize,
    },
    /// A weight that is negative or not finite, or weights that are all 0.
    #[error("row {row} has a weight that is negative or not finite, or all weights are 0")]
    Weight {
        /// Number of the row.
        row: usize,
    },
    /// A model larger than the format allows.
    #[error("{what}: {got}, at most {limit} are supported")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Rows the model does not take.
    #[error("it does not take {0}")]
    Unsupported(&'static str),
    /// It answers rows it has not seen with what are no numbers.
    #[error("its scores of rows held out are not finite")]
    Scores,
    /// The search left the finite numbers.
    #[error("the fit diverged in pass {pass}")]
    Diverged {
        /// The pass over the rows in which it did.
        pass: usize,
    },
}

/// What holds of every fit: matching lengths, labels below `classes`, at least two
/// of them in use, usable weights.
fn check_labels(
    rows: usize,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
) -> Result<(), FitFailure> {
    let shape = |what, got| FitFailure::Shape { rows, what, got };
    if labels.len() != rows {
        return Err(shape("labels", labels.len()));
    }
    if let Some(row) = labels.iter().position(|&l| l as usize >= classes) {
        let label = labels[row];
        return Err(FitFailure::NoSuchClass {
            row,
            label,
            classes,
        });
    }
    if let Some(weights) = weights {
        if weights.len() != rows {
            return Err(shape("weights", weights.len()));
        }
        if let Some(row) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            return Err(FitFailure::Weight { row });
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        if rows > 0 && total <= 0.0 {
            return Err(FitFailure::Weight { row: 0 });
        }
    }
    if labels.windows(2).all(|pair| pair[0] == pair[1]) {
        return Err(FitFailure::OneClass { rows });
    }
    Ok(())
}

/// The same for a design; an embedding's values must be finite, a text's are.
fn check_design(
    design: &Design<'_>,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
) -> Result<(), FitFailure> {
    match design {
        Design::Sparse(x) => check_labels(x.rows(), labels, weights, classes),
        Design::Dense(x) | Design::Joint(_, x) => {
            check_dense(x.reborrow(), labels, weights, classes)
        }
    }
}

/// The same for dense rows, whose values must be finite.
fn check_dense(
    x: ArrayView2<'_, f32>,
    labels: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
) -> Result<(), FitFailure> {
    check_labels(x.nrows(), labels, weights, classes)?;
    let bad = x
        .rows()
        .into_iter()
        .position(|row| row.iter().any(|v| !v.is_finite()));
    bad.map_or(Ok(()), |row| Err(FitFailure::NotFinite { row }))
}
