//! What is no error and yet rarely meant.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};
use tracer_aggregator::StoreInput;
use tracer_learn::GateMode;
use tracer_source::{SaslMechanism, Security, SourceConfig};

use super::{
    Config, TaskConfig,
    reference::{self, Key, SECTIONS, Section, Takes, top_sections},
};
use crate::{environment, host::Roles};

/// Of a target below this the surrogate is wrong more often than anybody wants.
const LOW_TARGET: f64 = 0.8;

/// Keys that are set and have no effect for these services, and values that are rarely
/// meant. `names` are those of the environment's variables.
pub(super) fn warnings(
    config: &Config,
    set: &Dict,
    roles: Roles,
    names: impl Iterator<Item = String>,
) -> Vec<String> {
    let mut found = without_effect(config, set, roles);
    found.extend(of_source(config, roles));
    found.extend(of_store(config, roles));
    found.extend(of_inference(config, roles));
    let tasks = config.tasks.iter().map(|(name, task)| {
        let section = format!("tasks.{name}");
        (section, task)
    });
    let default = ("task_defaults".to_owned(), &config.task_defaults);
    for (section, task) in [default].into_iter().chain(tasks) {
        let said = |text: &str| format!("{section}.{text}");
        found.extend(of_task(task, roles).iter().map(|text| said(text)));
    }
    found.extend(names.filter_map(|name| misspelt(&name)));
    found
}

/// A variable that looks like an override and is none.
fn misspelt(name: &str) -> Option<String> {
    let rest = name.strip_prefix("TRACER_")?;
    let is_known = environment::VARIABLES
        .iter()
        .any(|(known, _)| *known == name);
    if is_known || rest.starts_with('_') {
        return None;
    }
    let rest = rest.to_lowercase();
    let section = top_sections().find(|top| rest.starts_with(&format!("{top}_")))?;
    let key = rest[section.len()..].trim_start_matches('_').to_uppercase();
    let section = section.to_uppercase();
    Some(format!(
        "{name}: is not read; TRACER__{section}__{key} is, with two underscores"
    ))
}

/// What is set, by the keys of the reference.
fn set_keys(
    set: &Dict,
    path: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, &'static Section, &'static Key)>,
) {
    for (name, value) in set {
        path.push(name.clone());
        let known = reference::find(path);
        let whole = known.filter(|(_, key)| key.takes == Takes::Map);
        match (value, whole) {
            (Value::Dict(_, below), None) => set_keys(below, path, found),
            _ => found.extend(known.map(|(section, key)| (path.clone(), section, key))),
        }
        path.pop();
    }
}

fn without_effect(config: &Config, set: &Dict, roles: Roles) -> Vec<String> {
    let mut keys = Vec::new();
    set_keys(set, &mut Vec::new(), &mut keys);
    // By section, and then by why.
    let mut foreign: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut other_kind: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for (path, section, key) in keys {
        let own_name = path.join(".");
        if !key.roles.meet(roles) {
            let (above, name) = own_name.rsplit_once('.').unwrap_or(("", &own_name));
            foreign
                .entry(above.to_owned())
                .or_default()
                .push(name.to_owned());
            continue;
        }
        let kind = kind_of(config, &path, section);
        if let Some(kind) = kind
            && !key.kinds.is_empty()
            && !key.kinds.contains(&kind)
        {
            let above = own_name.strip_suffix(key.name).unwrap_or_default();
            let above = above.trim_end_matches('.').to_owned();
            other_kind
                .entry((above, kind))
                .or_default()
                .push(key.name.to_owned());
        }
    }
    let roles = roles.names().join(" and ");
    let foreign = foreign.into_iter().map(|(section, keys)| {
        let keys = keys.join(", ");
        format!("[{section}]: {keys}: no effect for the {roles}")
    });
    let other_kind = other_kind.into_iter().map(|((section, kind), keys)| {
        let keys = keys.join(", ");
        format!("[{section}]: {keys}: no effect with kind = {kind:?}")
    });
    foreign.chain(other_kind).collect()
}

