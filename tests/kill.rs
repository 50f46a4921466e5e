//! Kill −9 at any moment loses no trace and writes none twice.
//!
//! The real `tracer aggregator` is killed again and again at random moments while a
//! producer writes. At the end every trace that the log has acknowledged stands in
//! the shards exactly once, at its own offset, and every payload that is no trace is
//! among the dead letters.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured")]

#[path = "common/dice.rs"]
mod dice;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use dice::Dice;
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};
use tracer_source::{
    Event, KafkaConfig, Message, Offset, PartitionId, SourceConfig, SpoolConfig, Start, TopicName,
};
use tracer_store::{ShardLog, Store};

const KILLS: usize = 60;
const PARTITIONS: i32 = 3;

/// How long the last life may take to catch up.
const CATCH_UP: Duration = Duration::from_mins(2);

/// Records by where they stand: the ids of traces, the payloads of what is none.
type Places = BTreeMap<(PartitionId, u64), String>;

/// What the log has acknowledged.
#[derive(Default)]
struct Acknowledged {
    traces: Places,
    others: Places,
}

#[test]
fn kills_on_the_spool_lose_and_repeat_nothing() {
    let directory = TempDir::new().unwrap();
    let store = local_store(&directory);
    on_the_spool(directory, store).run();
}

