//! A single decision tree on the embedding.

use super::{Kind, one};
use crate::{component::Needs, model::ForestKind};

pub(super) const KIND: Kind = Kind {
    name: "decision_tree",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "trees",
    strengths: one,
    fit: |part, _| part.forest("decision_tree", ForestKind::Tree),
};
