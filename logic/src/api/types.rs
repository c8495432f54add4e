//! What calls of the API say and get. A member that is not known is refused: what is misspelt must not be passed over.

mod names;
mod users;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

pub use self::names::{
    IdempotencyKeyName, KnownRoomName, MessageKey, RoomName, RoomPrefix, SessionName, UserName,
};
pub use self::users::{
    DisconnectBody, Disconnected, GatewayConnections, GatewaySubscriptions, Unreached, UnsubscribeBody,
    Unsubscribed,
};
use super::problem::Code;

/// A message for one room.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBody {
    /// The room.
    #[schema(value_type = RoomName)]
    pub room: String,
    /// Any JSON of at most 64 KiB; passed on byte for byte.
    #[schema(value_type = Value, example = json!({"t": "hi"}))]
    pub data: Box<RawValue>,
    /// The idempotency key: the message is stored once for `(room, from, key)`.
    #[schema(value_type = Option<IdempotencyKeyName>)]
    pub key: Option<String>,
    /// The user who sends it; without it the name of the API key.
    #[schema(value_type = Option<UserName>)]
    pub from: Option<String>,
}

/// A message for many rooms. A name that breaks a rule is an error of its room, not of the call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BroadcastBody {
    /// The rooms, each once.
    #[schema(min_items = 1, max_items = 256)]
    pub rooms: Vec<String>,
    /// Any JSON of at most 64 KiB; passed on byte for byte.
    #[schema(value_type = Value, example = json!({"t": "hi"}))]
    pub data: Box<RawValue>,
    /// The idempotency key, in each of the rooms.
    pub key: Option<String>,
    /// The user who sends it; without it the name of the API key.
    pub from: Option<String>,
}

/// Messages that are stored together where they can be: those of one room and sender in the order given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// The messages, 1 MiB of data at most.
    #[schema(min_items = 1, max_items = 256)]
    pub messages: Vec<BatchItem>,
}

/// A message of a batch, as of `publish`. With `delay_ms` or `at`, as of `schedule`, it is published later. A name or a time
/// that breaks a rule is an error of the message, not of the call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// The room.
    #[schema(example = "news")]
    pub room: String,
    /// Any JSON of at most 64 KiB; passed on byte for byte.
    #[schema(value_type = Value, example = json!({"t": "hi"}))]
    pub data: Box<RawValue>,
    /// The idempotency key; without it, and with the header `Idempotency-Key`, that of the header and the item's place.
    pub key: Option<String>,
    /// The user who sends it; without it the name of the API key.
    pub from: Option<String>,
    /// Publishes it so many milliseconds after it was stored.
    pub delay_ms: Option<u64>,
    /// Publishes it then, milliseconds since 1970.
    pub at: Option<i64>,
}

/// A message that is to be published later: say either `delay_ms` or `at`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleBody {
    /// The room.
    #[schema(value_type = RoomName)]
    pub room: String,
    /// Any JSON of at most 64 KiB; passed on byte for byte.
    #[schema(value_type = Value, example = json!({"t": "hi"}))]
    pub data: Box<RawValue>,
    /// The idempotency key, by which it can be cancelled.
    #[schema(value_type = Option<IdempotencyKeyName>)]
    pub key: Option<String>,
    /// The user who sends it; without it the name of the API key.
    #[schema(value_type = Option<UserName>)]
    pub from: Option<String>,
    /// So many milliseconds after it was stored, 30 days at most.
    #[schema(maximum = 2_592_000_000_u64, example = 60_000)]
    pub delay_ms: Option<u64>,
    /// Milliseconds since 1970, 30 days ahead at most.
    #[schema(minimum = 0)]
    pub at: Option<i64>,
}

/// What is not to be published after all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// The room.
    #[schema(value_type = KnownRoomName)]
    pub room: String,
    /// The key it was scheduled with.
    #[schema(value_type = MessageKey)]
    pub key: String,
    /// Who scheduled it; without it the name of the API key.
    #[schema(value_type = Option<UserName>)]
    pub from: Option<String>,
}

