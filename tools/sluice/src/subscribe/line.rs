//! How an event is shown: one line for programs, data as it was published; one for people, in which nothing that was
//! published can move the cursor or look like a line of ours. Never fails on what a room holds.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_client::{Event, Message, PresentUser, Subscribed};

/// One line of output. Notes for people are marked, so that they are no message.
pub(super) struct Line {
    pub(super) json: String,
    pub(super) text: String,
}

/// A message for programs. Not by way of [`Value`], which would reorder members, round numbers and refuse what is JSON
/// all the same.
#[derive(Serialize)]
struct Delivered<'a> {
    msg: &'a str,
    seq: u64,
    from: &'a str,
    key: Option<&'a str>,
    at: i64,
    data: &'a RawValue,
}

pub(super) fn standing(at: &Subscribed) -> Line {
    let Subscribed { room, after, head, epoch, recovered } = at;
    let lost = if *recovered { "" } else { "  NOT RECOVERED: messages may be missing before this point" };
    note(
        format!("{room} after {after}, head {head}, epoch {epoch}{lost}"),
        &json!({"ok": "sub", "room": room, "after": after, "head": head, "epoch": epoch, "recovered": recovered}),
    )
}

pub(super) fn present(room: &str, users: &[PresentUser]) -> Line {
    let names: Vec<&str> = users.iter().map(|user| user.user.as_str()).collect();
    note(format!("{} here: {}", users.len(), names.join(", ")), &json!({"presence": room, "users": users}))
}

pub(super) fn of(event: &Event) -> Option<Line> {
    Some(match event {
        Event::Message(message) => delivered(message),
        Event::OutOfOrder { expected, message } => note(
            format!("OUT OF ORDER: {expected} expected, got {}", message.seq),
            &json!({"out_of_order": expected, "seq": message.seq}),
        ),
        Event::Skipped { room, from, to } => note(
            format!("SKIPPED {from}…{to}: gone for good"),
            &json!({"skipped": room, "from": from, "to": to}),
        ),
        Event::UserJoined { room, user, at_ms, info } => {
            note(format!("{user} joined"), &json!({"join": room, "user": user, "at": at_ms, "info": info}))
        }
        Event::UserLeft { room, user, at_ms } => {
            note(format!("{user} left"), &json!({"leave": room, "user": user, "at": at_ms}))
        }
        Event::Stale { room } => {
            note(format!("{room}: who is there may have changed"), &json!({"stale": room}))
        }
        Event::Resumed(at) => standing(at),
        Event::Unsubscribed { room, error } => {
            note(format!("{room}: {}", error.message), &json!({"error": error, "room": room}))
        }
        Event::Expiring { within } => note(
            format!("the token ends in {} s", within.as_secs()),
            &json!({"expiring": {"within_ms": within.as_millis()}}),
        ),
        Event::Drain(drain) => note(format!("drain: {}", drain.reason), &json!({"drain": drain})),
        Event::Bye(bye) => note(format!("bye: {} ({})", bye.reason, bye.code), &json!({"bye": bye})),
        Event::Closed { code, reason, .. } => {
            let code_text = code.map_or_else(|| "broken off".to_owned(), |code| code.to_string());
            note(format!("closed: {code_text} {reason}"), &json!({"closed": code, "reason": reason}))
        }
        Event::Reconnecting { attempt, pause } => {
            note(format!("reconnecting in {} ms", pause.as_millis()), &json!({"reconnecting": attempt}))
        }
        Event::Connected(welcome) => note(
            format!("connected to {} as {}", welcome.instance, welcome.user),
            &json!({"welcome": welcome}),
        ),
        Event::Error(error) => note(format!("error: {}", error.message), &json!({"error": error})),
        Event::Dialled { .. } | Event::Asked { .. } | Event::Subscribed(_) | Event::Left { .. } | _ => {
            return None;
        }
    })
}

fn note(text: String, json: &Value) -> Line {
    Line { json: json.to_string(), text: format!("-- {}", harmless(&text)) }
}

