//! One holder of a task at a time, and no publication by one that was replaced.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use common::{
    Place,
    hooked::{Fate, Hooked, Kind},
    task, version_files,
};
use serde_json::json;
use tracer_store::{
    Claimable, Lease, Leases, LogEvent, PipelineVersion, Registry, Store, StoreError, VersionFiles,
};

const LONG: Duration = Duration::from_secs(3600);
/// Expired as soon as it was seen.
const SHORT: Duration = Duration::ZERO;

on_every_store!(
    a_task_has_one_holder,
    of_rivals_one_claims,
    requests_wait_until_they_are_answered
);

async fn claim(leases: &Leases, holder: &str, expires: Duration) -> Option<Lease> {
    let standing = leases.look_at(&task("t")).await.unwrap();
    let (t, body) = (task("t"), json!({"by": holder}));
    let claimed = leases.claim(&t, &standing, holder, expires, body);
    claimed.await.unwrap()
}

async fn a_task_has_one_holder(place: Arc<Place>) {
    let (one, two) = (Leases::new(place.open()), Leases::new(place.open()));
    assert!(one.look().await.unwrap().is_empty());
    let mut lease = claim(&one, "one", LONG).await.unwrap();
    assert_eq!((lease.epoch(), lease.took_over()), (1, false));
    assert!(claim(&two, "two", LONG).await.is_none());
    assert!(lease.renew(json!("later")).await.unwrap());
    let standing = two.look_at(&task("t")).await.unwrap();
    let last = standing.last.unwrap();
    assert_eq!(standing.claim, Claimable::Held);
    assert_eq!((last.seq, last.epoch, &last.body), (2, 1, &json!("later")));
    assert_eq!(last.holder, "one");

    assert!(lease.release(json!("done")).await.unwrap());
    let standing = two.look().await.unwrap().remove(&task("t")).unwrap();
    assert_eq!(standing.claim, Claimable::Free);
    assert_eq!(standing.last.unwrap().body, json!("done"));
    let lease = claim(&two, "two", LONG).await.unwrap();
    assert_eq!((lease.epoch(), lease.took_over()), (4, false));
    // Only the last entry is kept.
    let listed = Leases::new(place.open()).look().await.unwrap();
    assert_eq!(listed[&task("t")].last.as_ref().unwrap().seq, 4);
}

async fn of_rivals_one_claims(place: Arc<Place>) {
    for round in 0..5_u64 {
        let rivals = (0..8).map(|rival| {
            let leases = Leases::new(place.open());
            async move { claim(&leases, &format!("{round}-{rival}"), LONG).await }
        });
        let claimed: Vec<Lease> = futures::future::join_all(rivals)
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(claimed.len(), 1, "round {round}");
        for mut lease in claimed {
            assert!(lease.release(json!(null)).await.unwrap());
        }
    }
}

async fn requests_wait_until_they_are_answered(place: Arc<Place>) {
    let leases = Leases::new(place.open());
    let first = leases.request(&task("t"), "me", "why not").await.unwrap();
    let second = leases.request(&task("t"), "me", "again").await.unwrap();
    let other = leases.request(&task("u"), "me", "").await.unwrap();
    let standings = leases.look().await.unwrap();
    let mut waiting = vec![first.clone(), second.clone()];
    waiting.sort();
    assert_eq!(standings[&task("t")].requests, waiting);
    assert_eq!(standings[&task("t")].claim, Claimable::Free);
    assert_eq!(standings[&task("u")].requests, [other]);
    leases.answered(&task("t"), &first).await.unwrap();
    leases.answered(&task("t"), &first).await.unwrap();
    assert_eq!(leases.requests(&task("t")).await.unwrap(), [second]);
    // A claim leaves them alone.
    claim(&leases, "one", LONG).await.unwrap();
    assert_eq!(leases.requests(&task("t")).await.unwrap().len(), 1);
}

fn memory() -> Store {
    Store::open("memory://", &std::collections::BTreeMap::new()).unwrap()
}

#[tokio::test]
async fn who_is_not_heard_of_is_replaced_and_told_so() {
    let store = memory();
    let (one, two) = (Leases::new(store.clone()), Leases::new(store.clone()));
    let mut slept = claim(&one, "one", SHORT).await.unwrap();
    let mut lease = claim(&two, "two", LONG).await.unwrap();
    assert_eq!((lease.epoch(), lease.took_over()), (2, true));
    assert!(!slept.renew(json!(null)).await.unwrap());
    assert!(!slept.release(json!(null)).await.unwrap());
    assert!(lease.renew(json!(null)).await.unwrap());
}

