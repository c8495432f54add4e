//! The life of a service's process, the same for all: configuration, log, lifecycle, exit code. Knows nothing
//! of what the service does, and does not end the process: that is the last line of `main`.

use std::io;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_lifecycle::{
    Lifecycle, Plan, PlanError, Signals, StopReason, WATCHDOG_MARGIN, arm_watchdog, error_chain,
};
use sluice_program::output::{self, Unwritten};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::cli::Args;
use crate::config::sections::{Log, Shutdown};
use crate::config::{ConfigError, changed, comparable, masked_toml};
use crate::lines::{self, Lines};
use crate::seeded::{self, Bug};
use crate::systemd;
use crate::telemetry::{self, BadLevel};
use crate::tls::BadCredentials;

/// The configuration of a service, as far as its process has to know it.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// `gateway`, `logic` or `task`.
    const SERVICE: &'static str;

    /// What people start: the words before what it has to say to them.
    #[must_use]
    fn program() -> String {
        format!("sluice-{}", Self::SERVICE)
    }

    /// Threads of the runtime; `None`: one per core.
    const WORKERS: Option<usize> = None;

    /// The settings of the log.
    fn log(&self) -> &Log;

    /// How long the stop may take.
    fn shutdown(&self) -> &Shutdown;

    /// The stages of the stop with their times.
    fn plan(&self) -> Plan;

    /// Reads what stands in files of its own, as secrets do.
    ///
    /// # Errors
    /// One sentence per mistake, each with its fix.
    fn read_files(&mut self) -> Result<(), Vec<String>> {
        Ok(())
    }

    /// What is allowed, and hardly meant: a sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Finds what contradicts itself or a promise.
    ///
    /// # Errors
    /// One sentence per mistake, each with its fix.
    fn check(&self) -> Result<(), Vec<String>>;

    /// Connects once to each server that is configured.
    fn probes(&self) -> Vec<Probe> {
        Vec::new()
    }
}

/// One attempt to connect, for `--check --connect`.
pub struct Probe {
    /// What is tried.
    pub key: &'static str,
    /// What the server says of itself, or why it cannot be used.
    pub answer: BoxFuture<'static, Result<String, String>>,
}

impl Probe {
    /// To be made of the server under this key.
    pub fn new<E: std::fmt::Display>(
        key: &'static str,
        answer: impl Future<Output = Result<String, E>> + Send + 'static,
    ) -> Self {
        let answer = async move { answer.await.map_err(|error| error.to_string()) };
        Self { key, answer: Box::pin(answer) }
    }
}

/// Longest wait for one answer of `--check --connect`: a name that resolves slowly, a TLS handshake.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// Why a service does not start. The texts are for people and name the fix.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A source of the configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration contradicts itself: one sentence each.
    #[error("{}", .0.join("\n"))]
    Contradictions(Vec<String>),
    /// The log level cannot be read.
    #[error(transparent)]
    Log(#[from] BadLevel),
    /// The files of `[tls]` cannot be used.
    #[error(transparent)]
    Tls(#[from] BadCredentials),
    /// An address of a server is none: the key, and why.
    #[error("{0}: {1}")]
    Url(&'static str, String),
    /// A server is there but cannot be used as it is configured.
    #[error(transparent)]
    Unusable(Box<dyn std::error::Error + Send + Sync>),
    /// What was asked for could not be said.
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    /// The system refuses a socket or a thread.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl StartError {
    /// For `map_err`: the address under `key` is none.
    pub fn url<E: std::fmt::Display>(key: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Url(key, error.to_string())
    }

    /// 2 when somebody has to change the configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_)
            | Self::Contradictions(_)
            | Self::Log(_)
            | Self::Tls(_)
            | Self::Url(..)
            | Self::Unusable(_) => 2,
            Self::Unwritten(_) | Self::System(_) => 1,
        }
    }
}

/// Reads the configuration, answers what was only a question (`--print-config`, `--check`), else lives:
/// `start` starts the service and returns, the process goes on until the stop is over. Gives the exit code;
/// what was wrong is on stderr by then.
///
/// # Errors
/// The system refuses a thread of the process itself.
pub fn run<C: Settings>(
    signals: Signals,
    args: &Args,
    start: impl AsyncFnOnce(C, &Lifecycle) -> Result<(), StartError>,
) -> io::Result<i32> {
    telemetry::log_panics();
    let code = match prepare::<C>(args) {
        Ok(Some(config)) => live(config, signals, start),
        Ok(None) => Ok(0),
        Err(error) => Ok(refuse::<C>(&error)),
    };
    lines::flush();
    code
}

