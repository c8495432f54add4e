//! `POST /admin/disconnect`: the calls of [`Disconnects`](super::Disconnects), for operators.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_proto::ids::{RoomId, SessionId, UserId};
use sluice_service::admin::PageEntry;

use super::{Disconnect, Tokens, Told, Unsubscribe};
use crate::error::CallError;
use crate::rpc::Core;

/// As `GET /` names it.
pub const PAGE: PageEntry = PageEntry::post(
    "/admin/disconnect",
    "ends a user's connections and revokes the tokens, or ends subscriptions, as JSON: user, session, room, keep_tokens",
);

/// What an operator wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    user: String,
    session: Option<String>,
    /// With it subscriptions are ended and no connection.
    room: Option<String>,
    #[serde(default)]
    keep_tokens: bool,
    issued_until: Option<u32>,
}

/// The page, to be added to the admin pages, which ask for the token.
pub fn routes(core: Arc<OnceLock<Core>>) -> Router {
    Router::new().route("/admin/disconnect", post(disconnect)).with_state(core)
}

async fn disconnect(State(core): State<Arc<OnceLock<Core>>>, body: Bytes) -> Response {
    let call = match read(&body) {
        Ok(call) => call,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let Some(core) = core.get() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "logic is starting, its store was not reached yet");
    };
    let what = match &call {
        Call::Disconnect(_) => "connections",
        Call::Unsubscribe(_) => "subscriptions",
    };
    let told = match call {
        Call::Disconnect(call) => core.disconnects.disconnect(call).await,
        Call::Unsubscribe(call) => core.disconnects.unsubscribe(call).await,
    };
    match told {
        Ok(told) => answer(what, &told),
        Err(error @ CallError::Invalid(_)) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error) => {
            let why = format!("nothing was ended, and it is not known whether tokens were revoked: {error}");
            refuse(StatusCode::SERVICE_UNAVAILABLE, &why)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Call {
    Disconnect(Disconnect),
    Unsubscribe(Unsubscribe),
}

fn read(body: &[u8]) -> Result<Call, String> {
    let form =
        r#"{"user":"NAME","session":"ID","room":"ROOM","keep_tokens":false}, of which only user is needed"#;
    let wish: Wish = serde_json::from_slice(body).map_err(|error| format!("{error}: send {form}"))?;
    let user = UserId::parse(&wish.user).map_err(|error| error.to_string())?;
    let no_session = || "session must be the 32 hex digits of a welcome".to_owned();
    let session = wish.session.map(|id| SessionId::parse(&id).ok_or_else(no_session)).transpose()?;
    if let Some(room) = wish.room {
        if wish.keep_tokens || wish.issued_until.is_some() {
            return Err("with room no connection is ended and no token revoked: leave the rest out".into());
        }
        let room = Some(RoomId::parse(&room).map_err(|error| error.to_string())?);
        return Ok(Call::Unsubscribe(Unsubscribe { user, session, room }));
    }
    let tokens = match (wish.keep_tokens || session.is_some(), wish.issued_until) {
        (true, Some(_)) => return Err("issued_until is for tokens that are revoked".into()),
        (true, None) => Tokens::Keep,
        (false, issued_until_s) => Tokens::Revoke { issued_until_s },
    };
    Ok(Call::Disconnect(Disconnect { user, session, tokens }))
}

/// 200 when all gateways were told. Whoever was not is named, and the call may be made again.
fn answer(what: &str, told: &Told) -> Response {
    let reached: Vec<Value> =
        told.reached.iter().map(|(id, count)| json!({ "instance": id.as_str(), what: count })).collect();
    let unreached: Vec<Value> =
        told.unreached.iter().map(|(id, why)| json!({ "instance": id.as_str(), "why": why })).collect();
    let mut body = json!({
        "revoked_until": told.revoked_until_s,
        what: told.reached.values().map(|count| u64::from(*count)).sum::<u64>(),
        "gateways": reached,
        "unreached": unreached,
    });
    if told.unreached.is_empty() {
        return Json(body).into_response();
    }
    let names: Vec<&str> = told.unreached.keys().map(|id| id.as_str()).collect();
    body["error"] = format!("not told: {}; ask again", names.join(", ")).into();
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserId {
        UserId::parse("ann").expect("valid")
    }

    #[test]
    fn tokens_are_revoked_unless_it_is_said_otherwise_or_a_session_is_meant() {
        let tokens = |body: &str| match read(body.as_bytes()) {
            Ok(Call::Disconnect(call)) => call.tokens,
            other => panic!("{other:?}"),
        };
        assert_eq!(tokens(r#"{"user":"ann"}"#), Tokens::Revoke { issued_until_s: None });
        assert_eq!(tokens(r#"{"user":"ann","issued_until":7}"#), Tokens::Revoke { issued_until_s: Some(7) });
        assert_eq!(tokens(r#"{"user":"ann","keep_tokens":true}"#), Tokens::Keep);
        let session = format!(r#"{{"user":"ann","session":"{:032x}"}}"#, 7);
        assert_eq!(tokens(&session), Tokens::Keep);
    }

    #[test]
    fn with_a_room_only_a_subscription_ends() {
        let room = Some(RoomId::parse("news").expect("valid"));
        let call = read(br#"{"user":"ann","room":"news"}"#);
        let unsubscribe = Unsubscribe { user: ann(), session: None, room };
        assert_eq!(call, Ok(Call::Unsubscribe(unsubscribe)));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (body, why) in [
            ("", "send {"),
            (r#"{"user":""}"#, "user"),
            (r#"{"user":"ann","romo":"x"}"#, "romo"),
            (r#"{"user":"ann","session":"7"}"#, "32 hex digits"),
            (r#"{"user":"ann","room":"x","keep_tokens":true}"#, "no token revoked"),
            (r#"{"user":"ann","keep_tokens":true,"issued_until":7}"#, "that are revoked"),
        ] {
            let error = read(body.as_bytes()).expect_err(body);
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
