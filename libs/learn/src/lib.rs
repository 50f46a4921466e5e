//! Learning, certifying, deciding: numerics only. No I/O, no clock but for
//! timing, no async.
//!
//! [`refit`] turns a [`Dataset`] into one [`Outcome`] for each target agreement.
//! An outcome that passed the parity gate carries a [`Pipeline`], and
//! [`Pipeline::decide`] is both what the gate certified and what serves.

mod acceptor;
mod bounds;
mod candidate;
mod confidence;
mod config;
mod dataset;
mod design;
mod gate;
mod lbfgs;
mod logistic;
mod model_file;
#[allow(dead_code, unused_imports)] // wired into the pipeline next
mod ood;
mod pipeline;
mod refit;
mod simd;
mod split;
mod surrogate;

pub use bounds::clopper_pearson_lower;
pub use config::{FeatureMode, FitConfig, GateMode, InvalidSetting};
pub use dataset::{Dataset, DatasetError, Row};
pub use design::{Design, Sparse};
pub use gate::{ACCEPT_ALL, Gate, GateStats, Scored, Walk};
pub use logistic::{Logistic, LogisticParams};
pub use model_file::{ModelError, SCHEMA_VERSION};
pub use pipeline::{
    DecideError, Decision, DeferReason, Family, Input, Pipeline, PipelineCard, Scratch,
};
pub use refit::{CandidateScore, FitError, Outcome, Progress, ShadowRow, Verdict, refit};
