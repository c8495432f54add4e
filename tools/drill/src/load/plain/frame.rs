//! What a server says, read from the description of the wire alone: flat, so that nothing is missed that it should not
//! say. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use sluice_judge::record::{PageMessage, PublishOutcome, hash_of};

use super::super::message::OutgoingMessage;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerFrame<'a> {
    pub welcome: Option<WelcomeFrame>,
    pub ok: Option<String>,
    pub error: Option<ServerError>,
    pub msg: Option<String>,
    pub skipped: Option<String>,
    pub drain: Option<DrainFrame>,
    pub bye: Option<ByeFrame>,
    #[serde(borrow, deserialize_with = "present")]
    pub id: Option<&'a RawValue>,
    pub room: Option<String>,
    pub seq: Option<u64>,
    /// A user in `msg`, a seq in `skipped`.
    #[serde(borrow, deserialize_with = "present")]
    pub from: Option<&'a RawValue>,
    pub to: Option<u64>,
    pub key: Option<String>,
    #[serde(borrow, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    pub after: Option<u64>,
    pub head: Option<u64>,
    pub epoch: Option<String>,
    pub recovered: Option<bool>,
    #[serde(borrow)]
    pub messages: Option<Vec<ServerFrame<'a>>>,
}

/// `null` is a value like any other.
fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

#[derive(Debug, Deserialize)]
pub(super) struct WelcomeFrame {
    pub instance: String,
    pub epoch: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerError {
    pub code: String,
    pub message: String,
    pub retry: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct DrainFrame {
    pub within_ms: u64,
    pub reconnect_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct ByeFrame {
    pub code: u16,
    pub reconnect: bool,
    pub reconnect_ms: Option<u64>,
}

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A publish's, by number.
    Publish(u64),
    /// Another request's.
    Request(u64),
    /// Nobody's.
    Nobody,
}

impl<'a> ServerFrame<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("a frame cannot be read: {error}: {text:.200}"))
    }

    pub(super) fn whose(&self) -> Whose {
        let Some(id) = self.id.map(RawValue::get) else { return Whose::Nobody };
        if let Ok(n) = id.parse() {
            return Whose::Publish(n);
        }
        let request =
            id.strip_prefix("\"q").and_then(|id| id.strip_suffix('"')).and_then(|id| id.parse().ok());
        request.map_or(Whose::Nobody, Whose::Request)
    }

    pub(super) fn sender(&self) -> String {
        self.from.and_then(|from| serde_json::from_str(from.get()).ok()).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> &'a str {
        self.data.map(RawValue::get).unwrap_or_default()
    }

    /// As the answer to a publish.
    pub(super) fn outcome(&self) -> Option<PublishOutcome> {
        match (&self.error, self.ok.as_deref()) {
            (Some(error), _) if error.retry => Some(PublishOutcome::Again(error.code.clone())),
            (Some(error), _) => Some(PublishOutcome::Refused(error.code.clone())),
            (None, Some("pub")) => self.seq.map(PublishOutcome::Ok),
            (None, _) => None,
        }
    }

    /// As a message of a page.
    pub(super) fn seen(&self) -> Option<PageMessage> {
        self.msg.as_ref()?;
        let hash = hash_of(self.bytes().as_bytes());
        Some(PageMessage { seq: self.seq?, from: self.sender(), key: self.key.clone(), hash })
    }
}

/// The frame of a publish: the same bytes each time.
pub(super) fn publish(message: &OutgoingMessage) -> String {
    let OutgoingMessage { n, room, key, data } = message;
    let key = key.as_ref().map(|key| format!(",\"key\":{}", json!(key))).unwrap_or_default();
    format!("{{\"pub\":{},\"data\":{data}{key},\"id\":{n}}}", json!(room))
}

/// A frame of another verb; `id` comes back with the answer.
pub(super) fn request(id: u64, mut fields: serde_json::Value) -> String {
    fields["id"] = format!("q{id}").into();
    fields.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_the_wire_describes_them() {
        let text = r#"{"msg":"news","seq":2,"from":"alice","at":5,"data": {"a": "é"} }"#;
        let frame = ServerFrame::parse(text).unwrap();
        assert_eq!(
            (frame.msg.as_deref(), frame.seq, frame.sender().as_str()),
            (Some("news"), Some(2), "alice")
        );
        assert_eq!((frame.bytes(), frame.key.is_none()), (r#"{"a": "é"}"#, true));
        assert_eq!(
            ServerFrame::parse(r#"{"msg":"news","seq":3,"from":"a","data":null}"#).unwrap().bytes(),
            "null"
        );
        let skipped = ServerFrame::parse(r#"{"skipped":"news","from":42,"to":77}"#).unwrap();
        assert_eq!((skipped.from.map(RawValue::get), skipped.to), (Some("42"), Some(77)));
        let ok = ServerFrame::parse(r#"{"ok":"pub","room":"news","seq":1,"id":3}"#).unwrap();
        assert_eq!((ok.whose(), ok.outcome()), (Whose::Publish(3), Some(PublishOutcome::Ok(1))));
        let error =
            ServerFrame::parse(r#"{"error":{"code":"not_sent","message":"m","retry":true},"id":4}"#).unwrap();
        assert_eq!(error.outcome(), Some(PublishOutcome::Again("not_sent".into())));
        let page = r#"{"ok":"history","room":"n","messages":[{"msg":"n","seq":1,"from":"b","key":"k","data":1}],"id":"q7"}"#;
        let page = ServerFrame::parse(page).unwrap();
        assert_eq!(page.whose(), Whose::Request(7));
        let seen = page.messages.unwrap()[0].seen().unwrap();
        assert_eq!((seen.seq, seen.key.as_deref(), seen.hash), (1, Some("k"), hash_of(b"1")));
        assert!(ServerFrame::parse("hello").is_err());
    }

    #[test]
    fn payloads_go_out_as_they_are() {
        let mut message =
            OutgoingMessage { n: 7, room: "r\"1".into(), key: Some("k".into()), data: "{\"a\": 1}".into() };
        assert_eq!(publish(&message), r#"{"pub":"r\"1","data":{"a": 1},"key":"k","id":7}"#);
        message.key = None;
        assert_eq!(publish(&message), r#"{"pub":"r\"1","data":{"a": 1},"id":7}"#);
        let sub = request(3, json!({"sub": "news", "after": 4}));
        let sub: serde_json::Value = serde_json::from_str(&sub).unwrap();
        assert_eq!(sub, json!({"sub": "news", "after": 4, "id": "q3"}));
    }
}
