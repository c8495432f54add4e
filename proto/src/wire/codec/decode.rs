//! Reads a client's frame: one flat struct of optional fields, decoded in one pass, with the payload kept as raw JSON
//! (internally tagged enums cannot hold raw JSON).
//!
//! A field that is not known, not the verb's, or of another type is refused: what is passed over in silence would, for
//! a mistyped `after`, be a subscription from now. What exactly is wrong is only worked out then (`diagnosis`).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::diagnosis::{self, EXAMPLE};
use super::request::{Decoded, HistoryRange, Refused, Request, When, judge_id};
use crate::ids::{Epoch, Key, RoomId, Seq, UserId};
use crate::json;
use crate::limits::{DATA_BYTES_MAX, DELAY_MS_MAX, PAGE_MESSAGES_MAX, PRESENCE_USERS_MAX};
use crate::wire::{Connect, ErrorCode};

/// A string, without a copy where it has no escapes.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `after`: a seq in `sub` and `history`, a user in `presence`.
#[derive(Debug)]
enum After<'a> {
    Seq(Seq),
    User(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for After<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = After<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a seq or a user")
            }
            fn visit_u64<E>(self, seq: u64) -> Result<After<'de>, E> {
                Ok(After::Seq(seq))
            }
            fn visit_borrowed_str<E>(self, user: &'de str) -> Result<After<'de>, E> {
                Ok(After::User(user.into()))
            }
            fn visit_str<E>(self, user: &str) -> Result<After<'de>, E> {
                Ok(After::User(user.to_owned().into()))
            }
        }
        source.deserialize_any(Visitor)
    }
}

/// `presence`: the room of a question, or in `sub` whether to be told who comes and goes.
#[derive(Debug)]
enum Presence<'a> {
    Of(Cow<'a, str>),
    Watched(bool),
}

impl<'de> Deserialize<'de> for Presence<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Presence<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a room, true or false")
            }
            fn visit_bool<E>(self, watched: bool) -> Result<Presence<'de>, E> {
                Ok(Presence::Watched(watched))
            }
            fn visit_borrowed_str<E>(self, room: &'de str) -> Result<Presence<'de>, E> {
                Ok(Presence::Of(room.into()))
            }
            fn visit_str<E>(self, room: &str) -> Result<Presence<'de>, E> {
                Ok(Presence::Of(room.to_owned().into()))
            }
        }
        source.deserialize_any(Visitor)
    }
}

/// All fields that a frame may have; which of them belong together is in [`diagnosis::VERBS`].
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Frame<'a> {
    #[serde(deserialize_with = "given")]
    connect: Option<Connect>,
    #[serde(deserialize_with = "given")]
    refresh: Option<Connect>,
    #[serde(borrow, deserialize_with = "given")]
    sub: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    unsub: Option<Text<'a>>,
    #[serde(rename = "pub", borrow, deserialize_with = "given")]
    publish: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    cancel: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    history: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    presence: Option<Presence<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    ping: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "given")]
    after: Option<After<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    epoch: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "given")]
    key: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "given")]
    token: Option<Text<'a>>,
    #[serde(deserialize_with = "given")]
    delay_ms: Option<u64>,
    #[serde(deserialize_with = "given")]
    at: Option<u64>,
    #[serde(deserialize_with = "given")]
    before: Option<Seq>,
    #[serde(deserialize_with = "given")]
    limit: Option<u32>,
}

/// `null` is a value like any other, and mostly a wrong one: only a missing field is absent.
fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

/// Reads one text frame. Never panics; a frame that is not understood is quoted in the refusal.
#[must_use]
pub fn decode(text: &str) -> Decoded<'_> {
    // The derived reader would take an array for the fields in their order.
    let object = text.trim_ascii_start().starts_with('{');
    let Some(mut frame) = object.then(|| serde_json::from_str::<Frame<'_>>(text).ok()).flatten() else {
        return diagnosis::of(text);
    };
    if let Some(id) = frame.id.take() {
        if let Err(refused) = judge_id(id) {
            return Decoded { id: None, request: Err(refused) };
        }
        return Decoded { id: Some(id), ..frame.decoded(text) };
    }
    frame.decoded(text)
}

