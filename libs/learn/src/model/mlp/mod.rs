//! Multi-layer perceptron: one or two hidden layers of rectified linear units, on
//! embeddings, on lexical features or on both side by side.

mod rows;
mod text;
mod train;

use ndarray::{Array2, ArrayBase, ArrayView1};
use pulp::Arch;

use super::{
    DamagedModel, Tensor,
    kernels::{LANES, row_product},
    tensor::{Parts, damaged},
};
use crate::{
    design::{ABSENT, Design, places},
    gemm::{Strided, accumulate},
    simd::gather,
};

pub(crate) use train::MlpParams;

/// Hidden layers at the most.
const MAX_HIDDEN: usize = 2;

/// A fitted perceptron.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mlp {
    text: TextColumns,
    /// Of the embedding; 0 for one that does not look at it.
    dimension: usize,
    classes: usize,
    /// Hidden layers, then the output layer. The first one's inputs are the lexical
    /// columns, then the embedding.
    layers: Vec<Layer>,
}

/// The lexical columns that a perceptron looks at; none for one that has no text.
#[derive(Clone, Debug, PartialEq)]
struct TextColumns {
    /// Ascending.
    kept: Vec<u32>,
    /// Of every column of the lexicon its place among those kept.
    places: Vec<u32>,
}

impl TextColumns {
    fn new(kept: Vec<u32>, all: usize) -> Self {
        let places = places(&kept, all);
        Self { kept, places }
    }
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
    columns: Vec<u32>,
    values: Vec<f32>,
}

/// The columns of a lexical row, and their values.
type TextRow<'a> = (&'a [u32], &'a [f32]);

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
    /// Number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// Raw scores of a block of embeddings, rows × padded classes, each the same as
    /// [`Mlp::logits`] gives: both add up in the order of the inputs. Not for one that
    /// looks at text.
    pub(crate) fn block_logits(
        &self,
        arch: Arch,
        x: &[f32],
        rows: usize,
        scratch: &mut MlpBlock,
        out: &mut Vec<f32>,
    ) {
        assert_eq!(
            x.len(),
            rows * self.dimension,
            "embeddings of the fitted shape"
        );
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

    /// Raw scores of one input; their softmax is the class probabilities. The text's
    /// columns and the embedding must be of the fitted shape, and empty where there were
    /// none. `out` becomes `classes` long.
    pub(crate) fn logits(
        &self,
        (columns, values): TextRow<'_>,
        x: &[f32],
        scratch: &mut MlpScratch,
        out: &mut Vec<f32>,
    ) {
        assert_eq!(x.len(), self.dimension, "an embedding of the fitted shape");
        let arch = Arch::new();
        let MlpScratch {
            this,
            next,
            columns: kept_columns,
            values: kept_values,
        } = scratch;
        kept_columns.clear();
        kept_values.clear();
        for (&column, &value) in columns.iter().zip(values) {
            let place = self.text.places[column as usize];
            if place != ABSENT {
                kept_columns.push(place);
                kept_values.push(value);
            }
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let target = if last { &mut *out } else { &mut *next };
            target.clear();
            target.extend_from_slice(&layer.biases);
            if i == 0 {
                let text = self.text.kept.len() * layer.stride();
                let (text, embedding) = layer.weights.split_at(text);
                gather(arch, kept_columns, kept_values, text, target);
                row_product(arch, x, embedding, target);
            } else {
                row_product(arch, this, &layer.weights, target);
            }
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
    pub(crate) fn logits_batch(&self, design: Design<'_>) -> Array2<f32> {
        let (lexical, dense) = match design {
            Design::Dense(x) => (None, Some(x)),
            Design::Sparse(x) => (Some(x), None),
            Design::Joint(sparse, dense) => (Some(sparse), Some(dense)),
        };
        let dense = dense.as_ref().map(ArrayBase::as_standard_layout);
        let mut logits = Array2::zeros((design.rows(), self.classes));
        let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
        for (i, mut logits) in logits.rows_mut().into_iter().enumerate() {
            let text = lexical.map_or((&[][..], &[][..]), |x| x.row(i));
            let x = dense.as_ref().map(|x| x.row(i));
            let x = x
                .as_ref()
                .map_or(&[][..], |x| x.as_slice().expect("standard layout"));
            self.logits(text, x, &mut scratch, &mut out);
            logits.assign(&ArrayView1::from(&out));
        }
        logits
    }

    /// The model as tensors: `{layer}.weights`, inputs × outputs, and `{layer}.biases`;
    /// where it looks at text, the `columns` it looks at.
    pub(crate) fn parts(&self) -> Vec<Tensor> {
        let mut parts = Vec::new();
        if !self.text.places.is_empty() {
            parts.push(Tensor::u32("columns", self.text.kept.clone()));
        }
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

    /// Puts a stored model together again, of so many lexical columns and dimensions.
    pub(crate) fn from_parts(
        (columns, dimension): (usize, usize),
        classes: usize,
        tensors: Vec<Tensor>,
    ) -> Result<Self, DamagedModel> {
        let mut parts = Parts::new(tensors)?;
        let mut layers = Vec::new();
        let kept = if columns > 0 {
            parts.words("columns")?
        } else {
            Vec::new()
        };
        if kept.windows(2).any(|pair| pair[0] >= pair[1])
            || kept.last().is_some_and(|&last| last as usize >= columns)
        {
            return Err(damaged("columns", "they are not some of the lexicon's"));
        }
        let mut inputs = kept
            .len()
            .checked_add(dimension)
            .ok_or_else(|| damaged("0.weights", "there are too many inputs"))?;
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
                    text: TextColumns::new(kept, columns),
                    dimension,
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