/// The kind of the source, or of the embedder, that a key belongs to.
fn kind_of(config: &Config, path: &[String], section: &Section) -> Option<&'static str> {
    match section.name {
        "source" => Some(match config.source {
            SourceConfig::Kafka(_) => "kafka",
            SourceConfig::Spool(_) => "spool",
        }),
        "task_defaults.embedder" => {
            let named = config.tasks.iter().find(|(name, _)| {
                path.first().is_some_and(|first| first == "tasks")
                    && path.get(1).is_some_and(|task| task == name.as_str())
            });
            let task = named.map_or(&config.task_defaults, |(_, task)| task);
            let kind = serde_json::to_value(task.embedder.kind).ok()?;
            let kinds = SECTIONS.iter().find(|s| s.name == section.name)?.keys;
            let Takes::Word(words) = kinds.iter().find(|key| key.name == "kind")?.takes else {
                return None;
            };
            words.iter().copied().find(|word| kind == *word)
        }
        _ => None,
    }
}

fn of_source(config: &Config, roles: Roles) -> Vec<String> {
    let mut found = Vec::new();
    if roles.aggregator && config.aggregator.dead_letter_topic.is_none() {
        found.push(
            "aggregator.dead_letter_topic: is empty: payloads that are no valid traces are counted and dropped"
                .to_owned(),
        );
    }
    if roles.aggregator && config.aggregator.max_bytes > config.aggregator.max_buffered_bytes {
        found.push(
            "aggregator.max_buffered_bytes: is less than max_bytes: no buffer ever reaches that"
                .to_owned(),
        );
    }
    let kafka = match &config.source {
        SourceConfig::Kafka(kafka) => kafka,
        SourceConfig::Spool(_) => {
            let alone = roles != Roles::ALL && (roles.aggregator || roles.inference);
            if alone {
                found.push("source.kind: is \"spool\", a directory of this machine: what other machines write is not seen".to_owned());
            }
            return found;
        }
    };
    if !(roles.aggregator || roles.inference) {
        return found;
    }
    let in_the_open = !kafka.security.protocol().is_some_and(Security::has_tls);
    if let Some(sasl) = &kafka.security.sasl
        && in_the_open
        && matches!(
            sasl.mechanism,
            SaslMechanism::Plain | SaslMechanism::OAuthBearer
        )
    {
        found.push(format!(
            "source.security: without TLS {} sends the secret in the open",
            sasl.mechanism.as_str()
        ));
    }
    if kafka
        .security
        .tls
        .as_ref()
        .is_some_and(|tls| tls.any_host_name)
    {
        found.push(
            "source.tls.any_host_name: whoever has any certificate of the authority can pose as a broker"
                .to_owned(),
        );
    }
    found
}

fn of_store(config: &Config, roles: Roles) -> Vec<String> {
    let mut found = Vec::new();
    let url = &config.store.url;
    let is_directory = url
        .split_once("://")
        .is_none_or(|(scheme, _)| scheme == "file");
    if url.starts_with("memory://") {
        found.push("store.url: is \"memory://\": all is lost with the process, and no other process sees it".to_owned());
    } else if is_directory && roles != Roles::ALL {
        found.push(format!(
            "store.url: is {url:?}, a directory: services on other machines must see the same one"
        ));
    }
    let days = config.maintenance.retention_days;
    if roles.aggregator && days > 0 && !config.maintenance.enabled {
        found.push("maintenance.retention_days: no effect while enabled is false".to_owned());
    }
    found
}

fn of_inference(config: &Config, roles: Roles) -> Vec<String> {
    let mut found = Vec::new();
    if !roles.inference {
        return found;
    }
    let (security, is_public) = (&config.security, !config.listen.grpc.ip().is_loopback());
    if !security.tokens.is_empty() && security.tls_cert.is_empty() && is_public {
        found.push("security.tls_cert: is empty: tokens travel in plain text".to_owned());
    }
    if config.inference.audit_seed.is_some() {
        found.push(
            "inference.audit_seed: is set: callers can tell which requests are audited; it is for tests"
                .to_owned(),
        );
    }
    found
}

