//! Logs to stderr: JSON for machines, text for a terminal. Stdout is for what a command prints.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text when stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// The level or filter is not understood.
#[derive(Debug, thiserror::Error)]
#[error("log level {level:?}: {reason}")]
pub struct BadLevel {
    level: String,
    reason: String,
}

/// Starts logging for the whole process. `level` is `info`, `debug`, … or a filter such as
/// `info,sluice_logic=debug`; the variable `RUST_LOG` wins over it. Harmless when logging was started before.
///
/// # Errors
/// [`BadLevel`] when neither can be read.
pub fn init(service: &str, format: Format, level: &str) -> Result<(), BadLevel> {
    let level =
        std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty()).unwrap_or(level.into());
    // What the drivers say of their own connections is news to us only when it is a warning; a filter that
    // names them wins.
    let filter = EnvFilter::builder()
        .parse(format!("async_nats=warn,sqlx=warn,{level}"))
        .map_err(|error| BadLevel { level: level.clone(), reason: error.to_string() })?;
    let json = match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that somebody was first, in tests and in the all-in-one process.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    tracing::debug!(service, level, "Logging has started.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_an_error_that_quotes_it() {
        let error = init("test", Format::Text, "sluice=loud").unwrap_err();
        assert!(error.to_string().contains("sluice=loud"), "{error}");
        assert!(init("test", Format::Auto, "info").is_ok());
        assert!(init("test", Format::Json, "warn,sluice_service=debug").is_ok());
    }
}
