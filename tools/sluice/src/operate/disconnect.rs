//! `sluice disconnect`: a user's connections, tokens and subscriptions, ended by any logic on every gateway.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};
use sluice_program::output;

use super::Authorized;

/// End a user's connections on every gateway and revoke the tokens, or end a session or a subscription
///
/// Tokens that were issued up to now are refused from now on everywhere, and those that do not say when (`iat`). May be run
/// again: with --issued-until of the first run it does only what is left to be done.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice disconnect ann --admin http://logic-1:7071 --token-file /etc/sluice/admin.token
  sluice disconnect ann --keep-tokens --token-file /etc/sluice/admin.token      # she may come back at once
  sluice disconnect ann --room news --token-file /etc/sluice/admin.token        # out of one room; she stays connected")]
pub(crate) struct Arguments {
    /// The user, as tokens name it in `sub`
    user: String,
    /// This session alone, the `session` of its welcome; no token is revoked
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// End subscriptions to this room, and no connection
    #[arg(long, conflicts_with_all = ["keep_tokens", "issued_until"])]
    room: Option<String>,
    /// Revoke nothing: whoever is disconnected may come back
    #[arg(long)]
    keep_tokens: bool,
    /// Revoke what was issued up to this second since 1970, instead of now
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["keep_tokens", "session"])]
    issued_until: Option<u32>,
    #[command(flatten)]
    admin: Authorized,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { user, session, room, keep_tokens, issued_until, admin } = arguments;
    let mut wish = json!({ "user": user });
    let members = [
        ("session", session.map(Value::from)),
        ("room", room.map(Value::from)),
        ("keep_tokens", keep_tokens.then_some(true.into())),
        ("issued_until", issued_until.map(Value::from)),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            wish[name] = value;
        }
    }
    let said = admin.post("/admin/disconnect", &wish.to_string()).await?;
    let Some(line) = line(&said) else { bail!("the answer makes no sense: {said}") };
    output::line(line)?;
    Ok(ExitCode::SUCCESS)
}

fn line(said: &Value) -> Option<String> {
    let gateways = said["gateways"].as_array()?.len();
    let (count, what) = match (said["connections"].as_u64(), said["subscriptions"].as_u64()) {
        (Some(count), _) => (count, "connection"),
        (None, Some(count)) => (count, "subscription"),
        (None, None) => return None,
    };
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    let on = plural(u64::try_from(gateways).unwrap_or(u64::MAX));
    let ended = format!("{count} {what}{} ended, {gateways} gateway{on} told", plural(count));
    Some(match said["revoked_until"].as_u64() {
        Some(until) => format!("{ended}; tokens with an iat up to {until} are refused"),
        None => ended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_ended_and_which_tokens_are_refused() {
        let gateways = json!([{"instance": "a", "connections": 1}, {"instance": "b", "connections": 0}]);
        let revoked = json!({"connections": 1, "revoked_until": 7, "gateways": gateways});
        assert_eq!(
            line(&revoked).as_deref(),
            Some("1 connection ended, 2 gateways told; tokens with an iat up to 7 are refused")
        );
        let left = json!({"subscriptions": 2, "revoked_until": null, "gateways": [{}]});
        assert_eq!(line(&left).as_deref(), Some("2 subscriptions ended, 1 gateway told"));
        assert_eq!(line(&json!({})), None);
    }
}