impl<'a> Frame<'a> {
    fn decoded(mut self, text: &'a str) -> Decoded<'a> {
        match self.request() {
            // What no verb has asked for is left.
            Some(request) if self.is_spent() => Decoded { id: None, request },
            _ => diagnosis::of(text),
        }
    }

    /// Takes out one verb and its fields; `None`: there is none, or a field has the type of another verb's.
    fn request(&mut self) -> Option<Result<Request<'a>, Refused>> {
        if let Some(connect) = self.connect.take() {
            return Some(Ok(Request::Connect(connect)));
        }
        if let Some(refresh) = self.refresh.take() {
            return Some(Ok(Request::Refresh(refresh)));
        }
        if let Some(Text(room)) = self.publish.take() {
            let when = when(self.delay_ms.take(), self.at.take());
            return Some(publish(&room, self.key.take(), self.data.take(), when));
        }
        if let Some(Text(room)) = self.cancel.take() {
            return Some(cancel(&room, self.key.take()));
        }
        if let Some(Text(room)) = self.sub.take() {
            let (after, epoch) = (self.after_seq()?, self.epoch.take());
            let watches = match self.presence.take() {
                None => false,
                Some(Presence::Watched(watches)) => watches,
                Some(Presence::Of(_)) => return None,
            };
            return Some(subscribe(&room, after, epoch, watches, self.token.take()));
        }
        if let Some(Text(room)) = self.unsub.take() {
            return Some(RoomId::parse(&room).map(Request::Unsubscribe).map_err(Refused::from));
        }
        if let Some(Text(room)) = self.history.take() {
            let (before, after) = (self.before.take(), self.after_seq()?);
            return Some(history(&room, before, after, self.limit.take()));
        }
        if let Some(asked) = self.presence.take() {
            let Presence::Of(room) = asked else { return None };
            let after = match self.after.take() {
                None => None,
                Some(After::User(user)) => Some(user),
                Some(After::Seq(_)) => return None,
            };
            return Some(presence(&room, after, self.limit.take()));
        }
        self.ping.take().map(|_| Ok(Request::Ping))
    }

    /// `after` where it is a seq; `None`: it is something else.
    fn after_seq(&mut self) -> Option<Option<Seq>> {
        match self.after.take() {
            None => Some(None),
            Some(After::Seq(seq)) => Some(Some(seq)),
            Some(After::User(_)) => None,
        }
    }

    fn is_spent(&self) -> bool {
        let Self { connect, refresh, sub, unsub, publish, cancel, history, presence, ping, .. } = self;
        let Self { id, after, epoch, data, key, token, delay_ms, at, before, limit, .. } = self;
        let texts = [sub, unsub, publish, cancel, history, epoch, key, token];
        (connect.is_none() && refresh.is_none() && presence.is_none())
            && texts.iter().all(|text| text.is_none())
            && [ping, id, data].iter().all(|value| value.is_none())
            && [delay_ms, at, before].iter().all(|number| number.is_none())
            && (after.is_none() && limit.is_none())
    }
}

fn subscribe<'a>(
    room: &str,
    after: Option<Seq>,
    epoch: Option<Text<'_>>,
    watches: bool,
    token: Option<Text<'_>>,
) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse_from_client(room)?;
    let epoch = epoch.map(|Text(text)| Epoch::parse(&text).ok_or(()));
    let token = token.map(|Text(token)| token.into_owned());
    if token.as_deref() == Some("") {
        return Err(Refused::bad("token is empty; leave it out, or send one that grants the room"));
    }
    Ok(Request::Subscribe { room, after, epoch, watches, token })
}

