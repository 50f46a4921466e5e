//! Liveness and readiness.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The health of a process: it is live while it answers, and ready while every
/// named condition is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What keeps a condition from being ready; `None` when it is.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One condition of readiness, held by the part that knows it.
#[derive(Clone, Debug)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

impl Health {
    /// Health with no condition: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, not ready until its holder says so.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().insert(name, Some("starting".to_owned()));
        Condition {
            health: self.clone(),
            name,
        }
    }

    /// Ready, or every condition that is not, as `name: detail`.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let missing: Vec<String> = self
            .lock()
            .iter()
            .filter_map(|(name, detail)| Some(format!("{name}: {}", detail.as_ref()?)))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing)
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// The condition holds.
    pub fn set_ready(&self) {
        self.health.lock().insert(self.name, None);
    }

    /// The condition does not hold, and why.
    pub fn set_unready(&self, detail: impl Into<String>) {
        self.health.lock().insert(self.name, Some(detail.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_every_condition_is() {
        let health = Health::new();
        assert_eq!(health.ready(), Ok(()));
        let (source, store) = (health.condition("source"), health.condition("store"));
        assert_eq!(
            health.ready(),
            Err(vec!["source: starting".into(), "store: starting".into()])
        );
        source.set_ready();
        store.set_ready();
        assert_eq!(health.ready(), Ok(()));
        store.set_unready("the bucket does not answer");
        assert_eq!(
            health.ready(),
            Err(vec!["store: the bucket does not answer".into()])
        );
    }
}
