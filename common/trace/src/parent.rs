//! The span of whoever calls, as the header `traceparent` names it: W3C Trace Context. One that cannot be read is none.

use std::fmt;

use http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceId};

use crate::TRACEPARENT;

/// Bytes of a `traceparent` of version 00.
const BYTES: usize = 55;

/// Names a span in all services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    /// Whether its trace is recorded, which whoever began it has decided.
    pub(crate) sampled: bool,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// The span of whoever calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parent(pub(crate) Option<Context>);

impl Parent {
    /// Reads what stands in a `traceparent`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(context(text))
    }

    /// The same of a header or of metadata. Of several none is meant.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map_or(Self::default(), Self::read),
            _ => Self::default(),
        }
    }

    /// Whether its trace is recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some_and(|context| context.sampled)
    }
}

fn context(text: &str) -> Option<Context> {
    // A later version may have more behind what this one knows, and that is to be passed over.
    let longer = text.len() > BYTES && !text.starts_with("00") && text.as_bytes()[BYTES] == b'-';
    if text.len() != BYTES && !longer {
        return None;
    }
    let mut parts = text.get(..BYTES)?.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    if parts.next().is_some() || lengths != [2, 32, 16, 2] || version == "ff" {
        return None;
    }
    // By hand: the numbers of the library would also take capitals and a sign.
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if ![version, trace, span, flags].iter().all(|part| part.bytes().all(is_hex)) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    if trace == TraceId::INVALID || span == SpanId::INVALID {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Context { trace, span, sampled: flags & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let context = context(GOOD).expect("good");
        assert_eq!((context.to_string().as_str(), context.sampled), (GOOD, true));
        assert!(Parent::read(GOOD).is_recorded() && !Parent::read(&GOOD.replace("-01", "-00")).is_recorded());
        assert_ne!(Parent::read(&GOOD.replace("-01", "-fe")), Parent::default(), "there, and not recorded");
        assert_eq!(Parent::read(&format!("{}-more", GOOD.replacen("00", "01", 1))), Parent::read(GOOD));
    }

    #[test]
    fn what_is_none_is_passed_over() {
        let none = [
            String::new(),
            "00".into(),
            GOOD[1..].into(),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "+bf9"),
            GOOD.replace("4bf9", "4b-9"),
            GOOD.replace("4bf9", "4bé"),
            format!("{GOOD}-more"),
            format!("{}more", GOOD.replacen("00", "01", 1)),
            "é".repeat(60),
            "-".repeat(55),
        ];
        for text in none {
            assert_eq!(Parent::read(&text), Parent::default(), "{text:?}");
        }
    }

    #[test]
    fn of_two_headers_none_is_meant() {
        let mut headers = HeaderMap::new();
        assert_eq!(Parent::of(&headers), Parent::default());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&headers), Parent::read(GOOD));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&headers), Parent::default());
    }
}
