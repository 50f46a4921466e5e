//! A perceptron's training rows: scaled, weighted, gathered into batches.

use ndarray::ArrayView2;

use super::MlpParams;
use crate::design::{Design, Sparse};

/// The rows as the fit sees them.
pub(super) struct Rows<'a> {
    /// Embeddings, where there are any.
    dense: Option<ArrayView2<'a, f32>>,
    /// Lexical rows, scaled, with the columns looked at, where there are any.
    pub(super) lexical: Option<Sparse>,
    /// The columns looked at, ascending, and how many there are in all.
    pub(super) kept: (Vec<u32>, usize),
    pub(super) labels: &'a [u32],
    pub(super) weights: Option<&'a [f32]>,
    /// Brings the weights to a mean of 1.
    pub(super) weight_scale: f32,
    /// Brings the embeddings to the wanted root mean square.
    pub(super) scale: f32,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        design: Design<'a>,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        params: &MlpParams,
    ) -> Self {
        let (lexical, dense) = match design {
            Design::Dense(x) => (None, Some(x)),
            Design::Sparse(x) => (Some(x), None),
            Design::Joint(sparse, dense) => (Some(sparse), Some(dense)),
        };
        let rms = dense.map_or(0.0, |x| {
            let square: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            (square / x.len().max(1) as f64).sqrt()
        });
        let weight_scale = weights.map_or(1.0, |w| {
            let total: f64 = w.iter().map(|&w| f64::from(w)).sum();
            (w.len() as f64 / total) as f32
        });
        let kept = lexical.map_or_else(Default::default, |x| {
            (x.commonest(params.text_columns), x.columns())
        });
        Self {
            dense,
            lexical: lexical.map(|x| x.narrowed(&kept.0, params.text_norm)),
            kept,
            labels,
            weights,
            weight_scale,
            scale: (f64::from(params.input_rms) / rms.max(1e-30)) as f32,
        }
    }

    pub(super) fn weight(&self, i: usize) -> f32 {
        self.weights.map_or(1.0, |w| w[i] * self.weight_scale)
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Dimensions of the embeddings; 0 without any.
    pub(super) fn dimension(&self) -> usize {
        self.dense.map_or(0, |x| x.ncols())
    }

    /// Copies embeddings, scaled, into a block.
    pub(super) fn gather(&self, members: &[usize], out: &mut Vec<f32>) {
        out.clear();
        let Some(x) = &self.dense else { return };
        for &i in members {
            match x.row(i).to_slice() {
                // A loop over a slice becomes vector code.
                Some(row) => out.extend(row.iter().map(|v| v * self.scale)),
                None => out.extend(x.row(i).iter().map(|v| v * self.scale)),
            }
        }
    }
}
