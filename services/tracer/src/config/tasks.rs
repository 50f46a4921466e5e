//! What is asked of a task.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tracer_aggregator::StoreInput;
use tracer_features::embed::EmbedderConfig;
use tracer_inference::TaskPolicy;
use tracer_learn::{FeatureMode, FitConfig, GateMode, candidate_names};
use tracer_trace::TeacherPrice;
use tracer_trainer::{Schedule, TaskPlan, Teacher};

use super::ConfigError;

/// What is asked of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TaskConfig {
    /// α: the teacher agreement that is promised on handled inputs.
    pub(crate) target_agreement: f64,
    /// δ: the promise may fail with this probability.
    pub(crate) delta: f64,
    /// `bound` certifies; `point` compares the point estimate and promises nothing.
    pub(crate) gate: GateMode,
    /// A pipeline that would handle less than this share is refused.
    pub(crate) coverage_floor: f64,
    /// `auto`, `dense` or `lexical`.
    pub(crate) features: FeatureMode,
    /// What makes the embeddings of texts that come without.
    pub(crate) embedder: EmbedderConfig,
    /// Which candidates are tried.
    pub(crate) candidates: CandidatesConfig,
    /// Whether the two-stage cascade competes.
    pub(crate) cascade: bool,
    /// The share of traffic like the training traces that the out-of-distribution guard
    /// may defer; 0 switches it off.
    pub(crate) ood_budget: f64,
    /// At most so many traces are fitted on; 0 for no limit.
    pub(crate) max_fit_traces: usize,
    /// Folds of the cross-fitting.
    pub(crate) folds: usize,
    /// Varies the splits.
    pub(crate) seed: u64,
    /// Never refit with fewer traces than this.
    pub(crate) min_traces: usize,
    /// Refit this many minutes after the last refit; 0 switches it off.
    pub(crate) refit_every_minutes: u64,
    /// Refit at these times, in UTC; empty switches it off.
    pub(crate) refit_cron: String,
    /// Up to so many seconds later than the two above say.
    pub(crate) refit_jitter_seconds: u64,
    /// Refit after this many new traces; 0 switches it off.
    pub(crate) refit_after_traces: u64,
    /// Look for drift after this many new traces, and refit if there is; 0 switches it off.
    pub(crate) refit_drift_traces: u64,
    /// Copies of a text with the same label count once within so many seconds; 0 for never.
    pub(crate) dedup_window_seconds: u64,
    /// Every so manieth refit is a full one, those between are incremental.
    pub(crate) full_refit_every: u32,
    /// Probability that a handled request is marked for an audit.
    pub(crate) audit_rate: f64,
    /// Whether the task is suspended once audits prove that its live agreement is below
    /// the target.
    pub(crate) auto_suspend: bool,
    /// Price of one teacher call in dollars.
    pub(crate) teacher_call_dollars: f64,
    /// Price of a million tokens that go into the teacher, in dollars.
    pub(crate) teacher_input_dollars_per_million: f64,
    /// Price of a million tokens that come out of it, in dollars.
    pub(crate) teacher_output_dollars_per_million: f64,
    /// What is stored of inputs: `full`, `hash` or `none`.
    pub(crate) store_input: StoreInput,
}

/// Which candidates are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CandidatesConfig {
    /// These alone; all when empty.
    pub(crate) only: Vec<String>,
    /// Not these.
    pub(crate) skip: Vec<String>,
}

impl Default for TaskConfig {
    fn default() -> Self {
        let fit = FitConfig::default();
        let schedule = Schedule::default();
        let policy = TaskPolicy::default();
        Self {
            target_agreement: fit.targets[0],
            delta: fit.delta,
            gate: fit.gate,
            coverage_floor: fit.coverage_floor,
            features: fit.features,
            embedder: EmbedderConfig::default(),
            candidates: CandidatesConfig {
                only: fit.only,
                skip: fit.skip,
            },
            cascade: fit.cascade,
            ood_budget: fit.ood_budget,
            max_fit_traces: fit.max_fit_traces,
            folds: fit.folds,
            seed: fit.seed,
            min_traces: fit.min_traces,
            refit_every_minutes: schedule
                .interval
                .map_or(0, |interval| interval.num_minutes() as u64),
            refit_cron: String::new(),
            refit_jitter_seconds: schedule.jitter.num_seconds() as u64,
            refit_after_traces: schedule.after_traces.unwrap_or(0),
            refit_drift_traces: schedule.drift_after.unwrap_or(0),
            dedup_window_seconds: TaskPlan::default().dedup_window.num_seconds() as u64,
            full_refit_every: TaskPlan::default().full_refit_every,
            audit_rate: policy.audit_rate,
            auto_suspend: TaskPlan::default().auto_suspend,
            teacher_call_dollars: policy.teacher.call_dollars,
            teacher_input_dollars_per_million: policy.teacher.input_dollars_per_million,
            teacher_output_dollars_per_million: policy.teacher.output_dollars_per_million,
            store_input: StoreInput::default(),
        }
    }
}