#[test]
#[ignore = "needs an S3 server: tests/run s3"]
fn kills_on_s3_lose_and_repeat_nothing() {
    let endpoint =
        std::env::var("TRACER_TEST_S3").expect("TRACER_TEST_S3 is the endpoint of an S3 server");
    let bucket = std::env::var("TRACER_TEST_S3_BUCKET").unwrap_or_else(|_| "tracer-tests".into());
    let started = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let options = [("endpoint", endpoint.as_str()), ("allow_http", "true")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let store = StoreAt {
        url: format!("s3://{bucket}/kill-{started}"),
        options: options.into(),
    };
    on_the_spool(TempDir::new().unwrap(), store).run();
}

fn on_the_spool(directory: TempDir, store: StoreAt) -> Trial {
    let source = SourceConfig::Spool(SpoolConfig {
        path: directory.path().join("spool"),
        topics: vec![TopicName::default()],
        partitions: PARTITIONS,
    });
    let path = directory.path().join("spool");
    let section = format!(
        "kind = \"spool\"\npath = {:?}\ntopics = [\"traces\"]\npartitions = {PARTITIONS}\n",
        path.display().to_string()
    );
    Trial {
        directory,
        source,
        section,
        store,
        dead_letters: "traces.dead-letters".to_owned(),
        longest_life: Duration::from_millis(500),
    }
}

fn local_store(directory: &TempDir) -> StoreAt {
    StoreAt {
        url: format!("file://{}", directory.path().join("store").display()),
        options: BTreeMap::new(),
    }
}

#[test]
#[ignore = "needs Apache Kafka: tests/run kafka"]
fn kills_on_kafka_lose_and_repeat_nothing() {
    let brokers = std::env::var("TRACER_TEST_KAFKA")
        .expect("TRACER_TEST_KAFKA is host:port of a Kafka broker");
    let name = format!("kill-{}", std::process::id());
    let source = SourceConfig::Kafka(KafkaConfig {
        brokers: brokers.clone(),
        topics: vec![TopicName::new(&name).unwrap()],
        group: name.clone(),
        ..KafkaConfig::default()
    });
    // A static member comes back without waiting for its own session to expire,
    // as a pod of a stateful set does.
    let section = format!(
        "kind = \"kafka\"\nbrokers = {brokers:?}\ntopics = [{name:?}]\ngroup = {name:?}\ninstance_id = \"one\"\n\
         [source.properties]\n\"session.timeout.ms\" = \"6000\"\n"
    );
    let directory = TempDir::new().unwrap();
    Trial {
        store: local_store(&directory),
        directory,
        source,
        section,
        dead_letters: format!("{name}.dead-letters"),
        longest_life: Duration::from_millis(2500),
    }
    .run();
}

/// Where the shards are.
struct StoreAt {
    url: String,
    options: BTreeMap<String, String>,
}

struct Trial {
    directory: TempDir,
    store: StoreAt,
    source: SourceConfig,
    /// The `[source]` of the aggregator's configuration.
    section: String,
    dead_letters: String,
    longest_life: Duration,
}

impl Trial {
    fn run(self) {
        let config = format!(
            "[source]\n{}\n[store]\nurl = {:?}\n[store.options]\n{}\
             [aggregator]\nmax_rows = 40\nmax_age_ms = 50\ndead_letter_topic = {:?}\n\
             [listen]\nhttp = \"127.0.0.1:0\"\n",
            self.section,
            self.store.url,
            self.store
                .options
                .iter()
                .map(|(key, value)| format!("{key} = {value:?}\n"))
                .collect::<Vec<_>>()
                .concat(),
            self.dead_letters,
        );
        fs::write(self.directory.path().join("tracer.toml"), config).unwrap();

        let runtime = Runtime::new().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let producer = runtime.spawn(produce(self.source.clone(), stop.clone()));
        let mut dice = Dice::new();
        let mut fruitful = 0;
        for _ in 0..KILLS {
            let before = runtime.block_on(self.covered());
            let mut life = self.start();
            // A random moment is the point here: nothing is waited for.
            thread::sleep(self.longest_life.mul_f64(dice.roll()));
            life.kill_9();
            fruitful += usize::from(runtime.block_on(self.covered()) > before);
        }
        stop.store(true, Ordering::Relaxed);
        let acknowledged = runtime.block_on(producer).unwrap();
        // Else the kills came before there was anything to break.
        assert!(
            fruitful >= KILLS / 5,
            "{fruitful} of {KILLS} lives wrote a shard"
        );

        let Acknowledged {
            traces: acknowledged,
            others,
        } = acknowledged;
        let mut life = self.start();
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let rows = runtime.block_on(self.stored()).len();
            if rows >= acknowledged.len() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{rows} of {} traces are in the shards\n{}",
                acknowledged.len(),
                self.log_tail()
            );
            life.must_run(&self);
            thread::sleep(Duration::from_millis(200));
        }
        life.stop(&self);
        let rows = runtime.block_on(self.stored());
        assert_eq!(
            rows.len(),
            acknowledged.len(),
            "rows and acknowledged traces"
        );
        let mut stored = Places::new();
        for (place, id) in rows {
            let twice = stored.insert(place.clone(), id);
            assert!(twice.is_none(), "{place:?} is stored twice");
        }
        assert!(
            stored == acknowledged,
            "what is stored is not what was acknowledged"
        );
        let letters = runtime.block_on(self.dead_letters(&others));
        eprintln!(
            "{KILLS} kills, {fruitful} lives that wrote, {} traces: each once; \
             {} payloads that are none, {letters} dead letters",
            acknowledged.len(),
            others.len(),
        );
    }

    fn start(&self) -> Life {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .arg("aggregator")
            .current_dir(self.directory.path())
            .env_remove("TRACER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Life(child)
    }

    fn shards(&self) -> ShardLog {
        ShardLog::new(Store::open(&self.store.url, &self.store.options).unwrap())
    }

    /// How far the shards have come, all partitions together.
    async fn covered(&self) -> u64 {
        let shards = self.shards();
        let mut covered = 0;
        for partition in shards.partitions().await.unwrap() {
            let position = shards.resume(&partition).await.unwrap().position();
            covered += position.map_or(0, Offset::get);
        }
        covered
    }

    /// Every row of every shard, as a reader finds them; ranges must follow each
    /// other without a gap.
    async fn stored(&self) -> Vec<((PartitionId, u64), String)> {
        let shards = self.shards();
        let mut rows = Vec::new();
        for partition in shards.partitions().await.unwrap() {
            let mut next = 0;
            for shard in shards.shards(&partition).await.unwrap() {
                assert_eq!(shard.range.start.get(), next, "a gap in {partition}");
                next = shard.range.end.get();
                for row in shards.read(&shard, None).await.unwrap() {
                    rows.push(((partition.clone(), row.offset), row.trace.id));
                }
            }
        }
        rows
    }

    /// Reads the dead letters until each of `others` is among them, and answers how
    /// many letters there are. A crash may repeat some.
    async fn dead_letters(&self, others: &Places) -> usize {
        let mut config = self.source.clone();
        let topic = vec![TopicName::new(&self.dead_letters).unwrap()];
        match &mut config {
            SourceConfig::Kafka(kafka) => kafka.topics = topic,
            SourceConfig::Spool(spool) => spool.topics = topic,
        }
        let expected: BTreeSet<&str> = others.values().map(String::as_str).collect();
        assert!(!expected.is_empty());
        let mut found = BTreeSet::new();
        let mut letters = 0;
        let mut source = config.open_source().unwrap();
        while found.len() < expected.len() {
            let event = timeout(CATCH_UP, source.next())
                .await
                .unwrap_or_else(|_| panic!("{} of {} letters", found.len(), expected.len()));
            match event.unwrap() {
                Event::Assigned(partitions) => {
                    let starts: Vec<_> = partitions
                        .into_iter()
                        .map(|partition| (partition, Start::Beginning))
                        .collect();
                    source.assign(&starts).await.unwrap();
                }
                Event::Records(records) => {
                    letters += records.len();
                    found.extend(
                        records
                            .iter()
                            .map(|record| self.rejected(others, &record.payload)),
                    );
                }
                event => panic!("unexpected: {event:?}"),
            }
        }
        source.close().await;
        assert!(found.iter().map(String::as_str).eq(expected));
        letters
    }

    /// The payload that a dead letter is about.
    fn rejected(&self, others: &Places, letter: &[u8]) -> String {
        if matches!(self.source, SourceConfig::Kafka(_)) {
            return String::from_utf8(letter.to_vec()).unwrap();
        }
        let letter: serde_json::Value = serde_json::from_slice(letter).unwrap();
        let topic = TopicName::new(letter["topic"].as_str().unwrap()).unwrap();
        let partition = i32::try_from(letter["partition"].as_i64().unwrap()).unwrap();
        let place = (
            PartitionId::new(topic, partition),
            letter["offset"].as_u64().unwrap(),
        );
        others[&place].clone()
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Writes traces until it is told to stop, one in fifty not a trace at all.
async fn produce(source: SourceConfig, stop: Arc<AtomicBool>) -> Acknowledged {
    const BATCH: usize = 10;
    let writer = source.open_writer().unwrap();
    let topic = source.write_topic();
    let mut acknowledged = Acknowledged::default();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let batch = number..number + BATCH;
        number = batch.end;
        let messages = batch.clone().map(|n| {
            let payload = if n % 50 == 0 {
                format!("not a trace {n}")
            } else {
                format!(
                    r#"{{"id": "{n}", "input": "text {n}", "teacher": "{}"}}"#,
                    n % 7
                )
            };
            Message::new(payload).with_key(format!("{}", n % 97))
        });
        let places = writer
            .append_batch(&topic, messages.collect())
            .await
            .unwrap();
        for (n, (partition, offset)) in batch.zip(places) {
            let place = (partition, offset.get());
            if n % 50 == 0 {
                acknowledged
                    .others
                    .insert(place, format!("not a trace {n}"));
            } else {
                acknowledged.traces.insert(place, n.to_string());
            }
        }
    }
    acknowledged
}

/// One run of the aggregator.
struct Life(Child);

impl Life {
    fn kill_9(&mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            panic!("the aggregator ended by itself: {status}");
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn must_run(&mut self, trial: &Trial) {
        if let Some(status) = self.0.try_wait().unwrap() {
            panic!(
                "the aggregator ended by itself: {status}\n{}",
                trial.log_tail()
            );
        }
    }

    /// Ends it as an orchestrator does, by SIGTERM.
    fn stop(mut self, trial: &Trial) {
        let sent = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(sent.unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}\n{}", trial.log_tail());
                return;
            }
            assert!(
                Instant::now() < deadline,
                "it does not stop\n{}",
                trial.log_tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
