//! `sluice serve`: a small team's production in one process. Flags and words only; the process is that of a service, and
//! the library does the work.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use sluice_dev::{Dev, Kind, ServeConfig};
use sluice_lifecycle::{Lifecycle, Signals, error_chain};
use sluice_program::output;
use sluice_service::cli::Args;
use sluice_service::process::{self, StartError};

use crate::paste;

/// Where the first configuration is written when nobody says.
const CONFIG: &str = "sluice.toml";

/// Run gateway, logic and task in one process on one file: production for a small team, on one machine
///
/// Nobody is let in without a token; TLS is that of a proxy before it. Everything that was answered ok is in the folder
/// `dir`, synced, and survives a kill. SIGINT and SIGTERM stop it in order. Settings come from a file, the environment and
/// --set, as those of the services do. Its first line on standard output is JSON: where it listens, its pid, its store.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  sluice serve --init                            # writes sluice.toml with a fresh secret, and says what comes next
  sluice serve --config sluice.toml
  sluice serve --config sluice.toml --check      # is what it says usable?
  sluice serve --init --config /etc/sluice/sluice.toml --set dir=/var/lib/sluice
  sluice serve restart gateway-2 --dir /var/lib/sluice   # roll one gateway: its clients move to the other
  sluice store backup monday.db --dir /var/lib/sluice")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    process: Args,
    /// Write a configuration with a fresh secret and a key of the API to --config, by default sluice.toml; starts nothing
    #[arg(long, conflicts_with_all = ["print_config", "check"])]
    init: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    Restart(Restart),
}

/// Roll one service of the running `sluice serve`; returns when it is ready again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice serve restart gateway-2 --dir /var/lib/sluice
  sluice serve restart gateway-1 --dir data --token-file admin.token")]
struct Restart {
    /// gateway-1, gateway-2, …, logic or task
    #[arg(value_name = "SERVICE")]
    name: String,
    /// Folder of the running `sluice serve`
    #[arg(long, default_value = "data")]
    dir: PathBuf,
    /// File with the token, where it has one in admin.token_file
    #[arg(long, value_name = "FILE", env = "SLUICE_ADMIN__TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Some(Verb::Restart(arguments)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(restart(arguments))
        }
        None if arguments.init => init(&arguments.process),
        None => {
            // First, so that a signal at any later moment is an orderly stop.
            let signals = Signals::install()?;
            let code = process::run(signals, &arguments.process, start)?;
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
    }
}

async fn start(config: ServeConfig, lifecycle: &Lifecycle) -> Result<(), StartError> {
    let serve = match Dev::serve(&config, lifecycle).await {
        Ok(serve) => serve,
        Err(error) if error.exit_code() == 2 => return Err(StartError::Unusable(Box::new(error))),
        Err(error) => return Err(StartError::System(std::io::Error::other(error_chain(&error)))),
    };
    process::announce(&serve.introduction());
    Ok(())
}

fn init(arguments: &Args) -> anyhow::Result<ExitCode> {
    let mut dir = None;
    for (key, value) in &arguments.overrides {
        match key.as_str() {
            "dir" => dir = Some(value.as_str()),
            _ => bail!("--init writes {key} as it usually is: change the file, only dir can be set"),
        }
    }
    let path = arguments.config.as_deref().unwrap_or(Path::new(CONFIG));
    let example = sluice_dev::write_example(path, dir)?;
    let (sluice, config) = (paste::program(), paste::path(&example.config));
    output::text(&format!(
        "{config}
    with a fresh token secret; only you can read it
{keys}
    with the hash of a key of the HTTP API, which is said here and never again:

    {key}

  start it

    {sluice} serve --config {config}

  and make a token for somebody, with the secret of that file

    {sluice} token --user ann --sub '*' --pub '*' --token-secret SECRET
",
        keys = paste::path(&example.keys),
        key = example.api_key,
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn restart(arguments: Restart) -> anyhow::Result<ExitCode> {
    let Restart { name, dir, token_file } = arguments;
    let shown = token_file.map(|file| {
        let token =
            std::fs::read_to_string(&file).with_context(|| format!("--token-file {}", file.display()))?;
        anyhow::Ok(format!("Bearer {}", token.trim()))
    });
    let shown = shown.transpose()?;
    let header = shown.as_deref().map_or(sluice_dev::HEADER, |shown| ("Authorization", shown));
    crate::restart::restart(Kind::Serve, &dir, &name, header).await?;
    Ok(ExitCode::SUCCESS)
}
