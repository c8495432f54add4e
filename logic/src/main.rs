//! The logic process: signals first, then configuration, then the life of the app. Only wires.

use clap::Parser;
use sluice_lifecycle::{Lifecycle, Signals, StopReason, WATCHDOG_MARGIN, Watchdog};
use sluice_logic::config::Config;
use sluice_logic::error::StartError;
use sluice_logic::{deps, stages};
use sluice_service::cli;

/// Decides and commits: the one writer of rooms and messages.
#[derive(Parser)]
#[command(name = "sluice-logic", version)]
struct Command {
    #[command(flatten)]
    args: cli::Args,
}

fn main() -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let args = Command::parse().args;
    let code = match Config::prepare(&args) {
        Ok(Some(config)) => live(config, signals)?,
        Ok(None) => 0,
        Err(error) => refuse(&error),
    };
    #[expect(clippy::disallowed_methods, reason = "the last line of main")]
    std::process::exit(code)
}

fn live(config: Config, signals: Signals) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan = stages::plan(config.total());
    stages::compare_with_kill_timer(&plan, std::env::var(stages::KILL_TIMER).ok().as_deref());
    let (lifecycle, engine) = Lifecycle::new(plan);
    signals.drive(&lifecycle);
    let _watchdog = Watchdog::arm(&lifecycle, WATCHDOG_MARGIN)?;
    let started = async {
        let started = deps::start(config, &lifecycle).await;
        if let Err(error) = &started {
            lifecycle.stop(StopReason::Manual(error.to_string()));
        }
        started
    };
    let (report, started) = runtime.block_on(async { tokio::join!(engine.run(), started) });
    // Dropping it would wait without limit for a name that is being looked up.
    runtime.shutdown_background();
    Ok(started.err().map_or(report.exit_code(), |error| refuse(&error)))
}

fn refuse(error: &StartError) -> i32 {
    eprintln!("sluice-logic: {error}");
    error.exit_code()
}
