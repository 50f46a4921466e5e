//! The sections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tracer_aggregator::{AggregatorConfig, InputPolicies, MaintenanceConfig};
use tracer_features::InputKey;
use tracer_inference::{InferenceConfig, SecurityConfig, TaskPolicies};
use tracer_source::{SourceConfig, SpoolConfig};
use tracer_telemetry::{LogFormat, SpanConfig};
use tracer_trace::{Limits, TaskName};
use tracer_trainer::{TaskPlans, TrainerConfig};

use super::{ConfigError, RegistryConfig, TaskConfig};

/// The configuration of the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the traces come from.
    pub(crate) source: SourceConfig,
    /// Where shards and pipelines are kept.
    pub(crate) store: StoreConfig,
    /// Where the services listen.
    pub(crate) listen: ListenConfig,
    /// Certificates and tokens of the gRPC server.
    pub(crate) security: SecurityConfig,
    /// What is asked of a task that has no section of its own.
    pub(crate) task_defaults: TaskConfig,
    /// Tasks with a section of their own. What it leaves out is as in `task_defaults`.
    pub(crate) tasks: BTreeMap<TaskName, TaskConfig>,
    /// Bounds on what comes from outside.
    pub(crate) limits: Limits,
    /// The aggregator.
    pub(crate) aggregator: AggregatorConfig,
    /// The upkeep of shards.
    pub(crate) maintenance: MaintenanceConfig,
    /// The versions that are kept.
    pub(crate) registry: RegistryConfig,
    /// The trainer.
    pub(crate) trainer: TrainerConfig,
    /// The inference service.
    pub(crate) inference: InferenceConfig,
    /// The log.
    pub(crate) telemetry: TelemetryConfig,
}

/// Where shards and pipelines are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// A directory, `file:///path`, `s3://bucket/prefix` or `memory://`.
    pub(crate) url: String,
    /// Options of stores on `s3://`, by `object_store`'s names.
    pub(crate) options: BTreeMap<String, String>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: "tracer-data/store".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

/// Where the services listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenConfig {
    /// Address of gRPC. Port 0 takes a free one.
    pub(crate) grpc: SocketAddr,
    /// Address of HTTP: metrics and health. Port 0 takes a free one.
    pub(crate) http: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            grpc: SocketAddr::new(loopback, 50051),
            http: SocketAddr::new(loopback, 8080),
        }
    }
}

/// The log, and spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetryConfig {
    /// `pretty` or `json`.
    pub(crate) log_format: LogFormat,
    /// A level, or a list of `target=level`.
    pub(crate) log_filter: String,
    /// Where our own spans go, by OTLP over gRPC; empty for nowhere.
    pub(crate) otlp_endpoint: String,
    /// The share of requests without a caller's span that are recorded.
    pub(crate) otlp_sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            log_filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            otlp_sample_ratio: 0.01,
        }
    }
}

impl TelemetryConfig {
    /// Where spans go, if anywhere; `service` says what they are of.
    pub(crate) fn spans(&self, service: &str) -> Option<SpanConfig> {
        (!self.otlp_endpoint.is_empty()).then(|| SpanConfig {
            endpoint: self.otlp_endpoint.clone(),
            sample_ratio: self.otlp_sample_ratio,
            service: service.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

impl Config {
    /// Checks what types cannot.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.task_defaults.check("task_defaults")?;
        for (name, task) in &self.tasks {
            task.check(&format!("tasks.{name}"))?;
        }
        if let Err(error) = self.security.check() {
            return Err(ConfigError::new(error.to_string()));
        }
        if let Err(error) = self.aggregator.validate() {
            let named = error.to_string().replacen("aggregator: ", "aggregator.", 1);
            return Err(ConfigError::new(named));
        }
        if let Err(error) = self.maintenance.validate() {
            let named = error
                .to_string()
                .replacen("maintenance: ", "maintenance.", 1);
            return Err(ConfigError::new(named));
        }
        self.registry.check()?;
        if self.trainer.lease_ms < 300 {
            return Err(ConfigError::new(format!(
                "trainer.lease_ms is {}: it must be at least 300, since it is renewed thrice in that time",
                self.trainer.lease_ms
            )));
        }
        if !(0.0..=1.0).contains(&self.telemetry.otlp_sample_ratio) {
            return Err(ConfigError::new(format!(
                "telemetry.otlp_sample_ratio is {}: it must be from 0 to 1",
                self.telemetry.otlp_sample_ratio
            )));
        }
        if let Some(Err(error)) = self.telemetry.spans("tracer").map(|spans| spans.check()) {
            return Err(ConfigError::new(format!(
                "telemetry.otlp_endpoint: {error}"
            )));
        }
        // Every letter would be rejected again, and become one more.
        if let Some(dead) = &self.aggregator.dead_letter_topic
            && self.source.topics().contains(dead)
        {
            return Err(ConfigError::new(format!(
                "source.topics: {dead} is aggregator.dead_letter_topic: it would be read for ever"
            )));
        }
        self.inference
            .validate()
            .map_err(|error| ConfigError::new(error.to_string()))
    }

    /// Keeps everything below one directory of this machine.
    pub(crate) fn keep_in(&mut self, directory: &Path) {
        self.source = SourceConfig::Spool(SpoolConfig {
            path: directory.join("spool"),
            topics: self.source.topics().to_vec(),
            ..match &self.source {
                SourceConfig::Spool(spool) => spool.clone(),
                SourceConfig::Kafka(_) => SpoolConfig::default(),
            }
        });
        self.store = StoreConfig {
            url: directory.join("store").to_string_lossy().into_owned(),
            options: BTreeMap::new(),
        };
    }

    /// What is stored of the inputs of each task. Reads the secret: the environment's,
    /// or the file's without the white space around it.
    pub(crate) fn inputs(
        &self,
        from_environment: Option<String>,
    ) -> Result<InputPolicies, ConfigError> {
        let file = &self.aggregator.input_secret_file;
        let secret = match from_environment.filter(|secret| !secret.is_empty()) {
            Some(secret) => secret,
            None if file.is_empty() => String::new(),
            None => {
                let secret = std::fs::read_to_string(file).map_err(|error| {
                    ConfigError::new(format!("aggregator.input_secret_file: {file}: {error}"))
                })?;
                if secret.trim().is_empty() {
                    return Err(ConfigError::new(format!(
                        "aggregator.input_secret_file: {file} is empty"
                    )));
                }
                secret.trim().to_owned()
            }
        };
        Ok(InputPolicies {
            default: self.task_defaults.store_input,
            tasks: self
                .tasks
                .iter()
                .map(|(name, task)| (name.clone(), task.store_input))
                .collect(),
            key: InputKey::new(secret),
        })
    }

    /// What the trainer must know of the tasks.
    pub(crate) fn plans(&self) -> TaskPlans {
        TaskPlans {
            default: self.task_defaults.plan(),
            tasks: self
                .tasks
                .iter()
                .map(|(name, task)| (name.clone(), task.plan()))
                .collect(),
        }
    }

    /// What the inference service must know of the tasks.
    pub(crate) fn policies(&self) -> TaskPolicies {
        TaskPolicies {
            default: self.task_defaults.policy(),
            tasks: self
                .tasks
                .iter()
                .map(|(name, task)| (name.clone(), task.policy()))
                .collect(),
        }
    }
}
