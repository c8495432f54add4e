//! The gateway process: signals first, then configuration, then the life of the app. Only wires.

use std::sync::LazyLock;

use clap::Parser;
use sluice_gateway::app::App;
use sluice_gateway::config::Config;
use sluice_gateway::{deps, files};
use sluice_lifecycle::{Lifecycle, Signals};
use sluice_program::{arguments, build, features};
use sluice_service::cli::Args;
use sluice_service::process::{self, StartError};

/// Gives the memory of a crowd that left back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds client sockets.
#[derive(Parser)]
#[command(name = "sluice-gateway", version = BUILD.as_str(), after_help = HELP.as_str())]
struct Command {
    #[command(flatten)]
    args: Args,
}

static BUILD: LazyLock<String> =
    LazyLock::new(|| build::describe(features!("servers", "seeded-bugs", "otel")));

static HELP: LazyLock<String> = LazyLock::new(|| format!("{EXAMPLES}\n\nsluice-gateway {}", BUILD.as_str()));

const EXAMPLES: &str = "Examples:
  sluice-gateway --config /etc/sluice/gateway.toml
  sluice-gateway --set listen=0.0.0.0:8080 --set advertise=wss://chat.example/ws --set etcd.endpoints=http://etcd:2379
  SLUICE_LISTEN=0.0.0.0:8080 sluice-gateway --check       # is what the environment says usable?
  sluice-gateway --print-config                           # all keys, with what is in force";

fn main() -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let code = match arguments::parse::<Command>() {
        Ok(command) => process::run(signals, &command.args, start)?,
        Err(code) => code.into(),
    };
    #[expect(clippy::disallowed_methods, reason = "the last line of main")]
    std::process::exit(code)
}

async fn start(config: Config, lifecycle: &Lifecycle) -> Result<(), StartError> {
    // Before the first socket: a limit that is raised later does not help who was refused.
    files::raise(1, config.connections_max);
    let app = App::build(config.clone(), lifecycle.clone()).await?;
    let deps = deps::connect(&config, lifecycle, app.registration()).await?;
    process::announce(&app.announcement(&deps.cluster.me().borrow()));
    app.serve(deps).await.map(drop)
}
