//! What each kind of fault does.

use std::{
    fs::{self, File},
    io::Write as _,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, sleep},
};

use crate::{
    cluster::BROKERS,
    dice::Dice,
    plan::Kind,
    proxy::Mode,
    world::{MAX_AGE, MEMBERS, SESSION, World},
};

/// The failpoints of `services/aggregator/src/failpoint.rs`, those of the shard twice:
/// they matter most.
const PLACES: &[&str] = &[
    "put_before",
    "put_after",
    "put_before",
    "put_after",
    "letters_before",
    "letters_after",
    "commit_before",
    "commit_after",
    "assign_before",
    "assign_after",
    "release_before",
    "release_after",
];

/// Where a step can fail.
const FAILING: &[&str] = &[
    "put_before",
    "put_after",
    "letters_before",
    "letters_after",
    "commit_before",
];

/// How long a failpoint may wait until somebody comes to it.
const REACHED: Duration = Duration::from_secs(20);

/// Makes a fault happen, and waits until it is lifted. False when whatever it is about
/// was not free, or when nobody has noticed it: then it was none.
pub(crate) async fn happens(world: &World, kind: Kind, mut dice: Dice) -> bool {
    let dice = &mut dice;
    match kind {
        Kind::Nothing => {
            let strike = world.strike();
            world.lifted(strike, kind, "");
            true
        }
        Kind::Kill | Kind::Terminate | Kind::Zombie | Kind::Replaced | Kind::Scale => {
            process(world, kind, dice).await
        }
        Kind::Abort | Kind::Error | Kind::Pause => failpoint(world, kind, dice).await,
        Kind::StoreThrottled
        | Kind::StoreFails
        | Kind::StoreResets
        | Kind::StoreSlow
        | Kind::StoreHangs
        | Kind::AnswerLost
        | Kind::UploadTorn => store(world, kind, dice).await,
        Kind::BrokerKilled | Kind::BrokerTerminated | Kind::BrokerStopped => {
            broker(world, kind, dice).await
        }
        Kind::LeaderChange => {
            let Ok(_held) = world.brokers.try_lock() else {
                return false;
            };
            let strike = world.strike();
            let changed = world.cluster.change_leaders(&world.topic, dice).await;
            if changed > 0 {
                world.lifted(strike, kind, format!("{changed} partitions"));
            }
            changed > 0
        }
        Kind::ClockJump => clock(world, dice).await,
        Kind::DiskFull => disk(world, dice).await,
    }
}

/// Any of these that nobody holds.
fn free<T>(of: &[Arc<Mutex<T>>], dice: &mut Dice) -> Option<(usize, OwnedMutexGuard<T>)> {
    let first = dice.below(of.len() as u64) as usize;
    (0..of.len())
        .map(|n| (first + n) % of.len())
        .find_map(|n| Some((n, of[n].clone().try_lock_owned().ok()?)))
}

async fn process(world: &World, kind: Kind, dice: &mut Dice) -> bool {
    let Some((number, mut member)) = free(&world.members, dice) else {
        return false;
    };
    world.revive(&mut member);
    let name = member.name.clone();
    let strike = world.strike();
    match kind {
        Kind::Kill => {
            if let Some(status) = member.kill()
                && !member.crashed_as_told(status)
            {
                world.ended_by_itself(&member, member.story(status));
            }
            sleep(dice.between(0.0, 1.5)).await;
            member.start();
        }
        Kind::Zombie => {
            member.signal("STOP");
            sleep(SESSION.mul_f64(1.2) + dice.between(0.0, 4.0)).await;
            member.signal("CONT");
        }
        Kind::Replaced => {
            member.signal("STOP");
            let mut other = world.replacement(number);
            other.start();
            sleep(SESSION.mul_f64(1.2) + dice.between(0.0, 4.0)).await;
            member.signal("CONT");
            // What it holds it writes now, if it can.
            sleep(MAX_AGE + dice.between(0.0, 2.0)).await;
            if let Err(story) = member.terminate().await {
                world.ended_by_itself(&member, story);
            }
            *member = other;
        }
        _ => {
            if let Err(story) = member.terminate().await {
                world.ended_by_itself(&member, story);
            }
            if kind == Kind::Scale {
                sleep(dice.between(6.0, 12.0)).await;
            }
            member.start();
        }
    }
    world.lifted(strike, kind, name);
    true
}

