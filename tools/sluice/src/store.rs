//! `sluice store`: what an operator does to the store by hand.

#[cfg(feature = "dev")]
mod files;

#[cfg(feature = "dev")]
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sluice_program::output;
#[cfg(feature = "store")]
use sluice_store::postgres::PgAccess;

/// Where the URL of the database is when no flag says it: as logic has it.
#[cfg(feature = "store")]
const URL: &str = "SLUICE_POSTGRES__URL";
/// The same of the file with its password.
#[cfg(feature = "store")]
const PASSWORD_FILE: &str = "SLUICE_POSTGRES__PASSWORD_FILE";

/// Work on the store
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    #[cfg(feature = "dev")]
    Backup(files::Backup),
    #[cfg(feature = "dev")]
    Restore(files::Restore),
    #[cfg(all(feature = "dev", feature = "store"))]
    Copy(files::Copy),
    /// Begin a new epoch: run this after restoring an older copy
    ///
    /// Positions that clients remember belong to the history that was lost; with a new epoch each of them is told
    /// `recovered:false` instead of missing messages in silence. PostgreSQL may be in use: all other sessions of the
    /// database are ended. The folder of a `sluice serve` or `sluice dev` may not.
    #[command(after_help = "Examples:
  sluice store new-epoch --postgres postgres://sluice@db/sluice
  sluice store new-epoch --postgres postgres://sluice@db-1,db-2/sluice --password-file /run/secrets/db
  sluice store new-epoch --dir ./data   # after the process there has stopped")]
    NewEpoch(Which),
}

/// One store.
#[derive(clap::Args)]
struct Which {
    /// URL of the database, as logic has it [env: SLUICE_POSTGRES__URL]
    #[cfg(feature = "store")]
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// File with the password of the URL's user [env: SLUICE_POSTGRES__PASSWORD_FILE]
    #[cfg(feature = "store")]
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Folder of a `sluice serve` or `sluice dev`
    #[cfg(feature = "dev")]
    #[cfg_attr(feature = "store", arg(conflicts_with = "postgres"))]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        #[cfg(feature = "dev")]
        Verb::Backup(arguments) => files::backup(arguments).await,
        #[cfg(feature = "dev")]
        Verb::Restore(arguments) => files::restore(arguments).await,
        #[cfg(all(feature = "dev", feature = "store"))]
        Verb::Copy(arguments) => files::copy_store(arguments).await,
        Verb::NewEpoch(which) => {
            let epoch = which.new_epoch().await?;
            output::line(format_args!("new epoch {epoch}"))
                .with_context(|| format!("epoch {epoch} has begun, but"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Which {
    async fn new_epoch(self) -> anyhow::Result<String> {
        #[cfg(feature = "dev")]
        if let Some(dir) = self.dir {
            return Ok(sluice_dev::new_epoch(&dir).await?.to_string());
        }
        #[cfg(feature = "store")]
        if let Some(url) = self.postgres.or_else(|| std::env::var(URL).ok()) {
            let access = access(url, self.password_file);
            return Ok(sluice_store::postgres::new_epoch_with(&access).await?.to_string());
        }
        bail!("which store? Name it with --postgres URL, or --dir FOLDER of a `sluice serve` or `sluice dev`")
    }
}

/// Who comes to this database.
#[cfg(feature = "store")]
fn access(url: String, password_file: Option<String>) -> PgAccess {
    let password_file = password_file.or_else(|| std::env::var(PASSWORD_FILE).ok());
    PgAccess { url: url.into(), password_file: password_file.unwrap_or_default() }
}
