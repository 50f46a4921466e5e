//! A clock that is wrong, or is set, holds nobody up.
//!
//! What moves here is the clock that a program reads. The kernel's own stays, so whoever
//! waits for a moment of a clock that is half an hour ahead waits for half an hour: as they
//! would whose clock is set back by as much while they wait.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    handover::{everything_is_read, write},
    member::{Member, set_clock},
    plan::{Membership, Plan},
    world::{Parts, World},
};

/// Less than the hour by which Kafka takes a record's time to be ahead of its own, and more
/// than anybody here waits.
const HALF_AN_HOUR: i64 = 1800;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs three brokers and an S3 server: tests/run chaos"]
async fn clocks_that_are_set_hold_nobody_up() {
    let home = TempDir::new().unwrap();
    let plan = Plan {
        name: "clocks",
        // A store that does not ask for the time.
        on_disk: true,
        membership: Membership::Dynamic,
        clock: true,
        alone: true,
        deck: Vec::new(),
        traces: 2000,
        gap: Duration::ZERO,
    };
    let parts = Parts::from_env().with_disk(home.path());
    let world = World::new(&parts, &plan, 102, home.path()).await;
    let mut ahead = world.members[0].lock().await;
    let mut behind = world.members[1].lock().await;
    set_clock(&ahead.clock(), HALF_AN_HOUR);
    set_clock(&behind.clock(), -HALF_AN_HOUR);

    // Dead letters, timers of requests, and the answers of the store.
    ahead.start();
    write(&world, plan.traces).await;
    everything_is_read(&world).await;

    // It hears by a heartbeat that it is to share.
    let before = ahead.count_in_log("partitions revoked");
    behind.start();
    until_logged(&ahead, "partitions revoked", before + 1).await;
    until_logged(&behind, "reading on", 1).await;
    write(&world, plan.traces).await;
    everything_is_read(&world).await;

    // Set right, and at the same time told to stop: they leave within the time they have.
    for member in [&mut ahead, &mut behind] {
        set_clock(&member.clock(), 0);
        member.terminate().await.unwrap();
    }
}

async fn until_logged(member: &Member, what: &str, times: usize) {
    let deadline = Instant::now() + PATIENCE;
    while member.count_in_log(what) < times {
        let told = format!("{} never said {what:?}\n{}", member.name, member.log_tail());
        assert!(Instant::now() < deadline, "{told}");
        sleep(Duration::from_millis(50)).await;
    }
}