fn delivered(message: &Message) -> Line {
    let Message { room, seq, from, key, at_ms, data } = message;
    let delivered = Delivered { msg: room, seq: *seq, from, key: key.as_deref(), at: *at_ms, data };
    let json = serde_json::to_string(&delivered).unwrap_or_default(); // strings, numbers, JSON: cannot fail
    Line { json: one_line(json), text: harmless(&format!("{seq}  {from}  {}", data.get())).into_owned() }
}

/// A line break in JSON can only stand between its tokens: a space there says the same.
fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

/// What a terminal obeys, C1 included, and what turns the direction of a line, is written out.
fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            char if is_obeyed(char) => drop(write!(shown, "\\u{:04x}", u32::from(char))), // into memory: cannot fail
            char => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

fn is_obeyed(char: char) -> bool {
    let turns = matches!(char, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || turns || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(data: &str) -> Message {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        Message { room: "r".into(), seq: 7, from: "ann".into(), key: None, at_ms: 1, data }
    }

    /// Any JSON as people and programs write it: numbers outside every type, lone surrogates, members twice, deep
    /// nesting, white space wherever it may be.
    fn any_json() -> impl Strategy<Value = String> {
        let number = prop_oneof!["-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,6})?"];
        let text =
            "\"([^\"\\\\\u{0}-\u{1f}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\u{85}|\u{9b}|\u{202e}){0,8}\"";
        let leaf = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), number, text];
        let deep = (leaf.clone(), 0..300_usize).prop_map(|(leaf, n)| "[".repeat(n) + &leaf + &"]".repeat(n));
        deep.prop_recursive(3, 24, 4, move |inner| {
            let space = "[ \t\r\n]{0,2}";
            prop_oneof![
                (prop::collection::vec((inner.clone(), space), 0..4)).prop_map(|items| {
                    let items: Vec<String> = items.into_iter().map(|(item, space)| item + &space).collect();
                    format!("[{}]", items.join(","))
                }),
                (prop::collection::vec((text, inner, space), 0..4)).prop_map(|members| {
                    let members: Vec<String> = members
                        .into_iter()
                        .map(|(name, item, space)| format!("{name}:{space}{item}"))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn data_passes_byte_for_byte_and_harms_no_terminal(data in any_json()) {
            let line = delivered(&message(&data));
            let wanted = data.replace(['\n', '\r'], " ");
            let expected = format!(r#"{{"msg":"r","seq":7,"from":"ann","key":null,"at":1,"data":{wanted}}}"#);
            prop_assert_eq!(line.json, expected);
            prop_assert!(!line.text.contains(char::is_control), "{:?}", line.text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        let shown = |data: &str| delivered(&message(data)).text;
        assert_eq!(shown("\"a\u{9b}31m\u{85}\u{7f}\""), "7  ann  \"a\\u009b31m\\u0085\\u007f\"");
        assert_eq!(shown("[1,\r\n\t2]"), "7  ann  [1,\\r\\n\\t2]");
        assert_eq!(shown("\"\u{202e}\u{2028}é\""), "7  ann  \"\\u202e\\u2028é\"");
        assert_eq!(shown("1e999"), "7  ann  1e999");
    }

    #[test]
    fn numbers_and_members_stay_as_they_were() {
        let data = r#"{"z":123456789012345678901234567890,"a":1.10,"a":2}"#;
        assert!(delivered(&message(data)).json.ends_with(&format!("\"data\":{data}}}")));
    }

    #[test]
    fn a_note_cannot_be_broken_either() {
        let error = sluice_client::WireError {
            code: sluice_client::ErrorCode::BadRequest,
            message: "x\n7  ann  \"forged\"\u{1b}[2J".into(),
            retry: false,
        };
        let line = of(&Event::Error(error)).unwrap();
        assert_eq!(line.text, "-- error: x\\n7  ann  \"forged\"\\u001b[2J");
        assert!(!line.json.contains('\n'));
    }
}
