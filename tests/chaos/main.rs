//! Random faults lose no trace and write none twice.
//!
//! Three aggregators, processes of the real binary, read a topic of three real Kafka
//! brokers into a real S3 server or a disk, while a producer writes and faults strike
//! all of them at random: see [`plan::Kind`]. When the last fault is lifted the topic
//! is drained, and what stands in the shards is compared with what stands in the log:
//! every offset exactly once, by count, by checksum and one by one. Every payload that
//! is no trace must be among the dead letters.
//!
//! `tests/run chaos` brings the parts. The environment:
//!
//! - `TRACER_CHAOS`: `short`, the default, `full`, or the name of a fault, for ten of it;
//! - `TRACER_CHAOS_SEED`: a number, to draw the same faults again. When each of them
//!   strikes what is still up to the machine;
//! - `TRACER_CHAOS_REPORT`: a file for the report as JSON;
//! - `TRACER_CHAOS_DIR`: a directory for the aggregators' logs, kept.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]
#![allow(clippy::print_stderr, reason = "progress, and the report")]

mod clocks;
mod cluster;
mod dice;
mod failpoints;
mod faults;
mod handover;
mod member;
mod plan;
mod producer;
mod proxy;
mod report;
mod round;
mod verify;
mod wire;
mod world;

use std::{env, fs, path::PathBuf};

use crate::{dice::Dice, plan::Form, report::Report, world::Parts};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs three brokers and an S3 server: tests/run chaos"]
async fn random_faults_lose_and_repeat_nothing() {
    let form = Form::from_env();
    let seed = env::var("TRACER_CHAOS_SEED").map_or_else(
        |_| Dice::from_clock().below(1_000_000_000),
        |seed| seed.parse().expect("TRACER_CHAOS_SEED is a number"),
    );
    let kept = env::var_os("TRACER_CHAOS_DIR").map(PathBuf::from);
    let directory = tempfile::Builder::new()
        .prefix("chaos-")
        .tempdir_in(kept.clone().unwrap_or_else(env::temp_dir))
        .unwrap();
    eprintln!("chaos: {form:?} form, seed {seed}");
    let parts = Parts::from_env();
    let mut dice = Dice::new(seed);
    let mut report = Report::new(form, seed);
    // What went wrong is worth nothing without the logs.
    let directory = directory.keep();
    for (number, plan) in plan::rounds(form).into_iter().enumerate() {
        let home = directory.join(format!("{number}"));
        let round = round::run(&parts, &plan, number, home, &mut dice).await;
        eprintln!("chaos: {}", round.line());
        report.rounds.push(round);
        if let Some(file) = env::var_os("TRACER_CHAOS_REPORT") {
            fs::write(file, report.json(true)).unwrap();
        }
    }
    eprintln!("{}\n{}", report.markdown(), report.json(false));
    report.check(&directory);
    if kept.is_none() {
        let _ = fs::remove_dir_all(directory);
    }
}
