//! Frames to requests ([`decode`]), and replies to bytes: every encoder appends one JSON object to `out`. Pure.

mod decode;
mod diagnosis;
mod request;

use serde::Serialize;

pub use self::decode::decode;
pub use self::request::{Decoded, HistoryRange, Refused, Request, When};
use super::{Bye, Drain, ErrorCode, Welcome, WireError};
use crate::grpc::Message;
use crate::ids::{Epoch, Key, RoomId, Seq};

/// The `id` of a request as it is echoed: `,"id":…` or nothing.
fn push_id(out: &mut Vec<u8>, id: Option<&str>) {
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_bytes());
    }
}

fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    push_json(out, &value);
}

/// `{"welcome":…}`, with the id of a `connect` it answers.
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome, id: Option<&str>) {
    out.extend_from_slice(b"{\"welcome\":");
    push_json(out, welcome);
    push_id(out, id);
    out.push(b'}');
}

/// The fields of an answer to `sub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Effective position: the next message is `after + 1`.
    pub after: Seq,
    /// Last seq known to exist.
    pub head: Seq,
    /// The epoch that both positions belong to.
    pub epoch: Epoch,
    /// Whether the position asked for was kept.
    pub recovered: bool,
}

/// `{"ok":"sub",…}`; without id it tells a live subscription that its epoch changed.
pub fn ok_sub(out: &mut Vec<u8>, room: &RoomId, at: &Subscribed, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"sub\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"after\":");
    push_number(out, at.after);
    out.extend_from_slice(b",\"head\":");
    push_number(out, at.head);
    out.extend_from_slice(b",\"epoch\":\"");
    out.extend_from_slice(at.epoch.to_string().as_bytes());
    out.extend_from_slice(b"\",\"recovered\":");
    out.extend_from_slice(if at.recovered { b"true" } else { b"false" });
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"pub",…}`; `key` only when the client gave one.
pub fn ok_pub(out: &mut Vec<u8>, room: &RoomId, seq: Seq, key: Option<&Key>, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"pub\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"seq\":");
    push_number(out, seq);
    if let Some(key) = key {
        out.extend_from_slice(b",\"key\":");
        push_json(out, key.as_str());
    }
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"pub",…}` of a publish that waits until `due_ms`; the key also when it was minted: to cancel it, it is needed.
pub fn ok_pub_due(out: &mut Vec<u8>, room: &RoomId, due_ms: i64, key: &Key, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"pub\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"due\":");
    push_json(out, &due_ms);
    out.extend_from_slice(b",\"key\":");
    push_json(out, key.as_str());
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"cancel",…}`
pub fn ok_cancel(out: &mut Vec<u8>, room: &RoomId, key: &Key, cancelled: bool, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"cancel\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"key\":");
    push_json(out, key.as_str());
    out.extend_from_slice(b",\"cancelled\":");
    out.extend_from_slice(if cancelled { b"true" } else { b"false" });
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"refresh",…}`; without `expires_at` the token has no end.
pub fn ok_refresh(out: &mut Vec<u8>, expires_at_ms: Option<i64>, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"refresh\"");
    if let Some(at_ms) = expires_at_ms {
        out.extend_from_slice(b",\"expires_at\":");
        push_json(out, &at_ms);
    }
    push_id(out, id);
    out.push(b'}');
}

/// `{"expiring":…}`: the token ends soon.
pub fn expiring(out: &mut Vec<u8>, within_ms: u64) {
    out.extend_from_slice(b"{\"expiring\":{\"within_ms\":");
    push_number(out, within_ms);
    out.extend_from_slice(b"}}");
}

/// `{"unsubscribed":…}`: the server ends a subscription.
pub fn unsubscribed(out: &mut Vec<u8>, room: &RoomId, code: ErrorCode, reason: &str) {
    out.extend_from_slice(b"{\"unsubscribed\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"code\":");
    push_json(out, code.as_str());
    out.extend_from_slice(b",\"reason\":");
    push_json(out, reason);
    out.push(b'}');
}

/// `{"ok":"unsub",…}`
pub fn ok_unsub(out: &mut Vec<u8>, room: &RoomId, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"unsub\",\"room\":");
    push_json(out, room.as_str());
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"ping"}`
pub fn ok_ping(out: &mut Vec<u8>, id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"ping\"");
    push_id(out, id);
    out.push(b'}');
}

/// `{"ok":"history",…`, messages oldest first. `more` tells where to go on, if there is more. The same for all who ask
/// for the page; each one's [`answer_end`] follows.
pub fn ok_history(out: &mut Vec<u8>, room: &RoomId, messages: &[Message], more: Option<HistoryRange>) {
    out.extend_from_slice(b"{\"ok\":\"history\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"messages\":[");
    for (n, message) in messages.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        msg(out, room, message);
    }
    out.push(b']');
    if let Some((name, seq)) = more.and_then(HistoryRange::field) {
        out.extend_from_slice(b",\"more\":true,\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_number(out, seq);
    }
}

/// What follows [`ok_history`] and [`ok_presence`]: the `id` of the question, and the end.
pub fn answer_end(out: &mut Vec<u8>, id: Option<&str>) {
    push_id(out, id);
    out.push(b'}');
}

/// A user in the answer to `presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PresentUser {
    /// The user.
    pub user: String,
    /// How many connections.
    pub connections: u32,
    /// Since when, milliseconds since 1970.
    pub since: i64,
    /// What a token of the user says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
}

/// The fields of an answer to `presence`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresentPage {
    /// One page of them, sorted by name.
    pub users: Vec<PresentUser>,
    /// How many users are in the room.
    pub count: u32,
    /// How many connections they have.
    pub connections: u32,
    /// Whether users follow after the last of this page.
    pub more: bool,
}

