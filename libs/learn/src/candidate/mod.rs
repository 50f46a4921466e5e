//! The pool: what may become a component of a surrogate. One file a candidate.
//!
//! A candidate is a [`Kind`] with one setting of its strength, where it has one.
//! `FitConfig::skip` and `FitConfig::only` name kinds.

mod decision_tree;
mod dense_logistic;
mod dense_sgd;
mod extra_trees;
mod fused_logistic;
mod lexical_logistic;
mod lexical_sgd;
mod mlp;
mod random_forest;

use std::fmt;

use ndarray::ArrayView2;
use tracer_features::stable_hash;

use crate::{
    component::{Block, Component, Needs},
    config::FitConfig,
    design::{Design, Sparse},
    logistic::{Logistic, LogisticParams},
    model::{FitFailure, Forest, ForestKind, ForestParams},
};

/// The rows of one fit.
pub(crate) struct Part<'a> {
    /// Embeddings, a row each, where they are used.
    pub(crate) dense: Option<ArrayView2<'a, f32>>,
    /// Lexical features, where they are used.
    pub(crate) lexical: Option<&'a Sparse>,
    /// Class by row.
    pub(crate) labels: &'a [u32],
    /// Weight by row; `None` when all are alike.
    pub(crate) weights: Option<&'a [f32]>,
    /// Number of classes.
    pub(crate) classes: usize,
    /// The refit's configuration.
    pub(crate) config: &'a FitConfig,
    /// Fits to begin the search at, which must not have seen rows that this fit
    /// must not see. A candidate takes what is of its kind.
    pub(crate) starts: &'a [&'a Component],
}

impl<'a> Part<'a> {
    pub(crate) fn block(&self) -> Block<'a> {
        Block {
            dense: self.dense,
            lexical: self.lexical,
        }
    }

    fn dense(&self) -> ArrayView2<'a, f32> {
        self.dense.expect("the candidate's features are there")
    }

    fn lexical(&self) -> &'a Sparse {
        self.lexical.expect("the candidate's features are there")
    }

    /// A logistic regression on a design of this part, begun at `start`.
    fn logistic(
        &self,
        design: Design<'a>,
        c: f64,
        start: Option<&Logistic>,
    ) -> Result<Logistic, FitFailure> {
        let params = LogisticParams {
            c,
            max_iterations: self.config.max_iterations,
            tolerance: self.config.tolerance,
        };
        let (labels, weights) = (self.labels, self.weights);
        Logistic::fit(design, labels, weights, self.classes, params, start).finite()
    }

    /// Trees of one kind on the embedding.
    fn forest(&self, name: &str, kind: ForestKind) -> Result<Component, FitFailure> {
        let params = ForestParams {
            kind,
            ..ForestParams::default()
        };
        let (labels, weights, seed) = (self.labels, self.weights, self.seed(name));
        Forest::fit(self.dense(), labels, weights, self.classes, &params, seed)
            .map(Component::Forest)
    }

    /// Different for each kind, the same for each refit with one seed.
    fn seed(&self, kind: &str) -> u64 {
        stable_hash(&[&self.config.seed.to_le_bytes(), kind.as_bytes()])
    }
}

/// One kind of candidate.
pub(crate) struct Kind {
    /// Its name in reports and in the configuration.
    pub(crate) name: &'static str,
    /// What it stands on.
    pub(crate) needs: Needs,
    /// Whether it competes only where there are no other features than those.
    alone: bool,
    /// Kinds at whose fits its search begins: it comes after them, and where it
    /// goes on they go on with it.
    pub(crate) begins_at: &'static [&'static str],
    /// Of the candidates of one group only the best goes on.
    pub(crate) group: &'static str,
    /// The strengths it is tried with; one that means nothing for kinds without any.
    strengths: fn(&FitConfig) -> Vec<f64>,
    /// Fits it. A strength is the inverse of a regularisation.
    fit: fn(&Part<'_>, f64) -> Result<Component, FitFailure>,
}

/// All kinds there are, the cheapest first.
const KINDS: [&Kind; 11] = [
    &dense_logistic::KIND,
    &lexical_logistic::KIND,
    &fused_logistic::KIND,
    &dense_sgd::KIND,
    &lexical_sgd::KIND,
    &mlp::ONE_LAYER,
    &mlp::TWO_LAYERS,
    &mlp::LEXICAL,
    &decision_tree::KIND,
    &random_forest::KIND,
    &extra_trees::KIND,
];

/// The names that [`FitConfig::skip`] and [`FitConfig::only`] may hold.
pub fn candidate_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

/// A kind with its strength.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) kind: &'static Kind,
    strength: f64,
    /// Whether the kind is tried with several strengths.
    several: bool,
}

impl Candidate {
    /// Whether its search may begin at a fit of another candidate on the same rows:
    /// of its own kind, which differs in strength, or of one that it is built of.
    pub(crate) fn begins_at(self, other: Self) -> bool {
        self.kind.name == other.kind.name || self.kind.begins_at.contains(&other.kind.name)
    }

    pub(crate) fn fit(self, part: &Part<'_>) -> Result<Component, FitFailure> {
        (self.kind.fit)(part, self.strength)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)?;
        if self.several {
            write!(f, "(c={})", self.strength)?;
        }
        Ok(())
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.strength == other.strength
    }
}

/// The candidates that features and configuration allow.
pub(crate) fn pool(config: &FitConfig, available: Needs) -> Vec<Candidate> {
    let named = |list: &[String], kind: &Kind| list.iter().any(|name| name == kind.name);
    KINDS
        .into_iter()
        .filter(|kind| kind.needs.are_in(available))
        .filter(|kind| !kind.alone || kind.needs == available)
        .filter(|kind| config.only.is_empty() || named(&config.only, kind))
        .filter(|kind| !named(&config.skip, kind))
        .flat_map(|kind| {
            let strengths = (kind.strengths)(config);
            let several = strengths.len() > 1;
            strengths.into_iter().map(move |strength| Candidate {
                kind,
                strength,
                several,
            })
        })
        .collect()
}

/// For kinds without a strength.
fn one(_: &FitConfig) -> Vec<f64> {
    vec![1.0]
}

impl<'a> Part<'a> {
    /// The last of the starts that is a linear model of the wanted kind.
    fn start(&self, of: fn(&'a Component) -> Option<&'a Logistic>) -> Option<&'a Logistic> {
        self.starts.iter().rev().find_map(|component| of(component))
    }
}
