//! The trainer: refits every task on its schedule, has the parity gate decide,
//! and publishes what passes.
//!
//! Tasks are not configured to exist: they are whatever the shards hold. Each is
//! refitted on all of its traces when its [`Schedule`] says so and something is
//! new. A refusal leaves the version that serves as it is; an error is logged,
//! counted and tried again. Nothing stops the loop but the shutdown.
//!
//! A refit is full, or *incremental*: it tries the candidates of the active version
//! alone and begins at their weights. [`TaskPlan::full_refit_every`] says how many
//! incremental ones may stand between full ones. The first refit after a start, the one
//! after a refusal, and one without an active version that can be read are full.
//!
//! The trainer remembers nothing of its own. What a version was fitted on stands
//! in its manifest, so after a restart a task is refitted only for traces its
//! last version has not seen.

mod config;
mod cost;
mod earlier;
mod embed;
mod error;
mod event;
mod explain;
mod facts;
mod publish;
mod refit;
mod reproduce;
mod rows;
mod schedule;
mod service;

pub use config::{TaskPlan, TaskPlans, TrainerConfig};
pub use cost::Teacher;
pub use error::Error;
pub use event::{RefitEvent, RefitResult};
pub use reproduce::{ReproduceError, Reproduced, reproduce};
pub use schedule::{InvalidCron, Schedule, Trigger};
pub use service::{Deps, run};
