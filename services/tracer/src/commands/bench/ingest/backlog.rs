//! A topic full of traces.

use std::{fmt::Write as _, time::Duration};

use anyhow::anyhow;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use tracer_source::{KafkaConfig, kafka_client};

use crate::demo::rng::Rng;

/// The words that inputs are made of.
const WORDS: &[&str] = &[
    "where",
    "is",
    "my",
    "parcel",
    "the",
    "order",
    "I",
    "placed",
    "last",
    "week",
    "has",
    "not",
    "arrived",
    "please",
    "refund",
    "card",
    "was",
    "charged",
    "twice",
    "cannot",
    "log",
    "in",
    "to",
    "account",
    "password",
    "reset",
    "link",
    "does",
    "work",
    "cancel",
    "subscription",
    "change",
    "address",
    "delivery",
    "damaged",
    "plant",
    "pot",
    "broken",
    "invoice",
    "missing",
    "discount",
    "code",
    "expired",
    "speak",
    "with",
    "a",
    "human",
    "thanks",
];

/// A topic of its own.
pub(super) struct Backlog {
    pub(super) topic: String,
    partitions: i32,
    kafka: KafkaConfig,
    admin: AdminClient<DefaultClientContext>,
}

impl Backlog {
    pub(super) async fn create(
        kafka: &KafkaConfig,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Self> {
        let admin: AdminClient<_> = kafka_client(kafka, &[])?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for created in admin.create_topics([&new], &AdminOptions::new()).await? {
            created.map_err(|(topic, code)| anyhow!("{topic}: {code}"))?;
        }
        Ok(Self {
            topic: topic.to_owned(),
            partitions,
            kafka: kafka.clone(),
            admin,
        })
    }

    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let topics = [self.topic.as_str()];
        for deleted in self
            .admin
            .delete_topics(&topics, &AdminOptions::new())
            .await?
        {
            deleted.map_err(|(topic, code)| anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Writes traces, the same number to every partition. Answers their bytes.
    pub(super) async fn fill(
        &self,
        traces: usize,
        dimensions: Option<usize>,
    ) -> anyhow::Result<usize> {
        let properties = [
            ("linger.ms", "20"),
            ("batch.size", "262144"),
            ("compression.type", "zstd"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("enable.idempotence", "true"),
        ];
        let producer: ThreadedProducer<DefaultProducerContext> =
            kafka_client(&self.kafka, &properties)?;
        let (topic, partitions) = (self.topic.clone(), self.partitions);
        tokio::task::spawn_blocking(move || {
            let mut rng = Rng::new(7);
            let (mut bytes, mut line) = (0, String::new());
            for number in 0..traces {
                trace(&mut line, number, dimensions, &mut rng);
                bytes += line.len();
                let mut record = BaseRecord::<(), str>::to(&topic)
                    .payload(&line)
                    .partition((number % partitions as usize) as i32);
                while let Err((error, unsent)) = producer.send(record) {
                    if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                        return Err(error.into());
                    }
                    record = unsent;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            producer.flush(Duration::from_secs(120))?;
            Ok(bytes)
        })
        .await?
    }
}

/// One trace as a service would write it.
fn trace(line: &mut String, number: usize, dimensions: Option<usize>, rng: &mut Rng) {
    line.clear();
    let _ = write!(
        line,
        r#"{{"id":"{number:012x}","task":"bench","timestamp":{},"input":""#,
        1_700_000_000_000 + number
    );
    for word in 0..8 + rng.below(16) {
        if word > 0 {
            line.push(' ');
        }
        line.push_str(WORDS[rng.below(WORDS.len())]);
    }
    let _ = write!(line, r#"","teacher":"intent_{}""#, rng.below(77));
    if let Some(dimensions) = dimensions {
        line.push_str(r#","embedding":["#);
        for dimension in 0..dimensions {
            if dimension > 0 {
                line.push(',');
            }
            let value = (rng.unit() as f32 - 0.5) / 5.0;
            let _ = write!(line, "{value}");
        }
        line.push(']');
    }
    line.push('}');
}
