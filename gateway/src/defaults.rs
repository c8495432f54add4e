//! Every limit and time of the gateway with its arithmetic. What an operator may change stands in
//! [`crate::config`]; limits of the wire version stand in `sluice_proto::limits`.

use std::time::Duration;

/// Connections of one gateway. 1 KiB of state and a socket each, so memory is not what limits it.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Files and sockets open besides the clients': gRPC, etcd, the listeners, the runtimes' own, and refusals.
pub const FILES_BESIDES: u64 = 2_048;
/// A header with a token of 8 KiB and the usual cookies; larger requests are refused.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// From accept to the end of the request's header: half a request must not hold a place for long.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Seconds a refused client is asked to wait (503 while draining or full).
pub const RETRY_AFTER_S: u64 = 2;
/// The longest a crowd is told to wait: whoever hears of more gives up.
pub const RETRY_AFTER_S_MAX: u64 = 60;
/// Bytes of a client that has not said who it is: a frame of the largest size, and what a read takes besides. After its
/// first frame, which is a `connect`, nothing of it is read until it is known.
pub const UNIDENTIFIED_BYTES_MAX: u32 = 192 * 1024;
/// Frames of such a client that are no `connect`: at the second the connection ends.
pub const UNIDENTIFIED_FRAMES_MAX: u8 = 2;

/// Handshakes per second of all clients: above what a core has been seen to serve.
pub const HANDSHAKES_PER_S: u32 = 20_000;
/// Rooms opened per second by all clients. With all that belongs to it a room takes 1.7 KB, so those that open them for
/// ten seconds, with the burst, have 36,000 of them, 61 MB. Shared by 400 that open them all the time it leaves more than
/// five a second to each, and whoever opens fewer waits for nobody.
pub const OPENED_ROOMS_PER_S: u32 = 3_000;
/// Seconds' worth of them that may be opened at once; the first room of each user waits for nobody in any case.
pub const OPENED_ROOMS_BURST_S: u64 = 2;
/// Publishes per second of one user: eight that never stop take a quarter of what two cores store.
pub const PUBLISHES_PER_USER: u32 = 500;
/// Milliseconds' worth of publishes that may come at once: half of what a connection may have unanswered.
pub const PUBLISHES_BURST_MS: u64 = 250;
/// Questions per second of one user, `history` and `presence`.
pub const QUESTIONS_PER_USER: u32 = 50;
/// Milliseconds' worth of them that may come at once: two for each of 25 rooms.
pub const QUESTIONS_BURST_MS: u64 = 1_000;
/// Pings and refused frames per second of one connection. Clients ping every few seconds.
pub const OTHER_FRAMES_PER_S: u32 = 100;
/// Delayed messages of one user that wait: at 64 KiB each they are 64 MiB of the store, for up to 30 days.
pub const SCHEDULED_PER_USER: u32 = 1_000;
/// Seconds of them that may come at once: 60,000, the clients of a gateway that has gone.
pub const CROWD_BURST_S: u64 = 3;
/// Seconds of a user's or an address's rate that may be used at once: somebody who comes back subscribes to everything.
pub const BURST_S: u64 = 5;

/// What the system tells of sockets at once.
pub const SOCKET_EVENTS_MAX: usize = 1_024;
/// What one read takes from a socket at most: one buffer per shard, none per connection.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Frames taken from one connection in one read: at 0.5 to 5 µs each one that never stops sending has at most a
/// millisecond, then others have their turn.
pub const FRAMES_PER_READ: usize = 256;
/// What the kernel keeps of a client that is not read, about twice that: two of the largest frames. It would be up to
/// 6 MiB, which a client that floods fills at once.
pub const RECEIVE_BUFFER_BYTES: u32 = 128 * 1024;
/// Read buffer of a frame under way. Only a connection with half a frame holds one.
pub const FRAME_BUFFER_BYTES: usize = 1024;
/// What one write hands to a socket at most, so that one connection cannot hold the shard.
pub const WRITE_CHUNK_BYTES: usize = 64 * 1024;
/// Writes to one connection in one turn of the loop.
pub const WRITES_PER_TURN: usize = 4;
/// A subscriber whose queue is above this falls back to catching up; reading stops as well.
pub const QUEUE_HIGH_BYTES: usize = 256 * 1024;
/// Below this it catches up again and is read again.
pub const QUEUE_LOW_BYTES: usize = 64 * 1024;
/// Of so many messages that live subscribers get, a shard measures how late one is: to find its time costs half a
/// microsecond.
pub const DELIVERIES_PER_SAMPLE: usize = 64;
/// Publishes of one connection without outcome; then its socket is not read.
pub const UNANSWERED_ITEMS_MAX: usize = 256;
/// The same in bytes.
pub const UNANSWERED_BYTES_MAX: usize = 1024 * 1024;
/// Publishes of all connections of a shard without outcome; then none of its sockets is read. What logic
/// stores in a second, so that an outage of 10 s is waited out by the clients, not in our memory.
pub const SHARD_UNANSWERED_ITEMS_MAX: usize = 32 * 1024;
/// The same in bytes.
pub const SHARD_UNANSWERED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Requests of one connection (history, presence, connect) without answer; then its socket is not read.
pub const REQUESTS_MAX: u16 = 8;
/// `sub`s of one connection without answer; then its socket is not read. As many as publishes.
pub const SUBS_PENDING_MAX: u16 = 256;
/// Rooms a connection has left as the last one of its shard and whose interest is not removed yet; then its socket is
/// not read. All that a connection may have, once in the 5 s that a room is kept for who comes back.
pub const ROOMS_LEAVING_MAX: u16 = 1_000;
/// Frames in a row that are not understood before a connection is closed.
pub const BAD_FRAMES_MAX: u8 = 10;
/// Rooms one connection may be subscribed to.
pub const ROOMS_PER_CONNECTION_MAX: usize = 1_000;