/// An observer counts from when it saw an entry first, whatever its author's clock says.
#[tokio::test]
async fn a_renewal_begins_the_time_anew() {
    let store = memory();
    let (one, two) = (Leases::new(store.clone()), Leases::new(store));
    let patient = Duration::from_millis(150);
    let mut lease = claim(&one, "one", patient).await.unwrap();
    let look = async || two.look_at(&task("t")).await.unwrap().claim;
    for _ in 0..6 {
        assert_eq!(look().await, Claimable::Held);
        // Half of its time: together longer than it lasts.
        tokio::time::sleep(patient / 2).await;
        assert!(lease.renew(json!(null)).await.unwrap());
    }
    assert_eq!(look().await, Claimable::Held);
    tokio::time::sleep(patient).await;
    assert_eq!(look().await, Claimable::Expired);
}

/// The numbers of old entries are free again. A holder that slept for long puts one, and
/// is told all the same.
#[tokio::test]
async fn a_number_that_is_free_again_holds_nothing() {
    let store = memory();
    let (one, two) = (Leases::new(store.clone()), Leases::new(store.clone()));
    let mut slept = claim(&one, "one", SHORT).await.unwrap();
    let before = one.look_at(&task("t")).await.unwrap();
    let mut lease = claim(&two, "two", LONG).await.unwrap();
    for _ in 0..5 {
        assert!(lease.renew(json!(null)).await.unwrap());
    }
    assert!(!slept.renew(json!(null)).await.unwrap());
    // Neither is one claimed by what was seen long ago.
    let late = one
        .claim(&task("t"), &before, "three", LONG, json!(null))
        .await;
    assert!(late.unwrap().is_none());
    let standing = Leases::new(store).look_at(&task("t")).await.unwrap();
    let last = standing.last.unwrap();
    assert_eq!((last.seq, last.holder.as_str()), (7, "two"));
    assert!(lease.renew(json!(null)).await.unwrap());
}

/// Whichever operation fails, with or without effect: a holder is never told that it
/// holds what somebody else has, and goes on when the store does.
#[tokio::test]
async fn lost_answers_cost_no_lease() {
    for failing in 0..24 {
        for fate in [Fate::Fails, Fate::DoneAndFails] {
            let hooked = Hooked::new(
                move |number, _: Kind| {
                    if number == failing { fate } else { Fate::Done }
                },
            );
            let leases = Leases::new(hooked.store());
            let mut lease = loop {
                let Ok(standing) = leases.look_at(&task("t")).await else {
                    continue;
                };
                // One whose claim failed with effect waits for its own lease to expire.
                let task = task("t");
                let claimed = leases.claim(&task, &standing, "one", SHORT, json!(0));
                if let Ok(Some(lease)) = claimed.await {
                    break lease;
                }
            };
            for body in 1..4 {
                while lease.renew(json!(body)).await.is_err() {}
            }
            let after = hooked.copy(|_, _| Fate::Done).store();
            let standing = Leases::new(after).look_at(&task("t")).await;
            let last = standing.unwrap().last.unwrap();
            assert_eq!(
                (last.epoch, last.held, last.body.clone()),
                (lease.epoch(), true, json!(3)),
                "{failing} {fate:?}"
            );
        }
    }
}

fn files(epoch: Option<u64>) -> VersionFiles {
    let mut files = version_files("m");
    files.manifest.epoch = epoch;
    files
}

#[tokio::test]
async fn whoever_was_fenced_off_publishes_nothing() {
    let (store, t) = (memory(), task("t"));
    let registry = Registry::new(store.clone());
    let publish = async |epoch| registry.publish(&t, files(epoch), "trainer").await;
    publish(Some(3)).await.unwrap();
    registry.fence(&t, 5, "trainer").await.unwrap();
    registry.fence(&t, 5, "trainer").await.unwrap();
    for epoch in [3, 4] {
        let error = publish(Some(epoch)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Superseded { by: 5, .. }),
            "{error}"
        );
    }
    assert!(registry.fence(&t, 4, "trainer").await.is_err());
    // Nothing was left behind, and the fence serves nothing.
    assert_eq!(registry.versions(&t).await.unwrap().len(), 1);
    assert_eq!(
        registry.active(&t).await.unwrap().version,
        Some(PipelineVersion(1))
    );
    publish(Some(5)).await.unwrap();
    // An operator needs no lease.
    publish(None).await.unwrap();
    assert_eq!(
        registry.last_published(&t).await.unwrap(),
        Some(PipelineVersion(3))
    );
    // Whoever reads the log anew sees the same.
    let fresh = Registry::new(store);
    assert_eq!(
        fresh.active(&t).await.unwrap().version,
        Some(PipelineVersion(3))
    );
}

