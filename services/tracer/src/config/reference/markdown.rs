//! The reference as a document.

use serde_json::Value;

use super::{Key, SECTIONS, Section, Takes, default_of};
use crate::environment::VARIABLES;

const HEAD: &str = "\
# Configuration

Tracer reads its configuration in layers, the later ones winning:

1. the defaults below,
2. `./tracer.toml`, or the file named by `--config FILE` or `TRACER_CONFIG`,
3. the environment: `TRACER__SECTION__KEY`, in upper case with two underscores between the parts (`TRACER__SOURCE__KIND=kafka`, `TRACER__TASKS__SUPPORT__AUDIT_RATE=0.1`; names of tasks are lower case there). A list is `[\"a\", \"b\"]`, a table `{a=\"b\"}`,
4. flags, where a command has one for it.

A key that does not exist, a value of the wrong type and a value that cannot work are errors: the command ends with exit code 64 and names the key and where it came from. [`tracer.example.toml`](../tracer.example.toml) holds every key at its default.

    tracer config check --role trainer   # all errors at once, and what has no effect
    tracer config show                   # every value, and where it comes from
    tracer doctor                        # whether what it names can be reached and used

`tracer config reference` prints this document.
";

/// The whole document.
pub(crate) fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        let level = if section.name.contains('.') {
            "###"
        } else {
            "##"
        };
        text += &format!("\n{level} {}\n", section.heading);
        if !section.before.is_empty() {
            text += &format!("\n{}\n", section.before);
        }
        text +=
            "\n| key | takes | default | variable | meaning |\n| --- | --- | --- | --- | --- |\n";
        for key in section.keys {
            text += &row(section, key);
        }
        if !section.after.is_empty() {
            text += &format!("\n{}\n", section.after);
        }
    }
    text += "\n## Other environment variables\n\n| variable | meaning |\n| --- | --- |\n";
    for (name, meaning) in VARIABLES {
        text += &format!("| `{name}` | {meaning} |\n");
    }
    text
}

fn row(section: &Section, key: &Key) -> String {
    let kinds = match key.kinds {
        [] => String::new(),
        kinds => format!("{}: ", kinds.join(", ")),
    };
    format!(
        "| `{}` | {} | {} | `{}` | {kinds}{} |\n",
        key.name,
        key.expected(),
        default(section, key),
        section.variable(key),
        key.help,
    )
}

fn default(section: &Section, key: &Key) -> String {
    match default_of(section, key) {
        // Its keys have defaults of their own.
        Some(_) if key.takes == Takes::Table => key.absent.unwrap_or_default().to_owned(),
        Some(value) => format!("`{}`", toml(value)),
        None => key.absent.unwrap_or_default().to_owned(),
    }
}

/// A value as `tracer.toml` has it.
pub(crate) fn toml(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(toml).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(values) if values.is_empty() => "{}".to_owned(),
        Value::Object(values) => {
            let values: Vec<_> = values
                .iter()
                .map(|(key, value)| format!("{key:?} = {}", toml(value)))
                .collect();
            format!("{{ {} }}", values.join(", "))
        }
        other => other.to_string(),
    }
}
