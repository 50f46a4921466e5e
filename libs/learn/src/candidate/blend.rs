//! The average of the best dense and the best lexical candidate.

use super::{Base, CrossFitted, Training, macro_f1};
use crate::{confidence::top, surrogate::average};

const NAME: &str = "blend_logistic";

/// The blend of the first dense and the first lexical of `fitted`, when there are both.
pub(super) fn of_the_best(training: &Training<'_>, fitted: &[CrossFitted]) -> Option<CrossFitted> {
    let dense = fitted
        .iter()
        .find(|f| matches!(f.parts[..], [Base::DenseLogistic { .. }]))?;
    let lexical = fitted
        .iter()
        .find(|f| matches!(f.parts[..], [Base::LexicalLogistic { .. }]))?;
    let out_of_fold = vec![dense.out_of_fold[0].clone(), lexical.out_of_fold[0].clone()];
    let mut mean = Vec::new();
    let predictions = (0..training.rows.len()).map(|i| {
        average(&[&out_of_fold[0][i], &out_of_fold[1][i]], &mut mean);
        top(&mean).label
    });
    let macro_f1 = macro_f1(training, predictions);
    Some(CrossFitted {
        name: NAME.to_owned(),
        parts: vec![dense.parts[0], lexical.parts[0]],
        out_of_fold,
        macro_f1,
    })
}
