//! What a frame of the server is to a client that publishes and asks, and the frames of that client. Pure.

use serde_json::json;
use serde_json::value::RawValue;
use sluice_judge::record::{PageMessage, PublishOutcome, hash_of};
use sluice_load::server_frame::ServerFrame;

use super::super::message::OutgoingMessage;

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

/// What a frame of the server means to a plain client.
pub(super) trait Meaning {
    fn whose(&self) -> Whose;

    /// As the answer to a publish.
    fn outcome(&self) -> Option<PublishOutcome>;

    /// As a message of a page.
    fn seen(&self) -> Option<PageMessage>;
}

impl Meaning for ServerFrame<'_> {
    fn whose(&self) -> Whose {
        let Some(id) = self.id.map(RawValue::get) else { return Whose::Nobody };
        if let Ok(n) = id.parse() {
            return Whose::Publish(n);
        }
        let request =
            id.strip_prefix("\"q").and_then(|id| id.strip_suffix('"')).and_then(|id| id.parse().ok());
        request.map_or(Whose::Nobody, Whose::Request)
    }

    fn outcome(&self) -> Option<PublishOutcome> {
        match (&self.error, self.ok.as_deref()) {
            (Some(error), _) if error.retry => Some(PublishOutcome::Again(error.code.clone())),
            (Some(error), _) => Some(PublishOutcome::Refused(error.code.clone())),
            (None, Some("pub")) => self.seq.map(PublishOutcome::Ok),
            (None, _) => None,
        }
    }

    fn seen(&self) -> Option<PageMessage> {
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
    fn answers_are_known_by_their_ids() {
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
