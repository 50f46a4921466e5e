//! Which log, and where.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    KafkaSource, KafkaWriter, LogWriter, Source, SourceError, SpoolSource, SpoolWriter, TopicName,
};

/// The log that traces come from.
///
/// The section is read flat: keys of the other kind are allowed and have no
/// effect, so that `kind` can be changed by one override. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "Section")]
pub enum SourceConfig {
    /// An Apache Kafka cluster.
    Kafka(KafkaConfig),
    /// A directory on this machine.
    Spool(SpoolConfig),
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port`, separated by commas.
    pub brokers: String,
    /// The topics to read; the first is the one to write traces to.
    pub topics: Vec<TopicName>,
    /// The consumer group.
    pub group: String,
    /// Further properties of librdkafka, for TLS, SASL and tuning. Those that
    /// the exactly-once contract rests on cannot be changed.
    pub properties: BTreeMap<String, String>,
}

/// Where the spool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpoolConfig {
    /// The directory; created when it is missing.
    pub path: PathBuf,
    /// The topics to read; the first is the one to write traces to.
    pub topics: Vec<TopicName>,
    /// Partitions of every topic. It may be raised later, never lowered.
    pub partitions: i32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            topics: vec![TopicName::default()],
            group: "tracer".to_owned(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("tracer-data/spool"),
            topics: vec![TopicName::default()],
            partitions: 1,
        }
    }
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self::Spool(SpoolConfig::default())
    }
}

impl SourceConfig {
    /// The topics to read.
    pub fn topics(&self) -> &[TopicName] {
        match self {
            Self::Kafka(kafka) => &kafka.topics,
            Self::Spool(spool) => &spool.topics,
        }
    }

    /// The topic to write traces to: the first one.
    pub fn write_topic(&self) -> TopicName {
        self.topics().first().cloned().unwrap_or_default()
    }

    /// Opens the reading end. Must be called inside a tokio runtime.
    pub fn open_source(&self) -> Result<Box<dyn Source>, SourceError> {
        Ok(match self {
            Self::Kafka(kafka) => Box::new(KafkaSource::open(kafka)?),
            Self::Spool(spool) => Box::new(SpoolSource::open(spool)?),
        })
    }

    /// Opens the writing end. Must be called inside a tokio runtime.
    pub fn open_writer(&self) -> Result<Arc<dyn LogWriter>, SourceError> {
        Ok(match self {
            Self::Kafka(kafka) => Arc::new(KafkaWriter::open(kafka)?),
            Self::Spool(spool) => Arc::new(SpoolWriter::open(spool)?),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Kafka,
    #[default]
    Spool,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default)]
    kind: Kind,
    topics: Option<Vec<TopicName>>,
    brokers: Option<String>,
    group: Option<String>,
    properties: Option<BTreeMap<String, String>>,
    path: Option<PathBuf>,
    partitions: Option<i32>,
}

impl TryFrom<Section> for SourceConfig {
    type Error = SourceError;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let topics = section.topics.unwrap_or_else(|| vec![TopicName::default()]);
        if topics.is_empty() {
            return Err(SourceError::Config(
                "topics must name at least one topic".to_owned(),
            ));
        }
        match section.kind {
            Kind::Kafka => {
                let default = KafkaConfig::default();
                Ok(Self::Kafka(KafkaConfig {
                    brokers: section.brokers.unwrap_or(default.brokers),
                    topics,
                    group: section.group.unwrap_or(default.group),
                    properties: section.properties.unwrap_or_default(),
                }))
            }
            Kind::Spool => {
                let default = SpoolConfig::default();
                let partitions = section.partitions.unwrap_or(default.partitions);
                if !(1..=10_000).contains(&partitions) {
                    return Err(SourceError::Config(format!(
                        "partitions must be 1 to 10000, but is {partitions}"
                    )));
                }
                Ok(Self::Spool(SpoolConfig {
                    path: section.path.unwrap_or(default.path),
                    topics,
                    partitions,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SourceConfig, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kind_is_switched_by_one_key() {
        assert_eq!(read("{}").unwrap(), SourceConfig::default());
        let both =
            r#"{"kind": "kafka", "path": "x", "partitions": 3, "brokers": "b:1", "topics": ["t"]}"#;
        let SourceConfig::Kafka(kafka) = read(both).unwrap() else {
            panic!("not kafka");
        };
        assert_eq!(
            (kafka.brokers.as_str(), kafka.topics[0].as_str()),
            ("b:1", "t")
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for config in [
            SourceConfig::default(),
            SourceConfig::Kafka(KafkaConfig::default()),
        ] {
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(read(&json).unwrap(), config, "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, named) in [
            (r#"{"kind": "pulsar"}"#, "pulsar"),
            (r#"{"pth": "x"}"#, "pth"),
            (r#"{"partitions": 0}"#, "partitions"),
            (r#"{"topics": []}"#, "topics"),
            (r#"{"topics": ["a/b"]}"#, "a/b"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
