//! Multi-layer perceptron: one or two hidden layers of rectified linear units.

mod rows;
mod train;

use ndarray::{Array2, ArrayView1, ArrayView2};
use pulp::Arch;

use crate::gemm::{Strided, accumulate};

use super::{
    DamagedModel, Tensor,
    kernels::{LANES, row_product},
    tensor::{Parts, damaged},
};

pub(crate) use train::MlpParams;

/// Hidden layers at the most.
const MAX_HIDDEN: usize = 2;

/// A fitted perceptron.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mlp {
    features: usize,
    classes: usize,
    /// Hidden layers, then the output layer.
    layers: Vec<Layer>,
}

/// `outputs = inputs · weights + biases`, outputs padded with zeros.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    /// inputs × padded outputs.
    weights: Vec<f32>,
    /// Padded outputs.
    biases: Vec<f32>,
}

impl Layer {
    fn stride(&self) -> usize {
        self.biases.len()
    }

    fn inputs(&self) -> usize {
        self.weights.len() / self.biases.len()
    }
}

/// Memory for the hidden layers, kept from one prediction to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct MlpScratch {
    this: Vec<f32>,
    next: Vec<f32>,
}

/// The same for a block of rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct MlpBlock {
    this: Vec<f32>,
    next: Vec<f32>,
    single: MlpScratch,
    logits: Vec<f32>,
}

impl MlpBlock {
    /// Memory for one row at a time.
    pub(crate) fn single(&mut self) -> (&mut MlpScratch, &mut Vec<f32>) {
        (&mut self.single, &mut self.logits)
    }
}

impl Mlp {
    /// Raw scores of a block of rows, rows × padded classes, each the same as
    /// [`Mlp::logits`] gives: both add up in the order of the inputs.
    pub(crate) fn block_logits(
        &self,
        arch: Arch,
        x: &[f32],
        rows: usize,
        scratch: &mut MlpBlock,
        out: &mut Vec<f32>,
    ) {
        debug_assert_eq!(x.len(), rows * self.features);
        let MlpBlock { this, next, .. } = scratch;
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let target = if last { &mut *out } else { &mut *next };
            target.clear();
            for _ in 0..rows {
                target.extend_from_slice(&layer.biases);
            }
            let a = Strided {
                data: if i == 0 { x } else { this },
                row: layer.inputs(),
                column: 1,
            };
            accumulate(
                arch,
                a,
                layer.inputs(),
                &layer.weights,
                layer.stride(),
                target,
            );
            if !last {
                for v in target.iter_mut() {
                    *v = v.max(0.0);
                }
                std::mem::swap(this, next);
            }
        }
    }

    /// Raw scores of one row of the fitted number of values; their softmax is the class
    /// probabilities. `out` becomes `classes` long.
    pub(crate) fn logits(&self, x: &[f32], scratch: &mut MlpScratch, out: &mut Vec<f32>) {
        debug_assert_eq!(x.len(), self.features);
        let arch = Arch::new();
        let MlpScratch { this, next } = scratch;
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let target = if last { &mut *out } else { &mut *next };
            target.clear();
            target.extend_from_slice(&layer.biases);
            row_product(arch, if i == 0 { x } else { this }, &layer.weights, target);
            if !last {
                for v in target.iter_mut() {
                    *v = v.max(0.0);
                }
                std::mem::swap(this, next);
            }
        }
        out.truncate(self.classes);
    }

    /// Raw scores of many rows: rows × classes, each the same as [`Mlp::logits`] gives.
    pub(crate) fn logits_batch(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        let x = x.as_standard_layout();
        let mut logits = Array2::zeros((x.nrows(), self.classes));
        let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
        for (x, mut logits) in x.rows().into_iter().zip(logits.rows_mut()) {
            self.logits(
                x.to_slice().expect("standard layout"),
                &mut scratch,
                &mut out,
            );
            logits.assign(&ArrayView1::from(&out));
        }
        logits
    }

    /// The model as tensors: `{layer}.weights`, inputs × outputs, and `{layer}.biases`.
    pub(crate) fn parts(&self) -> Vec<Tensor> {
        let mut parts = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let outputs = if last { self.classes } else { layer.stride() };
            let weights = layer
                .weights
                .chunks_exact(layer.stride())
                .flat_map(|row| &row[..outputs])
                .copied()
                .collect();
            parts.push(Tensor::f32(
                format!("{i}.weights"),
                &[layer.inputs(), outputs],
                weights,
            ));
            let biases = layer.biases[..outputs].to_vec();
            parts.push(Tensor::f32(format!("{i}.biases"), &[outputs], biases));
        }
        parts
    }

    /// Puts a stored model together again.
    pub(crate) fn from_parts(
        features: usize,
        classes: usize,
        tensors: Vec<Tensor>,
    ) -> Result<Self, DamagedModel> {
        let mut parts = Parts::new(tensors)?;
        let mut layers = Vec::new();
        let mut inputs = features;
        for i in 0..=MAX_HIDDEN {
            let name = format!("{i}.weights");
            let (shape, weights) = parts.floats(&name)?;
            let &[rows, outputs] = shape.as_slice() else {
                return Err(damaged(name, "it is not a matrix"));
            };
            if rows != inputs || rows == 0 || outputs == 0 {
                return Err(damaged(name, "it does not match the layer before it"));
            }
            let bias_name = format!("{i}.biases");
            let (_, mut biases) = parts.floats(&bias_name)?;
            if biases.len() != outputs {
                return Err(damaged(bias_name, "they do not match the weights"));
            }
            let stride = outputs.next_multiple_of(LANES);
            biases.resize(stride, 0.0);
            let mut padded = Vec::with_capacity(inputs * stride);
            for row in weights.chunks_exact(outputs) {
                padded.extend_from_slice(row);
                padded.resize(padded.len() + stride - outputs, 0.0);
            }
            layers.push(Layer {
                weights: padded,
                biases,
            });
            if !parts.has(&format!("{}.weights", i + 1)) {
                if outputs != classes || i == 0 {
                    return Err(damaged(name, "the last layer does not match the classes"));
                }
                return Ok(Self {
                    features,
                    classes,
                    layers,
                });
            }
            if outputs != stride {
                return Err(damaged(name, "a hidden layer has an odd width"));
            }
            inputs = outputs;
        }
        Err(damaged("layers", "there are too many"))
    }
}

#[cfg(test)]
mod tests;