/// A message that is committed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Published {
    /// The room.
    pub room: String,
    /// The position of the message.
    pub seq: u64,
    /// The epoch of the store that the position belongs to, 16 hex digits.
    pub epoch: String,
    /// The key it was sent with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it was there already: this call was sent before.
    pub duplicate: bool,
}

/// A message that will be published.
#[derive(Debug, Serialize, ToSchema)]
pub struct Scheduled {
    /// The room.
    pub room: String,
    /// When, milliseconds since 1970. Absent if it was published already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
    /// Its position, if it was published already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The key by which it can be cancelled.
    pub key: String,
}

/// Whether a message is not published.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cancelled {
    /// The room.
    pub room: String,
    /// The key it was scheduled with.
    pub key: String,
    /// True is final. False: nothing waits under this key, it was published or never scheduled.
    pub cancelled: bool,
}

/// What became of one message of several.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ItemResult {
    /// It is committed.
    Published(Published),
    /// It will be published.
    Scheduled(Scheduled),
    /// It is not.
    Failed(FailedItem),
}

/// A component of the description, and what makes it.
type Component = (&'static str, fn() -> RefOr<Schema>);

impl ItemResult {
    const SCHEMAS: [Component; 3] = [
        ("Published", Published::schema),
        ("Scheduled", Scheduled::schema),
        ("FailedItem", FailedItem::schema),
    ];
}

/// Any of them, not one of them: what is published has all that a scheduled message must have.
impl PartialSchema for ItemResult {
    fn schema() -> RefOr<Schema> {
        let any = AnyOfBuilder::new().description(Some("What became of one message of several."));
        Self::SCHEMAS.iter().fold(any, |any, (name, _)| any.item(Ref::from_schema_name(*name))).into()
    }
}

impl ToSchema for ItemResult {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend(Self::SCHEMAS.map(|(name, schema)| (name.to_owned(), schema())));
        FailedItem::schemas(schemas);
    }
}

/// A message of several that was not stored, or of which nobody knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailedItem {
    /// The room, as it was given.
    pub room: String,
    /// Why.
    pub error: ItemError,
}

/// Why, in short: as a problem.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemError {
    /// The code, for programs.
    pub code: Code,
    /// For people: what was wrong and how to mend it.
    pub detail: String,
    /// Whether sending the same again, with the same key, can succeed.
    pub retry: bool,
}

/// An answer to each message, in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// One per message or room, in order.
    pub results: Vec<ItemResult>,
}

/// Which messages of a room: the newest, those below `before`, or those above `after`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// The room.
    #[param(value_type = KnownRoomName)]
    pub room: String,
    /// The newest messages below this position, which is not among them.
    #[param(minimum = 0)]
    pub before: Option<u64>,
    /// The oldest messages above this position.
    #[param(minimum = 0)]
    pub after: Option<u64>,
    /// Messages at most; 100 unless said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which messages of a room, all of them at once.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// The room.
    #[param(value_type = KnownRoomName)]
    pub room: String,
    /// Only messages above this position: where an earlier export ended.
    #[param(minimum = 0)]
    pub after: Option<u64>,
}

/// A message as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredMessage {
    /// Its position.
    pub seq: u64,
    /// The user who sent it.
    pub from: String,
    /// The key, if the sender chose one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was stored, milliseconds since 1970.
    pub at: i64,
    /// The message.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
}

/// A page of a room, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// The room.
    pub room: String,
    /// The epoch of the store that the positions belong to.
    pub epoch: String,
    /// The oldest position that is kept; one above `head` when nothing is.
    pub oldest: u64,
    /// The last position given out; 0 for a room that nobody published to.
    pub head: u64,
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Whether there are more in that direction: ask again with `before`, or `after`.
    pub more: bool,
    /// Where to go on, towards older messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Where to go on, towards newer messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Of a room or of a user: say one of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PresenceQuery {
    /// Who is in this room.
    #[param(value_type = Option<KnownRoomName>)]
    pub room: Option<String>,
    /// Whether this user is connected.
    #[param(value_type = Option<UserName>)]
    pub user: Option<String>,
    /// Only users that sort after this one.
    #[param(max_length = 128)]
    pub after: Option<String>,
    /// Users at most; 100 unless said, 0 = only how many.
    #[param(minimum = 0, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A user who is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct PresentUser {
    /// The user.
    pub user: String,
    /// How many connections.
    pub connections: u32,
    /// Since when the oldest of them, milliseconds since 1970.
    pub since: i64,
    /// What the user's token says of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub info: Option<Box<RawValue>>,
}

