//! A linear model on the embedding, fitted by stochastic gradient descent.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    design::Design,
    model::sgd,
};

pub(super) const KIND: Kind = Kind {
    name: "dense_sgd",
    needs: Needs::DENSE,
    group: "dense_linear",
    strengths: one,
    fit: |part, _| {
        let params = sgd::SgdParams::default();
        let design = Design::Dense(part.dense());
        let seed = part.seed("dense_sgd");
        sgd::fit(&design, part.labels, part.weights, part.classes, &params, seed)
            .map(Component::Dense)
    },
};
