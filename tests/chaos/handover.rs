//! A crash in the middle of a handover leaves no partition without an owner.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    dice::Dice,
    plan::{Membership, Plan},
    producer::produce,
    round::until_covered,
    world::{Parts, World},
};

const PATIENCE: Duration = Duration::from_secs(120);

/// A member with a name of its own that comes back gets what it had from the brokers,
/// without anybody else taking notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs three brokers and an S3 server: tests/run chaos"]
async fn static_members_crash_while_they_let_go() {
    crash_while_letting_go(Membership::Static, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs three brokers and an S3 server: tests/run chaos"]
async fn dynamic_members_crash_while_they_let_go() {
    crash_while_letting_go(Membership::Dynamic, 101).await;
}

async fn crash_while_letting_go(membership: Membership, number: usize) {
    let home = TempDir::new().unwrap();
    let plan = Plan {
        name: "handover",
        on_disk: false,
        membership,
        clock: false,
        alone: true,
        deck: Vec::new(),
        traces: 2000,
        gap: Duration::ZERO,
    };
    let world = World::new(&Parts::from_env(), &plan, number, home.path()).await;
    let mut first = world.members[0].lock().await;
    let mut second = world.members[1].lock().await;
    write(&world, plan.traces).await;

    first.start();
    everything_is_read(&world).await;
    // It has all partitions, and the second one is to get some.
    first.arm("release_before", "abort");
    second.start();
    let deadline = Instant::now() + PATIENCE;
    while first.ended().is_none() {
        assert!(Instant::now() < deadline, "nothing was revoked");
        sleep(Duration::from_millis(50)).await;
    }
    first.start();
    write(&world, plan.traces).await;
    everything_is_read(&world).await;
    first.terminate().await.unwrap();
    second.terminate().await.unwrap();
}

pub(crate) async fn write(world: &World, traces: u64) {
    world.ledger.hurry();
    let (brokers, topic) = (world.cluster.brokers.clone(), world.topic.clone());
    let ledger = Arc::clone(&world.ledger);
    let over = Duration::from_secs(1);
    produce(brokers, topic, traces, over, ledger, Dice::from_clock()).await;
}

pub(crate) async fn everything_is_read(world: &World) {
    let ends = world.ledger.ends();
    let read = until_covered(world, |covered| covered == ends).await;
    read.unwrap();
}
