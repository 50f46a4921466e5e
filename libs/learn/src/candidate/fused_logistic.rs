//! One multinomial logistic regression on the lexical features and the embedding
//! side by side. What one kind of features cannot tell apart the other may, and
//! neither has to explain everything, as in the average of two models.

use super::{Kind, linear_start};
use crate::{
    component::{Component, Needs},
    design::Design,
    logistic::Logistic,
};

pub(super) const KIND: Kind = Kind {
    name: "fused_logistic",
    needs: Needs::BOTH,
    group: "fused_linear",
    strengths: |config| config.fused_c.clone(),
    fit: |part, c| {
        let start = linear_start(part, |component| match component {
            Component::Fused(model) => Some(model),
            _ => None,
        });
        let design = Design::Joint(part.lexical(), part.dense());
        let params = part.logistic_params(c);
        Logistic::fit(design, part.labels, part.weights, part.classes, params, start)
            .finite()
            .map(Component::Fused)
    },
};
