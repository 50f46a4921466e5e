//! Extremely randomised trees on the embedding.

use super::{Kind, one};
use crate::{component::Needs, model::ForestKind};

pub(super) const KIND: Kind = Kind {
    name: "extra_trees",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "trees",
    strengths: one,
    fit: |part, _| part.forest("extra_trees", ForestKind::ExtraTrees),
};
