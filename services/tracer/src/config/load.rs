//! Reading the layers.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Profile, Provider,
    error::{Error, Kind},
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Value},
};

use super::{
    Config, TaskConfig,
    reference::{top_sections, variable},
};
use crate::environment::OVERRIDE_PREFIX;

/// The file that is read when none is named and it is there.
const DEFAULT_FILE: &str = "tracer.toml";

/// A configuration that cannot work. The text names the key.
#[derive(Debug, thiserror::Error)]
#[error("bad configuration: {}", said(.0))]
pub(crate) struct ConfigError(pub(super) Vec<Fault>);

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The key; empty where only the text says it.
    pub(super) path: Vec<String>,
    /// What is wrong with it.
    pub(super) problem: String,
    /// Where the value comes from, in brackets.
    place: String,
}

impl ConfigError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(vec![Fault {
            path: Vec::new(),
            problem: problem.into(),
            place: String::new(),
        }])
    }
}

impl From<Error> for ConfigError {
    fn from(error: Error) -> Self {
        Self(error.into_iter().map(|error| describe(&error)).collect())
    }
}

impl Fault {
    /// The key, what is wrong with it, and where it comes from.
    fn said(&self) -> String {
        let Self { problem, place, .. } = self;
        let key = self.path.join(".");
        if key.is_empty() {
            format!("{problem}{place}")
        } else {
            format!("{key}: {problem}{place}")
        }
    }
}

fn said(faults: &[Fault]) -> String {
    let faults: Vec<_> = faults.iter().map(Fault::said).collect();
    faults.join("; ")
}

impl Config {
    /// Reads the layers: defaults, the file, the environment. A file that is
    /// named must be there.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(layers(file)?)
    }

    /// Reads the layers above the defaults.
    pub(super) fn read(layers: Figment) -> Result<Self, ConfigError> {
        let mut layers = Figment::from(Serialized::defaults(Self::default())).merge(layers);
        // A task's section is read on top of `task_defaults`, once that is final.
        let defaults: TaskConfig = layers.extract_inner("task_defaults")?;
        if let Ok(Value::Dict(_, tasks)) = layers.find_value("tasks") {
            let mut filled = Dict::new();
            for (name, own) in tasks {
                let Value::Dict(tag, own) = own else {
                    return Err(ConfigError::new(format!("tasks.{name} is not a section")));
                };
                let mut all = Value::serialize(&defaults)?.into_dict().unwrap_or_default();
                lay_over(&mut all, own);
                filled.insert(name, Value::Dict(tag, all));
            }
            layers = layers.merge(Whole::tasks(filled));
        }
        let config: Self = layers.extract()?;
        config.check()?;
        Ok(config)
    }
}

/// Puts a section's own keys in place of those it inherits, tables key by key.
fn lay_over(all: &mut Dict, own: Dict) {
    for (key, value) in own {
        match (all.get_mut(&key), value) {
            (Some(Value::Dict(_, below)), Value::Dict(_, value)) => lay_over(below, value),
            (_, value) => {
                all.insert(key, value);
            }
        }
    }
}

/// Values as a layer.
pub(super) struct Whole(pub(super) Dict);

impl Whole {
    fn tasks(filled: Dict) -> Self {
        Self(Dict::from([("tasks".to_owned(), Value::from(filled))]))
    }
}

impl Provider for Whole {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("the layers together")
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// The layers above the defaults: the file and the environment. A file that is named must
/// be there.
pub(super) fn layers(file: Option<&Path>) -> Result<Figment, ConfigError> {
    let file = match file {
        Some(file) if !file.is_file() => {
            let file = file.display();
            return Err(ConfigError::new(format!("{file}: there is no such file")));
        }
        Some(file) => Some(file.to_owned()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()),
    };
    let mut layers = Figment::new();
    if let Some(file) = file {
        layers = layers.merge(Toml::file_exact(file));
    }
    Ok(layers.merge(Env::prefixed(OVERRIDE_PREFIX).split("__")))
}

/// The key, what is wrong with it, and where it comes from.
fn describe(error: &Error) -> Fault {
    let mut path = error.path.clone();
    // figment puts the keys of an enumeration before its section.
    let section = path
        .iter()
        .position(|key| top_sections().any(|top| top == key));
    path.rotate_left(section.unwrap_or(0));
    let problem = match &error.kind {
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            format!("is not a key here; the keys are {}", expected.join(", "))
        }
        // Some of those are secrets, which no error may show.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)
            if path
                .iter()
                .any(|key| key == "options" || key == "properties") =>
        {
            format!("must be {expected}")
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("is {actual}, but must be {expected}")
        }
        Kind::UnknownVariant(variant, expected) => {
            format!("is {variant:?}, but must be one of {}", expected.join(", "))
        }
        other => other.to_string(),
    };
    let place = match error
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.source.as_ref())
    {
        Some(source) => format!(" ({source})"),
        None => error
            .metadata
            .as_ref()
            .filter(|metadata| metadata.name.contains("environment"))
            .map_or_else(String::new, |_| {
                format!(" ({})", variable(path.iter().map(String::as_str)))
            }),
    };
    Fault {
        path,
        problem,
        place,
    }
}

