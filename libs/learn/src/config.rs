//! What a refit is asked for.

use serde::{Deserialize, Serialize};
use tracer_features::LexiconConfig;

use crate::{candidate::candidate_names, confidence::Cue};

/// How the parity gate decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMode {
    /// The exact lower bound of the shadow agreement must reach the target.
    Bound,
    /// The paper's rule: the shadow agreement itself must reach it. Promises nothing.
    Point,
}

/// Which features the candidates may stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureMode {
    /// Whatever the traces carry.
    Auto,
    /// Embeddings only.
    Dense,
    /// Text only.
    Lexical,
}

/// The configuration of a refit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitConfig {
    /// Teacher agreement targets α, each in (0, 1): one outcome for each.
    pub targets: Vec<f64>,
    /// The promise may fail with this probability over the gate's sample.
    pub delta: f64,
    /// How the gate decides.
    pub gate: GateMode,
    /// The largest weight that a row can have, in the unit of the rows' weights and
    /// known before they are drawn (see [`weight_cap`](crate::weight_cap)). Weighted
    /// rows can't be certified without it.
    pub weight_cap: Option<f64>,
    /// A pipeline that handles less than this share is not worth its risk.
    pub coverage_floor: f64,
    /// Which features the candidates may stand on.
    pub features: FeatureMode,
    /// Share of the rows kept for the gate; up to half as much again where that
    /// would be fewer than six hundred rows, which certify too little.
    pub shadow_share: f64,
    /// Folds of the cross-fitting.
    pub folds: usize,
    /// Fewer rows than this are refused outright.
    pub min_traces: usize,
    /// More labels than this are refused: they are no classification.
    pub max_labels: usize,
    /// The share of in-distribution traffic that the out-of-distribution guard
    /// may defer; 0 switches it off.
    pub ood_budget: f64,
    /// About this many rows at the most are trained on, and a quarter as many certify on top
    /// of them: of more, a sample stands for all. 0 for no limit.
    pub max_fit_traces: usize,
    /// Candidates to try; all when empty.
    pub only: Vec<String>,
    /// Candidates not to try.
    pub skip: Vec<String>,
    /// Inverse regularisation strengths tried on dense features.
    pub dense_c: Vec<f64>,
    /// Inverse regularisation strengths tried on lexical features.
    pub lexical_c: Vec<f64>,
    /// Inverse regularisation strengths tried on both side by side.
    pub fused_c: Vec<f64>,
    /// Candidates that go on after the first fold, at the most, but for those that
    /// another one's search begins at.
    pub finalists: usize,
    /// A candidate so much below the best macro-F1 on the first fold goes no further.
    pub race_margin: f64,
    /// What an acceptor looks at. Of several acceptors the one that promises the
    /// most coverage at a target is taken.
    pub acceptors: Vec<Vec<Cue>>,
    /// Whether the residual two-stage cascade competes.
    pub cascade: bool,
    /// Iterations of the solver at the most.
    pub max_iterations: usize,
    /// The solver ends when an iteration lowers the loss by less than this share of it.
    pub tolerance: f64,
    /// How text becomes lexical features.
    pub lexicon: LexiconConfig,
    /// Varies the splits.
    pub seed: u64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            targets: vec![0.95],
            delta: 0.05,
            gate: GateMode::Bound,
            weight_cap: None,
            coverage_floor: 0.05,
            features: FeatureMode::Auto,
            shadow_share: 0.2,
            folds: 5,
            min_traces: 200,
            max_labels: 4096,
            ood_budget: 0.02,
            max_fit_traces: 100_000,
            only: Vec::new(),
            skip: Vec::new(),
            dense_c: vec![10.0, 30.0],
            lexical_c: vec![30.0],
            fused_c: vec![30.0],
            finalists: 3,
            race_margin: 0.03,
            acceptors: vec![
                Cue::PAPER.to_vec(),
                vec![
                    Cue::Top1,
                    Cue::Top2,
                    Cue::Margin,
                    Cue::Entropy,
                    Cue::LogOdds,
                    Cue::LeastComponent,
                    Cue::Reliability,
                ],
            ],
            cascade: true,
            max_iterations: 100,
            tolerance: 3e-3,
            lexicon: LexiconConfig::default(),
            seed: 0,
        }
    }
}

/// A setting that makes no sense, by its name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} = {value}: {expected}")]
pub struct InvalidSetting {
    setting: &'static str,
    value: String,
    expected: &'static str,
}