/// Rooms of one stream of events.
pub const EVENT_ROOMS_MAX: usize = 32;
/// Bytes of their names as they stand in a URL. All of them come back in `Last-Event-ID` too, with 22 bytes more for each:
/// URL and header take 9 KiB of the 16 that a request has, and a long token fits beside them.
pub const EVENT_ROOM_BYTES_MAX: usize = 4 * 1024;
/// A stream that ends without a word is opened again after half to one and a half of this, milliseconds: a crowd does not
/// come in step.
pub const RETRY_SPREAD_MS: u64 = 2_000;
/// Questions about tickets under way at once, of all shards; the others wait within [`HANDSHAKE_WITHIN`].
pub const TICKET_CALLS_MAX: usize = 256;

/// Messages waiting for one shard. Runs above it are owed as a hand-over, levels wait at the sender.
pub const INBOX_MESSAGES_MAX: usize = 4_096;
/// How long a shard works without a pause: what takes longer goes on in the next turn, and others have theirs in
/// between. With two shards and a crowd a client then waits for a few of them, well below 100 ms.
pub const TURN: Duration = Duration::from_millis(10);
/// Messages in one order to a home, of a push that may hold thousands.
pub const PUSHED_PER_ORDER: usize = 256;
/// Rooms of a home, or views, that one turn looks at: 1 to 5 µs each.
pub const ROOMS_PER_TURN: usize = 1_000;
/// Messages taken from the inbox in one turn, so that sockets are looked at in between.
pub const INBOX_PER_TURN: usize = 256;

/// Between two looks at deadlines of connections.
pub const TICK: Duration = Duration::from_millis(100);
/// The slowest reader that is put up with: 1 kB/s, per [`TICK`].
pub const READ_BYTES_PER_TICK_MIN: u32 = 100;
/// Slots of the deadline wheel: 51 s at [`TICK`], above every period in it; longer ones go round again.
pub const WHEEL_SLOTS: usize = 512;
/// Without `connect` or a usable token for this long: bye 4005.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For the answer to a close frame; then the TCP connection ends.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// For the end of what the client still sends after our end of the connection was closed.
pub const LINGER_WITHIN: Duration = Duration::from_secs(1);