/// Who is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct Presence {
    /// Users, these and all others; above 100,000 connections a lower bound.
    pub count: u32,
    /// Their connections.
    pub connections: u32,
    /// The users of this page, in the order of their bytes.
    pub users: Vec<PresentUser>,
    /// Whether users follow: ask again with the last of these as `after`.
    pub more: bool,
}

/// Which rooms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RoomsQuery {
    /// Rooms that begin like this; without it all.
    #[param(value_type = Option<RoomPrefix>)]
    pub prefix: Option<String>,
    /// Only rooms that sort after this one: where the page before ended.
    #[param(value_type = Option<RoomPrefix>)]
    pub after: Option<String>,
    /// Rooms at most; 100 unless said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A room that somebody has published to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Room {
    /// The room.
    pub room: String,
    /// The last position.
    pub head: u64,
    /// When its message was stored, milliseconds since 1970; absent if it is not kept any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// Connections that are subscribed; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<u64>,
}

/// A page of rooms.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rooms {
    /// The epoch of the store that the positions belong to.
    pub epoch: String,
    /// The rooms, in the order of their bytes. May be none although others follow.
    pub rooms: Vec<Room>,
    /// Whether others follow.
    pub more: bool,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What waits in a room.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ScheduledQuery {
    /// The room.
    #[param(value_type = KnownRoomName)]
    pub room: String,
    /// Where the page before ended, together with `after_key`.
    #[param(value_type = Option<UserName>)]
    pub after_from: Option<String>,
    /// Where the page before ended, together with `after_from`.
    #[param(value_type = Option<MessageKey>)]
    pub after_key: Option<String>,
    /// Messages at most; 100 unless said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A message that waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingMessage {
    /// Who scheduled it.
    pub from: String,
    /// The key by which it can be cancelled.
    pub key: String,
    /// When it is published, milliseconds since 1970.
    pub due: i64,
    /// The message.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
}

/// A page of what waits, in the order of senders and keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingMessages {
    /// The room.
    pub room: String,
    /// The messages.
    pub messages: Vec<WaitingMessage>,
    /// Whether others follow: ask again with the last of these as `after_from` and `after_key`.
    pub more: bool,
}

/// What answers here, and what the key may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Info {
    /// The version of this logic.
    pub version: &'static str,
    /// This process.
    pub instance: String,
    /// The epoch of the store, 16 hex digits.
    pub epoch: String,
    /// Whether this process stays.
    pub state: &'static str,
    /// The key that asks.
    pub key: KeyInfo,
    /// The most that a call may hold or get.
    pub limits: Limits,
    /// Processes of this deployment, by service and state.
    pub instances: Vec<InstanceInfo>,
}

/// A key, as its file has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// What it may read.
    pub sub: Vec<String>,
    /// Where it may publish.
    #[serde(rename = "pub")]
    pub publish: Vec<String>,
    /// Whose connections and subscriptions it may end.
    pub disconnect: Vec<String>,
    /// When it ends, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

/// The most that a call may hold or get.
#[derive(Debug, Serialize, ToSchema)]
pub struct Limits {
    /// Bytes of `data`.
    pub data_bytes: usize,
    /// Messages of a batch, rooms of a broadcast.
    pub batch_items: usize,
    /// Bytes of their data.
    pub batch_bytes: usize,
    /// Messages, rooms or users in an answer.
    pub page: u32,
}

/// A process of the deployment.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceInfo {
    /// Its id.
    pub instance: String,
    /// What it is.
    pub service: &'static str,
    /// Whether it stays.
    pub state: &'static str,
    /// Its version.
    pub version: String,
}
