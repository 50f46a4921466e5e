//! `[registry]`: how many versions are kept.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tracer_store::RetentionRule;

use super::ConfigError;

/// The versions that are kept of every task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegistryConfig {
    /// The newest so many versions are kept; 0 keeps all.
    pub(crate) keep_versions: usize,
    /// Versions that are younger than so many days are kept.
    pub(crate) keep_days: u32,
    /// The files of a retired version stay for so long.
    pub(crate) grace_seconds: u32,
    /// Time between two looks.
    pub(crate) interval_seconds: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            keep_versions: 0,
            keep_days: 30,
            grace_seconds: 3_600,
            interval_seconds: 3_600,
        }
    }
}

impl RegistryConfig {
    /// The rule; none where everything is kept.
    pub(crate) fn rule(&self) -> Option<RetentionRule> {
        (self.keep_versions > 0).then(|| RetentionRule {
            versions: self.keep_versions,
            age: TimeDelta::days(i64::from(self.keep_days)),
            grace: TimeDelta::seconds(i64::from(self.grace_seconds)),
        })
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.interval_seconds == 0 {
            return Err(ConfigError::new(
                "registry.interval_seconds is 0: it must be at least 1",
            ));
        }
        if self.keep_days > 36_500 {
            return Err(ConfigError::new(format!(
                "registry.keep_days is {}: it must be a century at the most",
                self.keep_days
            )));
        }
        Ok(())
    }
}
