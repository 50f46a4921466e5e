//! The life of versions over the real binary: what people do to them, what every replica
//! makes of it, and whether a version can be made again.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../common/mod.rs"]
mod common;

mod labels;
mod reproduce;
mod retention;
mod versions;
mod world;
