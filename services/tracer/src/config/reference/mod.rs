//! Every key of the configuration: what it takes, who reads it, and what it means.
//!
//! This is the one place for that. `docs/config.md` is made of it (`tracer config
//! reference`), `tracer config check` explains by it, and tests hold it against the types:
//! their keys, their defaults, their words and the bounds they check. Whoever adds a key
//! adds a line here.

mod aggregator;
mod markdown;
mod sections;
mod tasks;

use std::sync::LazyLock;

use serde_json::Value;
use tracer_source::{KafkaConfig, SourceConfig, TlsConfig};

use super::Config;
use crate::{environment::OVERRIDE_PREFIX, host::Roles};
pub(crate) use markdown::{markdown, toml};

/// A section of the configuration.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its name, such as `store` or `aggregator.otlp`.
    pub(crate) name: &'static str,
    /// Its name and what it is about, as the heading says it.
    heading: &'static str,
    /// What stands before the table of its keys, in Markdown.
    before: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [Key],
    /// What stands behind the table.
    after: &'static str,
}

/// All sections, in the order of the reference.
pub(crate) const SECTIONS: &[Section] = &[
    sections::SOURCE,
    sections::STORE,
    sections::LISTEN,
    sections::SECURITY,
    tasks::TASKS,
    tasks::EMBEDDER,
    sections::LIMITS,
    aggregator::AGGREGATOR,
    aggregator::OTLP,
    aggregator::MAINTENANCE,
    sections::REGISTRY,
    sections::TRAINER,
    sections::INFERENCE,
    sections::TELEMETRY,
];

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name below the section, such as `url` or `tls.ca`.
    pub(crate) name: &'static str,
    /// Its values.
    pub(crate) takes: Takes,
    /// What holds where neither it nor its default says anything.
    pub(crate) absent: Option<&'static str>,
    /// Who reads it.
    pub(crate) roles: Roles,
    /// With which `kind` of the section it has an effect; with any where it is empty.
    pub(crate) kinds: &'static [&'static str],
    /// Nobody may see its value.
    pub(crate) secret: bool,
    /// What it means, in Markdown.
    pub(crate) help: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Takes {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Whole {
        /// The least.
        least: u64,
        /// The most; `u64::MAX` for no bound.
        most: u64,
    },
    /// A number from one bound to the other; `open` leaves the bounds themselves out.
    Number {
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// Whether the bounds are left out.
        open: bool,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// An address and a port.
    Address,
    /// A list of texts.
    List,
    /// A table with keys of the user's own.
    Map,
    /// A table with the keys that stand below it in the reference.
    Table,
}

/// A key that every service reads.
const fn key(name: &'static str, takes: Takes, help: &'static str) -> Key {
    Key {
        name,
        takes,
        absent: None,
        roles: Roles::ALL,
        kinds: &[],
        secret: false,
        help,
    }
}

impl Key {
    const fn of(self, roles: Roles) -> Self {
        Self { roles, ..self }
    }

    const fn with(self, kinds: &'static [&'static str]) -> Self {
        Self { kinds, ..self }
    }

    const fn absent(self, absent: &'static str) -> Self {
        Self {
            absent: Some(absent),
            ..self
        }
    }

    const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }

    /// The unit, which the name ends by.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        let (_, last) = self.name.rsplit_once('_')?;
        Some(match last {
            "ms" => "milliseconds",
            "seconds" => "seconds",
            "minutes" => "minutes",
            "days" => "days",
            "bytes" => "bytes",
            "dollars" => "dollars",
            _ => return None,
        })
    }

    /// What it takes, in words.
    pub(crate) fn expected(&self) -> String {
        let unit = self.unit().map(|unit| format!(", in {unit}"));
        let unit = unit.unwrap_or_default();
        match self.takes {
            Takes::Text => "text".to_owned(),
            Takes::Flag => "`true` or `false`".to_owned(),
            Takes::Whole { least: 0, most } if most == u64::MAX => format!("whole number{unit}"),
            Takes::Whole { least, most } if most == u64::MAX => {
                format!("whole number, {least} or more{unit}")
            }
            Takes::Whole { least, most } => format!("whole number, {least} to {most}{unit}"),
            Takes::Number { least, most, .. } if most == f64::MAX => {
                format!("number, {least} or more{unit}")
            }
            Takes::Number { least, most, open } if open => {
                format!("number between {least} and {most}, neither of them{unit}")
            }
            Takes::Number { least, most, .. } => format!("number, {least} to {most}{unit}"),
            Takes::Word(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
                words.join(", ")
            }
            Takes::Address => "address and port".to_owned(),
            Takes::List => "list of texts".to_owned(),
            Takes::Map => "table of texts".to_owned(),
            Takes::Table => "table".to_owned(),
        }
    }
}

impl Section {
    /// The whole name of a key.
    pub(crate) fn path(&self, key: &Key) -> String {
        format!("{}.{}", self.name, key.name)
    }

    /// The environment variable that sets a key.
    pub(crate) fn variable(&self, key: &Key) -> String {
        variable(self.path(key).split('.'))
    }
}

/// The environment variable of a key.
pub(crate) fn variable<'a>(path: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<_> = path.into_iter().map(str::to_uppercase).collect();
    format!("{OVERRIDE_PREFIX}{}", parts.join("__"))
}

/// The names of the sections of the file: those that are in no other.
pub(crate) fn top_sections() -> impl Iterator<Item = &'static str> {
    let tops = SECTIONS.iter().map(|section| section.name);
    // The tasks' own sections have the keys of `task_defaults`.
    tops.filter(|name| !name.contains('.')).chain(["tasks"])
}

/// The key at a path, or the one that holds it: `store.options.endpoint` is a part of
/// `store.options`. A task's key is that of `task_defaults`.
pub(crate) fn find(path: &[String]) -> Option<(&'static Section, &'static Key)> {
    let path = match path {
        [tasks, _, own @ ..] if tasks == "tasks" => [&["task_defaults".to_owned()], own].concat(),
        path => path.to_vec(),
    };
    let path = path.join(".");
    let all = SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section, key)));
    all.filter(|(section, key)| {
        let rest = path.strip_prefix(&section.path(key));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
    // The longest one, for a table and a key in it both fit.
    .max_by_key(|(section, key)| section.path(key).len())
}

/// The defaults of all keys, as the types have them.
pub(crate) fn defaults() -> &'static Value {
    static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
        let json = |value: Result<Value, serde_json::Error>| value.unwrap_or_default();
        let mut all = json(serde_json::to_value(Config::default()));
        // One kind of source hides the keys of the other.
        let kafka = SourceConfig::Kafka(KafkaConfig::default());
        let mut source = json(serde_json::to_value(kafka));
        source["tls"] = json(serde_json::to_value(TlsConfig::default()));
        if let (Value::Object(source), Value::Object(own)) = (&mut source, &all["source"]) {
            source.extend(own.clone());
        }
        all["source"] = source;
        all
    });
    &DEFAULTS
}

/// The default of a key; `None` where the types have no value.
pub(crate) fn default_of(section: &Section, key: &Key) -> Option<&'static Value> {
    let path = section.path(key);
    let found = path
        .split('.')
        .try_fold(defaults(), |at, name| at.get(name));
    found.filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests;
