//! What a name has to look like, for the description of the API; the rules themselves are those of [`sluice_proto::ids`].
//! A schema counts characters where they count bytes.

use utoipa::ToSchema;

/// A room: 1 to 129 bytes of UTF-8, without control characters and `*`.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 129, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f*]+$", example = "news")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct RoomName(String);

/// A room that may be of earlier, when a `*` was allowed in it: 1 to 129 bytes of UTF-8, without control characters.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 129, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", example = "news")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct KnownRoomName(String);

/// The beginning of a room's name: up to 129 bytes of UTF-8, without control characters.
#[derive(ToSchema)]
#[schema(max_length = 129, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", example = "n")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct RoomPrefix(String);

/// A user, as tokens name it in `sub`: 1 to 128 bytes of UTF-8, without control characters.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", example = "ann")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct UserName(String);

/// An idempotency key: 1 to 128 bytes of UTF-8, without control characters, not beginning with `~`.
#[derive(ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = "^[^\\x00-\\x1f\\x7f-\\x9f~][^\\x00-\\x1f\\x7f-\\x9f]*$",
    example = "order-17"
)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct IdempotencyKeyName(String);

/// The key of a message, also one that was made for it: 1 to 128 bytes of UTF-8, without control characters.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", example = "order-17")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct MessageKey(String);

/// The `session` of a `welcome`.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9a-fA-F]{32}$", example = "000102030405060708090a0b0c0d0e0f")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct SessionName(String);
