//! Every limit and time of logic, with its arithmetic. Limits that all services share are in
//! `sluice_proto::limits`.

use std::time::Duration;

use sluice_presence::LEAVE_GRACE;
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, GRPC_BYTES_MAX, NOTICE_INLINE_BYTES_MAX};
use sluice_store::DEDUPE_MIN;

/// Clocks of token issuers may be this far off, seconds.
pub const LEEWAY_S: i64 = 30;
/// Shortest secret of tokens, bytes: 128 bits if they are random.
pub const TOKEN_SECRET_BYTES_MIN: usize = 16;
/// Secrets shorter than this are warned of, bytes: as many bits as HS256's hash has (RFC 7518, 3.2).
pub const TOKEN_SECRET_BYTES_ASKED: usize = 32;
/// The longest token, in bytes. A header line of HTTP is 8 KiB at most proxies.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Shortest RSA key whose signatures count, bits: what NIST allows, and most libraries sign with.
pub const RSA_BITS_MIN: usize = 2_048;
/// Longest one, bits: as long as the library verifies, and a signature costs a millisecond.
pub const RSA_BITS_MAX: usize = 4_096;
/// Keys taken from a JWK set. Providers have two to five; a token without `kid` is tried with all of its algorithm.
pub const JWKS_KEYS_MAX: usize = 32;
/// Bytes of an answer that is to be a JWK set: 32 keys of 4,096 bits with a chain of certificates each.
pub const JWKS_BYTES_MAX: usize = 512 * 1024;
/// From the look-up of a name to the last byte of a JWK set.
pub const JWKS_WITHIN: Duration = Duration::from_secs(10);
/// How often a JWK set is fetched unless configured, seconds.
pub const JWKS_REFRESH_S: u64 = 300;
/// A token that names an unknown key has the set fetched at most this often.
pub const JWKS_ASKED_EVERY: Duration = Duration::from_secs(10);
/// How long a call about such a token waits for the set: a gateway gives it [`GATEWAY_TRY`], and others are in the call.
pub const JWKS_AWAITED: Duration = Duration::from_millis(800);
/// Between tries while a JWK set cannot be fetched: the first, doubled up to [`JWKS_AGAIN_MAX`].
pub const JWKS_AGAIN: Duration = Duration::from_secs(1);
/// The longest of them: a provider that comes back is noticed within this.
pub const JWKS_AGAIN_MAX: Duration = Duration::from_secs(10);
/// The longest a gateway waits for one answer.
pub const GATEWAY_TRY: Duration = Duration::from_secs(2);
/// Most grants in a token: both lists together.
pub const GRANTS_MAX: usize = 1_000;

/// How long a ticket may be taken: what a page needs to open its stream, with a slow network.
pub const TICKET_FOR: Duration = Duration::from_secs(60);
/// The longest ticket that is looked at: its 64 digits.
pub const TICKET_BYTES_MAX: usize = 64;

/// An item counts at least this much in a commit group, so that one bound in bytes also bounds the items:
/// 256 items × 4 KiB = 1 MiB.
pub const ITEM_COST_MIN: usize = BATCH_BYTES_MAX / BATCH_ITEMS_MAX;
/// Calls that may wait for one lane: each gateway has one in flight, and its retries.
pub const LANE_CALLS_MAX: usize = 1_024;
/// Bytes that may wait for one lane; 16 lanes hold 128 MiB at most.
pub const LANE_BYTES_MAX: usize = 8 * BATCH_BYTES_MAX;

/// Connections to PostgreSQL that commit, and that read, unless configured: those of the store.
pub const LANE_CONNECTIONS: usize = 8;
/// Connections that read; their sum is reckoned at [`LANE_CONNECTIONS`].
pub const READ_CONNECTIONS: usize = 4;

