//! `sluice dev restart`: asks the process that runs in a folder to roll one of its services.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_dev::{Kind, State};
use sluice_launcher::probe;
use sluice_program::output;

/// The process answers when the service is ready again, after 15 s at most.
const WITHIN: Duration = Duration::from_secs(20);

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
    let Arguments { name, dir } = arguments;
    let nobody = || format!("no `sluice dev` runs in {}: name its folder with --dir", dir.display());
    let state = State::read(Kind::Dev, &dir).with_context(nobody)?;
    let Some(admin) = state.admin else { bail!(nobody()) };
    // What is no name of a service is none of an address either.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("{name:?} is no service; name gateway-1, logic or task, for example");
    }
    let url = format!("{admin}/dev/restart/{name}");
    let answer = probe::post_header(&url, sluice_dev::HEADER, WITHIN).await.with_context(nobody)?;
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        bail!("{}", said["error"].as_str().unwrap_or("it did not say why"));
    }
    output::line(format_args!("{name} is ready again after {} ms", said["elapsed_ms"]))?;
    Ok(ExitCode::SUCCESS)
}
