//! What holds in the end, and where each value comes from.

use std::{collections::BTreeMap, path::Path};

use figment::{
    Figment, Profile, Provider as _,
    providers::Serialized,
    value::{Dict, Tag, Value},
};
use serde::Serialize;
use tracer_source::is_secret_property;

use super::{
    Config, ConfigError,
    load::layers,
    reference::{self, variable},
};

/// What is shown in place of a secret.
const HIDDEN: &str = "[hidden]";

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Effective {
    /// As `tracer.toml` has it; `[hidden]` for a secret.
    pub(crate) value: String,
    /// `default`, the file, or the environment variable.
    pub(crate) from: String,
}

/// Every value by its key. Of tasks only what their own sections say: the rest is as in
/// `task_defaults`. Keys of another kind of source, and those without a value, are left out.
pub(crate) fn effective(file: Option<&Path>) -> Result<BTreeMap<String, Effective>, ConfigError> {
    of(layers(file)?)
}

fn of(layers: Figment) -> Result<BTreeMap<String, Effective>, ConfigError> {
    // Whatever is wrong is told as ever.
    let config = Config::read(layers.clone())?;
    let layers = Figment::from(Serialized::defaults(reference::defaults())).merge(layers);
    let mut all = BTreeMap::new();
    let values = layers.data()?.remove(&Profile::Default).unwrap_or_default();
    walk(&layers, &values, &mut Vec::new(), &mut all);
    let kind = match config.source {
        tracer_source::SourceConfig::Kafka(_) => "kafka",
        tracer_source::SourceConfig::Spool(_) => "spool",
    };
    let has_tls = all
        .iter()
        .any(|(key, value)| key.starts_with("source.tls.") && value.from != "default");
    all.retain(|key, _| {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        let foreign = path[0] == "source"
            && reference::find(&path)
                .is_some_and(|(_, key)| !key.kinds.is_empty() && !key.kinds.contains(&kind));
        // A default of a table that is not there switches nothing on.
        !foreign && (has_tls || !key.starts_with("source.tls."))
    });
    Ok(all)
}

fn walk(
    layers: &Figment,
    values: &Dict,
    path: &mut Vec<String>,
    all: &mut BTreeMap<String, Effective>,
) {
    for (name, value) in values {
        path.push(name.clone());
        match value {
            Value::Dict(_, below) if !below.is_empty() || path.len() == 1 => {
                walk(layers, below, path, all);
            }
            Value::Empty(..) => {}
            value => {
                let effective = Effective {
                    value: shown(path, value),
                    from: origin(layers, value.tag(), path),
                };
                all.insert(path.join("."), effective);
            }
        }
        path.pop();
    }
}

/// Where a value comes from, by its tag.
pub(super) fn origin(layers: &Figment, tag: Tag, path: &[String]) -> String {
    let Some(metadata) = layers.get_metadata(tag) else {
        return "default".to_owned();
    };
    match &metadata.source {
        Some(figment::Source::File(file)) => file.display().to_string(),
        _ if metadata.name.contains("environment") => {
            // A table may have been one variable.
            let names = (1..=path.len()).rev().map(|parts| {
                let path = path[..parts].iter().map(String::as_str);
                variable(path)
            });
            let mut set = names.filter(|name| std::env::var_os(name).is_some());
            let all = || variable(path.iter().map(String::as_str));
            set.next().unwrap_or_else(all)
        }
        _ if metadata.name.contains("TOML") => "the file".to_owned(),
        _ => "default".to_owned(),
    }
}

/// A value as `tracer.toml` has it, unless it is a secret.
pub(super) fn shown(path: &[String], value: &Value) -> String {
    let secret = match path {
        [source, properties, name @ ..] if source == "source" && properties == "properties" => {
            is_secret_property(&name.join("."))
        }
        // Which of them are is `object_store`'s knowledge; these are not.
        [store, options, name @ ..] if store == "store" && options == "options" => {
            !["endpoint", "region", "allow_http", "bucket"]
                .iter()
                .any(|plain| name.join(".").ends_with(plain))
        }
        path => reference::find(path).is_some_and(|(_, key)| key.secret),
    };
    if secret {
        return HIDDEN.to_owned();
    }
    match serde_json::to_value(value) {
        Ok(value) => reference::toml(&value),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};

    use super::*;

    #[test]
    fn values_are_told_with_where_they_come_from() {
        let toml = "[tasks.\"a.b\"]\nfolds = 3\n[store]\nurl = \"s3://b\"\n[store.options]\nendpoint = \"http://x\"\nsecret_access_key = \"hunter2\"\n";
        let all = of(Figment::new().merge(Toml::string(toml))).unwrap();
        let told = |key: &str| {
            let found = &all[key];
            (found.value.as_str(), found.from.as_str())
        };
        assert_eq!(told("tasks.a.b.folds"), ("3", "the file"));
        assert_eq!(told("task_defaults.folds"), ("5", "default"));
        assert_eq!(told("source.kind"), ("\"spool\"", "default"));
        assert_eq!(told("store.options.endpoint"), ("\"http://x\"", "the file"));
        assert_eq!(
            told("store.options.secret_access_key"),
            (HIDDEN, "the file")
        );
        assert!(!all.contains_key("source.brokers"));
        assert!(!format!("{all:?}").contains("hunter2"));
    }

    #[test]
    fn of_kafka_nothing_secret_is_told() {
        let toml = "[source]\nkind = \"kafka\"\nproperties = { \"ssl.key.password\" = \"hunter2\", \"fetch.min.bytes\" = \"2\" }\n[source.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword = \"hunter2\"\n";
        let all = of(Figment::new().merge(Toml::string(toml))).unwrap();
        assert_eq!(all["source.sasl.password"].value, HIDDEN);
        assert_eq!(all["source.properties.fetch.min.bytes"].value, "\"2\"");
        assert_eq!(all["source.brokers"].from, "default");
        assert!(!all.contains_key("source.path"));
        assert!(!all.contains_key("source.tls.any_host_name"));
        assert!(!format!("{all:?}").contains("hunter2"));
    }
}
