//! One multinomial logistic regression on the lexical features and the embedding
//! side by side. What one kind of features cannot tell apart the other may, and
//! neither has to explain everything, as in the average of two models.

use super::{Kind, Part};
use crate::{
    component::{Component, Needs},
    design::Design,
    logistic::Logistic,
};

pub(super) const KIND: Kind = Kind {
    name: "fused_logistic",
    needs: Needs::BOTH,
    alone: false,
    begins_at: &["dense_logistic", "lexical_logistic"],
    group: "fused_linear",
    strengths: |config| config.fused_c.clone(),
    fit: |part, c| {
        let of_parts = start_of_parts(part);
        let start = part.start(|component| match component {
            Component::Fused(model) => Some(model),
            _ => None,
        });
        let design = Design::Joint(part.lexical(), part.dense());
        part.logistic(design, c, start.or(of_parts.as_ref()))
            .map(Component::Fused)
    },
};

/// Of two models that explain the same, each has to say about so much less.
const SHARE: f32 = 0.6;

/// A model of the text and one of the embedding, side by side.
fn start_of_parts(part: &Part<'_>) -> Option<Logistic> {
    let lexical = part.start(|component| match component {
        Component::Lexical(model) => Some(model),
        _ => None,
    })?;
    let dense = part.start(|component| match component {
        Component::Dense(model) => Some(model),
        _ => None,
    })?;
    let scaled = |of: fn(&Logistic) -> &[f32]| of(dense).iter().map(|w| SHARE * w);
    let weights = lexical.weights().iter().map(|w| SHARE * w);
    let intercepts = lexical.intercepts().iter().map(|b| SHARE * b);
    let intercepts = intercepts.zip(scaled(Logistic::intercepts));
    Logistic::from_parts(
        part.classes,
        weights.chain(scaled(Logistic::weights)).collect(),
        intercepts.map(|(a, b)| a + b).collect(),
    )
    .ok()
}