impl FitConfig {
    /// Checks every setting.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let bad = |setting, value: String, expected| {
            Err(InvalidSetting {
                setting,
                value,
                expected,
            })
        };
        if self.targets.is_empty() {
            return bad(
                "targets",
                "[]".into(),
                "expected at least one target agreement",
            );
        }
        if let Some(alpha) = self.targets.iter().find(|a| !(**a > 0.0 && **a < 1.0)) {
            return bad(
                "targets",
                alpha.to_string(),
                "a target agreement is between 0 and 1",
            );
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return bad(
                "delta",
                self.delta.to_string(),
                "expected a probability between 0 and 1",
            );
        }
        if !(0.0..=1.0).contains(&self.coverage_floor) {
            return bad(
                "coverage_floor",
                self.coverage_floor.to_string(),
                "expected a share from 0 to 1",
            );
        }
        if !(self.shadow_share > 0.0 && self.shadow_share < 1.0) {
            return bad(
                "shadow_share",
                self.shadow_share.to_string(),
                "expected a share between 0 and 1",
            );
        }
        if !(2..=20).contains(&self.folds) {
            return bad("folds", self.folds.to_string(), "expected 2 to 20");
        }
        for (setting, list) in [
            ("dense_c", &self.dense_c),
            ("lexical_c", &self.lexical_c),
            ("fused_c", &self.fused_c),
        ] {
            if list.is_empty() || list.iter().any(|c| !(1e-6..=1e9).contains(c)) {
                return bad(
                    setting,
                    format!("{list:?}"),
                    "expected numbers from 1e-6 to 1e9",
                );
            }
        }
        if !(0.0..=0.5).contains(&self.ood_budget) {
            return bad(
                "ood_budget",
                self.ood_budget.to_string(),
                "expected a share from 0 to 0.5",
            );
        }
        if self.max_fit_traces != 0 && self.max_fit_traces < self.min_traces {
            return bad(
                "max_fit_traces",
                self.max_fit_traces.to_string(),
                "expected 0 or at least min_traces",
            );
        }
        for (setting, list) in [("only", &self.only), ("skip", &self.skip)] {
            if let Some(name) = list
                .iter()
                .find(|name| candidate_names().all(|k| k != *name))
            {
                return bad(setting, format!("{name:?}"), "there is no such candidate");
            }
        }
        let tried = |name: &&str| {
            let is = |list: &[String]| list.iter().any(|n| n == *name);
            (self.only.is_empty() || is(&self.only)) && !is(&self.skip)
        };
        if candidate_names().filter(tried).count() == 0 {
            return bad(
                "skip",
                format!("{:?}", self.skip),
                "it leaves no candidate to try",
            );
        }
        if self.finalists == 0 {
            return bad("finalists", "0".into(), "expected at least 1");
        }
        if !(0.0..=1.0).contains(&self.race_margin) {
            return bad(
                "race_margin",
                self.race_margin.to_string(),
                "expected a difference from 0 to 1",
            );
        }
        if self.acceptors.is_empty() || self.acceptors.iter().any(Vec::is_empty) {
            return bad(
                "acceptors",
                format!("{:?}", self.acceptors),
                "expected at least one, with at least one cue each",
            );
        }
        if let Some(cap) = self
            .weight_cap
            .filter(|cap| !(*cap > 0.0 && cap.is_finite()))
        {
            return bad("weight_cap", cap.to_string(), "expected a positive number");
        }
        if !(self.tolerance >= 0.0 && self.tolerance < 1.0) {
            return bad(
                "tolerance",
                self.tolerance.to_string(),
                "expected a share from 0 to 1",
            );
        }
        if self.max_labels < 2 {
            return bad(
                "max_labels",
                self.max_labels.to_string(),
                "expected at least 2",
            );
        }
        if !self.lexicon.is_bounded() {
            return bad(
                "lexicon",
                format!("{:?}", self.lexicon),
                "expected n-grams of at most 16 and texts of at most a million characters",
            );
        }
        if self.max_iterations == 0 {
            return bad("max_iterations", "0".into(), "expected at least 1");
        }
        if !(8..=24).contains(&self.lexicon.bucket_bits) {
            return bad(
                "lexicon.bucket_bits",
                self.lexicon.bucket_bits.to_string(),
                "expected 8 to 24",
            );
        }
        Ok(())
    }
}