/// `{"ok":"presence",…` without its end, the same for all who asked for the page; each one's [`answer_end`] follows. With
/// more, one goes on after the last user. (No `after` here: in answers that is a seq.)
pub fn ok_presence(out: &mut Vec<u8>, room: &RoomId, page: &PresentPage) {
    out.extend_from_slice(b"{\"ok\":\"presence\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"count\":");
    push_number(out, u64::from(page.count));
    out.extend_from_slice(b",\"connections\":");
    push_number(out, u64::from(page.connections));
    out.extend_from_slice(b",\"users\":");
    push_json(out, &page.users);
    if page.more {
        out.extend_from_slice(b",\"more\":true");
    }
}

/// `{"join":…}`: a user came into a room that is watched. `info` is JSON, and nothing when it is empty.
pub fn join(out: &mut Vec<u8>, room: &RoomId, user: &str, at_ms: i64, info: &str) {
    out.extend_from_slice(b"{\"join\":");
    push_change(out, room, user, at_ms);
    if !info.is_empty() {
        out.extend_from_slice(b",\"info\":");
        out.extend_from_slice(info.as_bytes());
    }
    out.push(b'}');
}

/// `{"leave":…}`: a user left a room that is watched.
pub fn leave(out: &mut Vec<u8>, room: &RoomId, user: &str, at_ms: i64) {
    out.extend_from_slice(b"{\"leave\":");
    push_change(out, room, user, at_ms);
    out.push(b'}');
}

/// `{"stale":…}`: joins and leaves of the room may have been missed.
pub fn stale(out: &mut Vec<u8>, room: &RoomId) {
    out.extend_from_slice(b"{\"stale\":");
    push_json(out, room.as_str());
    out.push(b'}');
}

fn push_change(out: &mut Vec<u8>, room: &RoomId, user: &str, at_ms: i64) {
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"user\":");
    push_json(out, user);
    out.extend_from_slice(b",\"at\":");
    push_json(out, &at_ms);
}

/// `{"msg":…}`: the data stays the bytes that were published; the key only when a client chose it.
pub fn msg(out: &mut Vec<u8>, room: &RoomId, message: &Message) {
    out.extend_from_slice(b"{\"msg\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"seq\":");
    push_number(out, message.seq);
    out.extend_from_slice(b",\"from\":");
    push_json(out, &message.sender);
    if !message.key.starts_with(crate::limits::MINTED_KEY_PREFIX) {
        out.extend_from_slice(b",\"key\":");
        push_json(out, &message.key);
    }
    out.extend_from_slice(b",\"at\":");
    push_json(out, &message.at_ms);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(&message.data);
    out.push(b'}');
}

