//! `POST /admin/disconnect`: the calls of [`Disconnects`](super::Disconnects), for operators.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_service::admin::PageEntry;

use super::{Disconnect, Told, Unsubscribe};
use crate::api::types::{Disconnected, Unsubscribed};
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
    let answered = match call {
        Call::Disconnect(call) => {
            let told = core.disconnects.disconnect(call).await;
            told.map(|told| answer(&told, Disconnected::from(&told)))
        }
        Call::Unsubscribe(call) => {
            let told = core.disconnects.unsubscribe(call).await;
            told.map(|told| answer(&told, Unsubscribed::from(&told)))
        }
    };
    match answered {
        Ok(response) => response,
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
    let Wish { user, session, room, keep_tokens, issued_until } = wish;
    let session = session.as_deref();
    let Some(room) = room else {
        return Disconnect::read(&user, session, keep_tokens, issued_until).map(Call::Disconnect);
    };
    if keep_tokens || issued_until.is_some() {
        return Err("with room no connection is ended and no token revoked: leave the rest out".into());
    }
    Unsubscribe::read(&user, session, Some(&room)).map(Call::Unsubscribe)
}

/// 200 when all gateways were told. Whoever was not is named, and the call may be made again.
fn answer(told: &Told, done: impl Serialize) -> Response {
    let Some(missed) = told.missed() else { return Json(done).into_response() };
    let mut body = json!(done);
    body["error"] = missed.into();
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::{RoomId, UserId};

    use super::super::Tokens;
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
