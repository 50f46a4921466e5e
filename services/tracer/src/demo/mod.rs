//! The demo's traffic: the support desk of a made-up company and its simulated
//! teacher. Everything follows from a seed.

pub(crate) mod data;
mod desk;
mod grammar;
pub(crate) mod rng;
mod voice;
