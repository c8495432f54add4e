//! Works out what is wrong with a frame that cannot be used, and finds its `id`, so that whoever waits for the answer
//! hears it. Only for frames that were refused: it reads the text a second time, field by field.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::request::{Decoded, Refused, judge_id};
use crate::wire::{Connect, ErrorCode};

/// How much of a bad frame, name or value is quoted back, bytes.
const QUOTE_BYTES_MAX: usize = 80;
/// Shown with every bad frame.
pub(super) const EXAMPLE: &str = r#"{"pub":"news","data":{"t":"hi"},"id":1}"#;
/// How like a known name has to be to be meant, by Jaro and Winkler: "afetr" and "after" are, "at" and "after" not.
const LIKE: f64 = 0.8;
/// Names in which a verb is looked for: a frame may have thousands.
const NAMES_COMPARED_MAX: usize = 16;

/// What the value of a field has to be.
#[derive(Clone, Copy)]
enum Kind {
    Any,
    Connect,
    Text,
    Flag,
    Seq,
    Count,
}

/// A name, and what its value has to be.
type Field = (&'static str, Kind);

/// The verbs, each with what its value and its fields have to be. `id` goes with all of them.
const VERBS: [(&str, Kind, &[Field]); 9] = [
    ("connect", Kind::Connect, &[]),
    ("refresh", Kind::Connect, &[]),
    (
        "sub",
        Kind::Text,
        &[("after", Kind::Seq), ("epoch", Kind::Text), ("presence", Kind::Flag), ("token", Kind::Text)],
    ),
    ("unsub", Kind::Text, &[]),
    (
        "pub",
        Kind::Text,
        &[("data", Kind::Any), ("key", Kind::Text), ("delay_ms", Kind::Seq), ("at", Kind::Seq)],
    ),
    ("cancel", Kind::Text, &[("key", Kind::Text)]),
    ("history", Kind::Text, &[("before", Kind::Seq), ("after", Kind::Seq), ("limit", Kind::Count)]),
    ("presence", Kind::Text, &[("after", Kind::Text), ("limit", Kind::Count)]),
    ("ping", Kind::Any, &[]),
];

impl Kind {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Connect => serde_json::from_str::<Connect>(value).is_ok(),
            Self::Text => serde_json::from_str::<String>(value).is_ok(),
            Self::Flag => serde_json::from_str::<bool>(value).is_ok(),
            Self::Seq => serde_json::from_str::<u64>(value).is_ok(),
            Self::Count => serde_json::from_str::<u32>(value).is_ok(),
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Any => "any JSON value",
            Self::Connect => r#"{"token":"<jwt>"}"#,
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::Seq => "a whole number from 0 to 18446744073709551615",
            Self::Count => "a whole number from 1 to 256",
        }
    }
}

/// The answer to a frame that could not be used.
pub(super) fn of(text: &str) -> Decoded<'_> {
    let fields = match serde_json::from_str::<Fields<'_>>(text) {
        Ok(fields) => fields,
        Err(_) if !text.trim_ascii_start().starts_with('{') => {
            return Decoded { id: None, request: Err(not_understood(text, "a frame is one JSON object")) };
        }
        Err(error) => return Decoded { id: None, request: Err(not_understood(text, &error.to_string())) },
    };
    match fields.id.map(|id| judge_id(id).map(|()| id)).transpose() {
        Ok(id) => Decoded { id, request: Err(fields.refusal(text)) },
        Err(refused) => Decoded { id: None, request: Err(refused) },
    }
}

/// The fields of a frame, as they stand there.
struct Fields<'a> {
    id: Option<&'a RawValue>,
    all: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// A field's name, without a copy where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a frame")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields { id: None, all: Vec::new() };
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    if name == "id" && fields.id.is_none() {
                        fields.id = Some(value);
                    } else {
                        fields.all.push((name, value));
                    }
                }
                Ok(fields)
            }
        }
        source.deserialize_map(Reading)
    }
}

impl Fields<'_> {
    fn refusal(&self, text: &str) -> Refused {
        let present = |name: &str| self.all.iter().any(|(field, _)| field == name);
        // In `sub` it is a field.
        let is_field = |name: &str| name == "presence" && present("sub");
        let mut verbs = VERBS.iter().filter(|(verb, ..)| present(verb) && !is_field(verb));
        let (verb, verb_kind, fields) = match (verbs.next(), verbs.next()) {
            (Some(verb), None) => *verb,
            (Some((one, ..)), Some((other, ..))) => {
                return not_understood(text, &format!("more than one verb ({one} and {other})"));
            }
            (None, _) => {
                let meant = self
                    .all
                    .iter()
                    .take(NAMES_COMPARED_MAX)
                    .find_map(|(name, _)| near(name, VERBS.iter().map(|(verb, ..)| *verb)));
                let meant = meant.map(|verb| format!("; did you mean {verb:?}?")).unwrap_or_default();
                let why = format!(
                    "no verb (connect, refresh, sub, unsub, pub, cancel, history, presence, ping){meant}"
                );
                return not_understood(text, &why);
            }
        };
        let known = || fields.iter().copied().chain([(verb, verb_kind)]);
        for (n, (name, value)) in self.all.iter().enumerate() {
            let Some((_, kind)) = known().find(|(known, _)| known == name) else {
                return unknown(name, verb, fields);
            };
            if self.all[..n].iter().any(|(earlier, _)| earlier == name) {
                return Refused::new(ErrorCode::BadRequest, format!("{name} is there twice"));
            }
            if !kind.fits(value.get()) {
                return wrong(name, value.get(), kind);
            }
        }
        Refused::new(ErrorCode::BadRequest, "id is there twice")
    }
}

