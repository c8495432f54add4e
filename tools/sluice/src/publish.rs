//! `sluice pub`: publishes one message and says where it was stored.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::value::RawValue;
use sluice_client::{Error, Events, Stored};
use sluice_program::output;
use tokio::time::{Instant, sleep_until};

use crate::paste;
use crate::target::{QUIET, Target, latest};

/// Publish a message to a room and wait until it is stored
///
/// Prints where it is stored; exit code 0 says that it is, whoever reads that. Without an answer in time it may or may
/// not be stored: publishing it again with the --key that is named then stores it once.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice pub news '{\"t\":\"hi\"}' --token \"$TOKEN\"
  sluice pub news '\"just text\"' --key order-17   # the same key stores it once
  sluice pub news 1 --timeout 5")]
pub(crate) struct Arguments {
    /// The room
    room: String,
    /// The message, any JSON
    json: String,
    /// Name of this message: publishing it again with the same key stores nothing new
    #[arg(long)]
    key: Option<String>,
    /// Longest wait for the answer, seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { room, json, key, timeout, target } = arguments;
    let until = Instant::now() + Duration::from_secs(timeout);
    // As it was written: numbers beyond 53 bits and the order of keys stay.
    let data: Box<RawValue> = serde_json::from_str(&json)
        .with_context(|| format!("{json:?} is not JSON; text needs quotes of its own: '\"text\"'"))?;
    let late = || format!("no gateway answered within {timeout} s: nothing was published");
    let (client, mut events) = tokio::select! {
        connected = target.connect() => connected?,
        () = sleep_until(until) => bail!(late()),
    };
    // Chosen here and not by the client: whoever gives up must be able to name it.
    let key = key.unwrap_or_else(sluice_client::random_key);
    let publish = client.publish_as(&room, &key, &data);
    let stored = stored(publish, &key, &mut events, until).await?;
    let said = serde_json::json!({"room": room, "seq": stored.seq, "key": stored.key}).to_string();
    // Whoever publishes again because this failed would store it twice.
    output::line(&said).with_context(|| format!("the message is stored, {said}, but"))?;
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The outcome; what keeps it waiting is said after a moment.
async fn stored(
    publish: impl Future<Output = Result<Stored, Error>>,
    key: &str,
    events: &mut Events,
    until: Instant,
) -> anyhow::Result<Stored> {
    tokio::pin!(publish);
    let mut why = String::from("the gateway has not answered");
    let mut say_at = Some(Instant::now() + QUIET);
    loop {
        tokio::select! {
            biased;
            // First: an answer that came together with the end of the time counts.
            stored = &mut publish => return Ok(stored?),
            event = events.next() => match event {
                Some(event) => latest(&event, &mut why),
                None => bail!("the connection ended for good"),
            },
            () = sleep_until(say_at.unwrap_or(until)), if say_at.is_some() => {
                output::note(format_args!("sluice: not stored yet ({why}); still trying, see --timeout"));
                say_at = None;
            }
            // Not known to be stored is not the same as not stored: the key is the way out.
            () = sleep_until(until) => bail!(
                "no answer in time ({why}): it may or may not be stored; publish it again with --key {}, which stores it \
                 once",
                paste::word(key)
            ),
        }
    }
}
