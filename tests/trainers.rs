//! Several trainers on one store, as processes of their own: each task is refitted by one
//! at a time, what a killed one leaves is taken up, and one that slept publishes nothing.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured")]

#[path = "common/dice.rs"]
mod dice;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use dice::Dice;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tracer_store::{Claimable, Leases, LogEvent, Registry, ShardLog, Standing, Store, StoreError};
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, TopicName, Trace};

/// Short, but longer than a process on a busy machine waits for its turn.
const LEASE: Duration = Duration::from_millis(1500);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A store, the configuration of its trainers, and what was written so far.
struct Place {
    directory: TempDir,
    runtime: Runtime,
    store: Store,
    /// Where the next shard begins.
    next: u64,
}

impl Place {
    fn new(candidates: &str, lease: Duration) -> Self {
        let lease = lease.as_millis();
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let config = format!(
            "[store]\nurl = {:?}\n[listen]\nhttp = \"127.0.0.1:0\"\n\
             [task_defaults]\nmin_traces = 100\nrefit_every_minutes = 0\nrefit_after_traces = 100\n\
             folds = 2\ntarget_agreement = 0.8\ncascade = false\ncandidates = {{ only = {candidates} }}\n\
             [trainer]\npoll_interval_ms = 50\nlease_ms = {lease}\n[telemetry]\nlog_format = \"json\"\n",
            path.display().to_string()
        );
        fs::write(directory.path().join("tracer.toml"), config).unwrap();
        Self {
            store: Store::open(path.to_str().unwrap(), &BTreeMap::new()).unwrap(),
            runtime: Runtime::new().unwrap(),
            directory,
            next: 0,
        }
    }

    fn registry(&self) -> Registry {
        Registry::new(self.store.clone())
    }

    /// Writes a shard with `count` traces of each of the tasks.
    fn write(&mut self, tasks: &[TaskName], count: u64) {
        let (start, end) = (self.next, self.next + count * tasks.len() as u64);
        self.next = end;
        let rows = (start..end).map(|offset| {
            let task = &tasks[(offset % tasks.len() as u64) as usize];
            trace(task, offset)
        });
        let partition = PartitionId::new(TopicName::default(), 0);
        let range = OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let shards = ShardLog::new(self.store.clone());
        let appended = shards.append(&partition, range, rows.collect());
        self.runtime.block_on(appended).unwrap();
    }

    /// The published versions of a task, in the order of its log.
    fn published(&self, task: &TaskName) -> Vec<u64> {
        let log = self.runtime.block_on(self.registry().log(task)).unwrap();
        let published = log.iter().filter_map(|entry| match entry.event {
            LogEvent::Published { version } => Some(version.get()),
            _ => None,
        });
        published.collect()
    }

    /// The epochs that were fenced off.
    fn fences(&self, task: &TaskName) -> Vec<u64> {
        let log = self.runtime.block_on(self.registry().log(task)).unwrap();
        let fenced = log.iter().filter_map(|entry| match entry.event {
            LogEvent::Fenced { epoch } => Some(epoch),
            _ => None,
        });
        fenced.collect()
    }

    /// How a task stands to somebody who never looked before. Its entry may be renewed
    /// while it is read.
    fn standing(&self, task: &TaskName) -> Standing {
        let leases = Leases::new(self.store.clone());
        self.runtime.block_on(leases.look_at(task)).unwrap()
    }

    /// Whether somebody is at the numbers of a task's refit.
    fn is_fitting(&self, task: &TaskName) -> bool {
        let standing = self.standing(task);
        let Some(last) = standing.last.filter(|_| standing.claim == Claimable::Held) else {
            return false;
        };
        last.body["running"]["stage"] == "fitting"
    }

    /// Every version is there, whole, once; and no two were made of the same traces.
    fn check(&self, task: &TaskName) {
        let registry = self.registry();
        let in_log = self.published(task);
        let distinct: BTreeSet<u64> = in_log.iter().copied().collect();
        assert_eq!(distinct.len(), in_log.len(), "published twice: {in_log:?}");
        let versions = self.runtime.block_on(registry.versions(task)).unwrap();
        let ready: BTreeSet<u64> = versions.iter().map(|version| version.get()).collect();
        assert!(
            distinct.is_subset(&ready),
            "{task}: {in_log:?} of {ready:?}"
        );
        let fence = self.fences(task).into_iter().max();
        let mut spans = BTreeSet::new();
        for version in versions {
            let loaded = self.runtime.block_on(registry.load(task, version));
            let manifest = loaded.unwrap().manifest;
            if !distinct.contains(&version.get()) {
                // Its trainer slept while another took over.
                assert!(manifest.epoch < fence, "{task} {version}: ready, and lost");
                continue;
            }
            let ends = manifest.shards.iter().map(|span| span.end.get()).max();
            assert!(
                spans.insert(ends),
                "{task} {version}: refitted on the same traces"
            );
        }
    }

