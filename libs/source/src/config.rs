//! Which log, and where.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    KafkaSource, KafkaWriter, LogWriter, Source, SourceError, SpoolSource, SpoolWriter, TopicName,
    kafka,
    security::{self, HIDDEN, KafkaSecurity, SaslConfig, Security, TlsConfig},
    topics::{Selection, TopicPattern},
};

/// The log that traces come from.
///
/// The section is read flat: keys of the other kind are allowed and have no
/// effect, so that `kind` can be changed by one override. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "Section")]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum SourceConfig {
    /// An Apache Kafka cluster.
    Kafka(KafkaConfig),
    /// A directory on this machine.
    Spool(SpoolConfig),
}

/// How to reach Kafka.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port`, separated by commas.
    pub brokers: String,
    /// The topics to read, by name.
    pub topics: Vec<TopicName>,
    /// The topics to read, by pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<TopicPattern>,
    /// Topics that are not read although a pattern fits them.
    pub exclude: Vec<TopicName>,
    /// The topic to write traces to; the first of `topics` when it is not set.
    pub write_topic: Option<TopicName>,
    /// The consumer group.
    pub group: String,
    /// The name of this member in the group (static membership): one that comes back under
    /// its name within the session timeout gets its partitions again, and nobody else
    /// notices. Every process needs one of its own.
    pub instance_id: Option<String>,
    /// TLS and SASL.
    #[serde(flatten)]
    pub security: KafkaSecurity,
    /// Further properties of librdkafka. Those that the exactly-once contract rests on
    /// cannot be changed.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| {
                let hide = security::is_secret(name);
                (name.as_str(), if hide { HIDDEN } else { value })
            })
            .collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("patterns", &self.patterns)
            .field("exclude", &self.exclude)
            .field("write_topic", &self.write_topic)
            .field("group", &self.group)
            .field("instance_id", &self.instance_id)
            .field("security", &self.security)
            .field("properties", &properties)
            .finish()
    }
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
            patterns: Vec::new(),
            exclude: Vec::new(),
            write_topic: None,
            group: "tracer".to_owned(),
            instance_id: None,
            security: KafkaSecurity::default(),
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
    /// The topics to read that are named; patterns are not among them.
    pub fn topics(&self) -> &[TopicName] {
        match self {
            Self::Kafka(kafka) => &kafka.topics,
            Self::Spool(spool) => &spool.topics,
        }
    }

    /// The topic to write traces to: the one that is configured for it, or the first
    /// that is named. A configuration that was read has one or the other.
    pub fn write_topic(&self) -> TopicName {
        let own = match self {
            Self::Kafka(kafka) => kafka.write_topic.clone(),
            Self::Spool(_) => None,
        };
        own.or_else(|| self.topics().first().cloned())
            .unwrap_or_default()
    }

    /// Never reads `topic`, whatever pattern fits it.
    pub fn exclude(&mut self, topic: &TopicName) {
        if let Self::Kafka(kafka) = self
            && !kafka.exclude.contains(topic)
        {
            kafka.exclude.push(topic.clone());
        }
    }

    /// Checks what can be without reaching the log: the files with secrets and certificates
    /// are read, and librdkafka takes every property.
    pub fn check(&self) -> Result<(), SourceError> {
        match self {
            Self::Kafka(kafka) => kafka::check(kafka),
            Self::Spool(_) => Ok(()),
        }
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
    topics: Option<Vec<Selection>>,
    exclude: Option<Vec<TopicName>>,
    write_topic: Option<TopicName>,
    brokers: Option<String>,
    group: Option<String>,
    instance_id: Option<String>,
    security: Option<Security>,
    tls: Option<TlsConfig>,
    sasl: Option<SaslConfig>,
    properties: Option<BTreeMap<String, String>>,
    path: Option<PathBuf>,
    partitions: Option<i32>,
}