fn of_task(task: &TaskConfig, roles: Roles) -> Vec<String> {
    let mut found = Vec::new();
    if roles.trainer {
        if task.gate == GateMode::Point {
            found.push("gate: is \"point\": nothing is promised of what is served".to_owned());
        }
        if task.target_agreement < LOW_TARGET {
            let target = task.target_agreement;
            found.push(format!(
                "target_agreement: is {target}: one of {:.0} handled inputs may get another label than the teacher's",
                1.0 / (1.0 - target)
            ));
        }
        if task.refit_every_minutes == 0
            && task.refit_cron.trim().is_empty()
            && task.refit_after_traces == 0
            && task.refit_drift_traces == 0
        {
            found.push("refit_every_minutes: nothing starts a refit but `tracer refit`".to_owned());
        }
        if task.ood_budget == 0.0 {
            found.push(
                "ood_budget: is 0: what is unlike all traces is handled like the rest".to_owned(),
            );
        }
    }
    if roles.inference && task.audit_rate == 0.0 {
        found.push(
            "audit_rate: is 0: the agreement of what is handled is never checked again, and refits see deferred inputs alone"
                .to_owned(),
        );
    }
    if roles.aggregator && task.store_input == StoreInput::None {
        found.push(
            "store_input: is \"none\": only traces with embeddings can be learned from".to_owned(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment, Profile, Provider as _,
        providers::{Format as _, Toml},
    };

    use super::*;

    fn of(toml: &str, roles: Roles) -> Vec<String> {
        let layers = Figment::new().merge(Toml::string(toml));
        let set = layers.data().unwrap().remove(&Profile::Default);
        let config = Config::read(layers).unwrap();
        let names = [
            "TRACER_SOURCE_KIND",
            "TRACER__SOURCE__KIND",
            "TRACER_CONFIG",
            "TRACER_TEST_KAFKA",
            "HOME",
        ];
        let names = names.into_iter().map(str::to_owned);
        let mut all = warnings(&config, &set.unwrap_or_default(), roles, names);
        // Of every run.
        let misspelt = all.pop().unwrap();
        assert!(
            misspelt.starts_with("TRACER_SOURCE_KIND: is not read; TRACER__SOURCE__KIND is"),
            "{misspelt}"
        );
        all
    }

    #[test]
    fn the_defaults_and_the_example_are_in_order() {
        assert_eq!(of("", Roles::ALL), Vec::<String>::new());
        let example = include_str!("../../../../tracer.example.toml");
        assert_eq!(of(example, Roles::ALL), Vec::<String>::new());
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let toml = "[source]\nbrokers = \"b:1\"\n[inference]\nmax_batch = 3\nsettle_ms = 1\n[store]\nurl = \"s3://b\"\n[tasks.t]\nfolds = 3\nstore_input = \"full\"\n[tasks.t.embedder]\nkind = \"static\"\nmodel = \"m\"\nurl = \"http://x\"\n";
        assert_eq!(
            of(toml, Roles::TRAINER),
            [
                "[inference]: max_batch, settle_ms: no effect for the trainer",
                "[source]: brokers: no effect for the trainer",
                "[tasks.t]: store_input: no effect for the trainer",
                "[tasks.t.embedder]: url: no effect with kind = \"static\"",
            ]
        );
        assert_eq!(
            of(toml, Roles::ALL),
            [
                "[source]: brokers: no effect with kind = \"spool\"",
                "[tasks.t.embedder]: url: no effect with kind = \"static\"",
            ]
        );
    }

    #[test]
    fn what_is_rarely_meant_is_told() {
        for (toml, roles, key) in [
            ("[store]\nurl = \"memory://\"", Roles::ALL, "store.url"),
            ("[store]\nurl = \"x\"", Roles::TRAINER, "store.url"),
            ("[tasks.t]\ngate = \"point\"", Roles::ALL, "tasks.t.gate"),
            (
                "[task_defaults]\ntarget_agreement = 0.5",
                Roles::ALL,
                "task_defaults.target_agreement",
            ),
            (
                "[task_defaults]\naudit_rate = 0.0",
                Roles::ALL,
                "task_defaults.audit_rate",
            ),
            (
                "[tasks.t]\nrefit_every_minutes = 0\nrefit_after_traces = 0",
                Roles::ALL,
                "tasks.t.refit_every_minutes",
            ),
            (
                "[aggregator]\ndead_letter_topic = \"\"",
                Roles::ALL,
                "aggregator.dead_letter_topic",
            ),
            (
                "[inference]\naudit_seed = 7",
                Roles::ALL,
                "inference.audit_seed",
            ),
            (
                "[security]\ntokens = \"t\"\n[listen]\ngrpc = \"0.0.0.0:1\"",
                Roles::ALL,
                "security.tls_cert",
            ),
            (
                "[source]\nkind = \"kafka\"\nsecurity = \"sasl_plaintext\"\n[source.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"f\"",
                Roles::ALL,
                "source.security",
            ),
        ] {
            let found = of(toml, roles);
            let told = found.iter().any(|warning| warning.starts_with(key));
            assert!(told, "{toml}: {found:?}");
        }
    }
}