#[cfg(test)]
mod tests {
    use tracer_aggregator::StoreInput;

    use super::*;

    fn read(toml: &str) -> Result<Config, String> {
        Config::read(Figment::from(Toml::string(toml))).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_the_defaults() {
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let example = include_str!("../../../../tracer.example.toml");
        let mut shown = read(example).unwrap();
        assert_eq!(
            shown.tasks.len(),
            1,
            "the example shows one task of its own"
        );
        shown.tasks.clear();
        assert_eq!(shown, Config::default());
    }

    #[test]
    fn every_key_is_in_the_example() {
        let example = include_str!("../../../../tracer.example.toml");
        let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(Config::default())
        else {
            panic!("the configuration is a table");
        };
        for (section, keys) in sections {
            for key in keys.as_object().into_iter().flat_map(serde_json::Map::keys) {
                let shown = [format!("{key} ="), format!("[{section}.{key}]")];
                assert!(
                    shown.iter().any(|shown| example.contains(shown)),
                    "{section}.{key} in tracer.example.toml"
                );
            }
        }
    }

    #[test]
    fn a_task_inherits_what_it_leaves_out() {
        let config = read(
            "[task_defaults]\ntarget_agreement = 0.9\nfolds = 7\n[tasks.\"eu.mail\"]\nfolds = 3\n[tasks.other]\n",
        )
        .unwrap();
        let of = |name: &str| &config.tasks[&tracer_trace::TaskName::new(name).unwrap()];
        assert_eq!(
            (of("eu.mail").target_agreement, of("eu.mail").folds),
            (0.9, 3)
        );
        assert_eq!(of("other"), &config.task_defaults);

        // Tables too, key by key.
        let config = read(
            "[task_defaults.candidates]\nskip = [\"mlp_1\"]\n[tasks.t.candidates]\nonly = [\"mlp_2\", \"mlp_1\"]\n",
        )
        .unwrap();
        let task = tracer_trace::TaskName::new("t").unwrap();
        let candidates = &config.tasks[&task].candidates;
        assert_eq!(candidates.skip, ["mlp_1"]);
        assert_eq!(candidates.only, ["mlp_2", "mlp_1"]);
        assert!(config.task_defaults.candidates.only.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (toml, named) in [
            ("[sorce]", "sorce"),
            ("[store]\nurll = \"x\"", "store.urll"),
            (
                "[trainer]\npoll_interval_ms = \"often\"",
                "trainer.poll_interval_ms",
            ),
            ("[listen]\ngrpc = \"here\"", "listen.grpc"),
            (
                "[task_defaults]\ntarget_agreement = 1.5",
                "task_defaults.target_agreement",
            ),
            ("[tasks.mail]\ntarget = 0.9", "tasks.mail.target"),
            (
                "[tasks.mail]\nrefit_cron = \"soon\"",
                "tasks.mail.refit_cron",
            ),
            ("[tasks.\"a/b\"]", "a/b"),
            ("[task_defaults]\ngate = \"maybe\"", "task_defaults.gate"),
            ("[tasks.t]\ngate = \"maybe\"", "tasks.t.gate"),
            ("[telemetry]\nlog_format = \"xml\"", "telemetry.log_format"),
            ("[source]\nkind = \"pulsar\"", "pulsar"),
            ("[source]\npth = \"x\"", "pth"),
            ("[tasks.t]\nood_budget = 0.7", "tasks.t.ood_budget"),
            ("[tasks.t]\nood_budget = nan", "tasks.t.ood_budget"),
            (
                "[task_defaults]\nmax_fit_traces = 100",
                "task_defaults.max_fit_traces",
            ),
            ("[tasks.t]\nmax_fit_traces = -1", "tasks.t.max_fit_traces"),
            (
                "[tasks.t]\nfull_refit_every = 0",
                "tasks.t.full_refit_every",
            ),
            ("[tasks.t]\ncascade = \"no\"", "tasks.t.cascade"),
            (
                "[tasks.t.candidates]\nonly = [\"gpt\"]",
                "tasks.t.candidates.only is a list with \"gpt\": it must be a list of some of dense_logistic",
            ),
            (
                "[task_defaults.candidates]\nskip = [\"mlp\"]",
                "task_defaults.candidates.skip",
            ),
            (
                "[tasks.t.candidates]\nonly = [\"mlp_1\"]\nskip = [\"mlp_1\"]",
                "tasks.t.candidates.skip",
            ),
            (
                "[tasks.t.candidates]\nskipp = []",
                "tasks.t.candidates.skipp",
            ),
            ("[tasks.t]\ncandidates = [\"mlp_1\"]", "tasks.t.candidates"),
            ("[aggregator]\nmax_rows = 0", "aggregator.max_rows"),
            (
                "[maintenance]\nkeep_shards = 0",
                "maintenance.keep_shards must be at least 1",
            ),
            (
                "[aggregator]\nembeddings = \"f64\"",
                "aggregator.embeddings",
            ),
            (
                "[aggregator.formats]\nspans = \"avro\"",
                "aggregator.formats.spans",
            ),
            (
                "[aggregator.otlp]\nlabel_pointer = \"x\"",
                "aggregator.otlp.label_pointer",
            ),
            ("[aggregator.otlp]\ntasks = \"x\"", "aggregator.otlp.tasks"),
            ("[trainer]\nlease_ms = 10", "trainer.lease_ms"),
            (
                "[tasks.t]\nrefit_jitter_seconds = 100000",
                "tasks.t.refit_jitter_seconds",
            ),
            ("[inference]\nmax_batch = 0", "inference.max_batch"),
            ("[security]\ntls_cert = \"c.pem\"", "security.tls_key"),
            ("[security]\ntoken = \"x\"", "security.token"),
            (
                "[tasks.t]\nembedder = { kind = \"static\" }",
                "tasks.t.embedder.model",
            ),
            (
                "[task_defaults.embedder]\nkind = \"word2vec\"",
                "task_defaults.embedder.kind",
            ),
            (
                "[tasks.t.embedder]\nkind = \"http\"\nurl = \"x\"",
                "tasks.t.embedder.url",
            ),
            (
                "[registry]\ninterval_seconds = 0",
                "registry.interval_seconds",
            ),
            (
                "[tasks.t]\nteacher_input_dollars_per_million = -1.0",
                "tasks.t.teacher_input_dollars_per_million",
            ),
            (
                "[source]\ntopics = [\"a\", \"b\"]\n[aggregator]\ndead_letter_topic = \"b\"",
                "source.topics: b is aggregator.dead_letter_topic",
            ),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.contains(named), "{toml}: {error}");
        }
    }

    #[test]
    fn a_secret_of_a_wrong_type_is_not_shown() {
        for (toml, key) in [
            (
                "[store.options]\nsecret_access_key = 123456",
                "store.options.secret_access_key: must be",
            ),
            ("[store]\noptions = \"123456\"", "store.options: must be"),
            (
                "[source]\nkind = \"kafka\"\nproperties = { \"sasl.password\" = 123456 }",
                "source.properties.sasl.password: must be",
            ),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.contains(key) && !error.contains("123456"), "{error}");
        }
    }

