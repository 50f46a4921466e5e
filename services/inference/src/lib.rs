//! The inference service: answers, over gRPC, whether a task's surrogate can
//! stand in for the teacher.
//!
//! What serves is a [`Catalog`](catalog::Catalog): an immutable snapshot of every
//! task's pipeline behind one atomic pointer. A request loads the pointer once
//! and is answered, whatever is published meanwhile, by the one version it saw;
//! a batch too. Snapshots are made by one writer, the follower, which reads the
//! registry's deployment logs, loads and warms a new version off the request
//! path, and only then swaps.
//!
//! Invariants:
//! - A request takes no lock and waits for no store. When the registry does not
//!   answer, what was loaded keeps serving.
//! - Whatever goes wrong with a version (damage, a newer schema, a failed
//!   download) leaves the one before it serving.
//! - No pipeline is not an error: the input is deferred to the teacher.
//! - A label of a metric is never a caller's word: tasks that are neither
//!   configured nor in the registry are counted together as `unknown`.

mod admission;
mod audit;
mod catalog;
mod config;
mod coverage;
mod embed;
mod error;
mod follower;
mod identify;
mod load;
mod metrics;
mod record;
mod route;
mod security;
mod server;
mod service;
mod status;
mod validate;

pub use config::{ConfigError, InferenceConfig, TaskPolicies, TaskPolicy};
pub use error::Error;
pub use record::Recorder;
pub use security::{Denied, Scope, Security, SecurityConfig, SecurityError};
pub use server::{Deps, run};
