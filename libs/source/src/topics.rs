//! Topics by name and by pattern.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{SourceError, TopicName};

/// A pattern of topic names: an extended regular expression of POSIX that begins with `^`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TopicPattern(String);

impl TopicPattern {
    /// The longest pattern in bytes.
    const MAX_LEN: usize = 1024;

    /// Takes a pattern. Whether it is a regular expression is known once it is used.
    pub fn new(pattern: &str) -> Result<Self, SourceError> {
        if !pattern.starts_with('^') || pattern.len() > Self::MAX_LEN || pattern.contains('\0') {
            return Err(SourceError::Config(format!(
                "a pattern of topics begins with ^ and has at most {} bytes",
                Self::MAX_LEN
            )));
        }
        Ok(Self(pattern.to_owned()))
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or a pattern when it begins with `^`: no name can.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Selection {
    Name(TopicName),
    Pattern(TopicPattern),
}

impl TryFrom<String> for Selection {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('^') {
            return TopicPattern::new(&text).map(Self::Pattern);
        }
        let name = TopicName::new(&text).map_err(|error| SourceError::Config(error.to_string()))?;
        Ok(Self::Name(name))
    }
}

impl Selection {
    /// Names and patterns, each in their order.
    pub(crate) fn split(selections: Vec<Self>) -> (Vec<TopicName>, Vec<TopicPattern>) {
        let (mut names, mut patterns) = (Vec::new(), Vec::new());
        for selection in selections {
            match selection {
                Self::Name(name) => names.push(name),
                Self::Pattern(pattern) => patterns.push(pattern),
            }
        }
        (names, patterns)
    }
}
