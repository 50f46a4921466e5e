//! A refit: from rows to certified pipelines.
//!
//! 1. The shadow split is set aside; nothing but the gate looks at it.
//! 2. The pool races over the first fold of the rest, and the finalists are
//!    cross-fitted. Out-of-fold predictions select the surrogates, train the
//!    acceptors, fit the guard, choose a family for each target and order the
//!    thresholds.
//! 3. The chosen surrogates are fitted on all of the rest.
//! 4. For each target, the gate walks the thresholds on the shadow split through
//!    the same [`Pipeline::decide`] that will serve.

mod accept;
mod cascade;
mod contest;
mod cross_fit;
mod finish;
mod guarding;
mod label_space;
mod out_of_fold;
mod outcome;
mod plain;
mod progressing;
mod shadow;
mod usable;

use std::time::Instant;

use ndarray::Array2;
use rayon::prelude::*;
use tracer_features::Hasher;

pub use self::outcome::{
    BudgetPoint, CandidateScore, FamilyScore, FitError, Outcome, Progress, ShadowRow, TargetPoint,
    Verdict,
};
use self::{
    accept::Accepted,
    contest::{Contender, competitors, contenders},
    cross_fit::{CrossFitted, Crossed, Dropped, Training, cross_fit},
    finish::{Finisher, Plan},
    guarding::Guarding,
    label_space::LabelSpace,
    usable::{Usable, in_proportion, usable},
};
pub(crate) use self::{
    out_of_fold::{Assessed, out_of_fold},
    plain::fit_plain,
    progressing::Progressing,
    usable::usable as usable_rows,
};
use crate::{
    candidate::{Candidate, pool},
    config::FitConfig,
    dataset::Dataset,
    gate::Gate,
    pipeline::{Pipeline, PipelineCard},
    sample::{Sample, distinct, to_certify_on, to_train_on},
    split::{share, split},
};