/// Notices that may wait for NATS, per lane: above that they are dropped, the outbox keeps them.
pub const NOTICES_QUEUED_MAX: usize = 64;
/// Bytes of notices that may wait, per lane; 16 lanes hold 64 MiB at most.
pub const NOTICES_QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Groups announced by one NATS message.
pub const NOTICE_GROUPS_MAX: usize = 64;
/// Bytes of one NATS message, which NATS limits to 1 MiB: the inline messages of one group, the names of
/// 256 of them (3 × 128 bytes and framing each, together at most 128 KiB), and some more small groups.
pub const NOTICE_BYTES_MAX: usize = 768 * 1024;
/// Bytes of a notice that tells who came and left: far below what NATS takes, so that messages join it.
pub const PRESENCE_NOTICE_BYTES_MAX: usize = 128 * 1024;
/// How long a user may be away from a room before those who watch it are told, unless configured, seconds.
pub const LEAVE_GRACE_S: u64 = LEAVE_GRACE.as_secs();
/// Outbox rows are deleted at most this often, so that one statement takes many.
pub const NOTED_EVERY: Duration = Duration::from_millis(100);
/// Outbox rows deleted by one statement.
pub const NOTED_BATCH_MAX: usize = 1_000;
/// Outbox rows that may wait for their deletion; above that the sweep finds them.
pub const NOTED_QUEUED_MAX: usize = 20_000;

/// No call is worth more: gateways give a try of a publish 2 s, a whole batch 10 s.
pub const CALL_WITHIN: Duration = Duration::from_secs(10);

/// Reads under way at once, for subscriptions, heads and catching up: their pool is smaller, so a few wait there, and each
/// holds up to 1 MiB.
pub const READS_MAX: usize = 32;
/// Reads of history under way at once: half of the [`READ_CONNECTIONS`], so that however many pages are asked for, and
/// however slowly they come, the other half serves who subscribes and catches up.
pub const HISTORY_READS_MAX: usize = READ_CONNECTIONS / 2;
/// The longest a read waits for others: both tries of a gateway fit into its 2 s, so it hears that this logic is full
/// rather than nothing, which it would hold against all calls of this logic.
pub const READ_TURN_WITHIN: Duration = Duration::from_millis(900);

/// How often the store is probed and the marker read. With the time until a dependency counts as lost it is known within
/// 3 s that nothing can be committed.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How far the clock of logic may be from that of the store: a quarter of the shortest time that keys are kept, as long as
/// gateways allow between reading a publish and storing it.
pub const STORE_CLOCK_BOUND: Duration = Duration::from_secs(DEDUPE_MIN.as_secs() / 4);
/// A store that does not answer the probe within this is unreachable.
pub const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// A commit that does not end within this is not taken, unless one of a group has ended meanwhile. With [`PROBE_EVERY`], 500
/// ms until the dependency is looked at and 1.5 s until it counts as lost, 2.9 s at most.
pub const COMMIT_WITHIN: Duration = Duration::from_millis(400);

/// Outbox rows older than this were not handed over, or their deletion was lost. Ten times
/// [`NOTED_EVERY`], or the sweep would announce what was announced.
pub const STALE_NOTE: Duration = Duration::from_secs(1);
/// Outbox rows one sweep announces.
pub const SWEEP_NOTES_MAX: usize = 512;
/// Outbox rows one sweep deletes as too old.
pub const SWEEP_DROP_MAX: usize = 10_000;
/// Messages one sweep deletes by retention.
pub const SWEEP_TRIM_MAX: usize = 2_000;
/// Cancelled keys one sweep forgets.
pub const SWEEP_CANCELLED_MAX: usize = 10_000;
/// Delayed messages one step publishes, of each of its two lanes: 8 MiB at most, well within the second that a task waits.
pub const FIRE_MAX: usize = BATCH_ITEMS_MAX / 2;
/// How long firing passes over a room that was waited for in vain, a tenth of a second: the lane stands still for a tenth
/// of its time at most.
pub const LOCKED_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Rooms of a lane that are passed over at once: more than one step comes upon.
pub const LOCKED_ROOMS_MAX: usize = 256;
/// Questions about presence under way at once: each looks at up to 100,000 connections, in steps of Redis that reports
/// and interest have to wait for.
pub const PRESENCE_QUERIES_MAX: usize = 4;
/// Users in one answer about presence.
pub const PRESENT_MAX: usize = 1_000;
/// Instances one call may reap.
pub const REAP_MAX: usize = 64;

