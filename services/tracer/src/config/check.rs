//! Everything that is wrong with a configuration, not only what is wrong first.
//!
//! It is read as the services read it. What an error names is taken out of the layers, so
//! that its default holds, and the rest is read again, until nothing is wrong.

use std::path::Path;

use figment::{
    Figment, Profile, Provider as _,
    value::{Dict, Tag, Value},
};
use serde::Serialize;
use tracer_inference::Security;
use tracer_store::Store;

use super::{
    Config, ConfigError,
    effective::{origin, shown},
    load::{Fault, Whole, layers},
    reference,
    warnings::warnings,
};
use crate::{environment, host::Roles};

/// More errors than anybody reads.
const MOST: usize = 100;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(
    clippy::struct_field_names,
    reason = "the keys of the document that `--json` prints"
)]
pub(crate) struct Problem {
    /// The key, or the section where none is to blame alone; empty for the whole.
    pub(crate) key: String,
    /// Its value, unless that is secret.
    pub(crate) value: Option<String>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What the key takes.
    pub(crate) allowed: Option<String>,
    /// Where the value comes from.
    pub(crate) from: Option<String>,
}

/// What is to be said of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// What stops a start.
    pub(crate) problems: Vec<Problem>,
    /// What has no effect, or is rarely meant.
    pub(crate) warnings: Vec<String>,
}

/// Reads the configuration for these services, up to where they would reach for the
/// network. Files that are named are read; nothing is made or written.
pub(crate) fn check(file: Option<&Path>, roles: Roles) -> Checked {
    match layers(file) {
        Ok(layers) => check_layers(&layers, roles),
        Err(error) => Checked {
            problems: vec![plain(&error.to_string())],
            warnings: Vec::new(),
        },
    }
}

fn check_layers(layers: &Figment, roles: Roles) -> Checked {
    let mut problems = Vec::new();
    let set = match layers.data() {
        Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
        Err(error) => {
            problems.push(plain(&ConfigError::from(error).to_string()));
            return Checked {
                problems,
                warnings: Vec::new(),
            };
        }
    };
    let mut left = set.clone();
    let config = loop {
        let error = match Config::read(Figment::from(Whole(left.clone()))) {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        // One at a time: the next ones may be of the first one's making.
        let Some(fault) = error.0.into_iter().next() else {
            break None;
        };
        let path = to_blame(&fault, &left);
        problems.push(explain(&fault, &path, layers, &set));
        if path.is_empty() || problems.len() == MOST {
            break None;
        }
        remove(&mut left, &path);
    };
    let mut checked = Checked {
        problems,
        warnings: Vec::new(),
    };
    if let Some(config) = config {
        for (key, error) in unusable(&config, roles) {
            let path: Vec<_> = key.split('.').map(str::to_owned).collect();
            let mut problem = plain(&error);
            problem.from = origin_of(layers, &set, &path);
            key.clone_into(&mut problem.key);
            checked.problems.push(problem);
        }
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        checked.warnings = warnings(&config, &set, roles, names);
    }
    checked
}

fn plain(error: &str) -> Problem {
    let error = error.strip_prefix("bad configuration: ").unwrap_or(error);
    Problem {
        key: String::new(),
        value: None,
        problem: error.to_owned(),
        allowed: None,
        from: None,
    }
}

/// What stops the start of these services although the values fit: files that cannot be
/// used, and what other libraries do not take. By the key that names it.
fn unusable(config: &Config, roles: Roles) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let filter = tracer_telemetry::check_filter(&config.telemetry.log_filter);
    problems.extend(
        filter
            .err()
            .map(|error| ("telemetry.log_filter", error.to_string())),
    );
    // To open a directory makes it.
    let url = &config.store.url;
    let is_directory = url
        .split_once("://")
        .is_none_or(|(scheme, _)| scheme == "file");
    if !is_directory || url.is_empty() || !config.store.options.is_empty() {
        let opened = Store::open(url, &config.store.options);
        problems.extend(opened.err().map(|error| ("store", error.to_string())));
    }
    if roles.inference {
        let opened = Security::open(&config.security);
        problems.extend(opened.err().map(|error| ("security", error.to_string())));
    }
    if roles.aggregator || roles.trainer {
        let secret = config.inputs(std::env::var(environment::INPUT_SECRET).ok());
        problems.extend(secret.err().map(|error| {
            (
                "aggregator.input_secret_file",
                plain(&error.to_string()).problem,
            )
        }));
    }
    if roles.aggregator || roles.inference {
        let source = config.source.check();
        problems.extend(source.err().map(|error| {
            // librdkafka's own words are the cause.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.filter(|cause| !error.to_string().contains(cause));
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            ("source", format!("{error}{cause}"))
        }));
    }
    problems
}