/// Fits all candidates once and certifies a pipeline for each target.
///
/// Rows are in the order of their arrival. CPU-bound and blocking; uses the
/// current rayon pool. The outcome depends on data, configuration and seed
/// alone, not on the number of threads.
pub fn refit(
    task: &str,
    data: &Dataset,
    config: &FitConfig,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Outcome>, FitError> {
    fit(task, data, config, None, progress)
}

/// An incremental refit: only what reached the end of the last refit of the whole pool
/// before `previous` competes, out-of-fold predictions are made of as many rows as an
/// acceptor needs and not of all, and the linear fits on all rows begin at the earlier
/// weights. It costs a fraction of [`refit`].
///
/// The out-of-fold fits begin anew: the earlier weights have seen the rows that
/// each of them must not see. Candidates that the configuration or the features no
/// longer allow are left out. The whole pool is tried, as by [`refit`], when none is
/// left, and when the training rows are half as many again as those it was last tried on:
/// other candidates win on more rows.
pub fn refit_from(
    task: &str,
    data: &Dataset,
    config: &FitConfig,
    previous: &Pipeline,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Outcome>, FitError> {
    fit(task, data, config, Some(previous), progress)
}

fn fit(
    task: &str,
    data: &Dataset,
    config: &FitConfig,
    previous: Option<&Pipeline>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Outcome>, FitError> {
    let started = Instant::now();
    config.check()?;
    let usable = usable(data, config.features)?;
    if usable.rows.len() < config.min_traces.max(2) {
        return Err(FitError::TooFewTraces {
            have: usable.rows.len(),
            need: config.min_traces.max(2),
        });
    }
    let rows = Split::of(task, data, &usable, config);
    let space = LabelSpace::of(data, &rows.train.rows, config)?;
    let labels: Vec<u32> = rows
        .train
        .rows
        .iter()
        .map(|&row| space.class(data, row).expect("trained on"))
        .collect();
    let weights = rows.training_weights(data);
    let training = Training {
        folds: rows.folds.as_slice().into(),
        labels: labels.into(),
        weights: weights.map(Into::into),
        classes: space.names.len(),
        dense: usable
            .features
            .dense
            .then(|| embeddings(data, &rows.train.rows)),
        hashed: if usable.features.lexical {
            let hasher = Hasher::new(&config.lexicon);
            let texts = rows.train.rows.par_iter();
            texts
                .map(|&row| data.hashed(row, &hasher).expect("has text").into_owned())
                .collect()
        } else {
            Vec::new()
        },
        config,
    };

    let pool = Pool::of(config, &training, previous.map(Pipeline::card));
    let progress = Progressing::new(pool.candidates.len() + 2, progress);
    let enough = match pool.chosen_before {
        Some(_) => ENOUGH_AGAIN,
        None => ENOUGH,
    };
    let folds = folds_to_assess(&training, enough);
    let crossed = cross_fit(&training, &pool.candidates, folds, &progress);
    // What is decided by out-of-fold predictions is decided on the rows that have some.
    let (some, crossed) = if folds < config.folds as u32 {
        let (some, rows) = training.of_folds(folds);
        (Some(some), crossed.keep(&rows))
    } else {
        (None, crossed)
    };
    let assessed = some.as_ref().unwrap_or(&training);
    let Crossed {
        fitted,
        dropped,
        novelty,
    } = crossed;
    if fitted.is_empty() {
        let why: Vec<String> = dropped
            .iter()
            .map(|d| format!("{}: {}", d.name, d.why))
            .collect();
        return Err(FitError::NoCandidate(if why.is_empty() {
            "the pool is empty".to_owned()
        } else {
            why.join("; ")
        }));
    }
    let contenders = contenders(assessed, &fitted);
    let guarding = Guarding::new(assessed, &novelty).map_err(FitError::NoCandidate)?;
    let competitors = competitors(&contenders);
    let results: Vec<_> = competitors
        .par_iter()
        .map(|contender| Accepted::fit(assessed, &fitted, contender, guarding.as_ref()))
        .collect();
    let (mut accepted, mut turned_down) = (Vec::new(), vec![None; contenders.len()]);
    for (result, why) in results.into_iter().zip(&mut turned_down) {
        match result {
            Ok(fitted) => accepted.extend(fitted),
            Err(failure) => *why = Some(failure),
        }
    }
    if accepted.is_empty() {
        let why: Vec<String> = turned_down.into_iter().flatten().collect();
        return Err(FitError::NoCandidate(why.join("; ")));
    }
    let shadow_size = rows.shadow.rows.len();
    let plans: Vec<Plan> = config
        .targets
        .iter()
        .map(|&target| {
            Plan::of(
                assessed,
                &fitted,
                &accepted,
                gate(config, target),
                shadow_size,
            )
        })
        .collect();
    progress.done("acceptors and families");

    let mut finisher = Finisher::new(
        task,
        data,
        &rows,
        &space,
        (&training, assessed),
        (&pool, &fitted),
        &accepted,
    );
    // Weights that have seen what is on the shadow's side now must not come back.
    let unseen =
        |previous: &&Pipeline| previous.has_not_seen(task, data, config.seed, rows.shadow_share);
    finisher.fit_components(&plans, previous.filter(unseen));
    progress.done("the chosen surrogates on all training traces");
    let scores = candidate_scores(&contenders, turned_down, &fitted, &dropped);
    let shared_seconds = started.elapsed().as_secs_f64();
    Ok(plans
        .into_iter()
        .map(|plan| {
            let started = Instant::now();
            let outcome = finisher.certify(plan);
            Outcome {
                candidates: scores.clone(),
                left_out: data.len() - usable.rows.len() + rows.outsized,
                not_sampled: rows.train.left_out + rows.shadow.left_out,
                fit_seconds: shared_seconds + started.elapsed().as_secs_f64(),
                ..outcome
            }
        })
        .collect())
}

/// Out-of-fold rows beyond which an acceptor of a few cues and the choice of a
/// surrogate gain nothing from more.
const ENOUGH: usize = 20_000;
/// The same where the surrogates have been chosen from before.
const ENOUGH_AGAIN: usize = 2500;
/// An incremental refit tries the whole pool when the training rows are so many times
/// those of the last one that did: with more rows other candidates win. On four and five
/// times the rows, what had won before was up to five points of coverage behind.
const GROWN: f64 = 1.5;

/// The rows of so many folds are predicted: at least `enough`, if there are as many.
fn folds_to_assess(training: &Training<'_>, enough: usize) -> u32 {
    let folds = training.config.folds;
    let needed = (enough * folds).div_ceil(training.len().max(1));
    needed.clamp(2, folds) as u32
}

fn gate(config: &FitConfig, target: f64) -> Gate {
    Gate {
        target,
        delta: config.delta,
        coverage_floor: config.coverage_floor,
        mode: config.gate,
        weight_cap: config.weight_cap,
    }
}

/// Which rows train, in which folds, and which certify.
pub(crate) struct Split {
    pub(crate) train: Sample,
    /// Rows that would have trained, had they not an embedding out of all proportion.
    pub(crate) outsized: usize,
    /// By training row.
    pub(crate) folds: Vec<u32>,
    pub(crate) shadow: Sample,
    /// The share of the rows that was set aside.
    pub(crate) shadow_share: f64,
}

impl Split {
    fn of(task: &str, data: &Dataset, usable: &Usable, config: &FitConfig) -> Self {
        let left_out = data.draw().map_or(0, |drawn| drawn.left_out);
        let population = usable.rows.len() + left_out;
        let sides = split(
            task,
            data,
            &usable.rows,
            population,
            config.shadow_share,
            config.folds,
            config.seed,
        );
        // What was drawn already is not drawn once more.
        let cap = match data.draw() {
            Some(_) => 0,
            None => config.max_fit_traces,
        };
        let fit = if usable.features.dense {
            in_proportion(data, &sides.training)
        } else {
            sides.training.clone()
        };
        let mut train = to_train_on(data, &fit, cap, config.seed);
        if let Some(drawn) = data.draw() {
            for (weight, &row) in train.weights.iter_mut().zip(&train.rows) {
                *weight *= drawn.weights[row];
            }
            train.left_out += drawn.left_out;
        }
        let shadow = distinct(data, &sides.shadow);
        let shadow = to_certify_on(data, &shadow, cap.div_ceil(4), config.seed);
        let mut kept = train.rows.iter().peekable();
        let folds = sides
            .training
            .iter()
            .zip(&sides.folds)
            .filter(|(row, _)| kept.next_if_eq(row).is_some())
            .map(|(_, &fold)| fold as u32)
            .collect();
        Self {
            outsized: sides.training.len() - fit.len(),
            train,
            folds,
            shadow,
            shadow_share: share(config.shadow_share, population),
        }
    }

    /// Weights of mean 1 by training row; `None` when all are alike.
    fn training_weights(&self, data: &Dataset) -> Option<Vec<f32>> {
        if !data.is_weighted() && self.train.left_out == 0 {
            return None;
        }
        let weights = &self.train.weights;
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        Some(weights.iter().map(|w| (w / mean) as f32).collect())
    }
}

/// The embeddings of some rows, a row each.
fn embeddings(data: &Dataset, rows: &[usize]) -> Array2<f32> {
    let dimension = data.dimension().unwrap_or(0);
    let mut block = Vec::with_capacity(rows.len() * dimension);
    for &row in rows {
        block.extend_from_slice(data.embedding(row).expect("rows in use have an embedding"));
    }
    Array2::from_shape_vec((rows.len(), dimension), block).expect("a row each")
}

/// What enters the race.
pub(crate) struct Pool<'a> {
    pub(crate) candidates: Vec<Candidate>,
    /// What is known of the last race of the whole pool, where this is not another.
    pub(crate) chosen_before: Option<&'a PipelineCard>,
}

impl<'a> Pool<'a> {
    fn of(config: &FitConfig, training: &Training<'_>, previous: Option<&'a PipelineCard>) -> Self {
        let mut candidates = pool(config, training.available());
        let chosen_before = previous.filter(|card| {
            let chosen = |candidate: &Candidate| card.finalists.contains(&candidate.to_string());
            let outgrown = training.len() as f64 >= GROWN * card.pool_traces as f64;
            !outgrown && candidates.iter().any(chosen)
        });
        if let Some(card) = chosen_before {
            candidates.retain(|candidate| card.finalists.contains(&candidate.to_string()));
        }
        Self {
            candidates,
            chosen_before,
        }
    }
}

fn candidate_scores(
    contenders: &[Contender],
    turned_down: Vec<Option<String>>,
    fitted: &[CrossFitted],
    dropped: &[Dropped],
) -> Vec<CandidateScore> {
    let raced = contenders
        .iter()
        .zip(turned_down)
        .map(|(contender, why)| CandidateScore {
            name: match contender.members[..] {
                [one] => fitted[one].candidate.to_string(),
                _ => contender.name(fitted),
            },
            macro_f1: Some(contender.scores.macro_f1),
            dropped: why,
        });
    let mut out: Vec<CandidateScore> = dropped
        .iter()
        .map(|dropped| CandidateScore {
            name: dropped.name.clone(),
            macro_f1: dropped.macro_f1,
            dropped: Some(dropped.why.clone()),
        })
        .collect();
    out.sort_by(|a, b| {
        let key = |score: &CandidateScore| score.macro_f1.unwrap_or(-1.0);
        key(b).total_cmp(&key(a))
    });
    raced.chain(out).collect()
}
