//! A single decision tree on the embedding.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    model::{Forest, ForestKind, ForestParams},
};

pub(super) const KIND: Kind = Kind {
    name: "decision_tree",
    needs: Needs::DENSE,
    begins_at: &[],
    group: "trees",
    strengths: one,
    fit: |part, _| {
        let params = ForestParams {
            kind: ForestKind::Tree,
            ..ForestParams::default()
        };
        let seed = part.seed("decision_tree");
        Forest::fit(
            part.dense(),
            part.labels,
            part.weights,
            part.classes,
            &params,
            seed,
        )
        .map(Component::Forest)
    },
};
