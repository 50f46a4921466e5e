//! Task names.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a task: 1 to 64 characters of `a-z`, `A-Z`, `0-9`, `.`, `_` and
/// `-`, the first a letter or a digit.
///
/// Task names become object paths and metric labels, so they are parsed once,
/// at the edge, and cheap to clone after that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskName(Arc<str>);

/// A task name that is empty, too long or holds a character that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid task name {name:?}: a task name is 1 to {max} characters of letters, digits, '.', '_' and '-', and starts with a letter or a digit",
    max = TaskName::MAX_LEN
)]
pub struct InvalidTaskName {
    name: String,
}

impl TaskName {
    /// The longest name in bytes.
    pub const MAX_LEN: usize = 64;

    /// Parses a name.
    pub fn new(name: &str) -> Result<Self, InvalidTaskName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts_well = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && name.len() <= Self::MAX_LEN && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTaskName {
                name: name.chars().take(Self::MAX_LEN + 1).collect(),
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TaskName {
    /// The task of traces that name none.
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TaskName {
    type Err = InvalidTaskName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<String> for TaskName {
    type Error = InvalidTaskName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<TaskName> for String {
    fn from(task: TaskName) -> Self {
        task.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_fits_a_path_and_a_metric_label() {
        for name in ["default", "banking77", "eu.support_v2-beta", "7"] {
            assert_eq!(TaskName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_does_not() {
        let long = "x".repeat(TaskName::MAX_LEN + 1);
        for name in ["", ".", "..", "-x", "a/b", "a b", "ä", "a\n", long.as_str()] {
            assert!(TaskName::new(name).is_err(), "{name:?}");
        }
    }
}