/// The key that an error is about, as far as it is set; empty for none.
fn to_blame(fault: &Fault, set: &Dict) -> Vec<String> {
    let mut path = existing(set, fault.path.iter().map(String::as_str));
    if path.len() <= 1 && path.len() == fault.path.len() {
        // A section, or nothing, and the text says more: it begins with the key.
        let section = path.first().cloned();
        let text = fault
            .problem
            .strip_prefix("source: ")
            .unwrap_or(&fault.problem);
        let (mut at, mut rest) = (Some(set), text);
        if let Some(section) = &section {
            at = set.get(section).and_then(Value::as_dict);
        }
        while let Some(dict) = at {
            // Names of tasks have dots too.
            let named = dict.keys().filter(|key| {
                let after = rest.strip_prefix(key.as_str());
                after.is_some_and(|after| !after.starts_with(is_of_name))
            });
            let Some(key) = named.max_by_key(|key| key.len()) else {
                break;
            };
            path.push(key.clone());
            rest = rest[key.len()..].trim_start_matches('.');
            at = dict.get(key).and_then(Value::as_dict);
        }
    }
    path
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The part of a path that is set.
fn existing<'a>(set: &Dict, path: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut at, mut found) = (Some(set), Vec::new());
    for key in path {
        let Some(value) = at.and_then(|dict| dict.get(key)) else {
            break;
        };
        found.push(key.to_owned());
        at = value.as_dict();
    }
    found
}

fn remove(set: &mut Dict, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            set.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Dict(_, dict)) = set.get_mut(first) {
                remove(dict, rest);
            }
        }
    }
}

fn value_at<'a>(set: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(set.get(first)?, |at, key| at.as_dict()?.get(key))
}

fn origin_of(layers: &Figment, set: &Dict, path: &[String]) -> Option<String> {
    let value = value_at(set, path)?;
    let tag = match value {
        // Its parts may come from several layers.
        Value::Dict(..) => return None,
        value => value.tag(),
    };
    (tag != Tag::Default).then(|| origin(layers, tag, path))
}

/// What is wrong, without the key and the value where they are told beside it.
fn without_key(problem: &str, key: &str, value: Option<&Value>) -> String {
    let rest = problem.strip_prefix(key);
    // And not the key of a part of it.
    let rest = rest.filter(|rest| rest.starts_with([':', ' ']));
    let rest = rest.unwrap_or(problem).trim_start_matches([':', ' ']);
    let rest = match (value, rest.split_once(": it must be ")) {
        (Some(_), Some((said, expected))) if said.starts_with("is ") && !said.contains(": ") => {
            format!("must be {expected}")
        }
        _ => rest.to_owned(),
    };
    if rest.is_empty() {
        problem.to_owned()
    } else {
        rest
    }
}

