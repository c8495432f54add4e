//! Lists of what a store holds: rooms by prefix, and messages of a room that wait for their time. Plain data.

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Key, RoomId, Seq, UserId};

/// Rooms to list: those that begin with a prefix, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomQuery {
    /// "" = all rooms.
    pub prefix: String,
    /// Only rooms that sort after this name; "" = from the first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl RoomQuery {
    /// The first text that sorts after everything that begins with the prefix; `None`: nothing does.
    #[must_use]
    pub fn end(&self) -> Option<String> {
        let mut end: Vec<char> = self.prefix.chars().collect();
        // UTF-8 sorts like its characters, so the next one of the last place that has a next one.
        while let Some(last) = end.pop() {
            // Half surrogates are no characters.
            let next =
                if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
            if let Some(next) = next {
                end.push(next);
                return Some(end.into_iter().collect());
            }
        }
        None
    }
}

/// What is said of a room in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomId,
    /// Last seq given out.
    pub head: Seq,
    /// When that message was stored, milliseconds since 1970 by the store's clock; `None`: it is not kept any more.
    pub at_ms: Option<i64>,
}

/// A page of rooms: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomList {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// Sorted by name, in bytes. Only rooms that somebody published to.
    pub rooms: Vec<RoomSummary>,
    /// Others follow after the last of these.
    pub more: bool,
}

/// Messages of a room that wait for their time, in the order of senders and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledQuery {
    /// The room.
    pub room: RoomId,
    /// Only those that sort after this sender and key.
    pub after: Option<(UserId, Key)>,
    /// At most so many.
    pub limit: u32,
    /// At most so many bytes of data, but one message at least.
    pub bytes_max: usize,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledMessage {
    /// Who scheduled it.
    pub sender: UserId,
    /// The key it was scheduled with.
    pub key: Key,
    /// When it is published, milliseconds since 1970 by the store's clock.
    pub due_ms: i64,
    /// The JSON text as it was received.
    pub data: Bytes,
}

/// A page of messages that wait: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledList {
    /// Sorted by sender and key, in bytes.
    pub messages: Vec<ScheduledMessage>,
    /// Others follow after the last of these.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_text_that_does_not_begin_with_it() {
        let end = |prefix: &str| RoomQuery { prefix: prefix.into(), ..RoomQuery::default() }.end();
        for (prefix, expected) in [
            ("", None),
            ("a", Some("b")),
            ("news.", Some("news/")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ] {
            assert_eq!(end(prefix).as_deref(), expected, "{prefix:?}");
            assert!(end(prefix).is_none_or(|end| *prefix < *end && *format!("{prefix}\u{10ffff}z") < *end));
        }
    }
}