fn unknown(name: &str, verb: &str, fields: &[Field]) -> Refused {
    let fields = fields.iter().map(|(field, _)| *field).chain(["id"]);
    let mut message = format!("{verb} has no field {:?}", quoted(name));
    match near(name, fields.clone()) {
        Some(meant) => message.push_str(&format!(", did you mean {meant:?}?")),
        None => message.push_str(&format!("; it takes {}", fields.collect::<Vec<_>>().join(", "))),
    }
    Refused::new(ErrorCode::BadRequest, message)
}

fn wrong(name: &str, value: &str, kind: Kind) -> Refused {
    let mut message = format!("{name} is {}, it must be {}", quoted(value), kind.needs());
    if value == "null" {
        message.push_str(", or be left out");
    }
    Refused::new(ErrorCode::BadRequest, message)
}

/// The known name most like `name`, if it is like it at all. Short names are never like each other by the measure, so
/// there one slip is enough.
fn near<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let name = quoted(name);
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(like, known)| *like >= LIKE || strsim::osa_distance(name, known) == 1)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

fn not_understood(text: &str, why: &str) -> Refused {
    let quoted = quoted(text);
    let dots = if quoted.len() < text.len() { "…" } else { "" };
    let message = format!("cannot use {quoted:?}{dots}: {why}; send for example {EXAMPLE}");
    Refused::new(ErrorCode::BadFrame, message)
}

/// The beginning of what somebody sent.
fn quoted(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUOTE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn refused(text: &str) -> (Option<&str>, Refused) {
        let decoded = decode(text);
        (decoded.id.map(RawValue::get), decoded.request.expect_err(text))
    }

    #[test]
    fn bad_frames_are_quoted_with_an_example() {
        let long = format!("{{{}", "x".repeat(500));
        for text in [
            "hello",
            "{}",
            "[]",
            "[null,\"news\"]",
            "[[\"news\"]]",
            "1",
            "\"sub\"",
            "{\"after\":1}",
            "{\"hello\":1}",
            "{\"sub\":\"a\",\"unsub\":\"a\"}",
            "{\"sub\":\"a\"",
            "{\"sub\":\"a\"} x",
            "",
            &long,
        ] {
            let (_, refused) = refused(text);
            assert_eq!(refused.code, ErrorCode::BadFrame, "{text}");
            assert!(refused.message.contains(EXAMPLE) && refused.message.len() < 400, "{}", refused.message);
        }
        assert!(refused("{\"sbu\":\"news\"}").1.message.contains("did you mean \"sub\""));
    }

    #[test]
    fn an_object_with_a_readable_id_is_answered_with_it() {
        for text in [
            r#"{"sub":"r","after":"5","id":7}"#,
            r#"{"history":"r","limit":4294967296,"id":7}"#,
            r#"{"id":7,"history":"r","before":-1}"#,
            r#"{"sub":"r","after":1.5,"id":7}"#,
            r#"{"sub":17,"id":7}"#,
            r#"{"sub":"r","after":18446744073709551616,"id":7}"#,
            r#"{"pub":"\ud800","data":1,"id":7}"#,
            r#"{"connect":null,"id":7}"#,
            r#"{"connect":{"token":null},"id":7}"#,
            r#"{"connect":{},"id":7}"#,
            r#"{"pub":"r","data":"\ud800","id":7}"#,
            r#"{"sub":"r","id":7,"id":8}"#,
            r#"{"sub":"r","sub":"r","id":7}"#,
            r#"{"presence":"r","after":5,"id":7}"#,
            r#"{"sub":"r","after":"ann","id":7}"#,
            r#"{"unsub":null,"id":7}"#,
            r#"{"pub":"r","data":1,"key":null,"id":7}"#,
        ] {
            let (id, refused) = refused(text);
            assert_eq!((id, refused.code), (Some("7"), ErrorCode::BadRequest), "{text}: {}", refused.message);
        }
        let (id, refused) = refused(r#"{"sub":"a","unsub":"a","id":"\u00e4"}"#);
        assert_eq!((id, refused.code), (Some(r#""\u00e4""#), ErrorCode::BadFrame));
    }

    #[test]
    fn nothing_subscribes_from_now_by_mistake() {
        let message = |text: &str| refused(text).1.message;
        let null = message(r#"{"sub":"n","after":null}"#);
        assert!(null.contains("after is null") && null.contains("left out"), "{null}");
        let near = message(r#"{"sub":"n","afetr":0}"#);
        assert!(near.contains("\"afetr\"") && near.contains("did you mean \"after\""), "{near}");
        let epoch = message(r#"{"sub":"n","epoch":null}"#);
        assert!(epoch.contains("epoch is null"), "{epoch}");
        for text in [r#"{"sub":"n","before":5}"#, r#"{"sub":"n","limit":5}"#, r#"{"sub":"n","data":1}"#] {
            let text = message(text);
            assert!(
                text.contains("sub has no field") && text.contains("after, epoch, presence, token, id"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_quoted_is_cut() {
        let text = format!(r#"{{"sub":"n","{}":1,"id":1}}"#, "ä".repeat(10_000));
        let (id, refused) = refused(&text);
        assert!(refused.message.len() < 200, "{}", refused.message);
        assert_eq!(id, Some("1"));
        let text = format!(r#"{{"sub":"n","after":{}1{}}}"#, "[".repeat(60_000), "]".repeat(60_000));
        assert!(refused_len(&text) < 300);
    }

    fn refused_len(text: &str) -> usize {
        refused(text).1.message.len()
    }
}