impl TaskConfig {
    /// Checks what types cannot; `section` is where it stands.
    pub(crate) fn check(&self, section: &str) -> Result<(), ConfigError> {
        let open = |value: f64| value > 0.0 && value < 1.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let bad = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(ConfigError::new(format!(
                "{section}.{key} is {value}: it must be {expected}"
            )))
        };
        let between = "between 0 and 1, neither of them included";
        if !open(self.target_agreement) {
            return bad("target_agreement", &self.target_agreement, between);
        }
        if !open(self.delta) {
            return bad("delta", &self.delta, between);
        }
        if !share(self.coverage_floor) {
            return bad("coverage_floor", &self.coverage_floor, "from 0 to 1");
        }
        if !share(self.audit_rate) {
            return bad("audit_rate", &self.audit_rate, "from 0 to 1");
        }
        if !(2..=20).contains(&self.folds) {
            return bad("folds", &self.folds, "from 2 to 20");
        }
        if !(0.0..=0.5).contains(&self.ood_budget) {
            return bad("ood_budget", &self.ood_budget, "from 0 to 0.5");
        }
        if self.max_fit_traces != 0 && self.max_fit_traces < self.min_traces {
            return bad(
                "max_fit_traces",
                &self.max_fit_traces,
                &format!("0 or at least min_traces, {}", self.min_traces),
            );
        }
        if let Err(error) = self.embedder.check() {
            return Err(ConfigError::new(format!("{section}.embedder.{error}")));
        }
        if self.full_refit_every == 0 {
            return bad("full_refit_every", &0, "1 or more");
        }
        let CandidatesConfig { only, skip } = &self.candidates;
        for (key, list) in [("candidates.only", only), ("candidates.skip", skip)] {
            if let Some(name) = list
                .iter()
                .find(|name| candidate_names().all(|k| k != *name))
            {
                let names: Vec<&str> = candidate_names().collect();
                let expected = format!("a list of some of {}", names.join(", "));
                return bad(key, &format_args!("a list with {name:?}"), &expected);
            }
        }
        let skipped = |name: &str| skip.iter().any(|s| s == name);
        let left = candidate_names().filter(|n| only.is_empty() || only.iter().any(|o| o == n));
        if left.into_iter().all(skipped) {
            let skip = format!("{skip:?}");
            return bad("candidates.skip", &skip, "such that a candidate is left");
        }
        let price = self.price();
        for (key, dollars) in [
            ("teacher_call_dollars", price.call_dollars),
            (
                "teacher_input_dollars_per_million",
                price.input_dollars_per_million,
            ),
            (
                "teacher_output_dollars_per_million",
                price.output_dollars_per_million,
            ),
        ] {
            if !(dollars >= 0.0 && dollars.is_finite()) {
                return bad(key, &dollars, "0 or more");
            }
        }
        if self.refit_every_minutes > 60 * 24 * 366 {
            return bad(
                "refit_every_minutes",
                &self.refit_every_minutes,
                "a year at the most",
            );
        }
        if self.refit_jitter_seconds > 60 * 60 * 24 {
            return bad(
                "refit_jitter_seconds",
                &self.refit_jitter_seconds,
                "a day at the most",
            );
        }
        if self.dedup_window_seconds > 60 * 60 * 24 * 366 {
            return bad(
                "dedup_window_seconds",
                &self.dedup_window_seconds,
                "a year at the most",
            );
        }
        if let Some(Err(error)) = self.cron() {
            return Err(ConfigError::new(format!("{section}.refit_cron: {error}")));
        }
        // Whatever else the learner would refuse.
        let checked = self.plan().fit.check();
        checked.map_err(|error| ConfigError::new(format!("{section}: {error}")))
    }

    fn cron(&self) -> Option<Result<croner::Cron, tracer_trainer::InvalidCron>> {
        let pattern = self.refit_cron.trim();
        (!pattern.is_empty()).then(|| Schedule::parse_cron(pattern))
    }

    fn price(&self) -> TeacherPrice {
        TeacherPrice {
            call_dollars: self.teacher_call_dollars,
            input_dollars_per_million: self.teacher_input_dollars_per_million,
            output_dollars_per_million: self.teacher_output_dollars_per_million,
        }
    }

    pub(crate) fn plan(&self) -> TaskPlan {
        let some = |value: u64| (value > 0).then_some(value);
        TaskPlan {
            schedule: Schedule {
                interval: some(self.refit_every_minutes)
                    .map(|minutes| TimeDelta::minutes(minutes as i64)),
                cron: self.cron().and_then(Result::ok),
                jitter: TimeDelta::seconds(self.refit_jitter_seconds as i64),
                after_traces: some(self.refit_after_traces),
                drift_after: some(self.refit_drift_traces),
                min_traces: self.min_traces as u64,
            },
            dedup_window: TimeDelta::seconds(self.dedup_window_seconds as i64),
            full_refit_every: self.full_refit_every,
            teacher: Teacher {
                price: self.price(),
                audit_rate: self.audit_rate,
            },
            auto_suspend: self.auto_suspend,
            fit: FitConfig {
                targets: vec![self.target_agreement],
                delta: self.delta,
                gate: self.gate,
                coverage_floor: self.coverage_floor,
                features: self.features,
                only: self.candidates.only.clone(),
                skip: self.candidates.skip.clone(),
                cascade: self.cascade,
                ood_budget: self.ood_budget,
                max_fit_traces: self.max_fit_traces,
                folds: self.folds,
                seed: self.seed,
                min_traces: self.min_traces,
                ..FitConfig::default()
            },
        }
    }

    pub(crate) fn policy(&self) -> TaskPolicy {
        TaskPolicy {
            audit_rate: self.audit_rate,
            teacher: self.price(),
            target_agreement: self.target_agreement,
        }
    }
}
