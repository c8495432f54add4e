//! Frames to requests, and replies to bytes. Pure; every encoder appends one JSON object to `out`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Bye, ClientFrame, Connect, Drain, ErrorCode, Welcome, WireError};
use crate::grpc::Message;
use crate::ids::{Epoch, InvalidName, Key, RoomId, Seq};
use crate::limits::{DATA_BYTES_MAX, PAGE_MESSAGES_MAX};

/// Largest `id` echoed, bytes of JSON.
pub const ID_BYTES_MAX: usize = 256;
/// How much of a bad frame is quoted back, bytes.
const QUOTE_BYTES_MAX: usize = 80;
/// Shown with every bad frame.
const EXAMPLE: &str = r#"{"pub":"news","data":{"t":"hi"},"id":1}"#;

/// One valid request of a client.
#[derive(Debug)]
pub enum Request<'a> {
    /// `{"connect":{"token":…}}`
    Connect(Connect),
    /// `{"sub":…}`
    Subscribe {
        /// Which room.
        room: RoomId,
        /// Last seq seen; absent = from now.
        after: Option<Seq>,
        /// The epoch of `after`. An epoch that cannot be read is one that differs.
        epoch: Option<Result<Epoch, ()>>,
    },
    /// `{"unsub":…}`
    Unsubscribe(RoomId),
    /// `{"pub":…}`
    Publish {
        /// Where to.
        room: RoomId,
        /// Absent: the gateway mints one.
        key: Option<Key>,
        /// JSON as received.
        data: &'a RawValue,
    },
    /// `{"history":…}`
    History {
        /// Which room.
        room: RoomId,
        /// Only lower seqs; absent = the newest.
        before: Option<Seq>,
        /// 1…256.
        limit: u32,
    },
    /// `{"presence":…}`
    Presence(RoomId),
    /// `{"ping":…}`
    Ping,
}

/// Why a frame was refused; `code` and `message` go to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Machine-readable.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<InvalidName> for Refused {
    fn from(error: InvalidName) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

/// A decoded frame: its request or its refusal, and the `id` to echo in either case.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Echoed in the answer.
    pub id: Option<&'a RawValue>,
    /// What is asked for.
    pub request: Result<Request<'a>, Refused>,
}

/// Reads one text frame. Never panics; a frame that is not understood is quoted in the refusal.
#[must_use]
pub fn decode(text: &str) -> Decoded<'_> {
    let frame: ClientFrame<'_> = match serde_json::from_str(text) {
        Ok(frame) => frame,
        Err(error) => return Decoded { id: None, request: Err(not_understood(text, &error.to_string())) },
    };
    if frame.id.is_some_and(|id| id.get().len() > ID_BYTES_MAX) {
        let refused = Refused::new(ErrorCode::BadRequest, format!("id is longer than {ID_BYTES_MAX} bytes"));
        return Decoded { id: None, request: Err(refused) };
    }
    Decoded { id: frame.id, request: request(text, frame) }
}

fn request<'a>(text: &str, frame: ClientFrame<'a>) -> Result<Request<'a>, Refused> {
    let verbs = [
        frame.connect.is_some(),
        frame.sub.is_some(),
        frame.unsub.is_some(),
        frame.publish.is_some(),
        frame.history.is_some(),
        frame.presence.is_some(),
        frame.ping.is_some(),
    ];
    match verbs.iter().filter(|present| **present).count() {
        0 => return Err(not_understood(text, "no verb (connect, sub, unsub, pub, history, presence, ping)")),
        1 => {}
        _ => return Err(not_understood(text, "more than one verb")),
    }
    if let Some(connect) = frame.connect {
        return Ok(Request::Connect(connect));
    }
    if let Some(room) = frame.sub {
        let epoch = frame.epoch.map(|text| Epoch::parse(&text).ok_or(()));
        return Ok(Request::Subscribe { room: RoomId::parse(&room)?, after: frame.after, epoch });
    }
    if let Some(room) = frame.unsub {
        return Ok(Request::Unsubscribe(RoomId::parse(&room)?));
    }
    if let Some(room) = frame.publish {
        return publish(&room, frame.key.as_deref(), frame.data);
    }
    if let Some(room) = frame.history {
        return history(&room, frame.before, frame.limit);
    }
    if let Some(room) = frame.presence {
        return Ok(Request::Presence(RoomId::parse(&room)?));
    }
    Ok(Request::Ping)
}

fn publish<'a>(room: &str, key: Option<&str>, data: Option<&'a RawValue>) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse(room)?;
    let key = key.map(Key::parse_from_client).transpose()?;
    let Some(data) = data else {
        return Err(Refused::new(ErrorCode::BadRequest, format!("pub needs data, for example {EXAMPLE}")));
    };
    let bytes = data.get().len();
    if bytes > DATA_BYTES_MAX {
        let text = format!("data has {bytes} bytes, at most {DATA_BYTES_MAX} are allowed");
        return Err(Refused::new(ErrorCode::TooLarge, text));
    }
    Ok(Request::Publish { room, key, data })
}

