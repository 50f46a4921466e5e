//! Task names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{excerpt, is_plain, text_of_name};

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

    /// The task of traces that name none.
    pub const DEFAULT: &str = "default";

    /// Parses a name.
    pub fn new(name: &str) -> Result<Self, InvalidTaskName> {
        Self::check(name)?;
        Ok(Self::of_checked(name))
    }

    /// Whether [`TaskName::new`] takes it.
    pub(crate) fn check(name: &str) -> Result<(), InvalidTaskName> {
        if is_plain(name, Self::MAX_LEN) && name.as_bytes()[0].is_ascii_alphanumeric() {
            Ok(())
        } else {
            Err(InvalidTaskName {
                name: excerpt(name, Self::MAX_LEN),
            })
        }
    }

    /// A name that has been checked.
    pub(crate) fn of_checked(name: &str) -> Self {
        debug_assert_eq!(Self::check(name), Ok(()));
        Self(name.into())
    }
}

text_of_name!(TaskName, InvalidTaskName);

impl Default for TaskName {
    /// The task of traces that name none.
    fn default() -> Self {
        Self(Self::DEFAULT.into())
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
