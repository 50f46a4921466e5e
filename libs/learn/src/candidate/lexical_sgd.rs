//! A linear model on the lexical features, fitted by stochastic gradient descent.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    design::Design,
    model::sgd::{self, SgdParams},
};

pub(super) const KIND: Kind = Kind {
    name: "lexical_sgd",
    needs: Needs::LEXICAL,
    alone: false,
    begins_at: &[],
    group: "lexical_linear",
    strengths: one,
    fit: |part, _| {
        let design = Design::Sparse(part.lexical());
        let seed = part.seed("lexical_sgd");
        let (labels, weights, classes) = (part.labels, part.weights, part.classes);
        let fitted = sgd::fit(&design, labels, weights, classes, SgdParams::SPARSE, seed)?;
        fitted.model(classes).map(Component::Lexical)
    },
};
