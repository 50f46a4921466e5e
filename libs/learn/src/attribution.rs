//! What a surrogate's lexical weights say of one text.

use tracer_features::{LexicalScratch, SparseRow};

use crate::{component::Component, logistic::Logistic, pipeline::Pipeline};

/// What one n-gram of a text adds to a label's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// The n-gram's bucket.
    pub bucket: u32,
    /// Its weight for the label, less the mean over all labels, times its value in the
    /// text: log-odds, averaged over the components of the surrogate.
    pub weight: f32,
}

/// Working space of [`Pipeline::lexical_contributions`].
#[derive(Debug, Default)]
pub struct AttributionScratch {
    lexical: LexicalScratch,
    row: SparseRow,
}

impl Pipeline {
    /// Whether a linear model on lexical features is part of the (first) surrogate:
    /// without one, n-grams have no weights of their own.
    pub fn has_lexical_weights(&self) -> bool {
        self.lexicon.is_some() && self.linear().next().is_some()
    }

    /// What each n-gram of a text that the lexicon knows says for a label of
    /// [`Pipeline::labels`], by the linear models on lexical features. Components that
    /// are not linear, and a second stage, have no part in it.
    pub fn lexical_contributions(
        &self,
        text: &str,
        label: usize,
        scratch: &mut AttributionScratch,
        out: &mut Vec<Contribution>,
    ) {
        out.clear();
        let Some(lexicon) = self.lexicon.as_ref().filter(|_| label < self.labels.len()) else {
            return;
        };
        let AttributionScratch { lexical, row } = scratch;
        lexicon.features(text, lexical, row);
        let buckets = lexicon.buckets();
        out.extend(row.columns.iter().map(|&column| Contribution {
            bucket: buckets[column as usize],
            weight: 0.0,
        }));
        let classes = self.labels.len();
        let share = 1.0 / self.first.surrogate.components().len() as f32;
        for model in self.linear() {
            let stride = model.intercepts().len();
            for ((&column, &value), told) in row.columns.iter().zip(&row.values).zip(&mut *out) {
                // The lexical columns come first, an embedding's after them.
                let at = column as usize * stride;
                let weights = &model.weights()[at..at + classes];
                let mean = weights.iter().sum::<f32>() / classes as f32;
                told.weight += share * value * (weights[label] - mean);
            }
        }
    }

    fn linear(&self) -> impl Iterator<Item = &Logistic> {
        let components = self.first.surrogate.components().iter();
        components.filter_map(|component| match component {
            Component::Lexical(model) | Component::Fused(model) => Some(model),
            _ => None,
        })
    }
}
