//! Multinomial logistic regression on the text's lexical features.

use super::Kind;
use crate::{
    component::{Component, Needs},
    design::Design,
};

pub(super) const KIND: Kind = Kind {
    name: "lexical_logistic",
    needs: Needs::LEXICAL,
    alone: false,
    begins_at: &[],
    group: "lexical_linear",
    strengths: |config| config.lexical_c.clone(),
    fit: |part, c| {
        let start = part.start(|component| match component {
            Component::Lexical(model) => Some(model),
            _ => None,
        });
        part.logistic(Design::Sparse(part.lexical()), c, start)
            .map(Component::Lexical)
    },
};
