//! What a round has: the parts, who holds which, and what has happened so far.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex as Slot,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracer_source::{Offset, PartitionId, TopicName};
use tracer_store::{ShardLog, Store};

use crate::{
    cluster::Cluster,
    member::Member,
    plan::{Kind, Membership, Plan},
    producer::Ledger,
    proxy::Proxy,
};

pub(crate) const PARTITIONS: usize = 12;
pub(crate) const MEMBERS: usize = 3;

/// A member that says nothing for so long has left its group.
pub(crate) const SESSION: Duration = Duration::from_secs(6);

/// The age at which a buffer becomes a shard.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(3);

/// The real parts, as `tests/run chaos` names them.
pub(crate) struct Parts {
    pub(crate) cluster: Cluster,
    s3: String,
    bucket: String,
    faketime: String,
    small_disk: PathBuf,
}

impl Parts {
    pub(crate) fn from_env() -> Self {
        let var = |name| env::var(name).unwrap_or_else(|_| panic!("{name}: see tests/run chaos"));
        let s3 = var("TRACER_TEST_S3");
        Self {
            cluster: Cluster::new(var("TRACER_TEST_CLUSTER").into(), var("TRACER_TEST_KAFKA")),
            s3: s3.trim_start_matches("http://").to_owned(),
            bucket: var("TRACER_TEST_S3_BUCKET"),
            faketime: var("TRACER_TEST_FAKETIME"),
            small_disk: var("TRACER_TEST_SMALL_DISK").into(),
        }
    }

    /// With a disk that nobody fills.
    pub(crate) fn with_disk(mut self, disk: &Path) -> Self {
        disk.clone_into(&mut self.small_disk);
        self
    }
}

/// A fault that has struck and was lifted.
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Which member, place or broker.
    pub(crate) detail: String,
    /// Since the round began.
    pub(crate) at: Duration,
    pub(crate) lasted: Duration,
    /// No other fault was near.
    pub(crate) alone: bool,
    /// From the strike until all that the log had acknowledged by then was durable.
    pub(crate) after_strike: Recovery,
    /// The same from the moment it was lifted.
    pub(crate) after_lift: Recovery,
}

pub(crate) struct Recovery {
    since: Instant,
    goal: Vec<u64>,
    pub(crate) took: Option<Duration>,
}

impl Recovery {
    fn new(ledger: &Ledger) -> Self {
        Self {
            since: Instant::now(),
            goal: ledger.ends(),
            took: None,
        }
    }

    fn look(&mut self, covered: &[u64]) {
        if self.took.is_none() && self.goal.iter().zip(covered).all(|(goal, at)| goal <= at) {
            self.took = Some(self.since.elapsed());
        }
    }
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) topic: String,
    pub(crate) dead_letters: String,
    pub(crate) home: PathBuf,
    pub(crate) membership: Membership,
    pub(crate) alone: bool,
    faketime: Option<String>,
    configs: Vec<String>,
    pub(crate) members: Vec<Arc<Mutex<Member>>>,
    /// Who has armed a failpoint of a member, or moved its clock.
    pub(crate) arms: Vec<Arc<Mutex<()>>>,
    pub(crate) clocks: Vec<Arc<Mutex<()>>>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) routes: Vec<Arc<Mutex<()>>>,
    /// One broker at a time: two replicas must be there.
    pub(crate) brokers: Arc<Mutex<()>>,
    pub(crate) disk: Arc<Mutex<()>>,
    pub(crate) small_disk: PathBuf,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) shards: ShardLog,
    started: Instant,
    pub(crate) faults: Slot<Vec<Fault>>,
    /// Members of a name of their own that the brokers have fenced.
    pub(crate) fenced: AtomicUsize,
    /// What must not happen: members that end by themselves, or that do not stop.
    pub(crate) troubles: Slot<Vec<String>>,
}

impl World {
    pub(crate) async fn new(parts: &Parts, plan: &Plan, number: usize, home: &Path) -> Self {
        let topic = format!("chaos-{}-{number}", std::process::id());
        let dead_letters = format!("{topic}.dead-letters");
        parts.cluster.create_topic(&topic, PARTITIONS as i32).await;
        parts.cluster.create_topic(&dead_letters, 3).await;
        let mut proxies = Vec::new();
        let (url, options);
        if plan.on_disk {
            url = format!("file://{}", parts.small_disk.join(&topic).display());
            options = BTreeMap::new();
        } else {
            for _ in 0..MEMBERS {
                proxies.push(Proxy::start(parts.s3.clone()).await);
            }
            url = format!("s3://{}/{topic}", parts.bucket);
            options = s3_options(&parts.s3);
        }
        let configs: Vec<_> = (0..MEMBERS)
            .map(|number| {
                let is_static = plan.membership == Membership::Static;
                let store = proxies.get(number).map(|proxy| proxy.address.to_string());
                config(
                    &parts.cluster.brokers,
                    &topic,
                    is_static.then_some(number),
                    &url,
                    store.as_deref(),
                )
            })
            .collect();
        let faketime = plan.clock.then(|| parts.faketime.clone());
        let members = configs
            .iter()
            .enumerate()
            .map(|(n, config)| Member::new(&format!("m{n}"), home, config, faketime.as_deref()))
            .map(|member| Arc::new(Mutex::new(member)))
            .collect();
        let locks = || (0..MEMBERS).map(|_| Arc::default()).collect();
        Self {
            cluster: parts.cluster.clone(),
            dead_letters,
            home: home.to_owned(),
            membership: plan.membership,
            alone: plan.alone,
            faketime,
            configs,
            members,
            arms: locks(),
            clocks: locks(),
            routes: proxies.iter().map(|_| Arc::default()).collect(),
            proxies,
            brokers: Arc::default(),
            disk: Arc::default(),
            small_disk: parts.small_disk.clone(),
            ledger: Arc::new(Ledger::new()),
            // Past the proxies.
            shards: ShardLog::new(Store::open(&url, &options).unwrap()),
            started: Instant::now(),
            faults: Slot::default(),
            fenced: AtomicUsize::new(0),
            troubles: Slot::default(),
            topic,
        }
    }

