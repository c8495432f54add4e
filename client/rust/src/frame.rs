//! Frames of the JSON protocol as a client writes and reads them. Pure.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_proto::wire::codec::{HistoryRange, PresentUser};
use sluice_proto::wire::{Bye, Drain, ErrorCode, Welcome, WireError};

use crate::event::Message;
use crate::options::Position;

/// What a client sends: one verb, its fields, an id.
#[derive(Debug, Default, Serialize)]
pub(crate) struct OutgoingFrame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<TokenField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsub: Option<&'a str>,
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    pub publish: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<After<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    pub id: u64,
}

/// `refresh`: the new token.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct TokenField<'a> {
    pub token: &'a str,
}

/// `expiring`: how long the token is still good.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Expiring {
    pub within_ms: u64,
}

/// `presence`: the room of a question, or in `sub` that it is to be told who comes and goes.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum PresenceField<'a> {
    Of(&'a str),
    Watched(bool),
}

/// `after`: a seq, or a user in `presence`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum After<'a> {
    Seq(u64),
    User(&'a str),
}

impl OutgoingFrame<'_> {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // strings and numbers alone: cannot fail
    }
}

/// `{"sub":…}` from a position; `watches`: and be told who comes and goes.
pub(crate) fn subscribe(room: &str, position: &Position, watches: bool, id: u64) -> String {
    let (after, epoch) = match position {
        Position::Now => (None, None),
        Position::After(after) => (Some(*after), None),
        Position::In { after, epoch } => (Some(*after), Some(epoch.as_str())),
    };
    let after = after.map(After::Seq);
    let presence = watches.then_some(PresenceField::Watched(true));
    OutgoingFrame { sub: Some(room), after, epoch, presence, id, ..OutgoingFrame::default() }.text()
}

/// A question that anybody may ask; no request has its id.
pub(crate) fn ping() -> String {
    OutgoingFrame { ping: Some(1), id: 0, ..OutgoingFrame::default() }.text()
}

/// What a server sends, flat: exactly one of the first fields is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServerFrame {
    pub welcome: Option<Welcome>,
    pub ok: Option<String>,
    pub error: Option<WireError>,
    pub msg: Option<String>,
    pub skipped: Option<String>,
    pub drain: Option<Drain>,
    pub bye: Option<Bye>,
    pub expiring: Option<Expiring>,
    pub unsubscribed: Option<String>,
    /// Of `unsubscribed`; so is `reason`.
    pub code: Option<ErrorCode>,
    pub reason: Option<String>,
    pub expires_at: Option<i64>,
    pub join: Option<String>,
    pub leave: Option<String>,
    pub stale: Option<String>,
    pub user: Option<String>,
    pub info: Option<Box<RawValue>>,
    pub id: Option<u64>,
    pub room: Option<String>,
    pub seq: Option<u64>,
    pub due: Option<i64>,
    pub cancelled: Option<bool>,
    /// The sender's name in `msg`, a seq in `skipped`.
    pub from: Option<serde_json::Value>,
    pub to: Option<u64>,
    pub key: Option<String>,
    pub at: Option<i64>,
    pub data: Option<Box<RawValue>>,
    pub after: Option<u64>,
    pub head: Option<u64>,
    pub epoch: Option<String>,
    pub recovered: Option<bool>,
    pub messages: Vec<ServerFrame>,
    pub users: Vec<PresentUser>,
    pub count: u32,
    pub connections: u32,
    pub more: bool,
    pub before: Option<u64>,
}

impl ServerFrame {
    /// Where a page of history goes on.
    pub(crate) fn more(&self) -> Option<HistoryRange> {
        let before = self.before.map(HistoryRange::Before);
        before.or(self.after.map(HistoryRange::After)).filter(|_| self.more)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("a frame of the server cannot be read: {error}"))
    }

    /// This frame as a message, if it is one.
    pub(crate) fn message(self) -> Option<Message> {
        Some(Message {
            room: self.msg?,
            seq: self.seq?,
            // `from` is a name here and a seq in `skipped`.
            from: self.from.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned(),
            key: self.key,
            at_ms: self.at.unwrap_or_default(),
            data: self.data.unwrap_or_else(|| RawValue::NULL.to_owned()), // null reads as absent
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_understood_by_the_server() {
        use sluice_proto::wire::codec::{Request, decode};
        let position = Position::In { after: 41, epoch: "000000000000001f".into() };
        let text = subscribe("news", &position, true, 7);
        let decoded = decode(&text);
        assert_eq!(decoded.id.map(RawValue::get), Some("7"));
        assert!(matches!(
            decoded.request,
            Ok(Request::Subscribe { after: Some(41), epoch: Some(Ok(_)), watches: true, .. })
        ));
        let data = RawValue::from_string("{\"a\": 1}".into()).unwrap();
        let text = OutgoingFrame {
            publish: Some("news"),
            key: Some("k"),
            data: Some(&data),
            id: 1,
            ..OutgoingFrame::default()
        };
        let text = text.text();
        let Ok(Request::Publish { data: read, .. }) = decode(&text).request else { panic!("{text}") };
        assert_eq!(read.get(), data.get(), "the payload keeps its bytes");
        let refresh = Some(TokenField { token: "t" });
        let text = OutgoingFrame { refresh, id: 1, ..OutgoingFrame::default() }.text();
        assert!(matches!(decode(&text).request, Ok(Request::Refresh(_))), "{text}");
    }

    #[test]
    fn messages_and_skips_are_read() {
        let text = r#"{"msg":"news","seq":58,"from":"alice","at":1763719200123,"data":null}"#;
        let message = ServerFrame::parse(text).unwrap().message().unwrap();
        assert_eq!((message.seq, message.from.as_str(), message.data.get()), (58, "alice", "null"));
        let skipped = ServerFrame::parse(r#"{"skipped":"news","from":42,"to":77}"#).unwrap();
        assert_eq!((skipped.from.and_then(|n| n.as_u64()), skipped.to), (Some(42), Some(77)));
        assert!(ServerFrame::parse("hello").is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "\\PC*", json in "[\\[\\]{}\",:0-9eE.\\\\uDdmsgeqfrom ]{0,64}") {
            let _ = (ServerFrame::parse(&text), ServerFrame::parse(&json));
            let _ = ServerFrame::parse(&format!(r#"{{"msg":"r","seq":1,"from":{json},"data":{json}}}"#)).map(ServerFrame::message);
        }
    }

    #[test]
    fn data_is_what_was_published_whatever_it_is() {
        let deep = "[".repeat(60_000) + &"]".repeat(60_000);
        let big = r#"{"z":123456789012345678901234567890,"a":1.10,"a": 2}"#;
        for data in ["1e999", r#""\ud83d""#, "-0", "null", "\"\u{9b}\"", big, &deep] {
            let text = format!(r#"{{"msg":"r","seq":1,"from":"ann","at":1,"data":{data}}}"#);
            let message = ServerFrame::parse(&text).unwrap().message().unwrap();
            assert_eq!(message.data.get(), data);
            let page = format!(r#"{{"ok":"history","id":1,"messages":[{text}]}}"#);
            let message = ServerFrame::parse(&page).unwrap().messages.remove(0).message().unwrap();
            assert_eq!(message.data.get(), data);
        }
    }
}