fn history<'a>(room: &str, before: Option<Seq>, limit: Option<u32>) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse(room)?;
    let most = u32::try_from(PAGE_MESSAGES_MAX).unwrap_or(u32::MAX);
    let limit = limit.unwrap_or(most);
    if limit == 0 || limit > most {
        return Err(Refused::new(ErrorCode::BadRequest, format!("limit is {limit}, it must be 1…{most}")));
    }
    if before == Some(0) {
        return Err(Refused::new(ErrorCode::BadRequest, "before is 0, the first message has seq 1"));
    }
    Ok(Request::History { room, before, limit })
}

fn not_understood(text: &str, why: &str) -> Refused {
    let mut end = text.len().min(QUOTE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let dots = if end < text.len() { "…" } else { "" };
    let quoted = &text[..end];
    Refused::new(
        ErrorCode::BadFrame,
        format!("cannot use {quoted:?}{dots}: {why}; send for example {EXAMPLE}"),
    )
}

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
    /// Epoch of both.
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

/// `{"ok":"history",…}`, messages oldest first.
pub fn ok_history(out: &mut Vec<u8>, room: &RoomId, messages: &[Message], id: Option<&str>) {
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
    push_id(out, id);
    out.push(b'}');
}

/// A user in the answer to `presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PresentUser {
    /// Who.
    pub user: String,
    /// How many connections.
    pub connections: u32,
    /// Since when, milliseconds since 1970.
    pub since: i64,
}

/// `{"ok":"presence",…}`
pub fn ok_presence(out: &mut Vec<u8>, room: &RoomId, users: &[PresentUser], id: Option<&str>) {
    out.extend_from_slice(b"{\"ok\":\"presence\",\"room\":");
    push_json(out, room.as_str());
    out.extend_from_slice(b",\"users\":");
    push_json(out, users);
    push_id(out, id);
    out.push(b'}');
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
    use proptest::prelude::*;

    fn refusal(text: &str) -> Refused {
        decode(text).request.expect_err("must be refused")
    }

    #[test]
    fn verbs_are_understood() {
        let decoded = decode("{\"pub\":\"news\",\"data\":{\"t\": \"hi\"},\"key\":\"c1\",\"id\":2}\n");
        assert_eq!(decoded.id.map(RawValue::get), Some("2"));
        let Ok(Request::Publish { room, key, data }) = decoded.request else { panic!("not a publish") };
        assert_eq!((room.as_str(), key.as_ref().map(Key::as_str)), ("news", Some("c1")));
        assert_eq!(data.get(), "{\"t\": \"hi\"}", "the payload keeps its bytes");
        assert!(matches!(decode("{\"ping\":null}").request, Ok(Request::Ping)));
        assert!(matches!(decode("{\"ping\":1}").request, Ok(Request::Ping)));
        assert!(matches!(
            decode("{\"sub\":\"n\\u0065ws\",\"after\":0,\"epoch\":\"x\"}").request,
            Ok(Request::Subscribe { after: Some(0), epoch: Some(Err(())), .. })
        ));
        assert!(matches!(decode("{\"connect\":{\"token\":\"t\"}}").request, Ok(Request::Connect(_))));
    }

    #[test]
    fn data_null_is_data() {
        let Ok(Request::Publish { data, .. }) = decode("{\"pub\":\"a\",\"data\":null}").request else {
            panic!("null is JSON too")
        };
        assert_eq!(data.get(), "null");
    }

    #[test]
    fn bad_frames_are_quoted_with_an_example() {
        for text in ["hello", "{}", "[]", "{\"sub\":\"a\",\"unsub\":\"a\"}", "{\"sub\":1}", "{\"after\":1}"] {
            let refused = refusal(text);
            assert_eq!(refused.code, ErrorCode::BadFrame, "{text}");
            assert!(refused.message.contains(EXAMPLE), "{text}");
        }
        assert_eq!(refusal("{\"pub\":\"a\"}").code, ErrorCode::BadRequest);
        assert_eq!(refusal("{\"sub\":\"a\\u0000b\"}").code, ErrorCode::BadRequest);
        assert_eq!(refusal("{\"pub\":\"a\",\"data\":1,\"key\":\"~x\"}").code, ErrorCode::BadRequest);
        assert_eq!(refusal("{\"history\":\"a\",\"limit\":0}").code, ErrorCode::BadRequest);
        let large = format!("{{\"pub\":\"a\",\"data\":\"{}\"}}", "x".repeat(DATA_BYTES_MAX));
        assert_eq!(refusal(&large).code, ErrorCode::TooLarge);
    }

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
        let mut out = Vec::new();
        ok_history(&mut out, &room, &[message.clone(), message], Some("\"x\""));
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["messages"][1]["data"]["t"], "hi");
        assert_eq!(value["id"], "x");
        assert_eq!(value["room"], room.as_str());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,200}") {
            let _ = decode(&text);
        }
    }
}
