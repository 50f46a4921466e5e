//! The brokers, as `tests/run` lays them out: a directory for each, with its `start`
//! and its `pid`.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tokio::time::{Instant, sleep};

use crate::{dice::Dice, member::send, wire};

pub(crate) const BROKERS: usize = 3;

/// A broker starts within this, on a busy machine.
const START: Duration = Duration::from_secs(180);

#[derive(Clone)]
pub(crate) struct Cluster {
    directory: PathBuf,
    pub(crate) brokers: String,
    admin: Arc<AdminClient<DefaultClientContext>>,
    /// Those that were started here; they must be waited for once they have ended.
    children: Arc<Mutex<Vec<Child>>>,
}

/// Leader and replicas of a partition.
struct PartitionState {
    leader: i32,
    replicas: Vec<i32>,
    in_sync: usize,
}

impl Cluster {
    pub(crate) fn new(directory: PathBuf, brokers: String) -> Self {
        let admin = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .create()
            .unwrap();
        Self {
            directory,
            brokers,
            admin: Arc::new(admin),
            children: Arc::default(),
        }
    }

    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(BROKERS as i32));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let created = self.admin.create_topics([&topic], &options).await.unwrap();
        created[0].as_ref().expect("the topic is created");
        self.in_sync(name).await;
    }

    /// Removes a topic that nobody needs any more.
    pub(crate) async fn delete_topic(&self, name: &str) {
        let _ = self
            .admin
            .delete_topics(&[name], &AdminOptions::new())
            .await;
    }

    fn pid(&self, broker: usize) -> String {
        let file = self.directory.join(format!("{broker}/pid"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }

    pub(crate) fn signal(&self, broker: usize, signal: &str) {
        send(signal, &self.pid(broker));
    }

    /// Ends a broker by a signal, and waits until it has ended.
    pub(crate) async fn end(&self, broker: usize, signal: &str) {
        let pid = self.pid(broker);
        send(signal, &pid);
        let deadline = Instant::now() + START;
        while runs(&pid) {
            for child in self.children.lock().unwrap().iter_mut() {
                let _ = child.try_wait();
            }
            if Instant::now() > deadline {
                send("KILL", &pid);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn start(&self, broker: usize) {
        let child = Command::new(self.directory.join(format!("{broker}/start")))
            .stdin(Stdio::null())
            .spawn()
            .expect("the broker starts");
        self.children.lock().unwrap().push(child);
    }

    /// Waits until a broker listens that was started.
    pub(crate) async fn listens(&self, broker: usize) {
        let address = self.brokers.split(',').nth(broker - 1).unwrap();
        let deadline = Instant::now() + START;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "broker {broker} never came back");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every replica of a topic is in sync.
    pub(crate) async fn in_sync(&self, topic: &str) {
        let deadline = Instant::now() + START;
        loop {
            let states = self.states(topic).await;
            if !states.is_empty() && states.iter().all(|state| state.in_sync == BROKERS) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the replicas of {topic} never were in sync"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Gives every partition another leader. Answers how many have one.
    pub(crate) async fn change_leaders(&self, topic: &str, dice: &mut Dice) -> usize {
        let before = self.states(topic).await;
        let by = 1 + dice.below(BROKERS as u64 - 1) as usize;
        let orders: Vec<Vec<i32>> = before
            .iter()
            .map(|state| {
                let mut replicas = state.replicas.clone();
                replicas.sort_unstable();
                let leads = replicas
                    .iter()
                    .position(|r| *r == state.leader)
                    .unwrap_or(0);
                replicas.rotate_left((leads + by) % BROKERS);
                replicas
            })
            .collect();
        let (name, partitions) = (topic.to_owned(), before.len() as i32);
        let broker = self
            .brokers
            .split(',')
            .nth(dice.below(BROKERS as u64) as usize);
        let broker = broker.unwrap().to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            wire::reassign(&broker, &name, &orders)?;
            wire::elect_preferred(&broker, &name, partitions)
        });
        if let Err(error) = asked.await.unwrap() {
            eprintln!("chaos: no leader change: {error}");
            return 0;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let after = self.states(topic).await;
            let changed = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| before.leader != after.leader)
                .count();
            if changed == before.len() || Instant::now() > deadline {
                return changed;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The partitions of a topic as a broker knows them; none when it does not answer.
    async fn states(&self, topic: &str) -> Vec<PartitionState> {
        let (admin, topic) = (self.admin.clone(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            admin
                .inner()
                .fetch_metadata(Some(&topic), Duration::from_secs(5))
        });
        let Ok(metadata) = asked.await.unwrap() else {
            return Vec::new();
        };
        let mut partitions: Vec<_> = metadata.topics()[0].partitions().iter().collect();
        partitions.sort_by_key(|partition| partition.id());
        partitions
            .into_iter()
            .map(|partition| PartitionState {
                leader: partition.leader(),
                replicas: partition.replicas().to_vec(),
                in_sync: partition.isr().len(),
            })
            .collect()
    }
}

/// False once a process has ended, waited for or not.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim()
            .starts_with('Z')
    })
}
