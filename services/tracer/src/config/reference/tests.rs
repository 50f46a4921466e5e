//! The reference against the types: whatever one of them has and the other has not fails.

use std::collections::BTreeSet;

use figment::{
    Figment,
    error::Kind,
    providers::{Format as _, Toml},
};

use super::*;
use crate::config::Config;

/// What writes docs/config.md anew.
const REGENERATE: &str = "cargo run -- config reference > docs/config.md";

/// What the sections need besides, for one of their keys to be looked at.
fn besides(section: &str) -> &'static str {
    if section == "task_defaults.embedder" {
        "kind = \"http\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"m\"\ndimension = 3\n"
    } else {
        ""
    }
}

/// A section with one more line, which takes the place of one that is there besides.
fn with(section: &str, name: &str, value: &str) -> String {
    let (section, name) = match name.rsplit_once('.') {
        Some((table, name)) => (format!("{section}.{table}"), name),
        None => (section.to_owned(), name),
    };
    let own = format!("{name} = {value}\n");
    let others = besides(&section)
        .lines()
        .filter(|line| !line.starts_with(&format!("{name} =")))
        .fold(String::new(), |text, line| text + line + "\n");
    format!("[{section}]\n{others}{own}")
}

fn errors(toml: &str) -> Option<figment::Error> {
    Figment::from(Toml::string(toml)).extract::<Config>().err()
}

/// The keys that the types have in a section, as serde names them.
fn keys_of_types(section: &str) -> BTreeSet<String> {
    // Before any other in the order in which a table is read.
    let toml = format!("[{section}]\n\"!\" = 1\n");
    let error = errors(&toml).unwrap_or_else(|| panic!("{section} takes any key"));
    error
        .into_iter()
        .find_map(|error| match error.kind {
            Kind::UnknownField(_, expected) => {
                Some(expected.iter().map(|key| (*key).to_owned()).collect())
            }
            _ => None,
        })
        .unwrap_or_else(|| panic!("{section} does not refuse what it does not know"))
}

/// The keys that the reference has directly in a section.
fn keys_of_reference(name: &str) -> BTreeSet<String> {
    let all = SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(|key| section.path(key)));
    let own = all.filter_map(|path| Some(path.strip_prefix(name)?.strip_prefix('.')?.to_owned()));
    own.filter(|key| !key.contains('.')).collect()
}

#[test]
fn the_document_is_made_of_the_reference() {
    let document = include_str!("../../../../../docs/config.md");
    assert!(
        document == markdown(),
        "docs/config.md is not what the reference says: write it anew by `{REGENERATE}`"
    );
}

#[test]
fn every_key_of_the_types_is_here_and_no_other() {
    let top: BTreeSet<_> = top_sections().map(str::to_owned).collect();
    let toml = "\"!\" = 1\n";
    let error = errors(toml).expect("no such section");
    let Kind::UnknownField(_, sections) = error.kind else {
        panic!("{error}");
    };
    let sections: BTreeSet<_> = sections.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(top, sections, "sections");

    let own = SECTIONS.iter().map(|section| section.name.to_owned());
    let tables = SECTIONS.iter().flat_map(|section| {
        let tables = section.keys.iter().filter(|key| key.takes == Takes::Table);
        tables.map(|key| section.path(key))
    });
    for section in own.chain(tables) {
        assert_eq!(
            keys_of_reference(&section),
            keys_of_types(&section),
            "[{section}]: a key of the types needs a line in services/tracer/src/config/reference"
        );
    }
}

