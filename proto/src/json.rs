//! Whether every reader of JSON can read a text: one rule for gateway and logic, by the bytes alone.
//!
//! What one client publishes every other one has to parse, again at each resume. So the grammar is not enough:
//! nesting is bounded, no string has half a surrogate pair, no number is beyond every type. Big whole numbers
//! pass; nothing is ever rewritten. One pass, no allocation, never recursive, never panics.

use crate::limits::JSON_DEPTH_MAX;

/// Digits that are a finite number whatever they are: the largest `f64` has 309 of them.
const DIGITS_FINITE: usize = 308;

/// Why a text was refused. The words name the rule and are shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not one JSON value.
    #[error("it is not JSON: byte {0} is unexpected")]
    Syntax(usize),
    /// Ends before the value does.
    #[error("it is not JSON: it ends too early")]
    End,
    /// Arrays and objects in each other, too many.
    #[error("it is nested deeper than {JSON_DEPTH_MAX}")]
    Depth,
    /// Half of a surrogate pair, which is no character.
    #[error("it has half a surrogate pair (\\ud800…\\udfff) at byte {0}, which is no character")]
    Surrogate(usize),
    /// A magnitude that no `f64` has.
    #[error("it has a number at byte {0} that is larger than any number (above 1.8e308)")]
    Infinite(usize),
}

/// Checks that `text` is one JSON value that every reader of JSON can read.
///
/// # Errors
/// [`Unreadable`] says which rule is broken, and where.
pub fn check(text: &str) -> Result<(), Unreadable> {
    Check { text, at: 0, depth: 0, objects: 0 }.run()
}

const _: () = assert!(JSON_DEPTH_MAX <= 64, "`objects` has one bit a level");

struct Check<'a> {
    text: &'a str,
    /// The next byte to look at.
    at: usize,
    depth: u32,
    /// Bit n − 1: whether level n is an object (else an array).
    objects: u64,
}

