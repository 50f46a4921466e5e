//! Fitting a perceptron: Adam with decoupled weight decay on shuffled batches, a
//! step length that rises and falls once, dropout, and early stopping on rows set
//! aside from its own training rows.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use pulp::Arch;

use super::{Layer, MAX_HIDDEN, Mlp, TextColumns, rows::Rows, text::TextLayer};
use crate::{
    design::Design,
    model::{
        FitFailure, check_design,
        kernels::{ADAM_MEAN, ADAM_SQUARE, Adam, LANES, relu_dropout, softmax},
        random::Random,
    },
};

/// Parameters of a fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MlpParams {
    /// Widths of the hidden layers: one or two, rounded up to a multiple of 16.
    pub(crate) hidden: Vec<usize>,
    /// Passes over the rows, more when there are very few rows.
    pub(crate) epochs: usize,
    /// Rows of a batch, fewer when there are few rows.
    pub(crate) batch: usize,
    /// Largest step length.
    pub(crate) rate: f32,
    /// Decoupled weight decay.
    pub(crate) decay: f32,
    /// Share of the hidden units left out of each step.
    pub(crate) dropout: f32,
    /// Embeddings are scaled to this root mean square before the first layer.
    pub(crate) input_rms: f32,
    /// Lexical rows, which have length 1, are scaled to this length.
    pub(crate) text_norm: f32,
    /// So many lexical columns are looked at, the commonest ones: the rare ones cost
    /// much and teach a hidden layer little.
    pub(crate) text_columns: usize,
    /// Share of the rows set aside to stop by; 0 for none.
    pub(crate) validation: f32,
    /// The search stops after this many passes with a worse loss on the rows set aside.
    pub(crate) patience: usize,
}

impl Default for MlpParams {
    fn default() -> Self {
        Self {
            hidden: vec![256],
            epochs: 8,
            batch: 256,
            rate: 6e-3,
            decay: 0.01,
            dropout: 0.2,
            input_rms: 0.3,
            text_norm: 3.0,
            text_columns: 8192,
            validation: 0.05,
            patience: 3,
        }
    }
}

/// Batches a pass should have, if the rows allow.
const BATCHES: usize = 24;
/// Rows of a batch at the least.
const LEAST_BATCH: usize = 16;
/// Steps of a fit at the least, but for early stopping.
const LEAST_STEPS: usize = 150;
/// Share of the steps over which the step length rises.
const RISE: f32 = 0.1;
/// A loss on the rows set aside counts as worse when it is this many times the least
/// so far. The short steps of the last passes are worth more than a chance minimum
/// before them.
const WORSE: f64 = 1.05;
/// Units of a hidden layer at the most.
const MAX_WIDTH: usize = 4096;
/// Rows set aside below which there is no stopping by them.
const LEAST_VALIDATION: usize = 50;

impl Mlp {
    /// Fits rows with their labels, each below `classes`, and weights.
    pub(crate) fn fit<'a>(
        design: Design<'a>,
        labels: &'a [u32],
        weights: Option<&'a [f32]>,
        classes: usize,
        params: &MlpParams,
        seed: u64,
    ) -> Result<Self, FitFailure> {
        check_design(&design, labels, weights, classes)?;
        let hidden = &params.hidden;
        let too_large = |what, got, limit| Err(FitFailure::TooLarge { what, got, limit });
        if hidden.is_empty() || hidden.len() > MAX_HIDDEN {
            return too_large("hidden layers (at least one)", hidden.len(), MAX_HIDDEN);
        }
        if let Some(&width) = hidden.iter().find(|w| !(1..=MAX_WIDTH).contains(*w)) {
            return too_large("width of a hidden layer (at least one)", width, MAX_WIDTH);
        }
        let rows = Rows::new(design, labels, weights, params);
        let mut random = Random::new(seed, 0);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        random.shuffle(&mut order);
        let aside = (rows.len() as f32 * params.validation.clamp(0.0, 0.5)) as usize;
        let aside = if aside < LEAST_VALIDATION { 0 } else { aside };
        let validation = order.split_off(order.len() - aside);
        let mut net = Net::new(&rows, classes, params, &mut random);
        net.train(&rows, order, &validation, params, &mut random)?;
        Ok(net.into_model(&rows, params.text_norm))
    }
}