    fn tracer(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("TRACER_CONFIG")
            .output()
            .unwrap()
    }
}

fn trace(task: &TaskName, offset: u64) -> StoredTrace {
    const SUBJECTS: [(&str, &str); 4] = [
        ("billing", "invoice card money charge"),
        ("delivery", "parcel courier late address"),
        ("account", "password login name email"),
        ("plants", "fern moss leaf water"),
    ];
    let draw = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let (label, words) = SUBJECTS[(draw % 4) as usize];
    let words: Vec<&str> = words.split(' ').collect();
    let word = |shift: u32| words[((draw >> shift) % 4) as usize];
    StoredTrace {
        offset,
        trace: Trace {
            id: format!("{task}-{offset}"),
            task: task.clone(),
            input: Some(format!(
                "number {offset} is about {} and {} or {}",
                word(3),
                word(6),
                word(9)
            )),
            withheld: None,
            embedding: None,
            embedder: None,
            teacher: label.to_owned(),
            ground_truth: None,
            timestamp: None,
            metadata: BTreeMap::new(),
            routing: None,
        },
    }
}

fn tasks(count: usize) -> Vec<TaskName> {
    (0..count)
        .map(|i| TaskName::new(&format!("task-{i}")).unwrap())
        .collect()
}

/// A running `tracer trainer`, killed when the test fails.
struct Trainer {
    child: Child,
    log: PathBuf,
}

