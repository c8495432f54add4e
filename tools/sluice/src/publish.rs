//! `sluice pub`: publishes one message and says where it was stored, or when it will be published; `sluice cancel` takes
//! such a one back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::value::RawValue;
use sluice_client::{Client, Due, Error, Events, Scheduled, Stored};
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
  sluice pub news 1 --timeout 5
  sluice pub news '\"soon\"' --delay 90 --key order-18   # take it back: sluice cancel news order-18")]
pub(crate) struct Arguments {
    /// The room
    room: String,
    /// The message, any JSON
    json: String,
    /// Name of this message: publishing it again with the same key stores nothing new
    #[arg(long)]
    key: Option<String>,
    /// Publish it so much later, seconds, at most 30 days; it happens whoever is connected then
    #[arg(long, value_name = "SECONDS")]
    delay: Option<f64>,
    /// Longest wait for the answer, seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    target: Target,
}

/// Take back a message that was published with --delay
///
/// Prints whether it will not be published: `false` means that it was already, or was never to be.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice cancel news order-18 --token \"$TOKEN\"")]
pub(crate) struct CancelArguments {
    /// The room
    room: String,
    /// The key that `sluice pub` printed
    key: String,
    /// Longest wait for the answer, seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn cancel(arguments: CancelArguments) -> anyhow::Result<ExitCode> {
    let CancelArguments { room, key, timeout, target } = arguments;
    let until = Instant::now() + Duration::from_secs(timeout);
    let (client, mut events) = connect(target, until, timeout, "cancelled").await?;
    let unanswered = "it may or may not be cancelled; ask again, the answer will be the same".to_owned();
    let wait = Wait { until, done: "cancelled", unanswered };
    let cancelled = wait.outcome(client.cancel(&room, &key), &mut events).await?;
    let said = serde_json::json!({"room": room, "key": key, "cancelled": cancelled}).to_string();
    output::line(&said).with_context(|| format!("the answer is {said}, but"))?;
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn connect(
    target: Target,
    until: Instant,
    timeout: u64,
    done: &str,
) -> anyhow::Result<(Client, Events)> {
    tokio::select! {
        connected = target.connect() => connected,
        () = sleep_until(until) => bail!("no gateway answered within {timeout} s: nothing was {done}"),
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { room, json, key, delay, timeout, target } = arguments;
    let until = Instant::now() + Duration::from_secs(timeout);
    // As it was written: numbers beyond 53 bits and the order of keys stay.
    let data: Box<RawValue> = serde_json::from_str(&json)
        .with_context(|| format!("{json:?} is not JSON; text needs quotes of its own: '\"text\"'"))?;
    let delay = delay.map(Duration::try_from_secs_f64).transpose().context("--delay is no time")?;
    let (client, mut events) = connect(target, until, timeout, "published").await?;
    // Chosen here and not by the client: whoever gives up must be able to name it.
    let key = key.unwrap_or_else(sluice_client::random_key);
    // Not known to be stored is not the same as not stored: the key is the way out.
    let unanswered = format!(
        "it may or may not be stored; publish it again with --key {}, which stores it once",
        paste::word(&key)
    );
    let wait = Wait { until, done: "stored", unanswered };
    let said = match delay {
        None => {
            let stored = wait.outcome(client.publish_as(&room, &key, &data), &mut events).await?;
            serde_json::json!({"room": room, "seq": stored.seq, "key": stored.key})
        }
        Some(delay) => {
            let scheduled = client.schedule(&room, &key, &data, Due::In(delay));
            match wait.outcome(scheduled, &mut events).await? {
                Scheduled::Waits { due_ms, key } => {
                    serde_json::json!({"room": room, "due": due_ms, "key": key})
                }
                Scheduled::Published(Stored { seq, key }) => {
                    serde_json::json!({"room": room, "seq": seq, "key": key})
                }
            }
        }
    };
    let said = said.to_string();
    // Whoever publishes again because this failed would store it twice.
    output::line(&said).with_context(|| format!("the message is stored, {said}, but"))?;
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Waiting for what is sent until it is answered.
struct Wait {
    until: Instant,
    /// What it is to be: "stored".
    done: &'static str,
    /// What that leaves open, and the way out.
    unanswered: String,
}

impl Wait {
    /// The outcome; what keeps it waiting is said after a moment.
    async fn outcome<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
        events: &mut Events,
    ) -> anyhow::Result<T> {
        let Self { until, done, unanswered } = self;
        tokio::pin!(answer);
        let mut why = String::from("the gateway has not answered");
        let mut say_at = Some(Instant::now() + QUIET);
        loop {
            tokio::select! {
                biased;
                // First: an answer that came together with the end of the time counts.
                outcome = &mut answer => return Ok(outcome?),
                event = events.next() => match event {
                    Some(event) => latest(&event, &mut why),
                    None => bail!("the connection ended for good"),
                },
                () = sleep_until(say_at.unwrap_or(*until)), if say_at.is_some() => {
                    output::note(format_args!("sluice: not {done} yet ({why}); still trying, see --timeout"));
                    say_at = None;
                }
                () = sleep_until(*until) => bail!("no answer in time ({why}): {unanswered}"),
            }
        }
    }
}
