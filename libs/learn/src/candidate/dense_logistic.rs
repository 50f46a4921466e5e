//! Multinomial logistic regression on the embedding.

use super::Kind;
use crate::{
    component::{Component, Needs},
    design::Design,
    logistic::Logistic,
};

pub(super) const KIND: Kind = Kind {
    name: "dense_logistic",
    needs: Needs::DENSE,
    begins_at: &[],
    group: "dense_linear",
    strengths: |config| config.dense_c.clone(),
    fit: |part, c| {
        let start = part.start(|component| match component {
            Component::Dense(model) => Some(model),
            _ => None,
        });
        let design = Design::Dense(part.dense());
        let params = part.logistic_params(c);
        Logistic::fit(
            design,
            part.labels,
            part.weights,
            part.classes,
            params,
            start,
        )
        .finite()
        .map(Component::Dense)
    },
};
