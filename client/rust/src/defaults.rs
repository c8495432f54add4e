//! Every limit of the client, with its arithmetic.

use std::time::Duration;

/// Handshake and `welcome` together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest window of the random pause before a reconnect.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A gateway that refuses is left alone for as long as its `Retry-After` says, up to this: an hour that some proxy tells
/// must not keep a client away from a gateway that is there again.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Part of it that is added by chance: a crowd was told the same full seconds.
pub(crate) const RETRY_AFTER_SPREAD: f64 = 0.5;
/// Publishes without an answer; further ones wait.
pub(crate) const OUTBOX_MAX: usize = 4_096;
/// Events kept for a reader that is behind; above it the socket is not read.
pub(crate) const EVENTS_MAX: usize = 1_024;
/// Requests on their way to the connection's task.
pub(crate) const COMMANDS_MAX: usize = 256;
/// Requests other than publishes without an answer.
pub(crate) const REQUESTS_MAX: usize = 256;
/// Frames handed to the socket before more are formed from the outbox.
pub(crate) const SENDING_MAX: usize = 64;
/// After `retry:true` the server says `bye` and closes, when what it had handed over has its outcome, 10 s at most; one
/// that does not is left.
pub(crate) const FENCE_WAIT: Duration = Duration::from_secs(12);
/// How long the connection left behind by a move may still bring answers.
pub(crate) const OLD_WAIT: Duration = Duration::from_secs(5);
/// A program's function gives a token within this, or is asked again.
pub(crate) const TOKEN_WITHIN: Duration = Duration::from_secs(30);
/// First window of the pause before a token is fetched again while a connection stands; doubles up to the longest.
pub(crate) const TOKEN_AGAIN: Duration = Duration::from_millis(500);
/// The longest window.
pub(crate) const TOKEN_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Where less is left of the token than this many of them, the longest is this part of it.
pub(crate) const TOKEN_TRIES: u32 = 6;
/// New tokens in a row that servers refuse before the client ends: it is not the clock of one of them.
pub(crate) const TOKENS_REFUSED_MAX: u32 = 5;
/// A goodbye waits this long for the server's own.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// A server that says nothing for this many of its ping intervals is gone.
pub(crate) const SILENT_PINGS: u32 = 3;
/// Largest frame read, bytes: a page of 256 messages of 64 KiB, and their names.
pub(crate) const READ_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Buffer that reads begin with, bytes; grows with the frame.
pub(crate) const READ_BUFFER: usize = 16 * 1024;
