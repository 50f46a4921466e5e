//! The service over a real connection: a server in this process, on loopback,
//! over a registry of its own, with pipelines that were really fitted.

mod following;
mod health;
mod recording;
mod routing;
mod streams;
mod support;
