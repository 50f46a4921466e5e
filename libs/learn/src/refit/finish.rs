//! From plans to certified pipelines.

use std::collections::BTreeMap;

use rayon::prelude::*;
use tracer_features::Lexicon;

use super::{
    FamilyScore, Outcome, Pool, Split, Verdict,
    accept::Accepted,
    cascade::Cascade,
    cross_fit::{CrossFitted, Training},
    guarding::growth,
    label_space::LabelSpace,
    shadow::{Shadow, frontier, other_targets},
};
use crate::{
    component::Component,
    dataset::Dataset,
    gate::{ACCEPT_ALL, Gate, GateStats, Policy, Scored},
    pipeline::{Family, Pipeline, PipelineCard, Residual, Stage},
    surrogate::Surrogate,
};

/// What is to be certified for one target, decided on out-of-fold data alone.
pub(crate) struct Plan {
    gate: Gate,
    /// Index of the contender.
    accepted: usize,
    cascade: Option<Cascade>,
    families: Vec<FamilyScore>,
}

/// A surrogate of a worse macro-F1, or of more components, must let one expect this
/// much more coverage.
const WORTH_SWITCHING: f64 = 2e-3;

/// A second stage must let one expect this much more coverage: its rows are few and
/// its promise is the less certain for it.
const WORTH_A_STAGE: f64 = 0.01;

impl Plan {
    /// The contender and the family that let one expect the most coverage. Of
    /// equals the better macro-F1 and the simpler family.
    pub(crate) fn of(
        training: &Training<'_>,
        fitted: &[CrossFitted],
        accepted: &[Accepted],
        gate: Gate,
        shadow: usize,
    ) -> Self {
        let coverages: Vec<f64> = accepted
            .iter()
            .map(|a| gate.expected_coverage(&a.scored, shadow))
            .collect();
        let mut best = 0;
        for (i, coverage) in coverages.iter().enumerate() {
            if *coverage > coverages[best] + WORTH_SWITCHING {
                best = i;
            }
        }
        let first = &accepted[best];
        let score = |family: Family, coverage: f64| FamilyScore {
            family,
            surrogate: first.name.clone(),
            expected_coverage: coverage,
        };
        let mut families = vec![
            score(Family::L2d, coverages[best]),
            score(
                Family::Global,
                gate.expected_coverage_of_all(&first.scored, shadow),
            ),
        ];
        let cascade = (training.config.cascade && coverages[best] < 0.995)
            .then(|| Cascade::fit(training, fitted, first, &gate))
            .flatten();
        let mut chosen = None;
        if let Some(cascade) = cascade {
            let coverage = gate.expected_coverage(&cascade.scored, shadow);
            families.push(score(Family::Rsb, coverage));
            if coverage > coverages[best] + WORTH_A_STAGE {
                chosen = Some(cascade);
            }
        }
        families.sort_by(|a, b| b.expected_coverage.total_cmp(&a.expected_coverage));
        Self {
            gate,
            accepted: best,
            cascade: chosen,
            families,
        }
    }
}

/// What all targets share on the way to their pipelines.
pub(crate) struct Finisher<'a> {
    task: &'a str,
    data: &'a Dataset,
    rows: &'a Split,
    space: &'a LabelSpace,
    training: &'a Training<'a>,
    /// The training rows that were predicted out of fold.
    assessed: &'a Training<'a>,
    pool: &'a Pool<'a>,
    fitted: &'a [CrossFitted],
    accepted: &'a [Accepted],
    lexicon: Option<Lexicon>,
    /// Finalists fitted on all training rows, or why that failed.
    components: BTreeMap<usize, Result<Served, String>>,
}

/// A component fitted on all training rows.
struct Served {
    component: Component,
    /// How much surer of itself it is than the first fold's; 1 without a guard.
    growth: f32,
}

