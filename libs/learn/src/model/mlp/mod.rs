//! Multi-layer perceptron: one or two hidden layers of rectified linear units.

mod train;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice, linalg::general_mat_mul};
use pulp::Arch;

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

impl Mlp {
    /// Number of features of a row.
    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// Number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// Raw scores of one row of [`Mlp::features`] values; their softmax is the class
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
                target.iter_mut().for_each(|v| *v = v.max(0.0));
                std::mem::swap(this, next);
            }
        }
        out.truncate(self.classes);
    }

    /// Raw scores of many rows: rows × classes. They differ from those of
    /// [`Mlp::logits`] by rounding alone.
    pub(crate) fn logits_batch(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        const BLOCK: usize = 256;
        let mut logits = Array2::zeros((x.nrows(), self.classes));
        let mut buffers: Vec<Vec<f32>> = vec![Vec::new(); self.layers.len()];
        for begin in (0..x.nrows()).step_by(BLOCK) {
            let block = Slice::from(begin..(begin + BLOCK).min(x.nrows()));
            let x = x.slice_axis(Axis(0), block);
            let rows = x.nrows();
            for (i, layer) in self.layers.iter().enumerate() {
                let (before, here) = buffers.split_at_mut(i);
                let here = &mut here[0];
                here.clear();
                (0..rows).for_each(|_| here.extend_from_slice(&layer.biases));
                let input = match before.last() {
                    None => x.view(),
                    Some(hidden) => view(hidden, rows, layer.inputs()),
                };
                let weights = view(&layer.weights, layer.inputs(), layer.stride());
                let mut output = view_mut(here, rows, layer.stride());
                general_mat_mul(1.0, &input, &weights, 1.0, &mut output);
                if i + 1 < self.layers.len() {
                    output.mapv_inplace(|v| v.max(0.0));
                } else {
                    logits
                        .slice_axis_mut(Axis(0), block)
                        .assign(&output.slice_axis(Axis(1), Slice::from(..self.classes)));
                }
            }
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

fn view(data: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), data).expect("a block of rows × columns")
}

fn view_mut(data: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), data).expect("a block of rows × columns")
}

#[cfg(test)]
mod tests;
