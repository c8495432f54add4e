//! `sluice store backup`, `restore`, `copy`: of a store in one file. Flags, progress and words only.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sluice_program::output;
#[cfg(feature = "store")]
use sluice_store::copy;

/// Between two words about how far it is, for whoever waits.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Copy the messages of a folder to a file, while `sluice serve` runs there or not
///
/// All that was answered ok before it began is in it; commits do not wait for it. The file is there when it is whole, read
/// again and synced, and never before. Put in use, it begins a new epoch: no client goes on at a position of what was lost.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice store backup monday.db --dir /var/lib/sluice
  sluice store backup \"/mnt/backup/sluice-$(date -u +%FT%H%M).db\" --dir /var/lib/sluice --quiet   # from a timer")]
pub(super) struct Backup {
    /// The file to make; one that is there is left as it is
    file: PathBuf,
    /// Folder of the messages
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Say nothing while it goes well
    #[arg(long, short)]
    quiet: bool,
}

/// Put a backup into a folder, and begin a new epoch
///
/// Nothing may run there, and no messages may be there: move them away first. What was published since the backup is lost;
/// clients that have seen it are told `recovered:false`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice store restore monday.db --dir /var/lib/sluice   # stopped, and with sluice.db* moved away")]
pub(super) struct Restore {
    /// What `sluice store backup` has made
    file: PathBuf,
    /// Folder for the messages; made when missing
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Copy a store in one file into an empty PostgreSQL, for the day one machine is not enough
///
/// Rooms, messages with their keys, delayed messages, what is owed, revocations and the epoch: clients that come to the
/// cluster afterwards resume where they were, and a key that was used is a duplicate. All or nothing: one transaction,
/// whose counts are compared with the file before it commits. Stop `sluice serve` first; the file stays as it is.
#[cfg(feature = "store")]
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice store copy --from /var/lib/sluice --to postgres://sluice@db/sluice   # after sluice serve has stopped there
  sluice store copy --from ./data --to postgres://sluice@db/sluice --password-file /run/secrets/db")]
pub(super) struct Copy {
    /// Folder of the messages, in which nothing runs
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// URL of the database, as logic will have it
    #[arg(long, value_name = "URL")]
    to: String,
    /// File with the password of the URL's user [env: SLUICE_POSTGRES__PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Say nothing while it goes well
    #[arg(long, short)]
    quiet: bool,
}

/// Says how far it is, but not too often; on standard error, where nobody parses.
struct Progress {
    quiet: bool,
    said: Instant,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        Self { quiet, said: Instant::now() }
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if !self.quiet && self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            output::note(format_args!("{}", text()));
        }
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

pub(super) async fn backup(arguments: Backup) -> anyhow::Result<ExitCode> {
    let Backup { file, dir, quiet } = arguments;
    let mut progress = Progress::new(quiet);
    let made = sluice_dev::backup(&dir, &file, |now| {
        progress.say(|| format!("{} of about {} MiB", mib(now.bytes), mib(now.of)));
    });
    let made = made.await?;
    if !quiet {
        let (rooms, messages, file) = (made.rooms, made.messages, file.display());
        output::line(format_args!("{file}: {messages} messages in {rooms} rooms, {} MiB", mib(made.bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(arguments: Restore) -> anyhow::Result<ExitCode> {
    let (made, epoch) = sluice_dev::restore(&arguments.file, &arguments.dir).await?;
    let (rooms, messages) = (made.rooms, made.messages);
    output::line(format_args!("{messages} messages in {rooms} rooms are back; new epoch {epoch}"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "store")]
pub(super) async fn copy_store(arguments: Copy) -> anyhow::Result<ExitCode> {
    let Copy { from, to, password_file, quiet } = arguments;
    // Held to the end: what a process published meanwhile would not be there.
    let store = sluice_dev::StoppedStore::of(&from)?;
    let mut progress = Progress::new(quiet);
    let access = super::access(to, password_file);
    let file = store.file();
    let copied = copy::copy(&file, &access, copy::ANSWER_WITHIN, |now| {
        progress.say(|| format!("{} of {} messages", now.messages, now.of));
    });
    let copied = copied.await?;
    if copied.sessions_left > 0 {
        let left = copied.sessions_left;
        output::note(format_args!(
            "{left} sessions of others were told to end and hang: restart the logics that run"
        ));
    }
    let counts = copied.counts;
    output::line(format_args!(
        "{} messages in {} rooms, {} delayed, {} revocations: all there, epoch {} as before",
        counts.messages, counts.rooms, counts.scheduled, counts.revocations, copied.epoch
    ))?;
    Ok(ExitCode::SUCCESS)
}