/// Calls a second that one key of the API may make, unless configured: far above what a backend needs, and below what
/// would keep gateways from the store.
pub const API_CALLS_PER_S: u32 = 5_000;
/// Messages scheduled by one key of the API that wait, unless configured. They are counted with each call that schedules,
/// which takes some milliseconds for so many.
pub const API_SCHEDULED_PER_KEY: u32 = 10_000;
/// Calls of one key under way at once; the next ones wait [`API_TURN_WITHIN`].
pub const API_KEY_CALLS_MAX: usize = 256;
/// Calls under way at once: each holds a body of [`FRAME_BYTES_MAX`](sluice_proto::limits::FRAME_BYTES_MAX) at
/// most, or has a place among [`API_BULK_MAX`].
pub const API_CALLS_MAX: usize = 1_024;
/// Calls with many messages under way at once: 2 MiB each.
pub const API_BULK_MAX: usize = 32;
/// Publishes of the API in one lane at once, or their bytes by [`ITEM_COST_MIN`]: what a gateway sends waits for one commit
/// group of them at most.
pub const API_LANE_ITEMS_MAX: usize = BATCH_ITEMS_MAX;
/// Pages that the API reads at once: half of the [`HISTORY_READS_MAX`], so the other half serves clients.
pub const API_READS_MAX: usize = HISTORY_READS_MAX / 2;
/// Exports under way at once, and of one key.
pub const API_EXPORTS_MAX: usize = 64;
/// Half of them, so that nobody has all.
pub const API_KEY_EXPORTS_MAX: usize = API_EXPORTS_MAX / 2;
/// The longest a call of the API waits for a place: half of what it may take, so that the other half is left to do it.
pub const API_TURN_WITHIN: Duration = Duration::from_secs(CALL_WITHIN.as_secs() / 2);
/// A body must have arrived within this.
pub const API_BODY_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a call with many messages.
pub const API_BULK_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;
/// Bytes of a body above its bound that are taken, and dropped, so that its sender reads why.
pub const API_DISCARDED_BYTES_MAX: usize = 4 * API_BULK_BYTES_MAX;
/// Messages, rooms or users in one answer of the API.
pub const API_PAGE_MAX: u32 = 1_000;
/// The same, unless asked for another number.
pub const API_PAGE: u32 = 100;
/// When a caller may come again that found no place, or a process that stops, seconds.
pub const API_RETRY_AFTER_S: u64 = 1;
/// How often the file of keys is looked at.
pub const API_KEYS_EVERY: Duration = Duration::from_secs(1);

/// The longest a gateway retries a publish: its batch horizon of 10 s and the try under way then.
pub const RETRY_HORIZON: Duration = Duration::from_secs(12);

/// How often revocations are read from the store: a logic that was not told of one refuses its tokens within this.
pub const REVOCATIONS_EVERY: Duration = Duration::from_millis(500);
/// How long a gateway that begins waits for what the store has: half of its call.
pub const REVOCATIONS_FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Revocations in memory, the newest: some 150 bytes each, 15 MB. For tokens that may be among older ones the store is asked.
pub const REVOCATIONS_KNOWN_MAX: usize = 100_000;
/// Revocations read, or told to a gateway, at once: 160 kB at most.
pub const REVOCATIONS_PAGE: usize = 1_000;
/// Calls that end something under way at once: each may call every gateway.
pub const DISCONNECTS_MAX: usize = 64;
/// Gateways one of them calls at once.
pub const TELL_AT_ONCE_MAX: usize = 64;
/// All of one: gateways answer in milliseconds, and whoever asked wants to know.
pub const TELL_WITHIN: Duration = Duration::from_secs(2);
/// One try at one gateway: two of them fit into [`TELL_WITHIN`], with the pause between them.
pub const TELL_TRY_WITHIN: Duration = Duration::from_millis(900);
/// Between two tries.
pub const TELL_AGAIN: Duration = Duration::from_millis(100);

/// First wait between attempts to reach the store at start; doubles.
pub const STORE_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait between them.
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long a stopping logic looks whether it is the last and a gateway drains.
pub const LAST_LOOK: Duration = Duration::from_millis(200);
/// Time given to each resource to close, in parallel.
pub const CLOSE_WITHIN: Duration = Duration::from_millis(500);

const _: () =
    assert!(JWKS_AWAITED.as_millis() * 2 <= GATEWAY_TRY.as_millis(), "a call about tokens ends in time");
const _: () = assert!(NOTICE_INLINE_BYTES_MAX + 128 * 1024 < NOTICE_BYTES_MAX);
const _: () = assert!(NOTICE_BYTES_MAX < 1024 * 1024, "NATS's default max_payload");
const _: () = assert!(BATCH_BYTES_MAX * 3 / 2 < GRPC_BYTES_MAX);
const _: () = assert!(STALE_NOTE.as_millis() >= 10 * NOTED_EVERY.as_millis());
const _: () = assert!(2 * TELL_TRY_WITHIN.as_millis() + TELL_AGAIN.as_millis() < TELL_WITHIN.as_millis());
