//! `sluice check`: lets each service look at its own configuration, with the code that would run.

use std::path::PathBuf;
use std::process::ExitCode;

use sluice_launcher::{Service, service_binary};
use sluice_program::output as say;
use tokio::process::Command;

/// Check the configuration of the services for mistakes and contradictions; nothing is started
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice check                                     (what the environment says, for all three)
  sluice check --logic /etc/sluice/logic.toml --gateway /etc/sluice/gateway.toml
  SLUICE_SHUTDOWN__KILL_AFTER_MS=10000 sluice check   (is each stop over before the platform kills?)")]
pub(crate) struct Arguments {
    /// Configuration file of the gateways
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Configuration file of the logics
    #[arg(long, value_name = "FILE")]
    logic: Option<PathBuf>,
    /// Configuration file of the tasks
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Where the service binaries are, unless beside this one
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let files = [
        (Service::Gateway, arguments.gateway),
        (Service::Logic, arguments.logic),
        (Service::Task, arguments.task),
    ];
    // with files given, only those; else what the environment says, for all
    let all = files.iter().all(|(_, file)| file.is_none());
    let mut fine = true;
    for (service, file) in files.into_iter().filter(|(_, file)| all || file.is_some()) {
        let mut command = Command::new(service_binary(service, arguments.bin_dir.as_deref())?);
        command.arg("--check");
        if let Some(file) = file {
            command.arg("--config").arg(file);
        }
        let output = command.output().await?;
        fine &= output.status.success();
        say::line(format_args!(
            "{service}: {}",
            if output.status.success() { "fine" } else { "not usable" }
        ))?;
        for line in [output.stdout, output.stderr]
            .concat()
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            say::line(format_args!("  {}", String::from_utf8_lossy(line)))?;
        }
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(2) })
}