/// Deadline of `Read`, `Heads`, `Subscribe`, `Presence`: the room or the client asks again.
pub const CALL_WITHIN: Duration = Duration::from_secs(2);
/// How long ago an answer of logic makes a gateway ready: homes ask every second.
pub const HEARD_WITHIN: Duration = Duration::from_secs(4);
/// Deadline of the first question to logic, and the pause before the next.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The pause before the next first question to logic.
pub const ANSWER_AGAIN: Duration = Duration::from_millis(50);
/// How long before the end of a token its client is told, unless configured, seconds: many tries to fetch another.
pub const TOKEN_EXPIRING_S: u64 = 30;
/// The longest that can be configured, seconds.
pub const TOKEN_EXPIRING_S_MAX: u64 = 3_600;
/// Of a short life it is told when so many parts of it are over: four of five.
pub const TOKEN_LIFE_PARTS: i64 = 5;
/// Nobody is told later than so long before the end, milliseconds: a token is hardly fetched in less.
pub const TOKEN_TOLD_MS_MIN: i64 = 1_000;
/// Between two tries to learn who clients are while no logic answers.
pub const AUTHENTICATE_AGAIN: Duration = Duration::from_millis(200);
/// Bytes of tokens after which a call about them takes no more: with a last one as long as a frame it stays well below
/// what gRPC takes.
pub const AUTHENTICATE_BYTES_MAX: usize = 512 * 1024;
/// New tokens of clients that are known are asked about first, as the ones before end; but of newcomers one after so many,
/// as long as both wait: 64 of the 256 in a call. So a newcomer waits for at most 4 times as many questions as there are
/// newcomers before it, however many clients refresh their tokens without end.
pub const KNOWN_IN_A_ROW_MAX: usize = 3;
/// Calls about single tokens under way at once, where a logic does not take them together.
pub const AUTHENTICATE_SINGLY_MAX: usize = 64;
/// Tokens of a shard that wait while a call is under way; above it a client is told at once to come back. Two seconds of
/// a crowd of 15,000 a second: whoever is behind them would hardly wait for its answer.
/// Those of clients that are known already are counted by themselves.
pub const TOKENS_WAITING_MAX: usize = 32 * 1024;
/// The same in bytes: 32,768 of the usual 200 to 400, 2,048 of the longest that logic reads.
pub const TOKENS_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Clients' questions about presence per shard, those that wait for their turn and those that were asked; above it they
/// are refused at once, with `retry`.
pub const QUESTIONS_MAX: usize = 1_024;
/// Of these, calls under way: an answer names up to 256 users, and subscriptions need logic more.
pub const PRESENCE_CALLS_MAX: usize = 2;
/// Who asked for the same page that one call answers at most: 2 µs each, in one turn.
pub const PRESENCE_SHARED_MAX: usize = 256;
/// Calls for pages of history under way per shard: the store has four connections for reads, and subscriptions and
/// catching up need them more.
pub const HISTORY_CALLS_MAX: usize = 2;
/// Bytes of such pages per shard, those that may come and those that clients have not taken: 16 of the largest. Beyond
/// it the next ones wait, and are refused with `retry` after [`CALL_WITHIN`].
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of such pages of one user on all shards: four of the largest, a quarter of what one shard has, so that one who
/// does not read leaves room for others.
pub const HISTORY_BYTES_PER_USER: usize = 4 * 1024 * 1024;
/// The same of one address, which may be a balancer that does not tell whose connections it brings: what one shard has.
pub const HISTORY_BYTES_PER_ADDRESS: usize = 16 * 1024 * 1024;
/// Bytes of pages of history per second of one user. A page of 64 KB takes a millisecond of a processor on its way
/// from the store.
pub const HISTORY_BYTES_PER_S_PER_USER: u32 = 4 * 1024 * 1024;
/// The same of one address: a quarter of what two cores bring at most.
pub const HISTORY_BYTES_PER_S_PER_ADDRESS: u32 = 16 * 1024 * 1024;
/// Seconds' worth of them that may come at once.
pub const HISTORY_BURST_S: u64 = 1;
/// Connections above one of these that are looked at again when somebody has taken a page: it made room for one of the
/// largest, or for some that are small.
pub const HISTORY_RESUMED_MAX: usize = 4;
/// Connections that wait for their turn and are looked at in one tick, whether they waited too long.
pub const HISTORY_LOOKS_PER_TICK: usize = 256;
/// Push streams at once: one per task, and old ones that have not been seen to end.
pub const PUSH_STREAMS_MAX: usize = 256;

/// What a watched room was told last, for what a task brings again within seconds, in each shard.
pub const ROOM_TELLINGS_KEPT: usize = 32;
/// After Redis forgot, until whoever watches a room is told to ask again: it is told everything within seconds, and for 10
/// it tells nobody who comes.
pub const STALE_AFTER: Duration = Duration::from_secs(12);

/// Status changes in one report: 1,000 of at most 450 bytes stay below half of the gRPC limit.
pub const STATUS_ITEMS_MAX: usize = 1_000;
/// Bytes in one report.
pub const STATUS_BYTES_MAX: usize = 512 * 1024;
/// Batches of changes between shards and the reporter.
pub const REPORTER_QUEUE_MAX: usize = 64;
/// Changes that may wait for logic; above it they are forgotten and the next full set says it all.
pub const STATUS_QUEUE_MAX: usize = 200_000;
/// Between two tries of a report that failed.
pub const STATUS_AGAIN: Duration = Duration::from_millis(250);
/// A report goes out at least this often, as its reply brings the marker of Redis.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A full set goes out at least this often.
pub const FULL_SET_EVERY: Duration = Duration::from_secs(600);

/// Parts of the stage drain; the stages themselves are [`crate::stages::TIMES`].
pub mod budget {
    use std::time::Duration;

    /// For clients that move by themselves: connect elsewhere, subscribe, send again.
    pub const MOVE: Duration = Duration::from_millis(700);
    /// From the last paced close to the end of the stage, half of what is left at most: outcome, bye, close, answer.
    pub const AFTER_LAST_CLOSE: Duration = Duration::from_millis(800);
    /// All of it when no other gateway serves: nobody can take the clients, so waiting buys nothing.
    pub const DRAIN_LAST: Duration = Duration::from_millis(1_000);
}

