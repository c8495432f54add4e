//! Every limit and time of task, with its arithmetic. Limits that all services share are in
//! `sluice_proto::limits`.

use std::time::Duration;

use sluice_proto::limits::{BATCH_BYTES_MAX, GRPC_BYTES_MAX};

/// Notices in hand at once. NATS gives 4,096 to all tasks together; a gateway that has stopped acknowledging
/// holds them for [`LAGS_AFTER`], during which the others must not notice anything.
pub const NOTICES_MAX: usize = 2_048;
/// Bytes of notices in hand: 64 MiB. One is at most 1 MiB, which is NATS' own limit.
pub const NOTICES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Notices whose interest is asked for together.
pub const LOOKUP_NOTICES_MAX: usize = 128;
/// Rooms in one pipeline: less than a millisecond of Redis.
pub const LOOKUP_ROOMS_MAX: usize = 2_000;
/// After a failed lookup Redis is left alone for so long and everybody gets everything: a Redis that swallows
/// its calls must not cost each notice half a second.
pub const REDIS_RESTS: Duration = Duration::from_secs(1);

/// Bytes of one push: a batch of this size stays below what gRPC takes, framing included.
pub const PUSH_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Notices in one push.
pub const PUSH_ITEMS_MAX: usize = 1_024;
/// Pushes on the way to one gateway: enough to keep it busy for a round trip, few enough to gather.
pub const PUSHES_IN_FLIGHT_MAX: usize = 4;
/// Notices that may wait for one gateway; above that it lags. Never the first bound met in an orderly life.
pub const OUTLET_ITEMS_MAX: usize = 2 * NOTICES_MAX;
/// Bytes that may wait for one gateway; above that it lags.
pub const OUTLET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A push not acknowledged for so long makes its gateway lag. Half of the queue's `ack_wait` of 2 s, so that no
/// notice is delivered again because of one slow gateway.
pub const LAGS_AFTER: Duration = Duration::from_secs(1);
/// From dialling to the gateway's first word. Pushes wait for a first attempt, so not longer than
/// [`LAGS_AFTER`].
pub const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// First pause between attempts to open a stream; doubles.
pub const REOPEN_MIN: Duration = Duration::from_millis(50);
/// The longest wait before a stream is opened again.
pub const REOPEN_MAX: Duration = Duration::from_secs(1);
/// How long the end of a stream may take that we ended.
pub const GOODBYE: Duration = Duration::from_millis(100);

/// How often the outbox is swept.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often gone instances are looked for: one small question to Redis by one task.
pub const REAP_EVERY: Duration = Duration::from_millis(500);
/// How often is asked whose leave is due: one small question to Redis by one task. A leave is told this much late.
pub const LEAVES_EVERY: Duration = Duration::from_millis(500);
/// Who has lost its lease and whose push stream broke is gone after this: a living one has had two attempts at its stream
/// by then. With a second in which etcd notices the end of a lease and two looks, presence after a SIGKILL is right within
/// the lease time and 3 s.
pub const REDIALS_WITHIN: Duration = Duration::from_secs(1);
/// Most instances remembered whose push stream broke: a roll of a thousand gateways.
pub const BROKEN_MAX: usize = 1_000;
/// How often a part of the schedule is looked at that has nothing due: a delayed message that is due before the one last
/// seen goes out this much too late at most. Eight parts are sixteen small questions a second.
pub const FIRE_EVERY: Duration = Duration::from_millis(500);
/// Pause when what is due is in the hands of somebody else, whose transaction ends in a moment.
pub const FIRE_AGAIN_MIN: Duration = Duration::from_millis(10);
/// Deadline of one call on logic; a stop waits for the call under way.
pub const CALL_WITHIN: Duration = Duration::from_secs(1);
/// Instances one call may reap, a limit of logic.
pub const REAP_MAX: usize = 64;

/// How long a stopping task looks whether it is the last and a gateway drains.
pub const LAST_LOOK: Duration = Duration::from_millis(200);
/// The last task stays for draining gateways as long as its stage lasts, less this. When everything stops at once they
/// need 2 s; what comes later is found by their clients when they resume.
pub const STAY_MARGIN: Duration = Duration::from_millis(100);

/// Time given to each resource to close, in parallel.
pub const CLOSE_WITHIN: Duration = Duration::from_millis(500);

const _: () = assert!(PUSH_BYTES_MAX * 3 / 2 < GRPC_BYTES_MAX);
const _: () = assert!(OUTLET_BYTES_MAX >= PUSHES_IN_FLIGHT_MAX * PUSH_BYTES_MAX);
const _: () = assert!(OPEN_WITHIN.as_millis() <= LAGS_AFTER.as_millis());