/// The `at` of a message that [`msg`] has written, milliseconds since 1970; `None` of anything else.
#[must_use]
pub fn at_of(message: &[u8]) -> Option<i64> {
    // Nothing before it can look like it: quotes inside a room, a user or a key are escaped, and `data` comes after it.
    const FIELD: &[u8] = b",\"at\":";
    let from = message.windows(FIELD.len()).position(|bytes| bytes == FIELD)? + FIELD.len();
    let digits = message.get(from..)?;
    let end = digits.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// `{"skipped":…}`: messages from…to (both included) will not come.
pub fn skipped(out: &mut Vec<u8>, room: &RoomId, from: Seq, to: Seq) {
    out.extend_from_slice(b"{\"skipped\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"from\":");
    push_number(out, from);
    out.extend_from_slice(b",\"to\":");
    push_number(out, to);
    out.push(b'}');
}

/// `{"error":…}`
pub fn error(out: &mut Vec<u8>, error: &WireError, id: Option<&str>) {
    out.extend_from_slice(b"{\"error\":");
    push_json(out, error);
    push_id(out, id);
    out.push(b'}');
}

/// `{"drain":…}`
pub fn drain(out: &mut Vec<u8>, drain: &Drain) {
    out.extend_from_slice(b"{\"drain\":");
    push_json(out, drain);
    out.push(b'}');
}

/// `{"bye":…}`
pub fn bye(out: &mut Vec<u8>, bye: &Bye) {
    out.extend_from_slice(b"{\"bye\":");
    push_json(out, bye);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_write_valid_json() {
        let room = RoomId::parse("a \"quoted\" room").expect("valid");
        let message = Message {
            seq: 58,
            sender: "alice".into(),
            key: "c1".into(),
            at_ms: 1_763_719_200_123,
            data: bytes::Bytes::from_static(b"{\"t\":\"hi\"}"),
        };
        let messages = [message.clone(), message];
        let read = |more, id| {
            let mut out = Vec::new();
            ok_history(&mut out, &room, &messages, more);
            answer_end(&mut out, id);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let value = read(None, Some("\"x\""));
        assert_eq!(value["messages"][1]["data"]["t"], "hi");
        assert_eq!(value["id"], "x");
        assert_eq!(value["room"], room.as_str());
        assert_eq!(value.get("more"), None);
        let value = read(Some(HistoryRange::Before(58)), None);
        assert_eq!((&value["more"], &value["before"]), (&true.into(), &58.into()));
        let value = read(Some(HistoryRange::After(58)), None);
        assert_eq!((&value["more"], &value["after"]), (&true.into(), &58.into()));
    }

    #[test]
    fn a_delayed_publish_is_answered_with_what_cancels_it() {
        let (room, key) = (RoomId::parse("r\"").expect("valid"), Key::parse("~0/1").expect("valid"));
        let read = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let due = read(&|out| ok_pub_due(out, &room, 7, &key, Some("1")));
        assert_eq!(due, serde_json::json!({"ok": "pub", "room": "r\"", "due": 7, "key": "~0/1", "id": 1}));
        let cancel = read(&|out| ok_cancel(out, &room, &key, true, None));
        assert_eq!(cancel["cancelled"], true);
        let too_late = read(&|out| ok_cancel(out, &room, &key, false, None));
        assert_eq!((&too_late["ok"], &too_late["cancelled"]), (&"cancel".into(), &false.into()));
    }

    #[test]
    fn what_is_told_of_tokens_is_valid_json() {
        let read = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let ok = |at, id| read(&|out| ok_refresh(out, at, id));
        assert_eq!(ok(Some(7), Some("1")), serde_json::json!({"ok": "refresh", "expires_at": 7, "id": 1}));
        assert_eq!(ok(None, None), serde_json::json!({"ok": "refresh"}));
        assert_eq!(read(&|out| expiring(out, 5)), serde_json::json!({"expiring": {"within_ms": 5}}));
        let room = RoomId::parse("r\"").expect("valid");
        let ended = read(&|out| unsubscribed(out, &room, ErrorCode::Forbidden, "no \"grant\""));
        let told = serde_json::json!({"unsubscribed": "r\"", "code": "forbidden", "reason": "no \"grant\""});
        assert_eq!(ended, told);
    }

    #[test]
    fn a_page_of_users_says_how_many_there_are() {
        let user = |user: &str| PresentUser { user: user.into(), connections: 2, since: 7, info: None };
        let mut page =
            PresentPage { users: vec![user("ann"), user("b\"b")], count: 3, connections: 9, more: true };
        let read = |page: &PresentPage| {
            let mut out = Vec::new();
            ok_presence(&mut out, &RoomId::parse("r").expect("valid"), page);
            answer_end(&mut out, Some("1"));
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let value = read(&page);
        assert_eq!((&value["count"], &value["connections"]), (&3.into(), &9.into()));
        assert_eq!((&value["more"], &value["id"]), (&true.into(), &1.into()));
        assert_eq!(value["users"][1]["user"], "b\"b");
        assert_eq!(value["users"][1].get("info"), None);
        page.more = false;
        page.users[1].info = Some(serde_json::json!({"n": 1}));
        let value = read(&page);
        assert_eq!((value.get("more"), &value["users"][1]["info"]["n"]), (None, &1.into()));
    }

    #[test]
    fn who_comes_and_goes_is_valid_json() {
        let room = RoomId::parse("a \"quoted\" room").expect("valid");
        let read = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let joined = read(&|out| join(out, &room, "a\"b", 5, "{\"n\":1}"));
        assert_eq!((&joined["join"], &joined["user"]), (&room.as_str().into(), &"a\"b".into()));
        assert_eq!((&joined["at"], &joined["info"]["n"]), (&5.into(), &1.into()));
        assert_eq!(read(&|out| join(out, &room, "ann", 5, "")).get("info"), None);
        assert_eq!(read(&|out| leave(out, &room, "ann", 6))["leave"], room.as_str());
        assert_eq!(read(&|out| stale(out, &room)), serde_json::json!({ "stale": room.as_str() }));
    }

    #[test]
    fn the_time_of_a_message_is_found_whatever_it_is_called_and_says() {
        let room = RoomId::parse("a,\"at\":5,").expect("valid");
        let message = Message {
            seq: 1,
            sender: "a,\"at\":6,".to_owned(),
            key: "k,\"at\":7,".to_owned(),
            at_ms: 1_700_000_000_123,
            data: "{\"a\":1,\"at\":8,\"b\":2}".into(),
        };
        let mut out = Vec::new();
        msg(&mut out, &room, &message);
        assert_eq!(at_of(&out), Some(1_700_000_000_123));
        out.clear();
        skipped(&mut out, &room, 1, 2);
        assert_eq!(at_of(&out), None);
    }
}
