//! `sluice api-key`: makes keys of the HTTP API. A key is shown once; what is kept is its hash.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use sluice_access::{ApiKeyEntry, new_api_key, read_api_keys};
use sluice_program::output;

/// Make a key of the HTTP API
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a key, show it once, and add its hash to the file that logic reads (api.keys_file)
    ///
    /// Without --file the entry is shown too, for whoever puts it there.
    #[command(after_help = "Examples:
  sluice api-key new billing --pub 'news.*' --file keys.toml
  sluice api-key new dashboard --sub '*' --sub '@*' --expires 2027-01-31T00:00:00Z --file keys.toml
  sluice api-key new accounts --disconnect '*' --file keys.toml
  sluice api-key new trial --pub lobby --sub lobby --calls-per-s 10")]
    New(New),
}

#[derive(clap::Args)]
struct New {
    /// What it is called in metrics and logs: letters, digits, dots, dashes, underscores
    name: String,
    /// Rooms to read and look into: a name, or a prefix ending in *; may be repeated
    #[arg(long, value_name = "PATTERN")]
    sub: Vec<String>,
    /// Rooms to publish to: a name, or a prefix ending in *; may be repeated
    #[arg(long = "pub", value_name = "PATTERN")]
    publish: Vec<String>,
    /// Users to disconnect and to take out of rooms: a name, or a prefix ending in *; may be repeated
    #[arg(long, value_name = "PATTERN")]
    disconnect: Vec<String>,
    /// When it ends, with an offset: 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Calls a second that it may make, instead of api.calls_per_s; 0 = no limit
    #[arg(long, value_name = "N")]
    calls_per_s: Option<u32>,
    /// The file that logic reads; made when it is missing
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Verb::New(new) = arguments.verb;
    let key = new_api_key();
    let expires = new.expires.as_deref().map(|time| {
        time.parse().with_context(|| format!("{time:?} is no time, write it as 2027-01-31T00:00:00Z"))
    });
    let entry = ApiKeyEntry {
        sub: new.sub,
        publish: new.publish,
        disconnect: new.disconnect,
        expires: expires.transpose()?,
        calls_per_s: new.calls_per_s,
        ..ApiKeyEntry::of(&new.name, &key)
    };
    let text = entry.to_toml().map_err(anyhow::Error::msg)?;
    if entry.sub.is_empty() && entry.publish.is_empty() && entry.disconnect.is_empty() {
        output::note(format_args!(
            "note: without --sub, --pub and --disconnect this key may ask for nothing but info"
        ));
    }
    match &new.file {
        Some(file) => {
            add(file, &text)?;
            output::line(key)?;
        }
        None => output::line(format!("{key}\n\n# Into the file of api.keys_file:\n{text}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends to the file, if it is then one that logic takes.
fn add(file: &Path, entry: &str) -> anyhow::Result<()> {
    let shown = file.display();
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{shown} cannot be read")),
    };
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let after = format!("{before}{gap}{entry}");
    if let Err(why) = read_api_keys(&after) {
        bail!("{shown} would be of no use with it: {why}");
    }
    // Aside and renamed: a logic that looks in between reads the old one whole.
    let new = file.with_extension("toml.new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(after.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&new, file)).with_context(|| format!("{shown} cannot be written"))
}
