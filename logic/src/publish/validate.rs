//! Judges publishes by their bytes alone, with the limits of the wire version: the gateway did the same
//! before, and two instances that judge differently would reorder a sender. What a gateway hands over is taken for
//! input: whoever reaches this port can put a text into the frames of every subscriber.

use sluice_proto::grpc::delayed_item::When;
use sluice_proto::grpc::{DelayedItem, PublishItem, PublishRequest};
use sluice_proto::ids::{InvalidName, Key, RoomId, UserId};
use sluice_proto::json;
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, DATA_BYTES_MAX, DELAY_MS_MAX};
use sluice_proto::wire::ErrorCode;
use sluice_store::{self as store, Due, NewMessage, hash_of};

/// Why an item can never be stored; `code` and `message` go to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidItem {
    /// The error code of the wire.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
}

impl From<InvalidName> for InvalidItem {
    fn from(error: InvalidName) -> Self {
        Self { code: ErrorCode::BadRequest, message: error.to_string() }
    }
}

/// A call that no gateway of ours sends: a mistake in the caller, not in a client's input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCall {
    /// More items than a commit group may hold.
    #[error("a Publish call has {0} items, at most {BATCH_ITEMS_MAX} are allowed")]
    Items(usize),
    /// More data than a commit group may hold.
    #[error("a Publish call has {0} bytes of data, at most {BATCH_BYTES_MAX} are allowed")]
    Bytes(usize),
    /// `not_after_ms` is missing: nothing could ever be stored.
    #[error("not_after_ms is missing: say until when (milliseconds since 1970) this may be stored")]
    NotAfter,
}

/// Checks what concerns the call as a whole, so that it fits into one commit group.
pub fn call(request: &PublishRequest) -> Result<(), InvalidCall> {
    // Refused, not cut: the rest would be another group (A6).
    let items = request.items.len() + request.delayed.len();
    if items > BATCH_ITEMS_MAX {
        return Err(InvalidCall::Items(items));
    }
    let delayed = request.delayed.iter().filter_map(|delayed| delayed.item.as_ref());
    let bytes = request.items.iter().chain(delayed).map(|item| item.data.len()).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(InvalidCall::Bytes(bytes));
    }
    // Without it a frozen statement could store what retention has forgotten (A11).
    if request.not_after_ms <= 0 {
        return Err(InvalidCall::NotAfter);
    }
    Ok(())
}

/// Checks one item and hashes its data.
pub fn item(item: PublishItem) -> Result<NewMessage, InvalidItem> {
    let room = RoomId::parse_from_client(&item.room)?;
    let sender = UserId::parse(&item.sender)?;
    // Minted keys come from gateways, which have refused the prefix from clients.
    let key = Key::parse(&item.key)?;
    let bytes = item.data.len();
    if bytes > DATA_BYTES_MAX {
        let message = format!("data has {bytes} bytes, at most {DATA_BYTES_MAX} are allowed");
        return Err(InvalidItem { code: ErrorCode::TooLarge, message });
    }
    if bytes == 0 {
        return Err(InvalidItem { code: ErrorCode::BadRequest, message: "data is empty".into() });
    }
    // The bytes go into every subscriber's text frame as they are.
    let Ok(text) = std::str::from_utf8(&item.data) else {
        return Err(InvalidItem { code: ErrorCode::BadRequest, message: "data is not UTF-8".into() });
    };
    json::check(text).map_err(|why| {
        let message = format!("data cannot be read by everybody: {why}");
        InvalidItem { code: ErrorCode::BadRequest, message }
    })?;
    let hash = hash_of(&item.data);
    Ok(NewMessage { room, sender, key, hash, data: item.data })
}

/// The latest time that a message may be delayed to: the end of the year 9999, as far as stores count.
const DUE_MS_MAX: i64 = 253_402_300_799_000;