impl TryFrom<Section> for SourceConfig {
    type Error = SourceError;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let (topics, patterns) = match section.topics {
            Some(selections) => Selection::split(selections),
            None => (vec![TopicName::default()], Vec::new()),
        };
        if topics.is_empty() && patterns.is_empty() {
            return Err(SourceError::Config(
                "topics must name at least one topic".to_owned(),
            ));
        }
        match section.kind {
            Kind::Kafka => {
                let default = KafkaConfig::default();
                if topics.is_empty() && section.write_topic.is_none() {
                    return Err(SourceError::Config(
                        "topics are patterns only: write_topic must say which topic Record and replay write to".to_owned(),
                    ));
                }
                let security = KafkaSecurity {
                    security: section.security,
                    tls: section.tls,
                    sasl: section.sasl,
                };
                security.check()?;
                Ok(Self::Kafka(KafkaConfig {
                    brokers: section.brokers.unwrap_or(default.brokers),
                    topics,
                    patterns,
                    exclude: section.exclude.unwrap_or_default(),
                    write_topic: section.write_topic,
                    group: section.group.unwrap_or(default.group),
                    instance_id: section.instance_id.filter(|id| !id.is_empty()),
                    security,
                    properties: section.properties.unwrap_or_default(),
                }))
            }
            Kind::Spool if !patterns.is_empty() => Err(SourceError::Config(format!(
                "topics: a spool has no patterns such as {:?}",
                patterns[0].as_str()
            ))),
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
    fn topics_are_named_or_fit_a_pattern() {
        let json = r#"{"kind": "kafka", "topics": ["^a\\..*", "b", "c"]}"#;
        let SourceConfig::Kafka(kafka) = read(json).unwrap() else {
            panic!("not kafka");
        };
        assert_eq!(kafka.patterns[0].as_str(), r"^a\..*");
        assert_eq!(
            SourceConfig::Kafka(kafka.clone()).write_topic().as_str(),
            "b"
        );
        let json = r#"{"kind": "kafka", "topics": ["^a"], "write_topic": "a.x"}"#;
        assert_eq!(read(json).unwrap().write_topic().as_str(), "a.x");
    }

    #[test]
    fn no_secret_is_shown_or_written() {
        let json = r#"{
            "kind": "kafka", "brokers": "b:1",
            "tls": {"key_password": "hunter2", "certificate": "c", "key": "k"},
            "sasl": {"mechanism": "PLAIN", "username": "u", "password": "hunter2"},
            "properties": {
                "sasl.password": "hunter2", "ssl.key.pem": "hunter2",
                "sasl.oauthbearer.client.secret": "hunter2", "fetch.min.bytes": "7"
            }
        }"#;
        let config = read(json).unwrap();
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("[hidden]") && shown.contains("fetch.min.bytes"));
        let SourceConfig::Kafka(kafka) = config else {
            panic!("not kafka");
        };
        let written = serde_json::to_string(&kafka.security).unwrap();
        assert!(!written.contains("hunter2"), "{written}");
        let properties = kafka.security.properties().unwrap();
        assert!(properties.contains(&("sasl.password", "hunter2".to_owned())));
        // Not even by an error of the client.
        let bad = KafkaConfig {
            properties: [("security.protocol", "ssl"), ("ssl.key.pem", "hunter2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..KafkaConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let error = KafkaWriter::open(&bad).err().expect("it is no key");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, named) in [
            (r#"{"kind": "pulsar"}"#, "pulsar"),
            (r#"{"pth": "x"}"#, "pth"),
            (r#"{"partitions": 0}"#, "partitions"),
            (r#"{"topics": []}"#, "topics"),
            (r#"{"topics": ["a/b"]}"#, "a/b"),
            (r#"{"topics": ["^a"]}"#, "^a"),
            (r#"{"kind": "kafka", "topics": ["^a"]}"#, "write_topic"),
            (r#"{"kind": "kafka", "tls": {"cert": "x"}}"#, "cert"),
            (
                r#"{"kind": "kafka", "tls": {"certificate": "x"}}"#,
                "tls.key",
            ),
            (
                r#"{"kind": "kafka", "security": "tls", "sasl": {"mechanism": "PLAIN"}}"#,
                "sasl is set",
            ),
            (
                r#"{"kind": "kafka", "security": "sasl_tls"}"#,
                "sasl.mechanism",
            ),
            (
                r#"{"kind": "kafka", "sasl": {"mechanism": "GSSAPI"}}"#,
                "GSSAPI",
            ),
            (
                r#"{"kind": "kafka", "sasl": {"mechanism": "PLAIN", "username": "u"}}"#,
                "sasl.password",
            ),
            (
                r#"{"kind": "kafka", "sasl": {"mechanism": "OAUTHBEARER"}}"#,
                "sasl.token_file",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
