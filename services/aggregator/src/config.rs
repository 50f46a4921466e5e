//! When to flush, and what to do with what does not fit.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tracer_source::TopicName;
use tracer_trace::{Format, OtlpConfig, parquet_schema::Embeddings};

use crate::{Error, InputPolicies, MaintenanceConfig};

/// Configuration of the aggregator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorConfig {
    /// A partition's buffer becomes a shard at this many traces.
    pub max_rows: usize,
    /// A partition's buffer becomes a shard at this many bytes in memory.
    pub max_bytes: usize,
    /// A partition's buffer becomes a shard when its oldest trace has waited this
    /// many milliseconds.
    pub max_age_ms: u64,
    /// All buffers together; beyond it reading pauses until shards are written.
    pub max_buffered_bytes: usize,
    /// How many milliseconds buffers may take to flush when partitions are revoked
    /// or the service stops. What is not durable then is read again.
    pub flush_budget_ms: u64,
    /// How embeddings are stored.
    pub embeddings: Embeddings,
    /// The encoding of payloads.
    pub format: Format,
    /// The encoding of single topics, where it is another.
    pub formats: BTreeMap<TopicName, Format>,
    /// How OpenTelemetry's spans become traces.
    pub otlp: OtlpConfig,
    /// Where payloads go that are not valid traces; empty for nowhere.
    #[serde(with = "optional_topic")]
    pub dead_letter_topic: Option<TopicName>,
    /// What to do when the log no longer has the position to read from.
    pub on_lost_position: OnLostPosition,
    /// The upkeep of the shards, which has a section of its own.
    #[serde(skip)]
    pub maintenance: MaintenanceConfig,
    /// A file with the secret that keys the hashes of inputs; empty for none.
    pub input_secret_file: String,
    /// What is stored of inputs: asked of each task, in its own section.
    #[serde(skip)]
    pub inputs: InputPolicies,
}

/// What to do when the log no longer has the position to read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLostPosition {
    /// Read nothing more of this partition until an operator decides.
    #[default]
    Halt,
    /// Go on at the oldest record there is, where retention removed what lies
    /// between. A log that is shorter than the position halts all the same.
    Skip,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            max_rows: 20_000,
            max_bytes: 32 << 20,
            max_age_ms: 10_000,
            max_buffered_bytes: 256 << 20,
            flush_budget_ms: 20_000,
            embeddings: Embeddings::F32,
            format: Format::Auto,
            formats: BTreeMap::new(),
            otlp: OtlpConfig::default(),
            dead_letter_topic: TopicName::new("traces.dead-letters").ok(),
            on_lost_position: OnLostPosition::Halt,
            maintenance: MaintenanceConfig::default(),
            input_secret_file: String::new(),
            inputs: InputPolicies::default(),
        }
    }
}

impl AggregatorConfig {
    /// Refuses values that cannot work, naming the key.
    pub fn validate(&self) -> Result<(), Error> {
        self.maintenance.validate()?;
        for (key, value) in [
            ("max_rows", self.max_rows),
            ("max_bytes", self.max_bytes),
            ("max_buffered_bytes", self.max_buffered_bytes),
        ] {
            if value == 0 {
                return Err(Error::Config(format!("{key} must be positive")));
            }
        }
        if self.max_bytes > Self::MOST_BYTES {
            let most = Self::MOST_BYTES;
            return Err(Error::Config(format!("max_bytes must be at most {most}")));
        }
        let otlp = self.otlp.check();
        otlp.map_err(|error| Error::Config(format!("otlp.{error}")))
    }

    /// The encoding of a topic's payloads.
    pub(crate) fn format_of(&self, topic: &TopicName) -> Format {
        self.formats.get(topic).copied().unwrap_or(self.format)
    }

    /// The names of a shard are numbered, and its columns addressed, by 32 bits.
    const MOST_BYTES: usize = 1 << 30;

    pub(crate) fn max_age(&self) -> Duration {
        Duration::from_millis(self.max_age_ms)
    }

    pub(crate) fn flush_budget(&self) -> Duration {
        Duration::from_millis(self.flush_budget_ms)
    }
}

/// An absent topic is the empty text: a layered configuration cannot unset a key.
mod optional_topic {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use tracer_source::TopicName;

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        topic: &Option<TopicName>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(topic.as_ref().map_or("", TopicName::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TopicName>, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() {
            return Ok(None);
        }
        TopicName::new(&name).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let off = AggregatorConfig {
            dead_letter_topic: None,
            ..AggregatorConfig::default()
        };
        for config in [AggregatorConfig::default(), off] {
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            let back: AggregatorConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(back, config);
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (json, key) in [
            (r#"{"max_rows": 0}"#, "max_rows"),
            (r#"{"max_bytes": 0}"#, "max_bytes"),
            (r#"{"max_bytes": 1073741825}"#, "max_bytes must be at most"),
            (r#"{"max_buffered_bytes": 0}"#, "max_buffered_bytes"),
            (
                r#"{"otlp": {"label_pointer": "label"}}"#,
                "otlp.label_pointer is \"label\"",
            ),
            (r#"{"otlp": {"task": "a/b"}}"#, "otlp.task"),
            (
                r#"{"otlp": {"max_spans_per_record": 0}}"#,
                "otlp.max_spans_per_record",
            ),
        ] {
            let config: AggregatorConfig = serde_json::from_str(json).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let error = serde_json::from_str::<AggregatorConfig>(r#"{"max_row": 1}"#).unwrap_err();
        assert!(error.to_string().contains("max_row"), "{error}");
    }
}
