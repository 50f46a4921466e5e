//! The log: to standard error, so that standard output carries results only.

use std::{
    fmt,
    io::{IsTerminal, stderr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt::SubscriberBuilder};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: one line an event, coloured on a terminal.
    #[default]
    Pretty,
    /// For machines: one JSON object an event.
    Json,
}

/// A log format that is neither `pretty` nor `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {0:?}: it is \"pretty\" or \"json\"")]
pub struct UnknownLogFormat(String);

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("invalid log filter {filter:?}: {source}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

/// Starts the log of the process. `filter` is a level, or a list of
/// `target=level`, such as `info,tracer_source=debug`.
///
/// A process has one log: a second call keeps the first one's.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = parse(filter)?;
    let builder = SubscriberBuilder::default()
        .with_writer(stderr)
        .with_env_filter(filter);
    // An error means that the log has been started already.
    let _ = match format {
        LogFormat::Pretty => builder.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Whether a filter is one.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse(filter).map(|_| ())
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LoggingError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        for format in [LogFormat::Pretty, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = parse("info,tracer=loudly").unwrap_err().to_string();
        assert!(error.contains("tracer=loudly"), "{error}");
        assert!(parse("info,tracer_source=debug").is_ok());
    }

    #[test]
    fn starting_twice_is_harmless() {
        assert!(init_logging(LogFormat::Pretty, "off").is_ok());
        assert!(init_logging(LogFormat::Json, "off").is_ok());
    }
}
