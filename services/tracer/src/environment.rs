//! Every environment variable that Tracer reads.
//!
//! Besides these, stores on `s3://` read the `AWS_*` variables of the AWS tools.

/// Prefix of the variables that override a key of the configuration, with two
/// underscores between the parts: `TRACER__INFERENCE__MAX_BATCH=64` sets
/// `inference.max_batch`, `TRACER__SOURCE__KIND=kafka` sets `source.kind`.
pub(crate) const OVERRIDE_PREFIX: &str = "TRACER__";

/// The configuration file, as `--config` names it.
pub(crate) const CONFIG: &str = "TRACER_CONFIG";

/// The server that `tracer route` asks, as `--addr` names it.
pub(crate) const ADDR: &str = "TRACER_ADDR";

/// The secret that keys the hashes of inputs, before `aggregator.input_secret_file`.
pub(crate) const INPUT_SECRET: &str = "TRACER_INPUT_SECRET";

/// All of them but the overrides, with their meaning, in Markdown.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    (CONFIG, "the configuration file, as `--config`"),
    (ADDR, "the server that `tracer route` asks, as `--addr`"),
    (
        INPUT_SECRET,
        "keys the hashes of inputs that are not stored",
    ),
    ("AWS_*", "credentials and settings of stores on `s3://`"),
];

/// All of them with their meaning, for the help.
pub(crate) const HELP: &str = "\
Environment:
  TRACER__SECTION__KEY  Overrides section.key of the configuration file
  TRACER_CONFIG         The configuration file, as --config
  TRACER_ADDR           The server that `tracer route` asks, as --addr
  TRACER_INPUT_SECRET   Keys the hashes of inputs that are not stored
  AWS_*                 Credentials and settings of stores on s3://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_variable() {
        assert!(HELP.contains(OVERRIDE_PREFIX));
        for (name, _) in VARIABLES {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