/// Says on stdout where the service listens: one line, for whoever started it and may not listen.
pub fn announce(line: &Value) {
    Lines::stdout().say(&line.to_string());
}

/// Loads and checks the configuration and starts the log; `None` when only a question was asked and answered.
fn prepare<C: Settings>(args: &Args) -> Result<Option<C>, StartError> {
    let mut config: C = args.load(C::SERVICE)?;
    if args.print_config {
        output::text(&masked_toml(&config))?;
        return Ok(None);
    }
    config.read_files().map_err(StartError::Contradictions)?;
    if let Some(salt) = &args.print_comparable {
        output::line(serde_json::json!(comparable(&config, salt)))?;
        return Ok(None);
    }
    config.check().map_err(StartError::Contradictions)?;
    telemetry::init(C::SERVICE, config.log().format, &config.log().level)?;
    seeded::plant().map_err(|unknown| StartError::Contradictions(vec![unknown]))?;
    // After the checks: `--check` must say all that a start would.
    if !args.check {
        return Ok(Some(config));
    }
    for warning in config.warnings() {
        Lines::stderr().say(&format!("{}: warning: {warning}", C::program()));
    }
    if let Err(error) = kill_timer(&config) {
        Lines::stderr().say(&format!("{}: warning: {error}; {KILL_TIMER_FIX}", C::program()));
    }
    if args.connect {
        probe(&config)?;
    }
    Ok(None)
}

/// Connects once to each server that is configured; says what each answers.
fn probe<C: Settings>(config: &C) -> Result<(), StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(async {
        let probe = |probe: Probe| async move {
            let answer = timeout(PROBE_WITHIN, probe.answer).await;
            (probe.key, answer.unwrap_or_else(|_| Err(format!("no answer within {PROBE_WITHIN:?}"))))
        };
        join_all(config.probes().into_iter().map(probe)).await
    });
    // Dropping it would wait without limit for a name that is being looked up.
    runtime.shutdown_background();
    let mut wrong = Vec::new();
    for (key, answer) in answers {
        match answer {
            Ok(said) => output::line(format_args!("{key}: {said}"))?,
            Err(why) => wrong.push(format!("{key}: {why}")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(StartError::Contradictions(wrong)) }
}

fn live<C: Settings>(
    config: C,
    signals: Signals,
    start: impl AsyncFnOnce(C, &Lifecycle) -> Result<(), StartError>,
) -> io::Result<i32> {
    let mut runtime = Builder::new_multi_thread();
    if let Some(workers) = C::WORKERS {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().build()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = changed(&config),
        "Starting"
    );
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Err(error) = kill_timer(&config) {
        tracing::warn!(%error, "The stop will be cut: {KILL_TIMER_FIX}.");
    }
    let (lifecycle, engine) = Lifecycle::new(config.plan());
    // Before the start: a stop during start-up ends what was started.
    signals.drive(&lifecycle);
    arm_watchdog(&lifecycle, WATCHDOG_MARGIN, lines::flush)?;
    let started = async {
        let started = start(config, &lifecycle).await;
        if let Err(error) = &started {
            lifecycle.stop(StopReason::NotStarted(error_chain(error), error.exit_code()));
        }
        if seeded::is(Bug::WedgedStop) {
            lifecycle.stopping().cancelled().await;
            std::thread::park_timeout(2 * lifecycle.total());
        }
        started
    };
    let (report, started) = runtime.block_on(async {
        systemd::follow(&lifecycle);
        tokio::join!(engine.run(), started)
    });
    // Dropping it would wait without limit for a name that is being looked up.
    // Whatever still blocks ends with the process, which is next.
    runtime.shutdown_background();
    Ok(match started {
        // The log has said it, unless it is off.
        Err(error) if !tracing::enabled!(tracing::Level::ERROR) => refuse::<C>(&error),
        Err(error) => error.exit_code(),
        Ok(()) => report.exit_code(),
    })
}

const KILL_TIMER_FIX: &str = "raise the kill timer and shutdown.kill_after_ms, or lower shutdown.total_ms";

/// Whether the stop is over before the platform kills, as far as that is known.
fn kill_timer<C: Settings>(config: &C) -> Result<(), PlanError> {
    config.shutdown().kill_after().map_or(Ok(()), |after| config.plan().check_kill_timer(after))
}

fn refuse<C: Settings>(error: &StartError) -> i32 {
    Lines::stderr().say(&format!("{}: {}", C::program(), error_chain(error)));
    error.exit_code()
}
