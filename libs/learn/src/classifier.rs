//! A plain multinomial logistic regression, without acceptor or gate: what a
//! pipeline is compared with.

use pulp::Arch;
use tracer_features::{LexicalScratch, Lexicon, SparseRow};

use crate::{
    component::Features,
    config::FitConfig,
    dataset::Dataset,
    decide::Input,
    model::MlpScratch,
    refit::{FitError, fit_plain},
    surrogate::{Prediction, Surrogate},
};

/// Fitted on all rows of a dataset: on embeddings where they are used, else on text.
#[derive(Debug)]
pub struct LogisticClassifier {
    pub(crate) labels: Vec<String>,
    pub(crate) lexicon: Option<Lexicon>,
    pub(crate) surrogate: Surrogate,
    /// Of the embeddings it was fitted on.
    pub(crate) dimension: Option<usize>,
}

impl LogisticClassifier {
    /// Fits it with the configured features and solver, nothing held out, at the
    /// first of the configured strengths.
    pub fn fit(data: &Dataset, config: &FitConfig) -> Result<Self, FitError> {
        fit_plain(data, config)
    }

    /// The most probable label and its probability; `None` for an input that
    /// lacks what the model stands on, or has it in another shape.
    pub fn predict(&self, input: Input<'_>) -> Option<(&str, f32)> {
        let sound = |x: &&[f32]| Some(x.len()) == self.dimension && x.iter().all(|v| v.is_finite());
        let mut row = SparseRow::default();
        if let Some(lexicon) = &self.lexicon {
            lexicon.features(input.text?, &mut LexicalScratch::default(), &mut row);
        }
        let features = Features {
            dense: input.embedding.filter(sound),
            lexical: self.lexicon.as_ref().map(|_| &row),
        };
        let mut prediction = Prediction::default();
        self.surrogate
            .predict(
                Arch::new(),
                features,
                &mut MlpScratch::default(),
                &mut prediction,
            )
            .ok()?;
        let best = crate::confidence::top(&prediction.probabilities);
        Some((&self.labels[best.label], best.first))
    }
}