fn publish<'a>(
    room: &str,
    key: Option<Text<'_>>,
    data: Option<&'a RawValue>,
    when: Result<When, Refused>,
) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse_from_client(room)?;
    let when = when?;
    let key = key.map(|Text(key)| Key::parse_from_client(&key)).transpose()?;
    let Some(data) = data else { return Err(Refused::bad(format!("pub needs data, for example {EXAMPLE}"))) };
    let bytes = data.get().len();
    if bytes > DATA_BYTES_MAX {
        let text = format!("data has {bytes} bytes, at most {DATA_BYTES_MAX} are allowed");
        return Err(Refused::new(ErrorCode::TooLarge, text));
    }
    json::check(data.get())
        .map_err(|why| Refused::bad(format!("data cannot be read by everybody: {why}")))?;
    Ok(Request::Publish { room, key, data, when })
}

/// How far ahead `at` is depends on a clock, so it is not judged here.
fn when(delay_ms: Option<u64>, at: Option<u64>) -> Result<When, Refused> {
    match (delay_ms, at) {
        (None, None) => Ok(When::Now),
        (Some(ms), None) if ms > DELAY_MS_MAX => {
            Err(Refused::bad(format!("delay_ms is {ms}, at most {DELAY_MS_MAX} (30 days) are allowed")))
        }
        (Some(ms), None) => Ok(When::In(ms)),
        (None, Some(ms)) => Ok(When::At(ms)),
        (Some(_), Some(_)) => Err(Refused::bad("pub takes delay_ms or at, not both")),
    }
}

fn cancel<'a>(room: &str, key: Option<Text<'_>>) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse(room)?;
    let Some(Text(key)) = key else {
        return Err(Refused::bad(r#"cancel needs the key of the publish: {"cancel":"news","key":"c1"}"#));
    };
    // A minted one too: whoever sent no key knows it from the answer.
    Ok(Request::Cancel { room, key: Key::parse(&key)? })
}

fn history<'a>(
    room: &str,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<u32>,
) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse(room)?;
    let limit = page_limit(limit, PAGE_MESSAGES_MAX)?;
    let range = match (before, after) {
        (None, None) => HistoryRange::Newest,
        (Some(0), None) => return Err(Refused::bad("before is 0, the first message has seq 1")),
        (Some(seq), None) => HistoryRange::Before(seq),
        (None, Some(seq)) => HistoryRange::After(seq),
        (Some(_), Some(_)) => return Err(Refused::bad("history takes before or after, not both")),
    };
    Ok(Request::History { room, range, limit })
}

fn presence<'a>(room: &str, after: Option<Cow<'_, str>>, limit: Option<u32>) -> Result<Request<'a>, Refused> {
    let room = RoomId::parse(room)?;
    let limit = page_limit(limit, PRESENCE_USERS_MAX)?;
    let after = after.map(|user| UserId::parse(&user)).transpose()?;
    Ok(Request::Presence { room, after, limit })
}

