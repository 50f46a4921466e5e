//! Writes traces whose ids are known, and remembers what the log has acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, FutureProducer, FutureRecord, Producer as _, ThreadedProducer},
    util::Timeout,
};

use crate::{dice::Dice, world::PARTITIONS};

/// One payload in so many is no trace.
const MALFORMED: u64 = 200;

/// Most records that wait for their acknowledgement.
const UNDER_WAY: usize = 20_000;

/// A transaction holds up readers until it ends. So does one that nobody ends.
const TRANSACTION: Duration = Duration::from_secs(10);

/// The text of an id's trace, and its label: whoever knows the id knows the trace.
pub(crate) fn content(id: &str) -> (String, String) {
    let label = id.bytes().map(usize::from).sum::<usize>() % 7;
    (format!("text of {id}"), format!("label {label}"))
}

fn trace(id: &str) -> String {
    let (text, label) = content(id);
    format!(r#"{{"id":"{id}","input":"{text}","teacher":"{label}"}}"#)
}

/// What is known of what was written.
pub(crate) struct Ledger {
    /// By partition: behind the last offset that was acknowledged to the plain producer.
    ends: Vec<AtomicU64>,
    acked: AtomicU64,
    /// By partition and offset, the payloads that were acknowledged.
    places: Mutex<BTreeMap<(i32, u64), String>>,
    /// Payloads of transactions by their outcome.
    committed: Mutex<Vec<String>>,
    aborted: Mutex<Vec<String>>,
    /// When a transaction was left to its coordinator, the last time.
    left_open: Mutex<Option<tokio::time::Instant>>,
    /// The faults are over: what is missing is written at once.
    hurry: AtomicBool,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            ends: (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect(),
            acked: AtomicU64::new(0),
            places: Mutex::default(),
            committed: Mutex::default(),
            aborted: Mutex::default(),
            left_open: Mutex::default(),
            hurry: AtomicBool::new(false),
        }
    }

    /// By partition, behind the last offset that is acknowledged by now.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.ends
            .iter()
            .map(|end| end.load(Ordering::Relaxed))
            .collect()
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    fn hurries(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, partition: i32, offset: i64, payload: String) {
        self.acked.fetch_add(1, Ordering::Relaxed);
        // The broker had it already, and did not say where: it is in the log.
        let Ok(offset) = u64::try_from(offset) else {
            return;
        };
        self.ends[partition as usize].fetch_max(offset + 1, Ordering::Relaxed);
        self.places
            .lock()
            .unwrap()
            .insert((partition, offset), payload);
    }

    /// What is wrong with the log itself, which is not what is tested here: a record
    /// that was acknowledged is not there, one that was aborted is.
    pub(crate) fn compare(&self, log: &[BTreeMap<u64, String>]) -> Vec<String> {
        let mut wrong = Vec::new();
        for ((partition, offset), payload) in &*self.places.lock().unwrap() {
            if log[*partition as usize].get(offset) != Some(payload) {
                wrong.push(format!("the log lost {partition}/{offset}"));
            }
        }
        let all: std::collections::HashSet<&String> =
            log.iter().flat_map(BTreeMap::values).collect();
        let (committed, aborted) = (self.committed.lock().unwrap(), self.aborted.lock().unwrap());
        wrong.extend(
            committed
                .iter()
                .filter(|payload| !all.contains(payload))
                .map(|payload| format!("the log lost {payload}, which was committed")),
        );
        wrong.extend(
            aborted
                .iter()
                .filter(|payload| all.contains(payload))
                .map(|payload| format!("the log shows {payload}, which was aborted")),
        );
        wrong
    }

    /// When a transaction was left to its coordinator, the last time: until
    /// [`TRANSACTIONS_END`] after that one may be open.
    pub(crate) fn left_open(&self) -> Option<tokio::time::Instant> {
        *self.left_open.lock().unwrap()
    }

    pub(crate) fn transactions(&self) -> (usize, usize) {
        (
            self.committed.lock().unwrap().len(),
            self.aborted.lock().unwrap().len(),
        )
    }
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("compression.type", "lz4");
    client
}

