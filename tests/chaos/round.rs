//! One round: everything starts, faults strike, all is lifted, the topic is drained,
//! and what is stored is compared with the log.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    dice::Dice,
    faults,
    plan::{Kind, Plan},
    producer::{self, produce, produce_transactions},
    report::Round,
    verify,
    world::{Parts, World},
};

/// Faults that happen at the same time, at most.
const AT_ONCE: usize = 6;

/// How long the shards may take to catch up when all is well again.
const CATCH_UP: Duration = Duration::from_secs(300);

/// Measurements without a fault, before the first one.
const QUIET: usize = 3;

pub(crate) async fn run(
    parts: &Parts,
    plan: &Plan,
    number: usize,
    home: PathBuf,
    dice: &mut Dice,
) -> Round {
    eprintln!(
        "chaos: round {number}: {}, {} faults",
        plan.name,
        plan.faults()
    );
    fs::create_dir_all(&home).unwrap();
    let started = Instant::now();
    let world = Arc::new(World::new(parts, plan, number, &home).await);
    for member in &world.members {
        member.lock().await.start();
    }
    let produced = tokio::spawn(produce(
        world.cluster.brokers.clone(),
        world.topic.clone(),
        plan.traces,
        plan.gap * plan.faults() as u32,
        world.ledger.clone(),
        Dice::new(dice.next()),
    ));
    let (of, chance) = (world.clone(), Dice::new(dice.next()));
    let transactions = tokio::task::spawn_blocking(move || {
        produce_transactions(&of.cluster.brokers, &of.topic, &of.ledger, chance);
    });
    let of = world.clone();
    let watch = tokio::spawn(async move { of.watch().await });
    let of = world.clone();
    let supervisor = tokio::spawn(async move { of.supervise().await });

    quiet(&world, dice).await;
    let missed = play(&world, plan, dice).await;

    // All is lifted. What is left to write is written, and the log stands still.
    let faults_over = started.elapsed();
    world.ledger.hurry();
    produced.await.unwrap();
    transactions.await.unwrap();
    let (drain, goal) = (Instant::now(), world.ledger.ends());
    let is_past =
        |covered: &[u64], goal: &[u64]| goal.iter().zip(covered).all(|(goal, at)| goal <= at);
    let caught_up = until_covered(&world, |covered| is_past(covered, &goal)).await;
    let drained = drain.elapsed();
    let mut wrong: Vec<String> = caught_up.err().into_iter().collect();

    // No transaction is open any more: the log stands still.
    if let Some(left) = world.ledger.left_open() {
        sleep_until(left + producer::TRANSACTIONS_END).await;
    }
    let log = verify::read_log(&world).await;
    wrong.append(&mut world.ledger.compare(&log));
    // The last offsets that there are to be read.
    let ends: Vec<u64> = log
        .iter()
        .map(|records| records.last_key_value().map_or(0, |(offset, _)| offset + 1))
        .collect();
    wrong.extend(until_covered(&world, |covered| covered == ends).await.err());
    supervisor.abort();
    let _ = supervisor.await;
    for member in &world.members {
        let mut member = member.lock().await;
        if let Err(story) = member.terminate().await {
            world.ended_by_itself(&member, story);
        }
    }
    // Once more, for the recoveries.
    sleep(Duration::from_secs(1)).await;
    watch.abort();
    let _ = watch.await;

    let letters = verify::read_letters(&world).await;
    let found = verify::compare(&world, &log, &letters).await;
    wrong.append(&mut world.troubles.lock().unwrap());
    let round = Round {
        name: plan.name,
        planned: plan.faults(),
        missed,
        seconds: started.elapsed(),
        faults_over,
        drained,
        refused: verify::count_in_logs(&home, "worker: the range is in the store already"),
        tried_again: verify::count_in_logs(&home, "trying again"),
        acknowledged: world.ledger.acked(),
        transactions: world.ledger.transactions(),
        fenced: world.fenced.load(Ordering::Relaxed),
        found,
        faults: std::mem::take(&mut world.faults.lock().unwrap()),
        wrong,
    };
    tidy(&world, plan.on_disk).await;
    round
}

/// Waits until the shards have come far enough.
pub(crate) async fn until_covered(
    world: &World,
    enough: impl Fn(&[u64]) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let covered = world.covered().await;
        if enough(&covered) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let ends = world.ledger.ends();
            return Err(format!(
                "not drained: the shards end at {covered:?}, the log at {ends:?}"
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// How long it takes from the log to a shard when nothing is wrong.
async fn quiet(world: &World, dice: &mut Dice) {
    // Until the members have joined and everybody reads.
    let began = until_covered(world, |covered| !covered.contains(&0)).await;
    began.expect("the aggregators begin");
    for _ in 0..QUIET {
        faults::happens(world, Kind::Nothing, Dice::new(dice.next())).await;
        world.recovered().await;
    }
}

/// Plays the deck in a random order. What does not come off goes back and comes
/// again; answers how often that happened.
async fn play(world: &Arc<World>, plan: &Plan, dice: &mut Dice) -> usize {
    let mut deck: Vec<Kind> = plan
        .deck
        .iter()
        .flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count))
        .collect();
    dice.shuffle(&mut deck);
    let mut missed = 0;
    let mut playing: JoinSet<(Kind, bool)> = JoinSet::new();
    while !deck.is_empty() || !playing.is_empty() {
        while let Some(done) = playing.try_join_next() {
            let (kind, happened) = done.unwrap();
            if !happened {
                missed += 1;
                deck.insert(0, kind);
            }
        }
        let limit = 20 * plan.faults() + 100;
        assert!(
            missed < limit,
            "{missed} faults did not come off; left are {deck:?}"
        );
        if playing.len() < if plan.alone { 1 } else { AT_ONCE }
            && let Some(kind) = deck.pop()
        {
            let (world, chance) = (world.clone(), Dice::new(dice.next()));
            playing.spawn(async move {
                let happened = faults::happens(&world, kind, chance).await;
                if world.alone {
                    world.recovered().await;
                }
                (kind, happened)
            });
        }
        // Moments are random: waits of a process without memory, but not too long.
        let mean = if plan.alone {
            0.5
        } else {
            plan.gap.as_secs_f64()
        };
        let wait = -dice.roll().max(0.02).ln() * mean;
        sleep(Duration::from_secs_f64(wait)).await;
    }
    missed
}

async fn tidy(world: &World, on_disk: bool) {
    world.cluster.delete_topic(&world.topic).await;
    if on_disk {
        let _ = fs::remove_dir_all(Path::new(&world.small_disk).join(&world.topic));
    }
}
