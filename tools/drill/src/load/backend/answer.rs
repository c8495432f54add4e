//! What an answer of the API means for whoever sent the call. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::api::Said;

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The message is committed at this position.
    Stored(u64),
    /// It never will be: the same call would have the same answer.
    Refused(String),
    /// To be sent again, with the same key.
    Again {
        /// Status and code, for people.
        why: String,
        /// When, as told.
        after: Option<Duration>,
    },
}

pub(super) fn read(said: &Said) -> Answer {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let again = |why: &str| Answer::Again {
        why: format!("{} {why}", said.status),
        after: said.retry_after_s.map(Duration::from_secs),
    };
    match said.status {
        // A 200 without a position is no answer: a proxy may have said it.
        200 => match body.get("seq").and_then(Value::as_u64) {
            Some(seq) => Answer::Stored(seq),
            None => again("without a seq"),
        },
        // Whatever a server says of itself may be over soon, and 429 by its meaning.
        500.. | 429 => again(&text("code")),
        _ if body.get("retry") == Some(&Value::Bool(true)) => again(&text("code")),
        _ => Answer::Refused(text("code")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn of(status: u16, retry_after_s: Option<u64>, body: &str) -> Answer {
        read(&Said { status, retry_after_s, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn only_a_position_or_a_refusal_is_final() {
        let again = |why: &str, after: Option<u64>| Answer::Again {
            why: why.into(),
            after: after.map(Duration::from_secs),
        };
        assert_eq!(of(200, None, r#"{"room":"r","seq":7,"duplicate":true}"#), Answer::Stored(7));
        assert_eq!(of(200, None, "<html>"), again("200 without a seq", None));
        assert_eq!(
            of(400, None, r#"{"code":"bad_request","retry":false}"#),
            Answer::Refused("bad_request".into())
        );
        assert_eq!(
            of(429, Some(1), r#"{"code":"rate_limited","retry":true}"#),
            again("429 rate_limited", Some(1))
        );
        assert_eq!(of(503, Some(2), r#"{"code":"not_sent","retry":true}"#), again("503 not_sent", Some(2)));
        assert_eq!(of(500, None, r#"{"code":"internal","retry":false}"#), again("500 internal", None));
        assert_eq!(of(502, None, "bad gateway"), again("502 ", None));
    }
}
