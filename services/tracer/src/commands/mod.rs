//! The commands, a file each.

pub(crate) mod backtest;
pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod deployment;
pub(crate) mod doctor;
pub(crate) mod embedding;
pub(crate) mod fit;
pub(crate) mod health;
pub(crate) mod labels;
pub(crate) mod pipelines;
pub(crate) mod refit;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod reset;
pub(crate) mod role;
pub(crate) mod route;
pub(crate) mod scan;
pub(crate) mod services;
pub(crate) mod shards;
pub(crate) mod up;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracer_learn::Progress;

/// Runs a refit with a progress bar on stderr (nothing where that is no terminal).
pub(crate) fn refit_progress<T>(
    title: &str,
    refit: impl FnOnce(&mut (dyn FnMut(Progress) + Send)) -> T,
) -> T {
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} {msg}")
            .expect("a template that is checked by every run"),
    );
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = refit(&mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.stage);
    });
    bar.finish_and_clear();
    result
}
