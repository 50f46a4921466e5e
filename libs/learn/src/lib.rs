//! Learning, certifying, deciding: numerics only. No I/O, no clock but for
//! timing, no async.
//!
//! [`refit`] turns a [`Dataset`] into one [`Outcome`] for each target agreement.
//! An outcome that passed the parity gate carries a [`Pipeline`], and
//! [`Pipeline::decide`] is both what the gate certified and what serves.

mod acceptor;
mod aligned;
mod attribution;
mod block;
mod bounds;
mod candidate;
mod classifier;
mod component;
mod confidence;
mod config;
mod dataset;
mod decide;
mod design;
mod draw;
mod gate;
mod gemm;
mod lbfgs;
mod logistic;
mod model;
mod model_file;
mod objective;
mod ood;
mod pipeline;
mod precondition;
mod refit;
mod sample;
mod scan;
mod score;
mod simd;
mod softmax;
mod split;
mod surrogate;
mod warm;

pub use attribution::{AttributionScratch, Contribution};
pub use bounds::{
    AgreementMonitor, betting_lower, binomial_at_most, clopper_pearson_interval,
    clopper_pearson_lower, clopper_pearson_upper,
};
pub use candidate::candidate_names;
pub use classifier::LogisticClassifier;
pub use confidence::Cue;
pub use config::{FeatureMode, FitConfig, GateMode, InvalidSetting};
pub use dataset::{Dataset, DatasetError, Row};
pub use decide::{DecideError, Decision, DeferReason, Input, Scratch, first_not_finite};
pub use design::{Design, Sparse};
pub use draw::{Draw, Facts, RowInput, draw};
pub use gate::{ACCEPT_ALL, Choice, Gate, GateStats, Policy, Scored, weight_cap};
pub use logistic::{Logistic, LogisticParams, SearchSummary};
pub use model_file::{ModelError, SCHEMA_VERSION};
pub use pipeline::{Family, Pipeline, PipelineCard};
pub use refit::{
    BudgetPoint, CandidateScore, FamilyScore, FitError, Outcome, Progress, ShadowRow, TargetPoint,
    Verdict, refit, refit_from,
};
pub use scan::{
    Certifiable, Contents, Contradiction, CurvePoint, Learning, Need, Scan, ScanRow, ScanTarget,
    ShadowNeed, scan, scan_config,
};
pub use simd::instructions;
