//! `sluice sub`: prints what a room brings, and says honestly where something is missing.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use sluice_client::{Client, Event, Message, Options, Position, Subscribed};

use crate::signals::Signals;
use crate::target::Target;

/// Subscribe to a room and print its messages; reconnects and resumes by itself
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice sub news --token eyJ…
  sluice sub news --after 0                        (from the first message)
  sluice sub news --after 41 --epoch 1f…           (what came after 41; says so when that cannot be known)
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
    /// One JSON object per line, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let from = match (arguments.after, arguments.epoch) {
        (None, _) => Position::Now,
        (Some(after), None) => Position::After(after),
        (Some(after), Some(epoch)) => Position::In { after, epoch },
    };
    let listen = listen(&arguments.room, from, arguments.count, arguments.json, arguments.target.options());
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
    options: Options,
) -> anyhow::Result<ExitCode> {
    let (client, mut events) = Client::connect(options).await?;
    say(&standing(&client.subscribe(room, from).await?), as_json)?;
    let mut left = count;
    while left != Some(0) {
        let Some(event) = events.next().await else { anyhow::bail!("the connection ended for good") };
        if matches!(event, Event::Message(_)) {
            left = left.map(|left| left - 1);
        }
        if let Some(line) = line(&event) {
            say(&line, as_json)?;
        }
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// One line of output: for programs and for people. Notes for people are marked, so that they are no message.
struct Line {
    json: Value,
    text: String,
}

/// Fails when the reader has gone away, as `| head` does.
fn say(line: &Line, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json { writeln!(out, "{}", line.json) } else { writeln!(out, "{}", line.text) }
}

fn standing(at: &Subscribed) -> Line {
    let Subscribed { room, after, head, epoch, recovered } = at;
    let lost = if *recovered { "" } else { "  NOT RECOVERED: messages may be missing before this point" };
    Line {
        json: json!({"ok": "sub", "room": room, "after": after, "head": head, "epoch": epoch, "recovered": recovered}),
        text: format!("-- {room} after {after}, head {head}, epoch {epoch}{lost}"),
    }
}

fn line(event: &Event) -> Option<Line> {
    let note = |text: String, json: Value| Some(Line { json, text: format!("-- {text}") });
    match event {
        Event::Message(message) => Some(delivered(message)),
        Event::OutOfOrder { expected, message } => note(
            format!("OUT OF ORDER: {expected} expected, got {}", message.seq),
            json!({"out_of_order": expected, "seq": message.seq}),
        ),
        Event::Skipped { room, from, to } => note(
            format!("SKIPPED {from}…{to}: gone for good"),
            json!({"skipped": room, "from": from, "to": to}),
        ),
        Event::Resumed(at) => Some(standing(at)),
        Event::Unsubscribed { room, error } => {
            note(format!("{room}: {}", error.message), json!({"error": error, "room": room}))
        }
        Event::Drain(drain) => note(format!("drain: {}", drain.reason), json!({"drain": drain})),
        Event::Bye(bye) => note(format!("bye: {} ({})", bye.reason, bye.code), json!({"bye": bye})),
        Event::Closed { code, reason, .. } => {
            let code_text = code.map_or_else(|| "broken off".to_owned(), |code| code.to_string());
            note(format!("closed: {code_text} {reason}"), json!({"closed": code, "reason": reason}))
        }
        Event::Reconnecting { attempt, pause } => {
            note(format!("reconnecting in {} ms", pause.as_millis()), json!({"reconnecting": attempt}))
        }
        Event::Connected(welcome) => note(
            format!("connected to {} as {}", welcome.instance, welcome.user),
            json!({"welcome": welcome}),
        ),
        Event::Error(error) => note(format!("error: {}", error.message), json!({"error": error})),
        Event::Dialled { .. } | Event::Asked { .. } | Event::Subscribed(_) | Event::Left { .. } | _ => None,
    }
}

fn delivered(message: &Message) -> Line {
    let Message { room, seq, from, key, at_ms, data } = message;
    Line {
        json: json!({"msg": room, "seq": seq, "from": from, "key": key, "at": at_ms, "data": data}),
        text: format!("{seq}  {from}  {data}"),
    }
}
