//! A random forest on the embedding.

use super::{Kind, one};
use crate::{component::Needs, model::ForestKind};

pub(super) const KIND: Kind = Kind {
    name: "random_forest",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "trees",
    strengths: one,
    fit: |part, _| part.forest("random_forest", ForestKind::RandomForest),
};
