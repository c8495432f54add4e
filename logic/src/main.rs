//! The logic process: signals first, then configuration, then the life of the app. Only wires.

use std::sync::LazyLock;

use clap::Parser;
use sluice_lifecycle::{Lifecycle, Signals};
use sluice_logic::app::App;
use sluice_logic::config::Config;
use sluice_logic::deps;
use sluice_program::{arguments, build, features};
use sluice_service::cli::Args;
use sluice_service::process::{self, StartError};

/// Decides and commits: the one writer of rooms and messages.
#[derive(Parser)]
#[command(name = "sluice-logic", version = BUILD.as_str(), after_help = HELP.as_str())]
struct Command {
    #[command(flatten)]
    args: Args,
}

static BUILD: LazyLock<String> =
    LazyLock::new(|| build::describe(features!("servers", "seeded-bugs", "otel")));

static HELP: LazyLock<String> = LazyLock::new(|| format!("{EXAMPLES}\n\nsluice-logic {}", BUILD.as_str()));

const EXAMPLES: &str = "Examples:
  SLUICE_TOKEN_SECRET=$(openssl rand -hex 32) sluice-logic --config /etc/sluice/logic.toml
  sluice-logic --set postgres.url=postgres://sluice@db:5432/sluice --set nats.url=nats://nats:4222
  SLUICE_POSTGRES__URL=postgres://sluice@db:5432/sluice sluice-logic --check       # is that usable?
  sluice-logic --print-config                             # all keys, with what is in force";

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
    let app = App::build(config.clone(), lifecycle.clone()).await?;
    let deps = deps::connect(&config, lifecycle, app.registration()).await?;
    process::announce(&app.announcement(&deps.cluster.me().borrow()));
    app.serve(deps).await.map(drop)
}
