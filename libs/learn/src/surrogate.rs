//! The classifier of a pipeline: one model, or the average of several.

use pulp::Arch;
use tracer_features::{LexicalScratch, Lexicon, SparseRow};

use crate::{
    logistic::Logistic,
    simd::{dense_row, gather},
};

/// What is classified: text, an embedding, or both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// The text, where there is one.
    pub text: Option<&'a str>,
    /// The dense embedding, where there is one.
    pub embedding: Option<&'a [f32]>,
}

/// A fitted model on one kind of features.
#[derive(Clone, Debug)]
pub(crate) enum Component {
    /// A model on the embedding.
    Dense(Logistic),
    /// A model on the text.
    Lexical {
        /// Turns the text into features.
        lexicon: Lexicon,
        /// The model on them.
        model: Logistic,
    },
}

/// A surrogate: the average of its components' class probabilities.
#[derive(Clone, Debug)]
pub(crate) struct Surrogate {
    components: Vec<Component>,
}

/// Working space for scoring one input, reusable from call to call.
#[derive(Debug)]
pub struct Scratch {
    arch: Arch,
    lexical: LexicalScratch,
    row: SparseRow,
    /// Class probabilities by component.
    pub(crate) components: Vec<Vec<f32>>,
    /// The surrogate's class probabilities.
    pub(crate) probabilities: Vec<f32>,
    pub(crate) features: Vec<f64>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            arch: Arch::new(),
            lexical: LexicalScratch::default(),
            row: SparseRow::default(),
            components: Vec::new(),
            probabilities: Vec::new(),
            features: Vec::new(),
        }
    }
}

/// What an input lacks for a surrogate to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Text,
    Embedding,
}

impl Surrogate {
    /// A surrogate of at least one component, all with the same classes.
    pub(crate) fn new(components: Vec<Component>) -> Self {
        assert!(!components.is_empty(), "a surrogate has a component");
        Self { components }
    }

    /// What it averages.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components
    }

    /// Dimension of the embedding it needs; `None` when it needs none.
    pub(crate) fn embedding_dimension(&self) -> Option<usize> {
        self.components.iter().find_map(|c| match c {
            Component::Dense(model) => Some(model.features()),
            Component::Lexical { .. } => None,
        })
    }

    /// Whether it needs text.
    pub(crate) fn needs_text(&self) -> bool {
        self.components
            .iter()
            .any(|c| matches!(c, Component::Lexical { .. }))
    }

    /// Leaves each component's probabilities and their average in `scratch`.
    pub(crate) fn predict(&self, input: Input<'_>, scratch: &mut Scratch) -> Result<(), Lacks> {
        let Scratch {
            arch,
            lexical,
            row,
            components,
            probabilities,
            ..
        } = scratch;
        components.resize_with(self.components.len(), Vec::new);
        for (component, out) in self.components.iter().zip(components.iter_mut()) {
            match component {
                Component::Dense(model) => {
                    let x = input.embedding.ok_or(Lacks::Embedding)?;
                    model
                        .probabilities(out, |weights, scores| dense_row(*arch, x, weights, scores));
                }
                Component::Lexical { lexicon, model } => {
                    let text = input.text.ok_or(Lacks::Text)?;
                    lexicon.features(text, lexical, row);
                    model.probabilities(out, |weights, scores| {
                        gather(*arch, &row.columns, &row.values, weights, scores);
                    });
                }
            }
        }
        average(components, probabilities);
        Ok(())
    }
}

impl Component {
    /// The model behind either kind of features.
    pub(crate) fn model(&self) -> &Logistic {
        match self {
            Self::Dense(model) | Self::Lexical { model, .. } => model,
        }
    }
}

/// The mean of several probability vectors.
pub(crate) fn average<P: AsRef<[f32]>>(components: &[P], out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(components[0].as_ref());
    for component in &components[1..] {
        for (o, p) in out.iter_mut().zip(component.as_ref()) {
            *o += p;
        }
    }
    if components.len() > 1 {
        let scale = 1.0 / components.len() as f32;
        for p in out.iter_mut() {
            *p *= scale;
        }
    }
}
