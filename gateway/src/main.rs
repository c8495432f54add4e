//! The gateway process: signals first, then configuration, then the life of the app. Only wires.

use clap::Parser;
use sluice_gateway::app::App;
use sluice_gateway::config::Config;
use sluice_gateway::deps;
use sluice_lifecycle::{Lifecycle, Signals};
use sluice_service::cli::Args;
use sluice_service::process::{self, StartError};

/// Gives the memory of a crowd that left back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds client sockets.
#[derive(Parser)]
#[command(name = "sluice-gateway", version)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn main() -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let code = process::run(signals, &Command::parse().args, start)?;
    #[expect(clippy::disallowed_methods, reason = "the last line of main")]
    std::process::exit(code)
}

async fn start(config: Config, lifecycle: &Lifecycle) -> Result<(), StartError> {
    let app = App::build(config.clone(), lifecycle.clone()).await?;
    let deps = deps::connect(&config, lifecycle, app.registration()).await?;
    process::announce(&app.announcement(&deps.cluster.me().borrow()));
    app.serve(deps).await.map(drop)
}