/// What was decided while a version was made is not undone by it: not by its publisher, nor by
/// who finds it ready.
#[tokio::test]
async fn what_was_suspended_meanwhile_stays_so() {
    let (registry, t) = (Registry::new(memory()), task("t"));
    let made_at = |log_seq| {
        let mut files = files(Some(1));
        files.manifest.log_seq = log_seq;
        files
    };
    registry
        .publish(&t, made_at(Some(0)), "trainer")
        .await
        .unwrap();
    for decision in [
        LogEvent::Suspended {
            reason: "wrong".to_owned(),
        },
        LogEvent::RolledBack {
            to_version: PipelineVersion(1),
        },
    ] {
        let seen = registry
            .log(&t)
            .await
            .unwrap()
            .last()
            .map(|entry| entry.seq);
        let decided = registry.append(&t, decision, "ada").await.unwrap();
        let before = registry.active(&t).await.unwrap();
        let error = registry.publish(&t, made_at(seen), "trainer").await;
        assert!(
            matches!(&error, Err(StoreError::Overtaken { seq, .. }) if *seq == decided.seq),
            "{error:?}"
        );
        assert!(registry.adopt(&t, "another").await.unwrap().is_empty());
        assert_eq!(registry.active(&t).await.unwrap(), before);
    }
    // One that knows of them serves.
    let seen = registry
        .log(&t)
        .await
        .unwrap()
        .last()
        .map(|entry| entry.seq);
    let version = registry
        .publish(&t, made_at(seen), "trainer")
        .await
        .unwrap();
    assert_eq!(registry.active(&t).await.unwrap().version, Some(version));
}

/// A fence that comes at any moment of a publication: the version serves exactly when
/// its publisher was told so, or when who came after adopted it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_at_any_moment_decides() {
    // As many operations as a publication has.
    let hooked = Hooked::new(|_, _| Fate::Done);
    let registry = Registry::new(hooked.store());
    let t = task("t");
    registry.publish(&t, files(Some(1)), "a").await.unwrap();
    let all = hooked.operations();
    assert!(all > 6, "{all}");
    let (mut published, mut superseded, mut adopted_ones) = (0, 0, 0);
    for moment in 0..=all {
        let (reached, is_reached) = mpsc::channel();
        let (open, is_open) = mpsc::channel::<()>();
        let is_open = Mutex::new(is_open);
        // The publisher stops before this operation, until its successor is done.
        let hooked = Hooked::new(move |number, _| {
            if number == moment && number < all {
                reached.send(()).unwrap();
                is_open.lock().unwrap().recv().unwrap();
            }
            Fate::Done
        });
        let t = task("t");
        let stale = Registry::new(hooked.store());
        let publication = tokio::spawn(async move {
            let t = task("t");
            stale.publish(&t, files(Some(1)), "stale").await
        });
        let registry = Registry::new(hooked.store());
        let stopped = moment < all;
        if stopped {
            let waited = tokio::task::spawn_blocking(move || is_reached.recv());
            waited.await.unwrap().unwrap();
        } else {
            while !publication.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        let adopted = registry.adopt(&t, "successor").await.unwrap();
        registry.fence(&t, 2, "successor").await.unwrap();
        if stopped {
            open.send(()).unwrap();
        }
        let result = publication.await.unwrap();
        let log = registry.log(&t).await.unwrap();
        let in_log = log
            .iter()
            .filter(|entry| matches!(entry.event, LogEvent::Published { .. }))
            .count();
        match result {
            Ok(version) => {
                assert_eq!(in_log, 1, "at {moment}");
                assert_eq!(registry.active(&t).await.unwrap().version, Some(version));
                published += 1;
            }
            Err(StoreError::Superseded { .. }) => {
                assert_eq!(in_log, adopted.len(), "at {moment}");
                superseded += 1;
            }
            Err(error) => panic!("at {moment}: {error}"),
        }
        adopted_ones += adopted.len();
        // What was superseded is never adopted later.
        assert!(registry.adopt(&t, "successor").await.unwrap().is_empty());
    }
    assert!(published > 0 && superseded > 0 && adopted_ones > 0);
}

/// A trainer dies after any operation of a publication: nothing that was ready is lost,
/// and nothing is published twice.
#[tokio::test]
async fn what_was_ready_is_adopted_once() {
    for last in 0..12 {
        let hooked = Hooked::new(move |number, _| {
            if number < last {
                Fate::Done
            } else {
                Fate::Fails
            }
        });
        let stale = Registry::new(hooked.store());
        let done = stale.publish(&task("t"), files(Some(1)), "dead").await;
        let after = Registry::new(hooked.copy(|_, _| Fate::Done).store());
        let ready = after.versions(&task("t")).await.unwrap();
        let adopted = after.adopt(&task("t"), "next").await.unwrap();
        assert!(after.adopt(&task("t"), "next").await.unwrap().is_empty());
        after.fence(&task("t"), 2, "next").await.unwrap();
        assert_eq!(
            after.last_published(&task("t")).await.unwrap(),
            ready.last().copied()
        );
        if done.is_ok() {
            assert!(adopted.is_empty() && ready.len() == 1);
        }
        let next = after
            .publish(&task("t"), files(Some(2)), "next")
            .await
            .unwrap();
        assert!(ready.iter().all(|version| *version < next));
    }
}
