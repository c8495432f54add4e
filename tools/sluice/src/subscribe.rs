//! `sluice sub`: prints what a room brings, and says honestly where something is missing.

mod line;

use std::process::ExitCode;

use sluice_client::{Event, Position};
use sluice_program::output::{self, Unwritten};

use crate::signals::Signals;
use crate::target::Target;
use line::Line;

/// Subscribe to a room and print its messages; reconnects and resumes by itself
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice sub news --token \"$TOKEN\"
  sluice sub news --after 0   # from the first message
  sluice sub news --after 41 --epoch 000000000000001f   # what came after 41; says so when that cannot be known
  sluice sub news --json --count 10 | jq .data")]
pub(crate) struct Arguments {
    /// The room
    room: String,
    /// The last seq seen; without it only new messages come
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// The epoch that --after belongs to
    #[arg(long, requires = "after")]
    epoch: Option<String>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object per line, for programs: data as it was published, line breaks between its tokens as spaces
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // From here on Ctrl-C is a wish to leave and no failure, also while the connection is tried.
    let mut signals = Signals::install()?;
    let from = match (arguments.after, arguments.epoch) {
        (None, _) => Position::Now,
        (Some(after), None) => Position::After(after),
        (Some(after), Some(epoch)) => Position::In { after, epoch },
    };
    let listen = listen(&arguments.room, from, arguments.count, arguments.json, arguments.target);
    tokio::select! {
        outcome = listen => outcome,
        () = signals.asked() => Ok(ExitCode::SUCCESS),
    }
}

async fn listen(
    room: &str,
    from: Position,
    count: Option<u64>,
    as_json: bool,
    target: Target,
) -> anyhow::Result<ExitCode> {
    let (client, mut events) = target.connect().await?;
    let mut is_read = say(&line::standing(&client.subscribe(room, from).await?), as_json)?;
    let mut left = count;
    // A reader that has left (`| head`) ends it; that is how pipes are meant.
    while left != Some(0) && is_read {
        let Some(event) = events.next().await else { anyhow::bail!("the connection ended for good") };
        if matches!(event, Event::Message(_)) {
            left = left.map(|left| left - 1);
        }
        if let Some(line) = line::of(&event) {
            is_read = say(&line, as_json)?;
        }
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Whether there is still somebody who reads.
fn say(line: &Line, as_json: bool) -> Result<bool, Unwritten> {
    output::offer(if as_json { &line.json } else { &line.text })
}