async fn failpoint(world: &World, kind: Kind, dice: &mut Dice) -> bool {
    let Some((number, _held)) = free(&world.arms, dice) else {
        return false;
    };
    let pause = dice.between(0.3, 6.0);
    let (places, action) = match kind {
        Kind::Abort => (PLACES, "abort".to_owned()),
        Kind::Error => (FAILING, "error".to_owned()),
        _ => (PLACES, format!("pause {}", pause.as_millis())),
    };
    let place = *dice.pick(places);
    let armed = {
        let Ok(member) = world.members[number].try_lock() else {
            return false;
        };
        member.arm(place, &action);
        member.failpoint(place)
    };
    let deadline = Instant::now() + REACHED;
    let strike = loop {
        let strike = world.strike();
        if !armed.exists() {
            break strike;
        }
        // Who takes it away at the very end was faster.
        if Instant::now() > deadline && fs::remove_file(&armed).is_ok() {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let mut name = format!("m{number}");
    match kind {
        Kind::Abort => {
            // It is gone in a moment.
            sleep(Duration::from_millis(100)).await;
            let mut member = world.members[number].lock().await;
            world.revive(&mut member);
            name.clone_from(&member.name);
        }
        Kind::Pause => sleep(pause).await,
        _ => {}
    }
    world.lifted(strike, kind, format!("{place} of {name}"));
    true
}

async fn store(world: &World, kind: Kind, dice: &mut Dice) -> bool {
    let Some((number, held)) = free(&world.routes, dice) else {
        return false;
    };
    let mut held = vec![held];
    let mut struck = vec![number];
    // For all in three of ten.
    if dice.roll() < 0.3 {
        for other in (0..MEMBERS).filter(|other| *other != number) {
            if let Ok(lock) = world.routes[other].clone().try_lock_owned() {
                held.push(lock);
                struck.push(other);
            }
        }
    }
    let mode = match kind {
        Kind::StoreThrottled => Mode::Throttle,
        Kind::StoreFails => Mode::Fail,
        Kind::StoreResets => Mode::Reset,
        Kind::StoreSlow => Mode::Slow(dice.between(0.5, 4.0)),
        Kind::StoreHangs => Mode::Hang,
        Kind::AnswerLost => Mode::LoseAnswer,
        _ => Mode::Tear,
    };
    let count = || -> usize { struck.iter().map(|n| world.proxies[*n].struck()).sum() };
    let before = count();
    let strike = world.strike();
    for number in &struck {
        world.proxies[*number].set(mode);
    }
    sleep(dice.between(0.5, 5.0)).await;
    let deadline = Instant::now() + REACHED;
    while count() == before && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    for number in &struck {
        world.proxies[*number].set(Mode::Pass);
    }
    let requests = count() - before;
    if requests > 0 {
        let detail = format!("{requests} requests of {} members", struck.len());
        world.lifted(strike, kind, detail);
    }
    requests > 0
}

async fn broker(world: &World, kind: Kind, dice: &mut Dice) -> bool {
    let Ok(_held) = world.brokers.try_lock() else {
        return false;
    };
    let number = 1 + dice.below(BROKERS as u64) as usize;
    let strike = world.strike();
    if kind == Kind::BrokerStopped {
        world.cluster.signal(number, "STOP");
        sleep(dice.between(7.0, 12.0)).await;
        world.cluster.signal(number, "CONT");
    } else {
        let signal = if kind == Kind::BrokerKilled {
            "KILL"
        } else {
            "TERM"
        };
        world.cluster.end(number, signal).await;
        sleep(dice.between(0.0, 3.0)).await;
        world.cluster.start(number);
        world.cluster.listens(number).await;
    }
    world.cluster.in_sync(&world.topic).await;
    world.lifted(strike, kind, format!("broker {number}"));
    true
}

async fn clock(world: &World, dice: &mut Dice) -> bool {
    const DAY: i64 = 86_400;
    let Some((number, _held)) = free(&world.clocks, dice) else {
        return false;
    };
    let by = *dice.pick(&[-30 * DAY, -7200, -300, 300, 7200, 30 * DAY]);
    let (clock, name) = {
        let Ok(member) = world.members[number].try_lock() else {
            return false;
        };
        (member.clock(), member.name.clone())
    };
    let strike = world.strike();
    crate::member::set_clock(&clock, by);
    sleep(dice.between(4.0, 10.0)).await;
    crate::member::set_clock(&clock, 0);
    world.lifted(strike, Kind::ClockJump, format!("{name} by {by:+} s"));
    true
}

async fn disk(world: &World, dice: &mut Dice) -> bool {
    let Ok(_held) = world.disk.try_lock() else {
        return false;
    };
    let ballast = world.small_disk.join("ballast");
    let strike = world.strike();
    let filled = fill(&ballast);
    // Longer than a buffer waits: it is tried.
    sleep(MAX_AGE + dice.between(1.0, 5.0)).await;
    // What was freed meanwhile is taken as well.
    let more = fill(&ballast);
    sleep(dice.between(0.0, 1.0)).await;
    fs::remove_file(&ballast).unwrap();
    world.lifted(
        strike,
        Kind::DiskFull,
        format!("{} KiB", (filled + more) >> 10),
    );
    true
}

/// Fills a disk to the last byte. Answers how many there were.
fn fill(ballast: &std::path::Path) -> usize {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(ballast)
        .unwrap();
    let mut filled = 0;
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let block = vec![7; size];
        while let Ok(written) = file.write(&block) {
            filled += written;
        }
    }
    filled
}