impl Trainer {
    fn start(place: &Place, name: &str) -> Self {
        let log = place.directory.path().join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .arg("trainer")
            .current_dir(place.directory.path())
            .env_remove("TRACER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn says(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn kill_9(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Where its HTTP is, once it says so.
    fn http(&self) -> String {
        let line = |text: &str| {
            let line = text.lines().find(|line| line.contains("HTTP listens"))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields").unwrap_or(&line);
            Some(fields["address"].as_str()?.to_owned())
        };
        until("it listens", || line(&self.log()), || self.log())
    }

    /// The status line and the body of an answer.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http()).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is something.
fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>, log: impl Fn() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "never happened: {what}: {}",
            log()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// A pool, and as many traces, that keep a refit busy for several renewals of its lease, so
/// that it is met in the middle of it.
const SLOWLY: u64 = 60_000;
const SLOW: &str = r#"["lexical_logistic", "lexical_sgd", "lexical_mlp", "random_forest"]"#;
const QUICK: &str = r#"["lexical_logistic"]"#;

#[test]
fn each_task_is_refitted_by_one_of_three_trainers() {
    let (mut place, tasks) = (Place::new(QUICK, Duration::from_secs(60)), tasks(6));
    place.write(&tasks, 150);
    let trainers: Vec<Trainer> = (0..3)
        .map(|i| Trainer::start(&place, &format!("trainer-{i}")))
        .collect();
    let logs = || trainers.iter().map(Trainer::log).collect::<String>();
    let all_have = |versions: u64| {
        let has = |task| place.published(task).len() as u64 == versions;
        tasks.iter().all(has).then_some(())
    };
    until("every task has a version", || all_have(1), logs);
    let free = |task: &TaskName| place.standing(task).claim == Claimable::Free;
    until(
        "all is given back",
        || tasks.iter().all(free).then_some(()),
        logs,
    );
    let began =
        |trainers: &[Trainer]| -> usize { trainers.iter().map(|t| t.says("refit begins")).sum() };
    assert_eq!(began(&trainers), tasks.len(), "{}", logs());

    // On demand, by command and by HTTP: once each, though nothing is new.
    let task = tasks[0].as_str();
    let output = place.tracer(&[
        "refit",
        "--task",
        task,
        "--wait",
        "--json",
        "--timeout",
        "120",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{}", logs());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["verdict"], &answer["version"]),
        (&"passed".into(), &2.into())
    );
    let answer = trainers[1].ask("POST", "/refits?task=task-1&reason=a%20test");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let answer = trainers[1].ask("POST", "/refits?task=nobody");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let second = || (place.published(&tasks[1]) == [1, 2]).then_some(());
    until("the request is answered", second, logs);
    until("it is given back", || free(&tasks[1]).then_some(()), logs);
    assert_eq!(began(&trainers), tasks.len() + 2, "{}", logs());
    let answer = trainers[2].ask("GET", "/refits");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let stand: serde_json::Value = serde_json::from_str(body).unwrap();
    let record = &stand["tasks"][1]["record"];
    assert_eq!(record["last"]["trigger"], "request", "{stand:#}");
    assert_eq!(record["last"]["version"], 2);
    let metrics = trainers[0].ask("GET", "/metrics");
    assert!(metrics.contains("tracer_refit_stage"), "{metrics}");
    let output = place.tracer(&["refit", "--task", "nobody"]);
    assert_eq!(output.status.code(), Some(1));

    // Nobody died: nothing was fenced off.
    assert!(tasks.iter().all(|task| place.fences(task).is_empty()));
    for trainer in trainers {
        trainer.stop();
    }
}

#[test]
fn what_a_killed_trainer_was_at_is_taken_up() {
    let (mut place, tasks) = (Place::new(SLOW, LEASE), tasks(1));
    let task = &tasks[0];
    place.write(&tasks, SLOWLY);
    let first = Trainer::start(&place, "first");
    let fitting = || place.is_fitting(task).then_some(());
    until("it is fitting", fitting, || first.log());
    first.kill_9();
    assert!(
        place.published(task).is_empty(),
        "it was faster than the kill"
    );
    let second = Trainer::start(&place, "second");
    let published = || (!place.published(task).is_empty()).then_some(());
    until("it is taken up", published, || second.log());
    let free = || (place.standing(task).claim == Claimable::Free).then_some(());
    until("it is given back", free, || second.log());
    place.check(task);
    assert_eq!(
        (place.published(task).len(), place.fences(task).len()),
        (1, 1)
    );
    let metrics = second.ask("GET", "/metrics");
    let counted = format!("tracer_refit_takeovers_total{{task=\"{task}\"}} 1");
    assert!(metrics.contains(&counted), "{metrics}");
    second.stop();
}

#[test]
fn a_trainer_that_slept_publishes_nothing() {
    let (mut place, tasks) = (Place::new(SLOW, LEASE), tasks(1));
    let task = &tasks[0];
    place.write(&tasks, SLOWLY);
    let sleeper = Trainer::start(&place, "sleeper");
    let fitting = || place.is_fitting(task).then_some(());
    until("it is fitting", fitting, || sleeper.log());
    sleeper.signal("-STOP");
    assert!(
        place.published(task).is_empty(),
        "it was faster than the signal"
    );
    let other = Trainer::start(&place, "other");
    let published = || (!place.published(task).is_empty()).then_some(());
    until("it is taken over", published, || other.log());
    let free = || (place.standing(task).claim == Claimable::Free).then_some(());
    until("it is given back", free, || other.log());
    sleeper.signal("-CONT");
    let noticed = || (sleeper.says("taken the task over meanwhile") > 0).then_some(());
    until("it is told so", noticed, || sleeper.log());
    assert_eq!(sleeper.says("refit passed"), 0, "{}", sleeper.log());
    place.check(task);
    assert_eq!(
        (place.published(task).len(), place.fences(task).len()),
        (1, 1)
    );

    // It goes on working, by what the other has found.
    other.stop();
    place.write(&tasks, 200);
    let next = || (place.published(task).len() == 2).then_some(());
    until("it refits again", next, || sleeper.log());
    place.check(task);
    sleeper.stop();
}

/// Kills at random moments. `TRACER_TRAINER_KILLS` says how many.
#[test]
fn kills_lose_no_version_and_publish_none_twice() {
    let kills = std::env::var("TRACER_TRAINER_KILLS")
        .ok()
        .map_or(12, |text| text.parse().expect("a number"));
    let (mut place, tasks) = (Place::new(QUICK, LEASE), tasks(3));
    let mut dice = Dice::new();
    let mut slots: Vec<Trainer> = (0..2)
        .map(|slot| Trainer::start(&place, &format!("slot-{slot}")))
        .collect();
    let began = Instant::now();
    for kill in 0..kills {
        place.write(&tasks, 120);
        // A random moment is the point here: nothing is waited for.
        thread::sleep(Duration::from_millis(300).mul_f64(dice.roll() * 4.0));
        let slot = (dice.roll() * slots.len() as f64) as usize;
        slots.remove(slot).kill_9();
        slots.insert(slot, Trainer::start(&place, &format!("slot-{slot}-{kill}")));
    }
    let logs = || slots.iter().map(Trainer::log).collect::<String>();
    let last = place.next;
    let settled = |task: &TaskName| {
        let registry = place.registry();
        let settled = async {
            let Some(version) = registry.last_published(task).await? else {
                return Ok(false);
            };
            let manifest = registry.manifest(task, version).await?;
            Ok::<_, StoreError>(manifest.shards.iter().any(|span| span.end.get() == last))
        };
        place.runtime.block_on(settled).unwrap() && place.standing(task).claim == Claimable::Free
    };
    until(
        "all traces are in a version",
        || tasks.iter().all(settled).then_some(()),
        logs,
    );
    let (mut versions, mut fences) = (0, 0);
    for task in &tasks {
        place.check(task);
        versions += place.published(task).len();
        fences += place.fences(task).len();
    }
    for trainer in slots {
        trainer.stop();
    }
    let seconds = began.elapsed().as_secs();
    eprintln!("{kills} kills in {seconds} s: {versions} versions, {fences} refits taken over");
    // Else the kills came before there was anything to break.
    assert!(versions >= tasks.len() && (fences > 0 || kills < 50));
}
