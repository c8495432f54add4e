//! The task process: signals first, then configuration, then the life of the app. Only wires.

use std::io::Write as _;

use clap::Parser;
use sluice_lifecycle::{Lifecycle, Signals, StopReason, WATCHDOG_MARGIN, Watchdog};
use sluice_service::cli;
use sluice_task::app::App;
use sluice_task::config::Config;
use sluice_task::error::StartError;
use sluice_task::{deps, stages};

/// Moves committed messages to the gateways and drives owed work.
#[derive(Parser)]
#[command(name = "sluice-task", version)]
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
    let (lifecycle, engine) = Lifecycle::new(stages::plan(config.total()));
    signals.drive(&lifecycle);
    let _watchdog = Watchdog::arm(&lifecycle, WATCHDOG_MARGIN)?;
    let started = async {
        let started = start(config, &lifecycle).await;
        if let Err(error) = &started {
            lifecycle.stop(StopReason::Manual(error.to_string()));
        }
        started
    };
    let (report, started) = runtime.block_on(async { tokio::join!(engine.run(), started) });
    Ok(started.err().map_or(report.exit_code(), |error| refuse(&error)))
}

async fn start(config: Config, lifecycle: &Lifecycle) -> Result<(), StartError> {
    let app = App::build(config.clone(), lifecycle.clone()).await?;
    let deps = deps::connect(&config, lifecycle, app.registration()).await?;
    let line = app.announcement(&deps.cluster.me().borrow());
    // Whoever started us may not listen.
    let _ = writeln!(std::io::stdout(), "{line}");
    app.serve(deps);
    Ok(())
}

fn refuse(error: &StartError) -> i32 {
    eprintln!("sluice-task: {error}");
    error.exit_code()
}
