//! `sluice sub`: prints what a room brings, and says honestly where something is missing.

mod line;

use std::process::ExitCode;
use std::time::Duration;

use sluice_client::{Client, Event, Position};
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
  sluice sub news --presence  # who is there, and who comes and goes
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
    /// Also print who is in the room, and who comes and goes
    #[arg(long)]
    presence: bool,
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
    let Arguments { room, presence, count, json, target, .. } = arguments;
    let listen = listen(&room, (from, presence), count, json, target);
    tokio::select! {
        outcome = listen => outcome,
        () = signals.asked() => Ok(ExitCode::SUCCESS),
    }
}

async fn listen(
    room: &str,
    (from, presence): (Position, bool),
    count: Option<u64>,
    as_json: bool,
    target: Target,
) -> anyhow::Result<ExitCode> {
    let (client, mut events) = target.connect().await?;
    let at = if presence { client.watch(room, from).await? } else { client.subscribe(room, from).await? };
    let mut is_read = say(&line::standing(&at), as_json)?;
    if presence {
        is_read &= say(&line::present(room, &client.presence(room).await?), as_json)?;
    }
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
        if let Event::Stale { room } = &event {
            is_read &= asked_again(&client, room, as_json).await?;
        }
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Prints who is there now. Not now: the next reconnect asks again.
async fn asked_again(client: &Client, room: &str, as_json: bool) -> anyhow::Result<bool> {
    // Everybody who watches was told at the same time.
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..2_000))).await;
    match client.presence(room).await {
        Ok(users) => Ok(say(&line::present(room, &users), as_json)?),
        Err(_) => Ok(true),
    }
}

/// Whether there is still somebody who reads.
fn say(line: &Line, as_json: bool) -> Result<bool, Unwritten> {
    output::offer(if as_json { &line.json } else { &line.text })
}
