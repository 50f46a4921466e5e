//! Multinomial logistic regression on the embedding.

use ndarray::Array2;

use super::Training;
use crate::{
    design::Design,
    logistic::{Logistic, LogisticParams},
    surrogate::Component,
};

pub(super) const NAME: &str = "dense_logistic";

pub(super) fn fit(
    training: &Training<'_>,
    members: &[usize],
    labels: &[u32],
    params: LogisticParams,
) -> Component {
    let dimension = training
        .data
        .dimension()
        .expect("dense candidates stand on embeddings");
    let mut block = Vec::with_capacity(members.len() * dimension);
    for &i in members {
        block.extend_from_slice(
            training
                .data
                .embedding(training.rows[i])
                .expect("rows in use have an embedding"),
        );
    }
    let x = Array2::from_shape_vec((members.len(), dimension), block).expect("a row a member");
    Component::Dense(Logistic::fit(
        &Design::Dense(x),
        labels,
        None,
        training.classes,
        params,
        None,
    ))
}
