//! A perceptron's training rows: scaled, weighted, gathered into batches.

use ndarray::ArrayView2;

use super::MlpParams;

/// The rows as the fit sees them.
pub(super) struct Rows<'a> {
    pub(super) x: ArrayView2<'a, f32>,
    pub(super) labels: &'a [u32],
    pub(super) weights: Option<&'a [f32]>,
    /// Brings the weights to a mean of 1.
    pub(super) weight_scale: f32,
    /// Brings the rows to the wanted root mean square.
    pub(super) scale: f32,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        x: ArrayView2<'a, f32>,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        params: &MlpParams,
    ) -> Self {
        let square: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let rms = (square / x.len().max(1) as f64).sqrt();
        let weight_scale = weights.map_or(1.0, |w| {
            let total: f64 = w.iter().map(|&w| f64::from(w)).sum();
            (w.len() as f64 / total) as f32
        });
        Self {
            x,
            labels,
            weights,
            weight_scale,
            scale: (f64::from(params.input_rms) / rms.max(1e-30)) as f32,
        }
    }

    pub(super) fn weight(&self, i: usize) -> f32 {
        self.weights.map_or(1.0, |w| w[i] * self.weight_scale)
    }

    /// Copies rows, scaled, into a block.
    pub(super) fn gather(&self, members: &[usize], out: &mut Vec<f32>) {
        out.clear();
        for &i in members {
            match self.x.row(i).to_slice() {
                // A loop over a slice becomes vector code.
                Some(row) => out.extend(row.iter().map(|v| v * self.scale)),
                None => out.extend(self.x.row(i).iter().map(|v| v * self.scale)),
            }
        }
    }
}
