//! A random forest on the embedding.

use super::{Kind, one};
use crate::{
    component::{Component, Needs},
    model::{Forest, ForestKind, ForestParams},
};

pub(super) const KIND: Kind = Kind {
    name: "random_forest",
    needs: Needs::DENSE,
    begins_at: &[],
    group: "trees",
    strengths: one,
    fit: |part, _| {
        let params = ForestParams {
            kind: ForestKind::RandomForest,
            ..ForestParams::default()
        };
        let seed = part.seed("random_forest");
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
