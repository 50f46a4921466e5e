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
    /// What is wrong without keeping anything from being ready, by condition and subject.
    notes: Arc<Mutex<BTreeMap<(&'static str, String), String>>>,
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

    /// What is wrong though the process may be ready, as `name: subject: detail`.
    pub fn notes(&self) -> Vec<String> {
        locked(&self.notes)
            .iter()
            .map(|((name, subject), detail)| format!("{name}: {subject}: {detail}"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        locked(&self.conditions)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Condition {
    /// Says what is wrong with a subject, without a word on readiness; `None` takes
    /// it back.
    pub fn note(&self, subject: &str, detail: Option<String>) {
        let key = (self.name, subject.to_owned());
        let mut notes = locked(&self.health.notes);
        match detail {
            Some(detail) => notes.insert(key, detail),
            None => notes.remove(&key),
        };
    }

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
        // A note is for people: it keeps nothing from being ready.
        store.set_ready();
        store.note("shard 7", Some("is damaged".to_owned()));
        assert_eq!(health.ready(), Ok(()));
        assert_eq!(health.notes(), ["store: shard 7: is damaged"]);
        store.note("shard 7", None);
        assert!(health.notes().is_empty());
    }
}
