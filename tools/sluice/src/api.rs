//! `sluice api`: the calls of the HTTP API, one a verb. Prints what is answered; whoever reads it is a person or a
//! program.

mod client;

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use client::{Call, Server};

/// Call the HTTP API of a logic, as a backend does
///
/// Prints the answer as JSON, one object a line. Exit code 0 says that it was done; else the code, and whether sending the
/// same again can succeed, are on standard error.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  export SLUICE_API_URL=http://127.0.0.1:7073 SLUICE_API_KEY=sluice_…
  sluice api publish news '{\"t\":\"hi\"}' --key order-17   # the same key stores it once
  sluice api history news --limit 20
  sluice api export news > news.ndjson
  sluice api rooms --prefix news.
  sluice api disconnect ann                                 # off every gateway, tokens revoked")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    server: ServerArguments,
}

/// Whom to ask, and what shows that one may.
#[derive(clap::Args)]
struct ServerArguments {
    /// Where the API is
    #[arg(
        long,
        global = true,
        env = "SLUICE_API_URL",
        default_value = "http://127.0.0.1:7073",
        value_name = "URL"
    )]
    url: String,
    /// The key, as `sluice api-key new NAME` showed it
    #[arg(long, global = true, env = "SLUICE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Longest wait for an answer, seconds
    #[arg(long, global = true, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Publish a message and wait until it is committed
    Publish {
        /// The room
        room: String,
        /// The message, any JSON
        json: String,
        #[command(flatten)]
        named: Named,
    },
    /// Publish a message to many rooms; each is answered by itself
    Broadcast {
        /// The message, any JSON
        json: String,
        /// The rooms
        #[arg(required = true)]
        rooms: Vec<String>,
        #[command(flatten)]
        named: Named,
    },
    /// Publish the messages of a file, each answered by itself: {"messages":[{"room","data","key","from","delay_ms"}]}
    Batch {
        /// The file; - is standard input
        file: String,
    },
    /// Show a page of a room: the newest messages, those below a position, or those above one
    History {
        /// The room
        room: String,
        /// Messages below this position
        #[arg(long, value_name = "SEQ", conflicts_with = "after")]
        before: Option<u64>,
        /// Messages above this position
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// How many at most
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Show a whole room, one message a line; the last line says why it ends and where to go on
    Export {
        /// The room
        room: String,
        /// Only messages above this position
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Show who is in a room, or whether a user is connected
    Presence {
        /// The room
        #[arg(long, conflicts_with = "user", required_unless_present = "user")]
        room: Option<String>,
        /// The user
        #[arg(long)]
        user: Option<String>,
        /// Only users that sort after this one
        #[arg(long, value_name = "USER")]
        after: Option<String>,
        /// How many at most; 0 = only count
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// List rooms, with their heads and subscribers
    Rooms {
        /// Only rooms that begin like this
        #[arg(long)]
        prefix: Option<String>,
        /// Only rooms that sort after this one
        #[arg(long, value_name = "ROOM")]
        after: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Have a message published later
    Schedule {
        /// The room
        room: String,
        /// The message, any JSON
        json: String,
        /// So much later, seconds
        #[arg(long, value_name = "SECONDS", required_unless_present = "at", conflicts_with = "at")]
        delay: Option<f64>,
        /// Then, milliseconds since 1970
        #[arg(long, value_name = "MS")]
        at: Option<i64>,
        #[command(flatten)]
        named: Named,
    },
    /// Take a scheduled message back
    Cancel {
        /// The room
        room: String,
        /// The key it was scheduled with
        key: String,
        /// Who scheduled it, unless that was this key
        #[arg(long, value_name = "USER")]
        from: Option<String>,
    },
    /// Show what waits in a room for its time
    Scheduled {
        /// The room
        room: String,
        /// Where the page before ended, together with --after-key
        #[arg(long, value_name = "USER", requires = "after_key")]
        after_from: Option<String>,
        /// Where the page before ended, together with --after-from
        #[arg(long, value_name = "KEY", requires = "after_from")]
        after_key: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// End a user's connections on every gateway and revoke the tokens
    ///
    /// Where not all gateways could be told, the problem names them: run it again with --issued-until of what it says.
    Disconnect {
        /// The user, as tokens name it in `sub`
        user: String,
        /// This connection alone, the `session` of its welcome; no token is revoked
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Revoke nothing: whoever is disconnected may come back
        #[arg(long)]
        keep_tokens: bool,
        /// Revoke what was issued up to this second since 1970, instead of now
        #[arg(long, value_name = "SECONDS", conflicts_with_all = ["keep_tokens", "session"])]
        issued_until: Option<u32>,
    },
    /// End a user's subscriptions on every gateway, and no connection
    Unsubscribe {
        /// The user, as tokens name it in `sub`
        user: String,
        /// Those of this connection alone, the `session` of its welcome
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Those to this room; without it to all
        #[arg(long)]
        room: Option<String>,
    },
    /// Show what answers there, and what the key may do
    Info,
}

/// What a message may be given besides.
#[derive(clap::Args)]
struct Named {
    /// The idempotency key: sent again with it, a message is stored once
    #[arg(long)]
    key: Option<String>,
    /// The user who sends it; without it the name of the API key
    #[arg(long, value_name = "USER")]
    from: Option<String>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ServerArguments { url, api_key, timeout } = arguments.server;
    let Some(key) = api_key else {
        bail!("a key is needed: --api-key, or SLUICE_API_KEY; `sluice api-key new NAME` makes one")
    };
    let server = Server { url, key, within: Duration::from_secs(timeout) };
    server.ask(call(arguments.verb)?).await
}

fn call(verb: Verb) -> anyhow::Result<Call> {
    Ok(match verb {
        Verb::Publish { room, json, named } => {
            post("publish", named.with([("room", json!(room))]), Some(&json))?
        }
        Verb::Broadcast { json, rooms, named } => {
            post("broadcast", named.with([("rooms", json!(rooms))]), Some(&json))?
        }
        Verb::Batch { file } => Call::Post("batch", read(&file)?),
        Verb::History { room, before, after, limit } => get(
            "history",
            [("room", Some(room)), ("before", text(before)), ("after", text(after)), ("limit", text(limit))],
        ),
        Verb::Export { room, after } => get("export", [("room", Some(room)), ("after", text(after))]),
        Verb::Presence { room, user, after, limit } => {
            get("presence", [("room", room), ("user", user), ("after", after), ("limit", text(limit))])
        }
        Verb::Rooms { prefix, after, limit } => {
            get("rooms", [("prefix", prefix), ("after", after), ("limit", text(limit))])
        }
        Verb::Schedule { room, json, delay, at, named } => {
            let when = match (delay, at) {
                (Some(seconds), _) => ("delay_ms", json!(millis(seconds)?)),
                (None, at) => ("at", json!(at)),
            };
            post("schedule", named.with([("room", json!(room)), when]), Some(&json))?
        }
        Verb::Cancel { room, key, from } => {
            let named = Named { key: Some(key), from };
            post("cancel", named.with([("room", json!(room))]), None)?
        }
        Verb::Scheduled { room, after_from, after_key, limit } => get(
            "scheduled",
            [
                ("room", Some(room)),
                ("after_from", after_from),
                ("after_key", after_key),
                ("limit", text(limit)),
            ],
        ),
        Verb::Disconnect { user, session, keep_tokens, issued_until } => {
            let keep_tokens = keep_tokens.then_some(true.into());
            let given = [("session", session.map(Value::from)), ("keep_tokens", keep_tokens)];
            let until = ("issued_until", issued_until.map(Value::from));
            post("disconnect", of_user(user, given.into_iter().chain([until])), None)?
        }
        Verb::Unsubscribe { user, session, room } => {
            let given = [("session", session.map(Value::from)), ("room", room.map(Value::from))];
            post("unsubscribe", of_user(user, given), None)?
        }
        Verb::Info => get("info", []),
    })
}

impl Named {
    fn with<const N: usize>(self, members: [(&str, Value); N]) -> Map<String, Value> {
        let given = [("key", self.key), ("from", self.from)];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, json!(value?))));
        members.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Of what may be said beside the user, what is.
fn of_user(
    user: String,
    given: impl IntoIterator<Item = (&'static str, Option<Value>)>,
) -> Map<String, Value> {
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    [("user".to_owned(), Value::from(user))].into_iter().chain(given).collect()
}

/// A body with these members, and the message as it was written.
fn post(name: &'static str, members: Map<String, Value>, data: Option<&str>) -> anyhow::Result<Call> {
    let mut body = Value::Object(members).to_string();
    if let Some(data) = data {
        let message: &RawValue = serde_json::from_str(data)
            .with_context(|| format!("{data} is no JSON, for example '\"hi\"' is"))?;
        // Byte for byte: a number that is read and written again may be another one.
        body.pop();
        body.push_str(&format!(",\"data\":{}}}", message.get()));
    }
    Ok(Call::Post(name, body))
}

fn get<const N: usize>(name: &'static str, parameters: [(&'static str, Option<String>); N]) -> Call {
    Call::Get(name, parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

fn text(number: Option<impl ToString>) -> Option<String> {
    number.map(|number| number.to_string())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "30 days in milliseconds fit")]
fn millis(seconds: f64) -> anyhow::Result<u64> {
    if (0.0..=30.0 * 86_400.0).contains(&seconds) {
        Ok((seconds * 1_000.0).round() as u64)
    } else {
        bail!("--delay is {seconds}, it must be 0 to 2592000 seconds, 30 days")
    }
}

fn read(file: &str) -> anyhow::Result<String> {
    if file != "-" {
        return std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_a_user_is_sent() {
        let user = || "ann".to_owned();
        let body = |verb: Verb| match call(verb) {
            Ok(Call::Post(name, body)) => (name, serde_json::from_str::<Value>(&body).expect("JSON")),
            Ok(Call::Get(..)) | Err(_) => panic!("a body"),
        };
        let all = Verb::Disconnect { user: user(), session: None, keep_tokens: false, issued_until: None };
        assert_eq!(body(all), ("disconnect", json!({"user": "ann"})));
        let again =
            Verb::Disconnect { user: user(), session: None, keep_tokens: false, issued_until: Some(7) };
        assert_eq!(body(again), ("disconnect", json!({"user": "ann", "issued_until": 7})));
        let keep = Verb::Disconnect { user: user(), session: None, keep_tokens: true, issued_until: None };
        assert_eq!(body(keep), ("disconnect", json!({"user": "ann", "keep_tokens": true})));
        let room = Verb::Unsubscribe { user: user(), session: Some("5".into()), room: Some("news".into()) };
        assert_eq!(body(room), ("unsubscribe", json!({"user": "ann", "session": "5", "room": "news"})));
    }
}