/// Writes at a rate that takes `over` for `quota` payloads, and goes on at that rate
/// until it is told to hurry; then whatever is missing at once.
pub(crate) async fn produce(
    brokers: String,
    topic: String,
    quota: u64,
    over: Duration,
    ledger: Arc<Ledger>,
    mut dice: Dice,
) {
    let producer: FutureProducer = client(&brokers)
        // However long a partition has no leader.
        .set("message.timeout.ms", "600000")
        .create()
        .unwrap();
    let started = Instant::now();
    let mut number = 0;
    let mut under_way = FuturesUnordered::new();
    // What is behind is made up for in bursts, so that readers fall behind as well.
    let mut burst = Duration::ZERO;
    loop {
        let due = started.elapsed().saturating_sub(burst).as_secs_f64() / over.as_secs_f64();
        let due = if ledger.hurries() {
            quota
        } else {
            (due * quota as f64) as u64
        };
        if ledger.hurries() && number >= quota && under_way.is_empty() {
            return;
        }
        while number < due && under_way.len() < UNDER_WAY {
            let payload = if number % MALFORMED == 17 {
                format!("no trace {number}")
            } else {
                trace(&format!("p{number}"))
            };
            number += 1;
            let partition = dice.below(PARTITIONS as u64) as i32;
            let producer = &producer;
            let topic = &topic;
            under_way.push(async move {
                let record = FutureRecord::<(), _>::to(topic)
                    .payload(&payload)
                    .partition(partition);
                let sent = producer.send(record, Timeout::Never).await;
                (sent.map(|at| (at.partition, at.offset)), payload)
            });
            // The futures act when they are polled.
            if number.is_multiple_of(100) {
                break;
            }
        }
        let pause = tokio::time::sleep(Duration::from_millis(if number < due { 0 } else { 20 }));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                Some((sent, payload)) = under_way.next() => match sent {
                    Ok((partition, offset)) => ledger.acknowledge(partition, offset, payload),
                    // It may be in the log or not: the log will tell.
                    Err((error, _)) => eprintln!("chaos: a payload is not acknowledged: {error}"),
                },
                () = &mut pause => break,
            }
        }
        if dice.roll() < 0.002 {
            burst = dice.between(0.0, 5.0).min(started.elapsed());
        } else if dice.roll() < 0.01 {
            burst = Duration::ZERO;
        }
    }
}

/// Writes transactions until it is told to hurry, every other one aborted: neither
/// the records of those nor the markers behind each transaction are ever delivered,
/// and the offsets have gaps.
pub(crate) fn produce_transactions(brokers: &str, topic: &str, ledger: &Ledger, mut dice: Dice) {
    let open = |number: u64| -> Result<ThreadedProducer<_>, rdkafka::error::KafkaError> {
        let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = client(brokers)
            .set("transactional.id", format!("{topic}-{number}"))
            .set(
                "transaction.timeout.ms",
                TRANSACTION.as_millis().to_string(),
            )
            .set("message.timeout.ms", TRANSACTION.as_millis().to_string())
            .create()?;
        producer.init_transactions(TRANSACTION)?;
        Ok(producer)
    };
    let mut producer = None;
    let mut number = 0;
    while !ledger.hurries() {
        std::thread::sleep(dice.between(0.2, 1.5));
        number += 1;
        let Some(current) = &producer else {
            producer = open(number).ok();
            continue;
        };
        let abort = number % 2 == 0;
        let payloads: Vec<_> = (0..20).map(|n| trace(&format!("t{number}-{n}"))).collect();
        let mut transaction = || {
            current.begin_transaction()?;
            for payload in &payloads {
                let partition = dice.below(PARTITIONS as u64) as i32;
                let record = BaseRecord::<(), _>::to(topic)
                    .payload(payload)
                    .partition(partition);
                current.send(record).map_err(|(error, _)| error)?;
            }
            current.flush(TRANSACTION)?;
            if abort {
                current.abort_transaction(TRANSACTION)
            } else {
                current.commit_transaction(TRANSACTION)
            }
        };
        if transaction().is_ok() {
            let outcome = if abort {
                &ledger.aborted
            } else {
                &ledger.committed
            };
            outcome.lock().unwrap().extend(payloads);
        } else {
            // Whatever has become of it. The next one has another name, and the
            // coordinator ends this one when its time is over.
            *ledger.left_open.lock().unwrap() = Some(tokio::time::Instant::now());
            producer = None;
        }
    }
}

/// After this no transaction is open any more that a producer left behind: the
/// coordinator looks every ten seconds for those that are over their time.
pub(crate) const TRANSACTIONS_END: Duration = Duration::from_secs(25);