#[test]
fn what_keys_take_is_what_the_types_take() {
    for section in SECTIONS {
        for key in section.keys {
            let path = section.path(key);
            let default = default_of(section, key);
            let fits = match key.takes {
                Takes::Text | Takes::Word(_) | Takes::Address => {
                    default.is_none_or(Value::is_string)
                }
                Takes::Flag => default.is_none_or(Value::is_boolean),
                Takes::Whole { .. } => default.is_none_or(Value::is_u64),
                Takes::Number { .. } => default.is_none_or(Value::is_f64),
                Takes::List => default.is_none_or(Value::is_array),
                Takes::Map | Takes::Table => default.is_none_or(Value::is_object),
            };
            assert!(fits, "{path}: takes {:?}, default {default:?}", key.takes);
            let told = default.is_some() || key.absent.is_some();
            assert!(told, "{path}: has no default, and nothing says what holds");
            let twice = default.is_some() && key.absent.is_some() && key.takes != Takes::Table;
            assert!(!twice, "{path}: has a default and a word for having none");
            assert!(
                !key.help.is_empty() && !key.help.contains(['\n', '|']),
                "{path}"
            );
        }
    }
}

#[test]
fn words_are_those_of_the_types() {
    for section in SECTIONS {
        for key in section.keys {
            let Takes::Word(words) = key.takes else {
                continue;
            };
            let path = section.path(key);
            let toml = with(section.name, key.name, "\"no such word\"");
            let error = errors(&toml).unwrap_or_else(|| panic!("{path} takes any word"));
            let known = error.into_iter().find_map(|error| match error.kind {
                Kind::UnknownVariant(_, known) => Some(known),
                _ => None,
            });
            let known: BTreeSet<_> = known.unwrap_or_default().iter().copied().collect();
            assert_eq!(known, words.iter().copied().collect(), "{path}");
        }
    }
}

#[test]
fn bounds_are_those_that_are_checked() {
    let refused = |section: &Section, key: &Key, value: &str| {
        let toml = with(section.name, key.name, value);
        let error = Config::read(Figment::from(Toml::string(&toml))).err();
        let error = error.map(|error| error.to_string());
        // Another key may not go with it.
        error.filter(|error| error.contains(key.name))
    };
    for section in SECTIONS {
        for key in section.keys {
            let path = section.path(key);
            let (inside, outside) = match key.takes {
                Takes::Whole { least, most } => {
                    let mut inside = vec![least.to_string()];
                    let mut outside = vec![(least as i64 - 1).to_string()];
                    if most != u64::MAX {
                        inside.push(most.to_string());
                        outside.push((most + 1).to_string());
                    }
                    (inside, outside)
                }
                Takes::Number { least, most, open } => {
                    let most = most.min(1e300);
                    let (below, above) = (least - 0.1, most * 1.1);
                    let mut bounds = vec![format!("{least:?}"), format!("{most:?}")];
                    let mut outside = vec![format!("{below:?}"), "nan".to_owned()];
                    if most < 1e300 {
                        outside.push(format!("{above:?}"));
                    }
                    if open {
                        outside.append(&mut bounds);
                    }
                    (bounds, outside)
                }
                _ => continue,
            };
            // Nothing is at least 0 for a server that is asked, but for other kinds it is.
            let inside = inside
                .into_iter()
                .filter(|value| !(path == "task_defaults.embedder.dimension" && value == "0"));
            for value in inside {
                let error = refused(section, key, &value);
                assert!(error.is_none(), "{path} = {value}: {error:?}");
            }
            for value in outside {
                let error = refused(section, key, &value);
                assert!(error.is_some(), "{path} = {value} is taken");
            }
        }
    }
}

#[test]
fn a_path_finds_its_key() {
    let found = |path: &[&str]| {
        let path: Vec<_> = path.iter().map(|&part| part.to_owned()).collect();
        find(&path).map(|(section, key)| section.path(key))
    };
    for (path, key) in [
        (&["store", "options", "endpoint"][..], "store.options"),
        (&["source", "tls", "ca"], "source.tls.ca"),
        (&["source", "sasl"], "source.sasl"),
        (&["tasks", "eu.mail", "folds"], "task_defaults.folds"),
        (
            &["tasks", "t", "embedder", "url"],
            "task_defaults.embedder.url",
        ),
    ] {
        assert_eq!(found(path).as_deref(), Some(key));
    }
    assert_eq!(found(&["store", "urll"]), None);
    assert_eq!(variable(["source", "tls", "ca"]), "TRACER__SOURCE__TLS__CA");
}
