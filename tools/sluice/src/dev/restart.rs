//! `sluice dev restart`: asks the process that runs in a folder to roll one of its services.

use std::path::PathBuf;
use std::process::ExitCode;

use sluice_dev::Kind;

use crate::restart::restart;

/// Roll one service of the running `sluice dev`; returns when it is ready again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice dev restart gateway-2
  sluice dev restart logic --dir ./data")]
pub(super) struct Arguments {
    /// gateway-1, gateway-2, …, logic or task
    #[arg(value_name = "SERVICE")]
    name: String,
    /// Folder of the running `sluice dev`
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    restart(Kind::Dev, &arguments.dir, &arguments.name, sluice_dev::HEADER).await?;
    Ok(ExitCode::SUCCESS)
}