/// Where a layer's parameters stand in the vector of all parameters.
#[derive(Clone, Copy)]
struct Place {
    inputs: usize,
    stride: usize,
    /// Weights from here, biases after them.
    begin: usize,
}

impl Place {
    fn biases(self) -> usize {
        self.begin + self.inputs * self.stride
    }

    fn end(self) -> usize {
        self.biases() + self.stride
    }
}

/// A perceptron in training.
struct Net {
    arch: Arch,
    classes: usize,
    places: Vec<Place>,
    /// The lexical part of the first layer, whose embedding's part and biases stand
    /// among the other parameters.
    text: Option<TextLayer>,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
    /// Input of each layer, rows × inputs; then the scores.
    values: Vec<Vec<f32>>,
    /// Derivative of the loss by the scores, or by a layer's outputs.
    residuals: Vec<f32>,
    next_residuals: Vec<f32>,
    bytes: Vec<u8>,
}

impl Net {
    fn new(rows: &Rows<'_>, classes: usize, params: &MlpParams, random: &mut Random) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let (mut inputs, mut begin) = (rows.dimension(), 0);
        for &width in params.hidden.iter().chain(Some(&classes)) {
            let place = Place {
                inputs,
                stride: width.next_multiple_of(LANES),
                begin,
            };
            (inputs, begin) = (place.stride, place.end());
            places.push(place);
        }
        let mut parameters = vec![0.0_f32; begin];
        for (i, place) in places.iter().enumerate() {
            // He et al. 2015: the variance that rectified linear units keep.
            let deviation = (2.0 / place.inputs.max(1) as f32).sqrt();
            let outputs = if i + 1 == places.len() {
                classes
            } else {
                place.stride
            };
            for row in parameters[place.begin..place.biases()].chunks_exact_mut(place.stride) {
                row[..outputs]
                    .iter_mut()
                    .for_each(|w| *w = random.normal() * deviation);
            }
        }
        Self {
            arch: Arch::new(),
            classes,
            values: vec![Vec::new(); places.len() + 1],
            text: rows
                .lexical
                .as_ref()
                .map(|x| TextLayer::new(x.columns(), places[0].stride, random)),
            places,
            gradient: vec![0.0; begin],
            mean: vec![0.0; begin],
            square: vec![0.0; begin],
            steps: 0,
            parameters,
            residuals: Vec::new(),
            next_residuals: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn train(
        &mut self,
        rows: &Rows<'_>,
        mut order: Vec<usize>,
        validation: &[usize],
        params: &MlpParams,
        random: &mut Random,
    ) -> Result<(), FitFailure> {
        // Few rows make small batches, and very few more passes: it takes some steps
        // to get anywhere. Batches are even, as a last one of a few rows would be a
        // step of noise.
        let batch = (order.len() / BATCHES).clamp(LEAST_BATCH, params.batch.max(LEAST_BATCH));
        let batches = order.len().div_ceil(batch).max(1);
        let size = order.len().div_ceil(batches);
        let epochs = params.epochs.max(LEAST_STEPS.div_ceil(batches));
        let total = (epochs * batches) as f32;
        let mut best: Option<(f64, Vec<f32>, Vec<f32>)> = None;
        let mut worse = 0;
        for epoch in 0..epochs {
            random.shuffle(&mut order);
            let mut loss = 0.0;
            for members in order.chunks(size) {
                let progress = self.steps as f32 / total;
                let rate = params.rate * one_cycle(progress);
                loss += self.step(rows, members, rate, params, random);
            }
            if !loss.is_finite() {
                return Err(FitFailure::Diverged { pass: epoch + 1 });
            }
            if validation.is_empty() {
                continue;
            }
            let loss = self.validation_loss(rows, validation);
            let least = best.as_ref().map_or(f64::INFINITY, |(least, ..)| *least);
            if loss < least {
                best = Some((loss, self.parameters.clone(), self.text_weights().to_vec()));
            }
            worse = if loss <= least * WORSE { 0 } else { worse + 1 };
            if worse >= params.patience.max(1) {
                break;
            }
        }
        if let Some((_, parameters, text_weights)) = best.filter(|_| worse > 0) {
            self.parameters = parameters;
            if let Some(text) = &mut self.text {
                text.weights = text_weights;
            }
        }
        let all = self.parameters.iter().chain(self.text_weights());
        let finite = all.copied().all(f32::is_finite);
        finite
            .then_some(())
            .ok_or(FitFailure::Diverged { pass: epochs })
    }

    fn text_weights(&self) -> &[f32] {
        self.text.as_ref().map_or(&[], |text| &text.weights)
    }

    /// The scores of a block of rows, into the last of `values`.
    fn forward(&mut self, rows: &Rows<'_>, members: &[usize], dropout: Option<(f32, &mut Random)>) {
        rows.gather(members, &mut self.values[0]);
        let n = members.len();
        let (threshold, mut random) = match dropout {
            Some((share, random)) => ((share.clamp(0.0, 0.99) * 256.0) as u8, Some(random)),
            None => (0, None),
        };
        let keep = 256.0 / (256.0 - f32::from(threshold));
        for (i, place) in self.places.iter().enumerate() {
            let (before, here) = self.values.split_at_mut(i + 1);
            let here = &mut here[0];
            here.clear();
            let biases = &self.parameters[place.biases()..place.end()];
            (0..n).for_each(|_| here.extend_from_slice(biases));
            let weights = &self.parameters[place.begin..place.biases()];
            general_mat_mul(
                1.0,
                &view(&before[i], n, place.inputs),
                &view(weights, place.inputs, place.stride),
                1.0,
                &mut view_mut(here, n, place.stride),
            );
            if i == 0
                && let (Some(text), Some(x)) = (&self.text, &rows.lexical)
            {
                text.forward(self.arch, x, members, here);
            }
            if i + 1 == self.places.len() {
                break;
            }
            self.bytes.clear();
            if let Some(random) = random.as_deref_mut().filter(|_| threshold > 0) {
                while self.bytes.len() < here.len() {
                    self.bytes.extend_from_slice(&random.next().to_le_bytes());
                }
            } else {
                self.bytes.resize(here.len(), u8::MAX);
            }
            relu_dropout(self.arch, here, &self.bytes, threshold, keep);
        }
    }

    /// One step on a batch. Returns the sum of its weighted losses.
    fn step(
        &mut self,
        rows: &Rows<'_>,
        members: &[usize],
        rate: f32,
        params: &MlpParams,
        random: &mut Random,
    ) -> f64 {
        let n = members.len();
        self.forward(rows, members, Some((params.dropout, random)));
        let last = self.places.len();
        let stride = self.places[last - 1].stride;
        std::mem::swap(&mut self.residuals, &mut self.values[last]);
        let mut total = 0.0_f64;
        for (row, &i) in self.residuals.chunks_exact_mut(stride).zip(members) {
            let label = rows.labels[i] as usize;
            let score = row[label];
            let log_sum = softmax(self.arch, &mut row[..self.classes]);
            let weight = rows.weight(i);
            total += f64::from(weight * (log_sum - score));
            row[label] -= 1.0;
            let scale = weight / n as f32;
            row[..self.classes].iter_mut().for_each(|r| *r *= scale);
            row[self.classes..].fill(0.0);
        }
        let threshold = (params.dropout.clamp(0.0, 0.99) * 256.0) as u8;
        let keep = 256.0 / (256.0 - f32::from(threshold));
        for i in (0..last).rev() {
            let place = self.places[i];
            let input = view(&self.values[i], n, place.inputs);
            let residuals = view(&self.residuals, n, place.stride);
            let (weight_gradient, bias_gradient) =
                self.gradient[place.begin..place.end()].split_at_mut(place.inputs * place.stride);
            general_mat_mul(
                1.0,
                &input.t(),
                &residuals,
                0.0,
                &mut view_mut(weight_gradient, place.inputs, place.stride),
            );
            bias_gradient.fill(0.0);
            for row in self.residuals.chunks_exact(place.stride) {
                for (g, r) in bias_gradient.iter_mut().zip(row) {
                    *g += r;
                }
            }
            if i > 0 {
                self.next_residuals.resize(n * place.inputs, 0.0);
                let weights = &self.parameters[place.begin..place.biases()];
                general_mat_mul(
                    1.0,
                    &residuals,
                    &view(weights, place.inputs, place.stride).t(),
                    0.0,
                    &mut view_mut(&mut self.next_residuals, n, place.inputs),
                );
                for (r, &v) in self.next_residuals.iter_mut().zip(&self.values[i]) {
                    *r = if v > 0.0 { *r * keep } else { 0.0 };
                }
                std::mem::swap(&mut self.residuals, &mut self.next_residuals);
            }
        }
        self.steps += 1;
        let adam = self.adam(rate, rate * params.decay);
        if let (Some(text), Some(x)) = (&mut self.text, &rows.lexical) {
            text.step(self.arch, x, members, &self.residuals, &adam);
        }
        self.descend(rate, params.decay);
        total
    }

    fn adam(&self, rate: f32, decay: f32) -> Adam {
        let mean = 1.0 - ADAM_MEAN.powi(self.steps);
        let square = (1.0 - ADAM_SQUARE.powi(self.steps)).sqrt();
        Adam {
            rate: rate * square / mean,
            epsilon: 1e-8 * square,
            decay,
        }
    }

    fn descend(&mut self, rate: f32, decay: f32) {
        for place in &self.places {
            for (range, decay) in [
                (place.begin..place.biases(), rate * decay),
                (place.biases()..place.end(), 0.0),
            ] {
                self.adam(rate, decay).step(
                    self.arch,
                    &mut self.parameters[range.clone()],
                    &self.gradient[range.clone()],
                    &mut self.mean[range.clone()],
                    &mut self.square[range],
                );
            }
        }
    }

    /// Mean weighted cross-entropy of rows set aside.
    fn validation_loss(&mut self, rows: &Rows<'_>, validation: &[usize]) -> f64 {
        let (mut loss, mut weights) = (0.0_f64, 0.0_f64);
        let last = self.places.len();
        let stride = self.places[last - 1].stride;
        for members in validation.chunks(256) {
            self.forward(rows, members, None);
            for (row, &i) in self.values[last].chunks_exact_mut(stride).zip(members) {
                let score = row[rows.labels[i] as usize];
                let log_sum = softmax(self.arch, &mut row[..self.classes]);
                loss += f64::from(rows.weight(i) * (log_sum - score));
                weights += f64::from(rows.weight(i));
            }
        }
        loss / weights.max(1e-30)
    }

    /// The fitted model, for rows as they come: the scales go into the first layer.
    fn into_model(self, rows: &Rows<'_>, text_norm: f32) -> Mlp {
        let layers = self.places.iter().enumerate().map(|(i, place)| {
            let weights = self.parameters[place.begin..place.biases()].iter();
            let weights = if i == 0 {
                let text = self.text_weights().iter().map(|w| w * text_norm);
                text.chain(weights.map(|w| w * rows.scale)).collect()
            } else {
                weights.copied().collect()
            };
            Layer {
                weights,
                biases: self.parameters[place.biases()..place.end()].to_vec(),
            }
        });
        let (kept, columns) = rows.kept.clone();
        Mlp {
            text: TextColumns::new(kept, columns),
            dimension: self.places[0].inputs,
            classes: self.classes,
            layers: layers.collect(),
        }
    }
}

/// The step length after a share of the steps, 1 at its largest: a linear rise, then
/// half a cosine down to 0 (Loshchilov and Hutter 2017; Smith 2018).
fn one_cycle(progress: f32) -> f32 {
    if progress < RISE {
        0.1 + 0.9 * progress / RISE
    } else {
        let share = (progress - RISE) / (1.0 - RISE);
        0.5 * (1.0 + (std::f32::consts::PI * share).cos())
    }
}

fn view(data: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), data).expect("a block of rows × columns")
}

fn view_mut(data: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), data).expect("a block of rows × columns")
}
