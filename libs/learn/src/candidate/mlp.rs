//! Neural networks on the embedding, with one and with two hidden layers.

use super::{Kind, Part, one};
use crate::{
    component::{Component, Needs},
    model::{FitFailure, Mlp, MlpParams},
};

pub(super) const ONE_LAYER: Kind = Kind {
    name: "mlp_1",
    needs: Needs::DENSE,
    begins_at: &[],
    group: "mlp",
    strengths: one,
    fit: |part, _| {
        fit(
            part,
            "mlp_1",
            &MlpParams {
                hidden: vec![256],
                ..MlpParams::default()
            },
        )
    },
};

pub(super) const TWO_LAYERS: Kind = Kind {
    name: "mlp_2",
    needs: Needs::DENSE,
    begins_at: &[],
    group: "mlp",
    strengths: one,
    fit: |part, _| {
        fit(
            part,
            "mlp_2",
            &MlpParams {
                hidden: vec![256, 128],
                ..MlpParams::default()
            },
        )
    },
};

fn fit(part: &Part<'_>, name: &str, params: &MlpParams) -> Result<Component, FitFailure> {
    let seed = part.seed(name);
    Mlp::fit(
        part.dense(),
        part.labels,
        part.weights,
        part.classes,
        params,
        seed,
    )
    .map(Component::Mlp)
}
