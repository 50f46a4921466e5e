//! Neural networks: on the embedding, with one and with two hidden layers, and on the
//! lexical features where there is nothing else. (Beside embeddings, one on text or on
//! both costs a quarter of a refit and adds nothing that can be certified.)

use super::{Kind, Part, one};
use crate::{
    component::{Component, Needs},
    design::Design,
    model::{FitFailure, Mlp, MlpParams},
};

pub(super) const ONE_LAYER: Kind = Kind {
    name: "mlp_1",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "mlp",
    strengths: one,
    fit: |part, _| {
        let design = Design::Dense(part.dense());
        fit(part, "mlp_1", design, &MlpParams::default()).map(Component::Mlp)
    },
};

pub(super) const TWO_LAYERS: Kind = Kind {
    name: "mlp_2",
    needs: Needs::DENSE,
    alone: false,
    begins_at: &[],
    group: "mlp",
    strengths: one,
    fit: |part, _| {
        let design = Design::Dense(part.dense());
        let params = MlpParams {
            hidden: vec![256, 128],
            ..MlpParams::default()
        };
        fit(part, "mlp_2", design, &params).map(Component::Mlp)
    },
};

pub(super) const LEXICAL: Kind = Kind {
    name: "lexical_mlp",
    needs: Needs::LEXICAL,
    alone: true,
    begins_at: &[],
    group: "lexical_mlp",
    strengths: one,
    fit: |part, _| {
        let design = Design::Sparse(part.lexical());
        let params = MlpParams {
            hidden: vec![128],
            rate: 1e-2,
            ..MlpParams::default()
        };
        fit(part, "lexical_mlp", design, &params).map(Component::LexicalMlp)
    },
};

fn fit<'a>(
    part: &Part<'a>,
    name: &str,
    design: Design<'a>,
    params: &MlpParams,
) -> Result<Mlp, FitFailure> {
    let (labels, weights, seed) = (part.labels, part.weights, part.seed(name));
    Mlp::fit(design, labels, weights, part.classes, params, seed)
}
