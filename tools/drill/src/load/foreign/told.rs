//! What clients in other languages tell, a line of JSON each. Data only.

use serde::Deserialize;

use super::super::recorder::Confirmed;

/// Something happened. Names and members are those of the clients' own events.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    Connected {
        instance: String,
        epoch: String,
    },
    /// `data` is the JSON text.
    Message {
        room: String,
        seq: u64,
        from: String,
        key: Option<String>,
        data: String,
    },
    Subscribed(Standing),
    Resumed(Standing),
    Skipped {
        room: String,
        from: u64,
        to: u64,
    },
    Unsubscribed {
        room: String,
        error: Why,
    },
    Gap {
        room: String,
        seq: u64,
    },
    /// Of message `n`: its position, or why not.
    Answer {
        n: u64,
        seq: Option<u64>,
        code: Option<String>,
    },
    Drain {
        within_ms: u64,
        reconnect_ms: u64,
    },
    Bye {
        code: u16,
        reconnect: bool,
        reconnect_ms: Option<u64>,
    },
    Closed {
        code: Option<u16>,
        reason: String,
    },
    Error {
        error: Why,
    },
    Ended {
        reason: String,
    },
}

/// Where a room stands.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Standing {
    room: String,
    after: u64,
    head: u64,
    epoch: String,
    recovered: bool,
}

/// An error.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Why {
    pub code: String,
    pub message: String,
}

impl Standing {
    pub(super) fn confirmed(&self, asked: bool) -> Confirmed<'_> {
        let Self { room, after, head, epoch, recovered } = self;
        Confirmed { room, after: *after, head: *head, epoch, recovered: *recovered, asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_what_else_they_say() {
        let told = |line: &str| serde_json::from_str::<Told>(line).expect(line);
        let line = r#"{"event":"closed","code":1012,"reason":"restart","reconnects":true}"#;
        assert_eq!(told(line), Told::Closed { code: Some(1012), reason: "restart".into() });
        assert!(matches!(told(r#"{"event":"closed","reason":"cut"}"#), Told::Closed { code: None, .. }));
        let line = r#"{"event":"resumed","room":"r","after":1,"head":2,"epoch":"e","recovered":true,"resumed":true}"#;
        assert!(matches!(told(line), Told::Resumed(Standing { head: 2, .. })));
        let line = r#"{"event":"message","room":"r","seq":7,"from":"ann","key":null,"data":"{\"c\":1}"}"#;
        assert!(matches!(told(line), Told::Message { seq: 7, data, .. } if data == r#"{"c":1}"#));
        assert!(matches!(
            told(r#"{"event":"answer","n":3,"code":"conflict"}"#),
            Told::Answer { seq: None, .. }
        ));
        assert!(serde_json::from_str::<Told>(r#"{"event":"joined"}"#).is_err());
    }
}