impl<'a> Finisher<'a> {
    pub(crate) fn new(
        task: &'a str,
        data: &'a Dataset,
        rows: &'a Split,
        space: &'a LabelSpace,
        (training, assessed): (&'a Training<'a>, &'a Training<'a>),
        (pool, fitted): (&'a Pool<'a>, &'a [CrossFitted]),
        accepted: &'a [Accepted],
    ) -> Self {
        let all: Vec<usize> = (0..training.len()).collect();
        Self {
            task,
            data,
            rows,
            space,
            training,
            assessed,
            pool,
            fitted,
            accepted,
            lexicon: training.lexicon(&all),
            components: BTreeMap::new(),
        }
    }

    /// Fits what the plans need on all training rows. A linear fit begins at the
    /// previous version's weights, or at those of the first fold.
    pub(crate) fn fit_components(&mut self, plans: &[Plan], previous: Option<&Pipeline>) {
        let mut needed: Vec<usize> = plans
            .iter()
            .flat_map(|plan| self.accepted[plan.accepted].members.iter().copied())
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let all: Vec<usize> = (0..self.training.len()).collect();
        let rows = self.training.rows(&all, self.lexicon.as_ref());
        let (training, fitted, lexicon) = (self.training, self.fitted, self.lexicon.as_ref());
        let labels = &self.space.names;
        let guarded = self.accepted.iter().any(|a| a.guarded.is_some());
        self.components = needed
            .into_par_iter()
            .with_max_len(1)
            .map(|member| {
                let CrossFitted {
                    candidate,
                    first,
                    first_lexicon,
                    ..
                } = &fitted[member];
                let start = previous
                    .and_then(|previous| previous.start_for(*candidate, lexicon, labels))
                    .or_else(|| first.moved(first_lexicon.as_ref(), lexicon, labels.len()));
                let result = candidate
                    .fit(&rows.part(training, &start.iter().collect::<Vec<_>>()))
                    .map(|component| Served {
                        growth: if guarded {
                            growth(training, &component, lexicon, &fitted[member])
                        } else {
                            1.0
                        },
                        component,
                    })
                    .map_err(|failure| format!("{candidate}: {failure}"));
                (member, result)
            })
            .collect();
    }

    /// Puts the plan's pipeline together and takes it to the gate.
    pub(crate) fn certify(&self, plan: Plan) -> Outcome {
        match self.assemble(&plan) {
            Ok(pipeline) => self.judge(plan, pipeline),
            Err(why) => self.unfinished(plan, &why),
        }
    }

    fn assemble(&self, plan: &Plan) -> Result<Pipeline, String> {
        let accepted = &self.accepted[plan.accepted];
        let served = accepted
            .members
            .iter()
            .map(|member| self.components[member].as_ref())
            .collect::<Result<Vec<_>, _>>()?;
        let components = served.iter().map(|s| s.component.clone()).collect();
        let guard = accepted.guarded.as_ref().map(|guarded| {
            let mut guard = guarded.guard.clone();
            let growth: Vec<f32> = served.iter().map(|s| s.growth).collect();
            guard.allow_for(&growth);
            guard
        });
        let first = Stage {
            surrogate: Surrogate::new(components),
            acceptor: accepted.acceptor.clone(),
        };
        let residual = plan
            .cascade
            .as_ref()
            .map(|cascade| -> Result<Residual, String> {
                let component = cascade.component(self.assessed, self.lexicon.as_ref())?;
                Ok(Residual {
                    stage: Stage {
                        surrogate: Surrogate::new(vec![component]),
                        acceptor: cascade.acceptor.clone(),
                    },
                    entry: cascade.entry,
                })
            })
            .transpose()?;
        let needs = residual
            .as_ref()
            .map_or(first.needs(), |r| first.needs().or(r.stage.needs()));
        let candidates = accepted
            .members
            .iter()
            .map(|&m| self.fitted[m].candidate.to_string())
            .collect();
        let finalists = self.fitted.iter();
        let finalists = finalists.map(|fitted| fitted.candidate.to_string());
        let (finalists, pool_traces) = self.pool.chosen_before.map_or_else(
            || (finalists.collect(), self.training.len()),
            |card| (card.finalists.clone(), card.pool_traces),
        );
        Ok(Pipeline {
            card: PipelineCard {
                task: self.task.to_owned(),
                family: Family::L2d,
                surrogate: accepted.name.clone(),
                candidates,
                finalists,
                pool_traces,
                target_agreement: plan.gate.target,
                delta: plan.gate.delta,
                threshold: ACCEPT_ALL,
                embedding_dimension: self.data.dimension().filter(|_| needs.dense),
                needs_text: needs.lexical,
                shadow: GateStats::default(),
                training_traces: self.training.len(),
                seed: self.training.config.seed,
                shadow_share: self.rows.shadow_share,
                split_by: self.data.scheme().to_owned(),
            },
            labels: self.space.names.clone(),
            lexicon: self.lexicon.clone().filter(|_| needs.lexical),
            guard,
            first,
            residual,
        })
    }

    fn judge(&self, plan: Plan, mut pipeline: Pipeline) -> Outcome {
        let shadow = Shadow::score(&pipeline, self.data, &self.rows.shadow, self.space);
        let scored = shadow.scored();
        let out_of_fold: &[Scored] = plan
            .cascade
            .as_ref()
            .map_or(&self.accepted[plan.accepted].scored, |c| &c.scored);
        let guard = pipeline.guard.clone();
        let mut choice = plan.gate.choose(&[Policy {
            out_of_fold,
            shadow: &scored,
        }]);
        let uncapped = self.data.is_weighted() && plan.gate.weight_cap.is_none();
        if uncapped && choice.verdict.is_ok() {
            // The rows that happen to be here may weigh the same; those that could
            // have been here do not.
            choice.verdict = Err("rows of unequal weight and no cap on their weights".into());
        }
        let threshold = choice.threshold;
        pipeline.certify(threshold, choice.stats);
        let budgets = guard.map_or_else(Vec::new, |guard| {
            shadow.budgets(&plan.gate, &guard, threshold)
        });
        let (family, surrogate) = (pipeline.card.family, pipeline.card.surrogate.clone());
        let (pipeline, uncertified) = if choice.verdict.is_ok() {
            (Some(pipeline), None)
        } else {
            (None, Some(pipeline))
        };
        Outcome {
            target: plan.gate.target,
            verdict: match choice.verdict {
                Ok(()) => Verdict::Passed,
                Err(reason) => Verdict::Refused { reason },
            },
            shadow: choice.stats,
            family,
            surrogate,
            threshold,
            training_traces: self.training.len(),
            left_out: 0,
            not_sampled: 0,
            candidates: Vec::new(),
            families: plan.families,
            labels: self.space.names.clone(),
            shadow_rows: shadow.rows_at(threshold),
            frontier: frontier(&plan.gate, &scored),
            targets: other_targets(&plan.gate, out_of_fold, &scored),
            budgets,
            fit_seconds: 0.0,
            shadow_share: self.rows.shadow_share,
            pipeline,
            uncertified,
        }
    }

    /// A component that fitted on every fold but not on all rows: rare, and a refusal.
    fn unfinished(&self, plan: Plan, why: &str) -> Outcome {
        let accepted = &self.accepted[plan.accepted];
        Outcome {
            target: plan.gate.target,
            verdict: Verdict::Refused {
                reason: format!("the surrogate could not be fitted on all traces: {why}"),
            },
            pipeline: None,
            uncertified: None,
            shadow_share: self.rows.shadow_share,
            shadow: GateStats {
                n: self.rows.shadow.rows.len(),
                ..GateStats::default()
            },
            family: Family::L2d,
            surrogate: accepted.name.clone(),
            threshold: 1.0,
            training_traces: self.training.len(),
            left_out: 0,
            not_sampled: 0,
            candidates: Vec::new(),
            families: plan.families,
            labels: self.space.names.clone(),
            shadow_rows: Vec::new(),
            frontier: Vec::new(),
            targets: Vec::new(),
            budgets: Vec::new(),
            fit_seconds: 0.0,
        }
    }
}
