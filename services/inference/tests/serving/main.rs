//! The service over a real connection: a server in this process, on loopback,
//! over a registry of its own, with pipelines that were really fitted.

// The lint's exception for tests does not reach the functions they share.
#![allow(clippy::unwrap_used)]

mod answers;
mod embedding;
mod following;
mod fuzz;
mod health;
mod overload;
mod recording;
mod requests;
mod routing;
mod security;
mod streams;
mod support;
