//! The task process: signals first, then configuration, then the life of the app. Only wires.

use std::sync::LazyLock;

use clap::Parser;
use sluice_lifecycle::{Lifecycle, Signals};
use sluice_program::{arguments, build, features};
use sluice_service::cli::Args;
use sluice_service::process::{self, StartError};
use sluice_task::app::App;
use sluice_task::config::Config;
use sluice_task::deps;

/// Moves committed messages to the gateways and drives owed work.
#[derive(Parser)]
#[command(name = "sluice-task", version = BUILD.as_str(), after_help = HELP.as_str())]
struct Command {
    #[command(flatten)]
    args: Args,
}

static BUILD: LazyLock<String> =
    LazyLock::new(|| build::describe(features!("servers", "seeded-bugs", "otel")));

static HELP: LazyLock<String> = LazyLock::new(|| format!("{EXAMPLES}\n\nsluice-task {}", BUILD.as_str()));

const EXAMPLES: &str = "Examples:
  sluice-task --config /etc/sluice/task.toml
  sluice-task --set nats.url=nats://nats:4222 --set redis.url=redis://redis:6379
  SLUICE_REDIS__URL=redis://redis:6379 sluice-task --check       # is that usable?
  sluice-task --print-config                              # all keys, with what is in force";

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
    app.serve(deps);
    Ok(())
}
