//! Limits of wire version 1. They depend on the bytes of an input alone, never on configuration.

/// Lanes: rooms of one lane are committed by one connection at a time.
pub const LANES: u8 = 16;
/// Longest user or key, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest room: one byte more than a user, so that everybody has a room of their own, `@<user>`.
pub const ROOM_BYTES_MAX: usize = NAME_BYTES_MAX + 1;
/// Largest `id` of a request, in bytes of JSON.
pub const ID_BYTES_MAX: usize = 256;
/// Arrays and objects in each other within a `data` or an `id`: common readers give up at 128 or below, and a
/// message in a page of history lies three levels deep.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most users in one page of `presence`.
pub const PRESENCE_USERS_MAX: usize = 256;
/// Largest `info` of a token, in bytes of JSON: it stands in every answer that names its user.
pub const INFO_BYTES_MAX: usize = 1_024;
/// Most bytes of `info` in one page of `presence`: as much as the rest of it.
pub const PAGE_INFO_BYTES_MAX: usize = 32 * 1_024;
/// Largest `data` of a publish, in bytes of JSON as received.
pub const DATA_BYTES_MAX: usize = 64 * 1024;
/// Largest frame a client may send: `data` plus names plus room for escapes.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;
/// Most items in one `Publish` call or commit group.
pub const BATCH_ITEMS_MAX: usize = 256;
/// Most bytes of items in one `Publish` call, a `Read` reply or a push: half of [`GRPC_BYTES_MAX`].
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Largest gRPC message; tonic's own default would be 4 MiB.
pub const GRPC_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most messages in one page of `Read`.
pub const PAGE_MESSAGES_MAX: usize = 256;
/// Most rooms in one `Subscribe` or `Heads` call.
pub const ROOMS_PER_CALL_MAX: usize = 1_000;
/// Most tokens in one `AuthenticateMany` call.
pub const TOKENS_PER_CALL_MAX: usize = 256;
/// Most ranges in one `Read` call.
pub const RANGES_PER_CALL_MAX: usize = 64;
/// Most bytes of messages carried inline in a notice: NATS refuses payloads above 1 MiB.
pub const NOTICE_INLINE_BYTES_MAX: usize = 512 * 1024;
/// Longest delay of a publish, in milliseconds: 30 days.
pub const DELAY_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// First byte of keys minted by a gateway; clients may not use it.
pub const MINTED_KEY_PREFIX: char = '~';
