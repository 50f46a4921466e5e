//! A linear model on the embedding, fitted by stochastic gradient descent.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    design::Design,
    model::sgd::{self, SgdParams},
};

pub(super) const KIND: Kind = Kind {
    name: "dense_sgd",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "dense_linear",
    strengths: one,
    fit: |part, _| {
        let design = Design::Dense(part.dense());
        let seed = part.seed("dense_sgd");
        let (labels, weights, classes) = (part.labels, part.weights, part.classes);
        let fitted = sgd::fit(&design, labels, weights, classes, SgdParams::DENSE, seed)?;
        fitted.model(classes).map(Component::Dense)
    },
};