/// Before the end of the drain publishes without outcome are given up: then bye, close and its answer.
pub const GIVE_UP_BEFORE_END: Duration = Duration::from_millis(500);
/// Before the end of the drain whoever is still there is dropped.
pub const DROP_BEFORE_END: Duration = Duration::from_millis(100);
/// A drain that the process survives has no end by itself: who is still there so long after the last paced close is
/// dropped. More than [`LANE_HORIZON`], after which every publish has its outcome.
pub const STANDBY_PATIENCE: Duration = Duration::from_secs(12);
/// For telling logics that we drain.
pub const SAY_SO_WITHIN: Duration = Duration::from_millis(300);
/// The reporter ends so much before its stage, so that it ends by itself.
pub const FLUSH_MARGIN: Duration = Duration::from_millis(50);
/// Between two looks at how many more clients there is room for.
pub const HEADROOM_EVERY: Duration = Duration::from_secs(1);
/// A drain is slowed down for the headroom of others to no less than this part of its rate.
pub const HEADROOM_SHARE_MIN: f64 = 0.1;
/// For giving the lease back.
pub const CLOSE_CLUSTER_WITHIN: Duration = Duration::from_millis(450);
/// Closes per second while other gateways serve: 2,300 ms of drain close 2,000 clients at it, and more in the same time.
/// Clients are told to return at this rate too; a gateway that has just started takes more than twice as many.
pub const DRAIN_RATE_PER_S: u32 = 2_500;
/// Subscriptions per second that clients of a drain bring to others: half of what two cores made, shared with the clients
/// and all stores, after a gateway was killed with 5,000 clients in ten rooms each.
pub const DRAIN_SUBSCRIPTIONS_PER_S: u32 = 20_000;
/// Between two slices of a paced drain.
pub const DRAIN_SLICE: Duration = Duration::from_millis(20);
/// Longest delay a client is asked to wait before it reconnects.
pub const RECONNECT_MS_MAX: u64 = 15_000;
/// Shortest delay when nobody is there to come back to yet.
pub const RECONNECT_MS_MIN_LAST: u64 = 1_000;
/// Few clients are spread over this as well, so that they do not come in step.
pub const RECONNECT_SPREAD_MS_MIN: u64 = 200;

/// How often a gateway asks for revocations that nobody told it of. With the half second after which a logic has read them,
/// it finds each within a second and the time of a call.
pub const REVOCATIONS_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to learn where revocations end: until then no token is believed.
pub const REVOCATIONS_FIRST_AGAIN: Duration = Duration::from_millis(50);
/// Revocations that are remembered, the newest: some 150 bytes each, 1.5 MB. A logic that is so many behind is not believed.
pub const REVOCATIONS_KNOWN_MAX: usize = 10_000;
/// Calls that end something under way at once: each may look at all connections.
pub const DISCONNECTS_MAX: usize = 64;
/// For the shards to end what a call names: less than the 900 ms that logic gives a try.
pub const REMOVE_WITHIN: Duration = Duration::from_millis(800);
/// So long the publishes of who is ended may still get their outcomes: most come in some milliseconds.
pub const REMOVED_OUTCOMES_WITHIN: Duration = Duration::from_millis(300);

/// From the first try of a batch of publishes until its unanswered items are given up together.
pub const LANE_HORIZON: Duration = Duration::from_secs(10);
/// The same while logic says that a room of the batch is locked: two or three tries of half a second each, after which the
/// other rooms of the lane go on.
pub const LOCKED_HORIZON: Duration = Duration::from_millis(1_500);
/// Items of a batch that several senders share, for each of them: a publish waits for the batch before it and goes with the
/// next. One of each alone costs a room that 64 publish to without end two fifths of its rate.
pub const SHARED_BATCH_ITEMS_EACH: usize = 4;
/// Items of such a batch at least: at 3 to 5 commits in 10 ms a lane still stores 10,000 a second.
pub const SHARED_BATCH_ITEMS_MIN: usize = 32;
/// Deadline of one try.
pub const LANE_TRY_FOR: Duration = Duration::from_secs(2);
/// Wait after the first failed try; doubles.
pub const LANE_BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest wait between tries.
pub const LANE_BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Between two questions about the heads of active rooms, milliseconds.
pub const REPAIR_EVERY_MS: u64 = 1_000;
/// All rooms are asked once in this time.
pub const REPAIR_PERIOD_MS: u64 = 30_000;
/// A room is active for this long after a message or a new subscriber.
pub const ROOM_ACTIVE_MS: u64 = 60_000;
/// How long a find keeps all rooms under question.
pub const REPAIR_ALARM_MS: u64 = 10_000;
/// More finds than this in a minute: all rooms announce their interest again.
pub const REPAIR_FINDS_PER_MIN: u32 = 20;
