//! What a server says, read from the description of the wire alone: flat, so that nothing is missed that it should not
//! say. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A frame of the server, with the fields that it has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "fields are called as on the wire, which describes them")]
pub struct ServerFrame<'a> {
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

/// The first frame of a connection.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "as on the wire")]
pub struct WelcomeFrame {
    pub instance: String,
    pub epoch: String,
    /// Of an anonymous user, for the next connection.
    #[serde(default)]
    pub token: Option<String>,
}

/// Why something was refused.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "as on the wire")]
pub struct ServerError {
    pub code: String,
    pub message: String,
    pub retry: bool,
}

/// The gateway stops.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "as on the wire")]
pub struct DrainFrame {
    pub within_ms: u64,
    pub reconnect_ms: u64,
}

/// Last words.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "as on the wire")]
pub struct ByeFrame {
    pub code: u16,
    pub reconnect: bool,
    pub reconnect_ms: Option<u64>,
}

impl<'a> ServerFrame<'a> {
    /// Reads a text frame.
    ///
    /// # Errors
    /// In words, when it is no JSON object, or a field is not of its type.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("a frame cannot be read: {error}: {text:.200}"))
    }

    /// The user in `from`.
    #[must_use]
    pub fn sender(&self) -> String {
        self.from.and_then(|from| serde_json::from_str(from.get()).ok()).unwrap_or_default()
    }

    /// The bytes of `data`, as they were sent.
    #[must_use]
    pub fn bytes(&self) -> &'a str {
        self.data.map(RawValue::get).unwrap_or_default()
    }

    /// The first seq that a `skipped` frame is about.
    #[must_use]
    pub fn skipped_from(&self) -> Option<u64> {
        self.from.map(RawValue::get).and_then(|from| from.parse().ok())
    }
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
        assert_eq!((skipped.skipped_from(), skipped.to), (Some(42), Some(77)));
        assert!(ServerFrame::parse("hello").is_err());
    }
}
