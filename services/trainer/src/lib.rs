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
//! incremental ones may stand between full ones. The first refit by a release, the one
//! after a refusal, and one without an active version that can be read are full.
//!
//! Any number of replicas work on one store. A task is refitted by the one that has its
//! lease (`tracer_store::Leases`): who is faster to claim it, of those that have nothing
//! else to do. The lease is renewed while the refit runs; a replica that is not heard of
//! any more loses it, and another takes the refit up. One that only slept is stopped by
//! the fence in the deployment log, at the latest.
//!
//! Beside the refits it watches what audits say of the versions that serve, and suspends a
//! task whose live agreement is proven to be below its target (`live.rs`).
//!
//! The trainer remembers nothing of its own. What the last refit of a task has seen, and
//! what became of it, stands in the task's lease and in the manifest of the last version,
//! so after a restart, or by another replica, a task is refitted only for new traces.

mod admin;
mod config;
mod cost;
mod drift;
mod earlier;
mod embed;
mod error;
mod event;
mod explain;
mod facts;
mod keep;
mod keeper;
mod live;
mod progress;
mod publish;
mod read;
mod record;
mod refit;
mod reproduce;
mod rows;
mod schedule;
mod service;
mod turn;

pub use admin::{admin_router, has_traces};
pub use config::{TaskPlan, TaskPlans, TrainerConfig};
pub use cost::Teacher;
pub use error::Error;
pub use event::{RefitEvent, RefitResult};
pub use record::{Answer, LastRefit, Record, Running};
pub use reproduce::{ReproduceError, Reproduced, reproduce};
pub use schedule::{InvalidCron, Schedule, Trigger};
pub use service::{Deps, run};
