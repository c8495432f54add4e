//! Why a gateway ends a connection, and all that follows from it: close code, reason, whether to come
//! back, label of the metric. Pure; who decides on an ending and what the socket does is elsewhere.

use std::borrow::Cow;

use sluice_proto::limits::FRAME_BYTES_MAX;
use sluice_proto::wire::{Bye, close};

/// The reason that `drain` and the `bye` of a stop give.
pub const RESTART: &str = "restart";

/// Why a connection ends by the gateway's will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The gateway stops; operators choose the code.
    Restart {
        /// Close code.
        code: u16,
    },
    /// The fence: a publish was answered `retry:true`.
    Resend,
    /// The client took no byte for too long.
    Slow,
    /// A ping was not answered.
    PingTimeout,
    /// The process stood still for longer than its lease.
    Frozen,
    /// No `connect` in time.
    ConnectTimeout,
    /// Frames came, and none of them was `connect`.
    NotConnected,
    /// The user has too many connections, or begins too many.
    TooMany,
    /// No logic could check the token in time.
    Unchecked,
    /// The token has ended.
    TokenExpired,
    /// The token is wrong; the text is for people.
    Unauthorized(String),
    /// The application has ended the connection, and may do so again.
    Disconnected,
    /// The application has ended the connection and revoked its token.
    Revoked,
    /// So many frames in a row could not be understood.
    BadFrames(u8),
    /// A binary frame.
    Binary,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A frame above the limit.
    TooBig,
    /// The WebSocket protocol was broken; the text is for people.
    Protocol(String),
}

impl Ending {
    /// The close code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Restart { code } => *code,
            Self::Resend => close::RESEND,
            Self::Slow => close::SLOW,
            Self::PingTimeout => close::PING_TIMEOUT,
            Self::Frozen => close::FROZEN,
            Self::ConnectTimeout => close::CONNECT_TIMEOUT,
            Self::Unchecked | Self::TooMany => close::TRY_LATER,
            Self::NotConnected | Self::TokenExpired | Self::Unauthorized(_) => close::UNAUTHORIZED,
            Self::Disconnected => close::DISCONNECTED,
            Self::Revoked => close::REVOKED,
            Self::BadFrames(_) => close::BAD_FRAMES,
            Self::Binary => close::UNSUPPORTED,
            Self::NotUtf8 => close::INVALID_UTF8,
            Self::TooBig => close::TOO_BIG,
            Self::Protocol(_) => close::PROTOCOL,
        }
    }

    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Restart { .. } => RESTART,
            Self::Resend => "come back and send every unanswered publish again, in order",
            Self::Slow => "no byte was taken in time",
            Self::PingTimeout => "no answer to a ping",
            Self::Frozen => "the gateway stood still for too long",
            Self::ConnectTimeout => "no `connect` in time",
            Self::NotConnected => "`connect` comes first",
            Self::TooMany => "too many connections of this user",
            Self::Unchecked => "the token could not be checked now",
            Self::TokenExpired => "token expired",
            Self::Disconnected => "ended by the application",
            Self::Revoked => "ended by the application, and the token is revoked",
            Self::Unauthorized(text) | Self::Protocol(text) => text,
            Self::BadFrames(count) => {
                return format!("{count} frames in a row could not be understood").into();
            }
            Self::Binary => "text frames with JSON only, no binary frames",
            Self::NotUtf8 => "text must be UTF-8",
            Self::TooBig => return format!("frames may have at most {FRAME_BYTES_MAX} bytes").into(),
        })
    }

    /// Whether the client is asked to come back: not when the next connection would end the same way.
    #[must_use]
    pub const fn reconnects(&self) -> bool {
        match self {
            Self::Restart { .. }
            | Self::Resend
            | Self::Slow
            | Self::PingTimeout
            | Self::Frozen
            | Self::ConnectTimeout
            | Self::TooMany
            | Self::Unchecked
            | Self::Disconnected => true,
            // What follows would end the same way until somebody changes something: a token, a program.
            Self::NotConnected
            | Self::TokenExpired
            | Self::Unauthorized(_)
            | Self::Revoked
            | Self::BadFrames(_)
            | Self::Binary
            | Self::NotUtf8
            | Self::TooBig
            | Self::Protocol(_) => false,
        }
    }

    /// Label of the metric.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Restart { .. } => "restart",
            Self::Resend => "resend",
            Self::Slow => "slow",
            Self::PingTimeout => "ping_timeout",
            Self::Frozen => "frozen",
            Self::ConnectTimeout => "connect_timeout",
            Self::NotConnected => "not_connected",
            Self::TooMany => "too_many",
            Self::Unchecked => "unchecked",
            Self::TokenExpired => "token_expired",
            Self::Unauthorized(_) => "unauthorized",
            Self::Disconnected => "disconnected",
            Self::Revoked => "revoked",
            Self::BadFrames(_) => "bad_frames",
            Self::Binary => "binary",
            Self::NotUtf8 => "not_utf8",
            Self::TooBig => "too_big",
            Self::Protocol(_) => "protocol",
        }
    }

    /// What is said to the client, which is to stay away for `reconnect_ms` if it may come back at all.
    #[must_use]
    pub fn bye(&self, reconnect_ms: u64) -> Bye {
        let reconnect = self.reconnects();
        Bye {
            code: self.code(),
            reason: self.reason().into_owned(),
            reconnect,
            reconnect_ms: reconnect.then_some(reconnect_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each; a new variant does not compile in `label` until it has its text, and belongs here.
    fn all() -> Vec<Ending> {
        let text = || "why".to_owned();
        vec![
            Ending::Restart { code: close::RESTART },
            Ending::Resend,
            Ending::Slow,
            Ending::PingTimeout,
            Ending::Frozen,
            Ending::ConnectTimeout,
            Ending::NotConnected,
            Ending::TooMany,
            Ending::Unchecked,
            Ending::TokenExpired,
            Ending::Unauthorized(text()),
            Ending::Disconnected,
            Ending::Revoked,
            Ending::BadFrames(10),
            Ending::Binary,
            Ending::NotUtf8,
            Ending::TooBig,
            Ending::Protocol(text()),
        ]
    }

    #[test]
    fn own_codes_say_by_their_number_whether_to_come_back() {
        for ending in all().iter().filter(|ending| ending.code() >= 4000) {
            assert_eq!(ending.reconnects(), ending.code() < 4500, "{ending:?}");
        }
    }

    #[test]
    fn a_client_is_told_when_to_come_back_exactly_if_it_may() {
        for ending in all() {
            let bye = ending.bye(70);
            assert_eq!(bye.reconnect_ms, ending.reconnects().then_some(70), "{ending:?}");
            assert!(!bye.reason.is_empty());
        }
    }

    #[test]
    fn every_label_names_one_ending() {
        let mut labels: Vec<_> = all().iter().map(Ending::label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), all().len());
    }
}