/// How many a page may hold: `most` unless fewer are asked for.
fn page_limit(limit: Option<u32>, most: usize) -> Result<u32, Refused> {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let limit = limit.unwrap_or(most);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    Err(Refused::bad(format!("limit is {limit}, it must be 1…{most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ID_BYTES_MAX;
    use proptest::prelude::*;

    fn refusal(text: &str) -> Refused {
        decode(text).request.expect_err(text)
    }

    #[test]
    fn verbs_are_understood() {
        let decoded = decode("{\"pub\":\"news\",\"data\":{\"t\": \"hi\"},\"key\":\"c1\",\"id\":2}\n");
        assert_eq!(decoded.id.map(RawValue::get), Some("2"));
        let Ok(Request::Publish { room, key, data, when }) = decoded.request else { panic!("not a publish") };
        assert_eq!(when, When::Now);
        assert_eq!((room.as_str(), key.as_ref().map(Key::as_str)), ("news", Some("c1")));
        assert_eq!(data.get(), "{\"t\": \"hi\"}", "the payload keeps its bytes");
        assert!(matches!(decode("{\"ping\":null}").request, Ok(Request::Ping)));
        assert!(matches!(decode("{\"ping\":1}").request, Ok(Request::Ping)));
        assert!(matches!(
            decode("{\"sub\":\"n\\u0065ws\",\"after\":0,\"epoch\":\"x\"}").request,
            Ok(Request::Subscribe { after: Some(0), epoch: Some(Err(())), .. })
        ));
        assert!(matches!(decode(" {\"connect\":{\"token\":\"t\"}}").request, Ok(Request::Connect(_))));
        assert!(matches!(decode("{\"id\":1,\"unsub\":\"a\"}").request, Ok(Request::Unsubscribe(_))));
    }

    #[test]
    fn a_publish_may_be_for_later_and_taken_back() {
        let when = |text: &str| match decode(text).request {
            Ok(Request::Publish { when, .. }) => when,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(when(r#"{"pub":"a","data":1,"delay_ms":2592000000}"#), When::In(DELAY_MS_MAX));
        assert_eq!(when(r#"{"pub":"a","data":1,"at":1763719200123}"#), When::At(1_763_719_200_123));
        for text in [r#"{"cancel":"a","key":"c1","id":1}"#, r#"{"cancel":"a","key":"~0/1"}"#] {
            assert!(matches!(decode(text).request, Ok(Request::Cancel { .. })), "{text}");
        }
        for (text, why) in [
            (r#"{"pub":"a","data":1,"delay_ms":2592000001}"#, "30 days"),
            (r#"{"pub":"a","data":1,"delay_ms":1,"at":1}"#, "not both"),
            (r#"{"pub":"a","data":1,"delay_ms":-1}"#, "delay_ms is -1"),
            (r#"{"pub":"a","data":1,"at":"tomorrow"}"#, "at is"),
            (r#"{"pub":"a","data":1,"delay":1}"#, "did you mean \"delay_ms\""),
            (r#"{"sub":"a","at":1}"#, "sub has no field"),
            (r#"{"cancel":"a"}"#, "cancel needs the key"),
            (r#"{"cancel":"a","key":"c1","data":1}"#, "cancel has no field"),
        ] {
            let refused = refusal(text);
            assert!(refused.code == ErrorCode::BadRequest && refused.message.contains(why), "{refused:?}");
        }
    }

    #[test]
    fn a_token_is_refreshed_or_goes_with_one_room() {
        let token = |text: &str| match decode(text).request {
            Ok(Request::Refresh(refresh)) => refresh.token,
            Ok(Request::Subscribe { token: Some(token), .. }) => token,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(token(r#"{"refresh":{"token":"t"},"id":1}"#), "t");
        assert_eq!(token(r#"{"token":"a.b.c","sub":"news","after":5}"#), "a.b.c");
        for (text, why) in [
            (r#"{"refresh":"t"}"#, "refresh is"),
            (r#"{"refresh":{"token":"t"},"token":"t"}"#, "refresh has no field"),
            (r#"{"sub":"news","token":""}"#, "token is empty"),
            (r#"{"sub":"news","token":1}"#, "token is 1"),
            (r#"{"pub":"news","data":1,"token":"t"}"#, "pub has no field"),
            (r#"{"history":"news","token":"t"}"#, "history has no field"),
        ] {
            let refused = refusal(text);
            assert!(refused.code == ErrorCode::BadRequest && refused.message.contains(why), "{refused:?}");
        }
    }

    #[test]
    fn presence_is_a_question_or_an_addition_to_sub() {
        let watches = |text: &str| match decode(text).request {
            Ok(Request::Subscribe { watches, .. }) => watches,
            other => panic!("{text}: {other:?}"),
        };
        assert!(watches(r#"{"sub":"a","presence":true}"#) && watches(r#"{"presence":true,"sub":"a"}"#));
        assert!(!watches(r#"{"sub":"a","presence":false}"#) && !watches(r#"{"sub":"a"}"#));
        assert!(matches!(decode(r#"{"presence":"a"}"#).request, Ok(Request::Presence { .. })));
        for text in [r#"{"sub":"a","presence":"a"}"#, r#"{"presence":true}"#, r#"{"sub":"a","presence":1}"#] {
            let refused = refusal(text);
            assert_eq!(refused.code, ErrorCode::BadRequest, "{text}");
            assert!(refused.message.starts_with("presence is "), "{}", refused.message);
        }
        assert_eq!(refusal(r#"{"unsub":"a","presence":true}"#).code, ErrorCode::BadFrame, "two verbs");
    }

    #[test]
    fn pages_are_asked_for_in_either_direction() {
        let range = |text: &str| match decode(text).request {
            Ok(Request::History { range, limit, .. }) => (range, limit),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(range(r#"{"history":"a"}"#), (HistoryRange::Newest, 256));
        assert_eq!(range(r#"{"history":"a","before":7,"limit":3}"#), (HistoryRange::Before(7), 3));
        assert_eq!(range(r#"{"history":"a","after":0}"#), (HistoryRange::After(0), 256));
        assert_eq!(refusal(r#"{"history":"a","after":0,"before":1}"#).code, ErrorCode::BadRequest);
        let Ok(Request::Presence { after, limit, .. }) =
            decode(r#"{"presence":"a","after":"\u0061nn","limit":256}"#).request
        else {
            panic!("not a presence")
        };
        assert_eq!((after.as_ref().map(UserId::as_str), limit), (Some("ann"), 256));
    }

    #[test]
    fn data_null_is_data_and_big_numbers_keep_their_bytes() {
        for data in ["null", "123456789012345678901234567890", "1.10", "{\"a\":1,\"a\":2}"] {
            let text = format!("{{\"pub\":\"a\",\"data\":{data}}}");
            let Ok(Request::Publish { data: read, .. }) = decode(&text).request else { panic!("{text}") };
            assert_eq!(read.get(), data);
        }
    }

    #[test]
    fn fields_that_break_a_rule_are_bad_requests() {
        let nested = format!("{{\"pub\":\"a\",\"data\":{}{}}}", "[".repeat(65), "]".repeat(65));
        let long = format!("{{\"ping\":1,\"id\":\"{}\"}}", "x".repeat(ID_BYTES_MAX));
        for text in [
            "{\"pub\":\"a\"}",
            "{\"sub\":\"a\\u0000b\"}",
            "{\"pub\":\"a\",\"data\":1,\"key\":\"~x\"}",
            "{\"history\":\"a\",\"limit\":0}",
            "{\"history\":\"a\",\"limit\":257}",
            "{\"presence\":\"a\",\"limit\":257}",
            "{\"presence\":\"a\",\"after\":\"\"}",
            "{\"sub\":\"chat*\"}",
            "{\"pub\":\"chat*\",\"data\":1}",
            "{\"pub\":\"a\",\"data\":1e999999}",
            "{\"pub\":\"a\",\"data\":\"\\ud800\"}",
            "{\"ping\":1,\"id\":\"\\ud800\"}",
            &nested,
            &long,
        ] {
            assert_eq!(refusal(text).code, ErrorCode::BadRequest, "{text}");
        }
        assert!(decode("{\"history\":\"chat*\"}").request.is_ok(), "what it holds can still be read");
        assert!(decode("{\"unsub\":\"chat*\"}").request.is_ok());
        let large = format!("{{\"pub\":\"a\",\"data\":\"{}\"}}", "x".repeat(DATA_BYTES_MAX));
        assert_eq!(refusal(&large).code, ErrorCode::TooLarge);
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,200}") {
            let _ = decode(&text);
        }
    }
}
