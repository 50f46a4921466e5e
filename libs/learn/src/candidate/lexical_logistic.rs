//! Multinomial logistic regression on the text's lexical features.

use tracer_features::{Lexicon, SparseRow};

use super::Training;
use crate::{
    design::{Design, Sparse},
    logistic::{Logistic, LogisticParams},
    surrogate::Component,
};

pub(super) const NAME: &str = "lexical_logistic";

pub(super) fn fit(
    training: &Training<'_>,
    members: &[usize],
    labels: &[u32],
    params: LogisticParams,
) -> Component {
    // The lexicon is fitted per fold as well: a held-out text must not decide
    // which of its own n-grams are features.
    let texts = members.iter().map(|&i| &training.hashed[i]);
    let lexicon = Lexicon::fit(&training.config.lexicon, texts.clone());
    let mut x = Sparse::new(lexicon.len());
    let mut row = SparseRow::default();
    for text in texts {
        lexicon.weigh(text, &mut row);
        x.push(&row);
    }
    let model = Logistic::fit(
        &Design::Sparse(x),
        labels,
        None,
        training.classes,
        params,
        None,
    );
    Component::Lexical { lexicon, model }
}
