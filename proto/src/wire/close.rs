//! Close codes. 4000–4499: come back; 4500–4999: do not. 1000 is never sent by a server that stops.

/// The peer said goodbye.
pub const NORMAL: u16 = 1000;
/// The WebSocket protocol was broken.
pub const PROTOCOL: u16 = 1002;
/// Binary frame on a JSON connection.
pub const UNSUPPORTED: u16 = 1003;
/// Text that is not UTF-8.
pub const INVALID_UTF8: u16 = 1007;
/// Frame above the limit.
pub const TOO_BIG: u16 = 1009;
/// The service restarts: come back.
pub const RESTART: u16 = 1012;
/// The token could not be checked now: try again later.
pub const TRY_LATER: u16 = 1013;
/// The fence: a publish was answered `retry:true`; come back and send everything unanswered again in order.
pub const RESEND: u16 = 4001;
/// The client took no byte for too long.
pub const SLOW: u16 = 4002;
/// No answer to pings.
pub const PING_TIMEOUT: u16 = 4003;
/// The gateway was frozen beyond its lease.
pub const FROZEN: u16 = 4004;
/// No `connect` in time.
pub const CONNECT_TIMEOUT: u16 = 4005;
/// The server's application has ended the connection; the token is still good.
pub const DISCONNECTED: u16 = 4006;
/// Token invalid or expired.
pub const UNAUTHORIZED: u16 = 4501;
/// Ten bad frames in a row.
pub const BAD_FRAMES: u16 = 4502;
/// The server's application has ended the connection and revoked its token.
pub const REVOKED: u16 = 4503;