impl Check<'_> {
    fn run(mut self) -> Result<(), Unreadable> {
        loop {
            // A value begins here; an empty container closes itself.
            if self.begin()? {
                continue;
            }
            // A value has ended: what is around it goes on, or ends too.
            loop {
                let next = self.skip_white();
                if self.depth == 0 {
                    return if next.is_none() { Ok(()) } else { Err(self.unexpected()) };
                }
                match (next, self.in_object()) {
                    (Some(b','), object) => {
                        self.at += 1;
                        if object {
                            self.name()?;
                        }
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => self.close(),
                    _ => return Err(self.unexpected()),
                }
            }
        }
    }

    /// Reads a scalar or an empty container (`false`), or opens a container up to its first value (`true`).
    fn begin(&mut self) -> Result<bool, Unreadable> {
        match self.skip_white() {
            Some(b'{') => {
                self.open(true)?;
                if self.skip_white() == Some(b'}') {
                    self.close();
                    return Ok(false);
                }
                self.name()?;
                Ok(true)
            }
            Some(b'[') => {
                self.open(false)?;
                if self.skip_white() == Some(b']') {
                    self.close();
                    return Ok(false);
                }
                Ok(true)
            }
            Some(b'"') => self.string().map(|()| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.word("true").map(|()| false),
            Some(b'f') => self.word("false").map(|()| false),
            Some(b'n') => self.word("null").map(|()| false),
            _ => Err(self.unexpected()),
        }
    }

    fn open(&mut self, object: bool) -> Result<(), Unreadable> {
        if self.depth as usize == JSON_DEPTH_MAX {
            return Err(Unreadable::Depth);
        }
        let bit = 1 << self.depth;
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn in_object(&self) -> bool {
        self.objects >> (self.depth - 1) & 1 == 1
    }

    /// `"name":`
    fn name(&mut self) -> Result<(), Unreadable> {
        if self.skip_white() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.string()?;
        if self.skip_white() != Some(b':') {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) | None => return Err(self.unexpected()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.unit()? {
                0xd800..=0xdbff => {
                    // Only directly followed by its second half it is a character.
                    let pair = self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\\u");
                    self.at += 1;
                    if pair && (0xdc00..=0xdfff).contains(&self.unit()?) {
                        return Ok(());
                    }
                    Err(Unreadable::Surrogate(start))
                }
                0xdc00..=0xdfff => Err(Unreadable::Surrogate(start)),
                _ => Ok(()),
            },
            _ => Err(self.unexpected()),
        }
    }

    /// The digits of `uXXXX`, whose `u` the caller has seen.
    fn unit(&mut self) -> Result<u32, Unreadable> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return Err(self.unexpected()) };
            unit = unit * 16 + digit;
        }
        self.at += 1;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let whole = self.at - start;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut power = false;
        if let Some(b'e' | b'E') = self.peek() {
            power = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        // Only few numbers have to be worked out.
        if power || whole > DIGITS_FINITE {
            let value: f64 = self.text[start..self.at].parse().unwrap_or(f64::INFINITY);
            if !value.is_finite() {
                return Err(Unreadable::Infinite(start));
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Unreadable> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Unreadable> {
        for byte in word.bytes() {
            if self.peek() != Some(byte) {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte that is no white space.
    fn skip_white(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn unexpected(&self) -> Unreadable {
        if self.at < self.text.len() { Unreadable::Syntax(self.at) } else { Unreadable::End }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_every_reader_can_read_passes() {
        for text in [
            "0",
            "-0",
            "-0.5e-7",
            "1e308",
            "1E+2",
            "null",
            "true",
            "false",
            "\"\"",
            "[]",
            "{}",
            " [ ] ",
            "{ }",
            "[[],{},[1,2],{\"a\":[{}]}]",
            "{\"a\":1,\"a\":2}",
            "\"\\u0000\\ud83d\\ude00\\/\\b\"",
            "\"\u{2028}é\"",
            "123456789012345678901234567890",
            "1.10",
            "1e-999999",
            "\n{\"a\" : [ 1 , 2 ] }\t",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        assert_eq!(check(&"9".repeat(308)), Ok(()), "as many digits as fit");
        assert_eq!(check(&nested(JSON_DEPTH_MAX)), Ok(()));
    }

    #[test]
    fn what_some_reader_cannot_read_is_refused() {
        assert_eq!(check(&nested(JSON_DEPTH_MAX + 1)), Err(Unreadable::Depth));
        assert_eq!(check(&"[".repeat(60_000)), Err(Unreadable::Depth));
        assert_eq!(check(&"{\"a\":".repeat(65)), Err(Unreadable::Depth));
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud83d\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\uDBFF\u0041""#,
            r#"{"\ud800":1}"#,
        ] {
            assert!(matches!(check(text), Err(Unreadable::Surrogate(_))), "{text}: {:?}", check(text));
        }
        for text in ["1e999999", "-1e309", "[1.8e308]", &"9".repeat(400), &format!("{}.5", "9".repeat(310))] {
            assert!(matches!(check(text), Err(Unreadable::Infinite(_))), "{text}");
        }
        for text in [
            "",
            " ",
            "nul",
            "truee",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "[1,]",
            "[,]",
            "{,}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "[1 2]",
            "[}",
            "{]",
            "1 1",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "[1",
            "NaN",
            "'a'",
            "\u{feff}1",
            "]",
            "\"\\ud800\\u12\"",
            "\u{a0}1",
        ] {
            let found = check(text);
            assert!(matches!(found, Err(Unreadable::Syntax(_) | Unreadable::End)), "{text}: {found:?}");
        }
    }

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    /// Text made of pieces that JSON is made of, mostly wrong.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "[", "]", "{", "}", ",", ":", "\"a\"", "\"", "1", "-", "0", ".", "e", "E+", "308", "true",
            "null", " ", "\\", "\\u", "\\ud83d", "\\ude00", "\\n", "é", "\t",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(8, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_known_parser(text in pieces()) {
            // That one refuses the same in all that is this shallow.
            let known = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(check(&text).is_ok(), known.is_ok(), "{:?}: {:?} {:?}", text, check(&text), known);
        }

        #[test]
        fn what_a_known_writer_writes_passes(value in value()) {
            prop_assert_eq!(check(&value.to_string()), Ok(()));
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(check(&pretty), Ok(()));
        }

        #[test]
        fn it_never_panics(text in ".{0,200}") {
            let _ = check(&text);
        }
    }
}
