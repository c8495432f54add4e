//! Logs to stderr: JSON for machines, text for a terminal. Stdout is for what a command prints.
//!
//! A log line never waits for its reader and never ends the process: see [`crate::lines`].

mod json;
mod level;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

pub use level::BadLevel;

use crate::lines::Lines;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text when stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Text,
}

/// Starts logging for the whole process. `level` is `info`, `debug`, … or a filter such as
/// `info,sluice_logic=debug`; the variable `RUST_LOG` wins over it. Harmless when logging was started before.
///
/// # Errors
/// [`BadLevel`] when neither can be read.
pub fn init(service: &'static str, format: Format, level: &str) -> Result<(), BadLevel> {
    let json = match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    if !json {
        return init_text(level);
    }
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(Lines::stderr().clone());
    // An error means that somebody was first, in tests and in the all-in-one process.
    let _ = builder.fmt_fields(JsonFields::new()).event_format(json::Json { service }).try_init();
    Ok(())
}

/// Like [`init`], for people whatever stderr is.
///
/// # Errors
/// [`BadLevel`] when neither can be read.
pub fn init_text(level: &str) -> Result<(), BadLevel> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(Lines::stderr().clone());
    // See above.
    let _ = builder.with_ansi(std::io::stderr().is_terminal()).try_init();
    Ok(())
}

/// What passes: `RUST_LOG` if it says something, else `level`.
fn filter(level: &str) -> Result<EnvFilter, BadLevel> {
    let variable = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.trim().is_empty());
    // Also when the variable wins: it will be taken away one day.
    let configured = level::filter("log.level", level)?;
    variable.map_or(Ok(configured), |variable| level::filter(EnvFilter::DEFAULT_ENV, &variable))
}

/// From here on panics are lines of the log like any other: `std` would write them to a reader that may be stuck,
/// with the panicking thread holding the lock.
pub fn log_panics() {
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current().name().map(ToOwned::to_owned);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(panic = message, location, thread, backtrace, "A thread panicked.");
}

/// The instance that this process is now, for JSON lines.
static INSTANCE: RwLock<String> = RwLock::new(String::new());

/// Has JSON lines carry the instance id, which is another one after a lost lease.
pub fn carry_instance(mut me: watch::Receiver<InstanceId>, scope: &Scope) {
    let carry = |id: &InstanceId| {
        id.as_str().clone_into(&mut INSTANCE.write().unwrap_or_else(PoisonError::into_inner))
    };
    carry(&me.borrow_and_update());
    let stop = scope.token();
    scope.spawn("log-instance", async move {
        while let Some(Ok(())) = stop.run_until_cancelled(me.changed()).await {
            carry(&me.borrow_and_update());
        }
        // Whoever made the ids has ended: there will be no other, and this task has to live until its stage.
        stop.cancelled().await;
    });
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