    /// Another process with the configuration of a member.
    pub(crate) fn replacement(&self, of: usize) -> Member {
        let name = format!("m{of}-{}", self.started.elapsed().as_millis());
        Member::new(
            &name,
            &self.home,
            &self.configs[of],
            self.faketime.as_deref(),
        )
    }

    pub(crate) fn partitions(&self) -> Vec<PartitionId> {
        let topic = TopicName::new(&self.topic).unwrap();
        (0..PARTITIONS as i32)
            .map(|partition| PartitionId::new(topic.clone(), partition))
            .collect()
    }

    /// Books that a member has not ended in order. One thing may happen, and it has to be
    /// started again then: a static one is fenced, by a second process of its name, or by
    /// a coordinator that was away for longer than the session, because the brokers cannot
    /// tell these apart.
    pub(crate) fn ended_by_itself(&self, member: &Member, story: String) {
        let error = member.last_error().unwrap_or_default();
        let is_static = self.membership == Membership::Static;
        if is_static && error.contains("FencedInstanceId") {
            self.fenced.fetch_add(1, Ordering::Relaxed);
        } else {
            eprintln!("chaos: TROUBLE: {story}");
            self.troubles.lock().unwrap().push(story);
        }
    }

    /// Begins a fault.
    pub(crate) fn strike(&self) -> Strike {
        Strike {
            at: self.started.elapsed(),
            recovery: Recovery::new(&self.ledger),
        }
    }

    /// Books a fault that is over.
    pub(crate) fn lifted(&self, strike: Strike, kind: Kind, detail: impl Into<String>) {
        let fault = Fault {
            kind,
            detail: detail.into(),
            at: strike.at,
            lasted: strike.recovery.since.elapsed(),
            alone: kind == Kind::Nothing || self.alone,
            after_strike: strike.recovery,
            after_lift: Recovery::new(&self.ledger),
        };
        eprintln!(
            "chaos: {:6.1} s: {}, {}, for {:.1} s",
            fault.at.as_secs_f64(),
            kind.name(),
            fault.detail,
            fault.lasted.as_secs_f64()
        );
        self.faults.lock().unwrap().push(fault);
    }

    /// Starts a member again that has ended.
    pub(crate) fn revive(&self, member: &mut Member) {
        if let Some(status) = member.ended() {
            if !member.crashed_as_told(status) {
                self.ended_by_itself(member, member.story(status));
            }
            member.start();
        }
    }

    /// Does so for all as long as it runs.
    pub(crate) async fn supervise(&self) {
        loop {
            for member in &self.members {
                // Whoever holds it looks after it.
                if let Ok(mut member) = member.try_lock() {
                    self.revive(&mut member);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// By partition, how far the shards have come.
    pub(crate) async fn covered(&self) -> Vec<u64> {
        let partitions = self.partitions();
        let positions = partitions.iter().map(|partition| async {
            let resume = self.shards.resume(partition).await;
            let position = resume.ok().and_then(|resume| resume.position());
            position.map_or(0, Offset::get)
        });
        join_all(positions).await
    }

    /// Waits until everything is durable again after all faults so far.
    pub(crate) async fn recovered(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let is_open = |fault: &Fault| fault.after_lift.took.is_none();
        while self.faults.lock().unwrap().iter().any(is_open) && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Looks all the time which faults are over and done with.
    pub(crate) async fn watch(&self) {
        loop {
            let covered = self.covered().await;
            for fault in self.faults.lock().unwrap().iter_mut() {
                fault.after_strike.look(&covered);
                fault.after_lift.look(&covered);
            }
            sleep(Duration::from_millis(400)).await;
        }
    }
}

/// A fault that has begun.
pub(crate) struct Strike {
    at: Duration,
    recovery: Recovery,
}

fn s3_options(address: &str) -> BTreeMap<String, String> {
    [
        ("endpoint", format!("http://{address}")),
        ("allow_http", "true".to_owned()),
        ("timeout", "8 seconds".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn config(
    brokers: &str,
    topic: &str,
    instance: Option<usize>,
    url: &str,
    s3: Option<&str>,
) -> String {
    let options: Vec<_> = s3
        .map(s3_options)
        .unwrap_or_default()
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}\n"))
        .collect();
    let options = options.concat();
    let instance = instance.map_or_else(String::new, |number| {
        format!("instance_id = \"member-{number}\"\n")
    });
    format!(
        "[source]\nkind = \"kafka\"\nbrokers = {brokers:?}\ntopics = [{topic:?}]\ngroup = {topic:?}\n{instance}\
         [source.properties]\n\"session.timeout.ms\" = \"{}\"\n\"heartbeat.interval.ms\" = \"1500\"\n\
         [store]\nurl = {url:?}\n[store.options]\n{options}\
         [aggregator]\nmax_rows = 4000\nmax_age_ms = {}\nmax_buffered_bytes = 8388608\n\
         flush_budget_ms = 5000\ndead_letter_topic = \"{topic}.dead-letters\"\n\
         [listen]\nhttp = \"127.0.0.1:0\"\n",
        SESSION.as_millis(),
        MAX_AGE.as_millis(),
    )
}