/// Checks one item that is for later, or takes one back. How far ahead of now its time is was judged by whoever read it.
pub fn delayed(delayed: DelayedItem) -> Result<store::DelayedItem, InvalidItem> {
    let bad = |message: &str| InvalidItem { code: ErrorCode::BadRequest, message: message.into() };
    let Some(input) = delayed.item else { return Err(bad("item is missing")) };
    let due = match delayed.when {
        Some(When::DueMs(ms)) if (0..=DUE_MS_MAX).contains(&ms) => Due::At(ms),
        Some(When::DelayMs(ms)) if u64::try_from(ms).is_ok_and(|ms| ms <= DELAY_MS_MAX) => Due::In(ms),
        Some(When::DueMs(_) | When::DelayMs(_)) => return Err(bad("the time is out of range")),
        Some(When::Cancel(true)) => {
            let room = RoomId::parse(&input.room)?;
            let (sender, key) = (UserId::parse(&input.sender)?, Key::parse(&input.key)?);
            return Ok(store::DelayedItem::Cancel { room, sender, key });
        }
        // A kind that a later version has.
        Some(When::Cancel(false)) | None => return Err(bad("the time is missing")),
    };
    Ok(store::DelayedItem::Schedule { message: item(input)?, due })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn input(room: &str, key: &str, data: impl Into<Bytes>) -> PublishItem {
        PublishItem { room: room.into(), sender: "ann".into(), key: key.into(), data: data.into() }
    }

    fn code(refused: Result<NewMessage, InvalidItem>) -> ErrorCode {
        refused.expect_err("must be refused").code
    }

    /// A JSON string of so many bytes.
    fn string_of(bytes: usize) -> String {
        format!("\"{}\"", "x".repeat(bytes - 2))
    }

    #[test]
    fn forged_frames_are_refused() {
        // Each would end up in the text frame of every subscriber.
        for data in ["1}", r#"1,"seq":9"#, r#""a" "b""#, "{", "1e999", r#""\ud800""#, "\"\n\"", " ", "[1]]"] {
            assert_eq!(code(item(input("a", "k", data))), ErrorCode::BadRequest, "{data}");
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert_eq!(code(item(input("a", "k", deep))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("chat*", "k", "1"))), ErrorCode::BadRequest);
    }

    #[test]
    fn good_items_pass() {
        let message = item(input("news", "~0/1", "{}")).expect("valid");
        assert_eq!((message.room.as_str(), message.key.as_str()), ("news", "~0/1"));
        assert_eq!(message.hash, hash_of(b"{}"));
        assert!(item(input("news", "k", string_of(DATA_BYTES_MAX))).is_ok());
    }

    #[test]
    fn bad_items_are_refused_with_wire_codes() {
        assert_eq!(code(item(input("a\0b", "k", "1"))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("a", "", "1"))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("a", &"k".repeat(129), "1"))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("a", "k", ""))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("a", "k", &b"\"\xff\""[..]))), ErrorCode::BadRequest);
        assert_eq!(code(item(input("a", "k", vec![b'1'; DATA_BYTES_MAX + 1]))), ErrorCode::TooLarge);
    }

    #[test]
    fn what_is_for_later_is_judged_like_what_is_for_now() {
        let judge = |data: &'static str, when| {
            delayed(DelayedItem { item: Some(input("a", "k", data)), when }).map_err(|refused| refused.code)
        };
        for when in [When::DueMs(0), When::DueMs(DUE_MS_MAX), When::DelayMs(0), When::DelayMs(2_592_000_000)]
        {
            assert!(judge("1", Some(when)).is_ok(), "{when:?}");
            assert_eq!(judge("1}", Some(when)), Err(ErrorCode::BadRequest));
        }
        for when in
            [When::DueMs(-1), When::DueMs(DUE_MS_MAX + 1), When::DelayMs(-1), When::DelayMs(2_592_000_001)]
        {
            assert_eq!(judge("1", Some(when)), Err(ErrorCode::BadRequest), "{when:?}");
        }
        assert!(matches!(judge("", Some(When::Cancel(true))), Ok(store::DelayedItem::Cancel { .. })));
        assert_eq!(judge("1", None), Err(ErrorCode::BadRequest));
        assert!(delayed(DelayedItem::default()).is_err());
    }

    #[test]
    fn calls_fit_into_one_group() {
        let many = |items: usize, bytes: usize| PublishRequest {
            items: vec![input("a", "k", vec![b'1'; bytes]); items],
            not_after_ms: 1,
            ..PublishRequest::default()
        };
        let later = |items: usize| {
            let item = DelayedItem { item: Some(input("a", "k", vec![b'1'; 4096])), when: None };
            PublishRequest { delayed: vec![item; items], ..many(128, 4096) }
        };
        assert_eq!(call(&later(128)), Ok(()));
        assert_eq!(call(&later(129)), Err(InvalidCall::Items(BATCH_ITEMS_MAX + 1)));
        assert_eq!(call(&many(BATCH_ITEMS_MAX, 4096)), Ok(()));
        assert_eq!(call(&many(BATCH_ITEMS_MAX + 1, 1)), Err(InvalidCall::Items(BATCH_ITEMS_MAX + 1)));
        assert_eq!(call(&many(17, 65_536)), Err(InvalidCall::Bytes(17 * 65_536)));
        assert_eq!(call(&PublishRequest::default()), Err(InvalidCall::NotAfter));
    }
}
