//! `sluice store`: what an operator does to the store by hand.

use std::process::ExitCode;

/// Work on the store
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Begin a new epoch: run this after restoring an older copy, before or while services use it
    ///
    /// Positions that clients remember belong to the history that was lost; with a new epoch each of them is told
    /// `recovered:false` instead of missing messages in silence. Ends all other sessions of the database.
    #[command(after_help = "Example:
  sluice store new-epoch --postgres postgres://sluice@db/sluice")]
    NewEpoch {
        /// URL of the database, as logic has it
        #[arg(long, env = "SLUICE_POSTGRES__URL", hide_env_values = true, value_name = "URL")]
        postgres: String,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Verb::NewEpoch { postgres } = arguments.verb;
    let epoch = sluice_store::postgres::new_epoch(&postgres).await?;
    println!("new epoch {epoch}");
    Ok(ExitCode::SUCCESS)
}