fn explain(fault: &Fault, blamed: &[String], layers: &Figment, set: &Dict) -> Problem {
    // The whole path, where what is wrong is that something is missing.
    let path = if fault.path.len() > blamed.len() {
        &fault.path
    } else {
        blamed
    };
    let known = reference::find(path).filter(|(section, key)| {
        // A part of a table of the user's own, or the key itself.
        key.takes == reference::Takes::Map || path.len() <= section.path(key).split('.').count() + 1
    });
    let value = value_at(set, path).filter(|value| value.as_dict().is_none());
    Problem {
        problem: without_key(&fault.problem, &path.join("."), value),
        key: path.join("."),
        value: value.map(|value| shown(path, value)),
        allowed: known.map(|(_, key)| key.expected().replace('`', "")),
        from: origin_of(layers, set, path),
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn checked(toml: &str) -> Checked {
        let layers = Figment::new().merge(Toml::string(toml));
        check_layers(&layers, Roles::ALL)
    }

    #[test]
    fn every_error_is_told_with_its_key_value_and_what_is_allowed() {
        let checked = checked(
            r#"
[sorce]
[source]
partitions = 0
path = 7
[store]
urll = "x"
[task_defaults]
target_agreement = 1.5
folds = "many"
[tasks."eu.mail"]
gate = "maybe"
delta = 2.0
refit_cron = "soon"
[tasks.other]
fold = 3
[aggregator]
max_rows = 0
[aggregator.otlp]
task = "a/b"
[maintenance]
keep_shards = 0
[trainer]
lease_ms = 10
[inference]
max_batch = 0
poll_interval_ms = 0
[security]
tls_cert = "c.pem"
[telemetry]
log_format = "xml"
"#,
        );
        let told: Vec<_> = checked.problems.iter().map(|p| p.key.as_str()).collect();
        for key in [
            "sorce",
            "source.partitions",
            "source.path",
            "store.urll",
            "task_defaults.target_agreement",
            "task_defaults.folds",
            "tasks.eu.mail.gate",
            "tasks.eu.mail.delta",
            "tasks.eu.mail.refit_cron",
            "tasks.other.fold",
            "aggregator.max_rows",
            "aggregator.otlp.task",
            "maintenance.keep_shards",
            "trainer.lease_ms",
            "inference.max_batch",
            "inference.poll_interval_ms",
            "security",
            "telemetry.log_format",
        ] {
            assert!(told.contains(&key), "{key} is not in {told:?}");
        }
        assert_eq!(told.len(), 18, "{told:?}");
        let of = |key: &str| checked.problems.iter().find(|p| p.key == key).unwrap();
        let folds = of("task_defaults.folds");
        assert_eq!(folds.value.as_deref(), Some("\"many\""));
        assert_eq!(folds.allowed.as_deref(), Some("whole number, 2 to 20"));
        let mail = of("tasks.eu.mail.delta");
        assert_eq!(mail.value.as_deref(), Some("2.0"));
        let between = "number between 0 and 1, neither of them";
        assert_eq!(mail.allowed.as_deref(), Some(between));
        assert!(of("security").problem.contains("security.tls_key"));
    }

    #[test]
    fn what_is_in_order_is_not_complained_of() {
        let checked = checked("");
        assert_eq!(checked.problems, []);
        let example = include_str!("../../../../tracer.example.toml");
        let layers = Figment::new().merge(Toml::string(example));
        assert_eq!(check_layers(&layers, Roles::ALL).problems, []);
    }

    #[test]
    fn what_cannot_be_used_at_the_start_is_told_to_whom_it_matters() {
        let toml = r#"
[source]
kind = "kafka"
properties = { "acks" = "1" }
[store]
url = "ftp://x"
[security]
tls_cert = "/no/such/file"
tls_key = "/no/such/file"
[aggregator]
input_secret_file = "/no/such/secret"
[telemetry]
log_filter = "info,tracer=loudly"
"#;
        let keys = |roles| {
            let layers = Figment::new().merge(Toml::string(toml));
            let problems = check_layers(&layers, roles).problems;
            problems.into_iter().map(|p| p.key).collect::<Vec<_>>()
        };
        assert_eq!(
            keys(Roles::INFERENCE),
            ["telemetry.log_filter", "store", "security", "source"]
        );
        assert_eq!(
            keys(Roles::TRAINER),
            [
                "telemetry.log_filter",
                "store",
                "aggregator.input_secret_file"
            ]
        );
    }

    #[test]
    fn no_secret_is_told() {
        let checked = checked(
            "[store]\nurl = \"s3://b\"\n[store.options]\nsecret_access_key = 271828\n[source]\nkind = \"kafka\"\nproperties = { \"sasl.password\" = 271828 }\n[source.sasl]\nmechanism = \"PLAIN\"\npassword = 271828\n",
        );
        assert_eq!(checked.problems.len(), 4, "{checked:?}");
        assert!(!format!("{checked:?}").contains("271828"), "{checked:?}");
    }
}
