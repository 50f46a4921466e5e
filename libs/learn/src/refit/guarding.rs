//! The out-of-distribution guard of each contender.

use ndarray::ArrayView2;
use tracer_features::{Lexicon, Novelty};

use super::{
    contest::Contender,
    cross_fit::{CrossFitted, Training},
};
use crate::{
    component::{Component, Needs},
    ood::{self, Guard, Likeness, Reference},
};

/// What the guards of all contenders share.
pub(crate) struct Guarding<'a> {
    training: &'a Training<'a>,
    novelty: &'a [Novelty],
    likeness: Option<Likeness>,
    folds: Vec<usize>,
    weights: Option<Vec<f64>>,
}

/// A guard, with the scores of the training rows, cross-fitted.
#[derive(Clone)]
pub(crate) struct Guarded {
    pub(crate) guard: Guard,
    pub(crate) scores: Vec<f32>,
}

impl<'a> Guarding<'a> {
    /// `None` when the configuration asks for no guard.
    pub(crate) fn new(
        training: &'a Training<'a>,
        novelty: &'a [Novelty],
    ) -> Result<Option<Self>, String> {
        if training.config.ood_budget <= 0.0 {
            return Ok(None);
        }
        let folds: Vec<usize> = training.folds.iter().map(|&f| f as usize).collect();
        let likeness = training
            .dense
            .as_ref()
            .map(|x| Likeness::fit(x.view(), &training.labels, &folds, training.classes))
            .transpose()
            .map_err(|e| e.to_string())?;
        Ok(Some(Self {
            training,
            novelty,
            likeness,
            folds,
            weights: training
                .weights
                .as_ref()
                .map(|w| w.iter().map(|&w| f64::from(w)).collect()),
        }))
    }

    /// The guard of a contender looks at what the contender looks at.
    pub(crate) fn fit(
        &self,
        fitted: &[CrossFitted],
        contender: &Contender,
    ) -> Result<Guarded, String> {
        let members = contender.members.iter().map(|&m| &fitted[m]);
        let needs = members
            .clone()
            .map(|m| m.candidate.kind.needs)
            .reduce(Needs::or)
            .ok_or("a contender has a member")?;
        let logits: Vec<ArrayView2<'_, f32>> = members.map(|m| m.logits.view()).collect();
        let reference = Reference {
            likeness: self.likeness.as_ref().filter(|_| needs.dense),
            novelty: needs.lexical.then_some(self.novelty),
            logits: &logits,
            labels: &self.training.labels,
            folds: &self.folds,
            classes: self.training.classes,
            weights: self.weights.as_deref(),
        };
        let (guard, scores) =
            Guard::fit(&reference, self.training.config.ood_budget).map_err(|e| e.to_string())?;
        Ok(Guarded { guard, scores })
    }
}

/// Rows of each of two fits whose scores are compared, at the most.
const GROWTH_ROWS: usize = 2000;

/// How much larger the scores of a component fitted on all rows are than those of
/// the first fold's, each on rows it was fitted on.
pub(crate) fn growth(
    training: &Training<'_>,
    component: &Component,
    lexicon: Option<&Lexicon>,
    fitted: &CrossFitted,
) -> f32 {
    let scores = |component: &Component, lexicon: Option<&Lexicon>, rows: &[usize]| {
        let step = rows.len().div_ceil(GROWTH_ROWS).max(1);
        let some: Vec<usize> = rows.iter().copied().step_by(step).collect();
        component.logits_of(training.rows(&some, lexicon).part(training, &[]).block())
    };
    let all: Vec<usize> = (0..training.len()).collect();
    let first: Vec<usize> = all
        .iter()
        .copied()
        .filter(|&i| training.folds[i] != 0)
        .collect();
    ood::growth(
        scores(component, lexicon, &all).view(),
        scores(&fitted.first, fitted.first_lexicon.as_ref(), &first).view(),
    )
}
