//! Multinomial logistic regression on the embedding.

use super::Kind;
use crate::{
    component::{Component, Needs},
    design::Design,
};

pub(super) const KIND: Kind = Kind {
    name: "dense_logistic",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "dense_linear",
    strengths: |config| config.dense_c.clone(),
    fit: |part, c| {
        let start = part.start(|component| match component {
            Component::Dense(model) => Some(model),
            _ => None,
        });
        part.logistic(Design::Dense(part.dense()), c, start)
            .map(Component::Dense)
    },
};
