//! The gateway process: signals first, then configuration, then the life of the app. Only wires.

use std::io::Write as _;

use clap::Parser;
use sluice_gateway::app::App;
use sluice_gateway::config::Config;
use sluice_gateway::error::StartError;
use sluice_gateway::{deps, stages};
use sluice_lifecycle::{Lifecycle, Signals, StopReason, WATCHDOG_MARGIN, Watchdog};
use sluice_service::cli;

/// Gives the memory of a crowd that left back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds client sockets.
#[derive(Parser)]
#[command(name = "sluice-gateway", version)]
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
    if let Some(warning) = config.kill_warning() {
        tracing::warn!("{warning}; raise the platform's timer or lower shutdown.total_ms");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (lifecycle, engine) = Lifecycle::new(stages::plan(&config));
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
    app.serve(deps).await.map(drop)
}

fn refuse(error: &StartError) -> i32 {
    eprintln!("sluice-gateway: {error}");
    error.exit_code()
}
