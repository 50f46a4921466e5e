//! A linear model on the lexical features, fitted by stochastic gradient descent.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    design::Design,
    model::sgd,
};

pub(super) const KIND: Kind = Kind {
    name: "lexical_sgd",
    needs: Needs::LEXICAL,
    group: "lexical_linear",
    strengths: one,
    fit: |part, _| {
        let params = sgd::SgdParams::default();
        let design = Design::Sparse(part.lexical());
        let seed = part.seed("lexical_sgd");
        sgd::fit(&design, part.labels, part.weights, part.classes, &params, seed)
            .map(Component::Lexical)
    },
};