    #[test]
    fn what_is_stored_of_inputs_and_its_secret_follow() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let toml = format!(
            "[task_defaults]\nstore_input = \"hash\"\n[tasks.t]\nstore_input = \"none\"\n[tasks.u]\n[aggregator]\ninput_secret_file = {file:?}\n"
        );
        let config = read(&toml).unwrap();
        let error = config.inputs(None).unwrap_err().to_string();
        assert!(error.contains("aggregator.input_secret_file"), "{error}");
        std::fs::write(&file, " \n").unwrap();
        let error = config.inputs(None).unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
        std::fs::write(&file, "swordfish\n").unwrap();
        let inputs = config.inputs(None).unwrap();
        let of = |name: &str| inputs.tasks[&tracer_trace::TaskName::new(name).unwrap()];
        assert_eq!(inputs.default, StoreInput::Hash);
        assert_eq!((of("t"), of("u")), (StoreInput::None, StoreInput::Hash));
        let key = |secret: &str| tracer_features::InputKey::new(secret);
        assert_eq!(inputs.key, key("swordfish"));
        // The environment comes first, and an empty variable says nothing.
        let from = |text: &str| config.inputs(Some(text.to_owned())).unwrap().key;
        assert_eq!((from("other"), from("")), (key("other"), key("swordfish")));
        assert!(read("").unwrap().inputs(None).unwrap().key.is_empty());
        assert!(!format!("{inputs:?}").contains("swordfish"));
    }

    #[test]
    fn plans_and_policies_follow() {
        let config =
            read("[tasks.t]\nrefit_every_minutes = 0\nrefit_after_traces = 7\naudit_rate = 0.5\nood_budget = 0.1\nmax_fit_traces = 5000\ncascade = false\nfull_refit_every = 6\ncandidates = { only = [\"mlp_1\", \"mlp_2\"], skip = [\"mlp_2\"] }")
                .unwrap();
        let task = tracer_trace::TaskName::new("t").unwrap();
        let plan = config.plans().of(&task).clone();
        assert_eq!(
            (plan.schedule.interval, plan.schedule.after_traces),
            (None, Some(7))
        );
        assert_eq!(plan.full_refit_every, 6);
        let fit = &plan.fit;
        assert_eq!(
            (fit.ood_budget, fit.max_fit_traces, fit.cascade),
            (0.1, 5000, false)
        );
        assert_eq!(
            (fit.only.len(), fit.skip.as_slice()),
            (2, ["mlp_2".to_owned()].as_slice())
        );
        assert_eq!(config.policies().of(&task).audit_rate, 0.5);
        assert_eq!(config.plans().default, tracer_trainer::TaskPlan::default());
    }
}
