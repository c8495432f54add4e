//! A shard: one thread with its own runtime that owns its connections and what they are subscribed to, and
//! is the home of its share of the rooms and lanes. Nothing in it is locked and nothing in it is shared.
//!
//! Work enters by the tasks of connections (`serving`), the queue from other shards and from the rest of
//! the process ([`Incoming`]), answers of logic, and time ([`thread`]). Everything runs in turns on one thread;
//! what a turn wrote for clients leaves at its end.

pub mod connection;
pub mod floor;
mod greeting;
pub mod handle;
mod harbour;
pub mod hub;
pub mod inbound;
mod leaving;
pub mod post;
mod reports;
mod requests;
mod serving;
mod standing;
pub mod surroundings;
pub mod thread;
pub mod wheel;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_proto::ids::SessionId;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use self::connection::{Connection, Deadlines, NEVER, Phase};
use self::floor::Floor;
use self::greeting::Admitted;
use self::handle::Shards;
use self::hub::Hub;
use self::inbound::{Inbound, Lender};
use self::post::Post;
use self::reports::Reports;
use self::surroundings::{Shared, ticks};
use self::wheel::Tick;
use crate::defaults::{QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES, READ_CHUNK_BYTES, home_limits};
use crate::exchange::{Address, ShardIx};
use crate::home::Home;
use crate::room::limits::ViewLimits;
use crate::room::link::Ms;
use crate::session::machine::Session;
use crate::session::outbound::Outbound;
use crate::status;
use crate::subscription::Subscriptions;
use crate::uplink::Link;

/// What comes through a shard's queue.
#[derive(Debug)]
pub enum Incoming {
    /// From the rest of the process.
    Order(handle::Order),
    /// From another shard.
    Letter(post::Letter),
}

/// Outcomes since the last tick.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    completed: u64,
    rejected: u64,
    retries: u64,
    unknown: u64,
}

/// Levels as last added to the sums of the gateway.
#[derive(Debug, Default)]
struct Levels {
    subscriptions: i64,
    rooms: i64,
    publishes: i64,
    queued_bytes: i64,
}

/// A shard, as its own tasks hold it.
pub(crate) type Cell = Rc<RefCell<Shard>>;

/// The state of one shard.
pub(crate) struct Shard {
    me: ShardIx,
    shards: ShardIx,
    around: Shared,
    began: Instant,
    /// When the timer wakes next.
    armed: Instant,
    /// Wakes the timer, as something is due earlier.
    earlier: Rc<Notify>,
    /// When the clock was last looked at: a gap above the lease's life is a freeze.
    looked_at: Instant,
    floor: Floor,
    hub: Hub,
    home: Home,
    post: Post,
    later: harbour::Later,
    /// What homes and views decide is being carried out.
    following: bool,
    /// Publishes of this shard's connections without outcome, and their bytes.
    unanswered: usize,
    unanswered_bytes: usize,
    /// There are too many of them: no socket is read.
    starved: bool,
    /// Clients' questions that logic has not answered.
    questions: usize,
    lender: Lender,
    scratch: Vec<u8>,
    replies: Vec<u8>,
    generation: u32,
    ping_every: Tick,
    ping_within: Tick,
    /// For the reporter.
    reports: Reports,
    leaving: Option<leaving::Leave>,
    /// Its own handle, for the tasks it starts.
    cell: std::rc::Weak<RefCell<Shard>>,
    tally: Tally,
    levels: Levels,
    frames_in: u64,
    slow: u64,
    silent: u64,
}

impl Shard {
    fn new(me: ShardIx, around: Shared, shards: &Shards) -> Cell {
        let config = &around.config;
        let limits = ViewLimits {
            max_behind: config.max_behind,
            queue_low: QUEUE_LOW_BYTES,
            queue_high: QUEUE_HIGH_BYTES,
            ..ViewLimits::default()
        };
        let count = shards.len();
        let (slow, every, within) = (config.slow_timeout_s, config.ping_every_s, config.ping_timeout_s);
        let seconds = |s| ticks(Duration::from_secs(s));
        let now = Instant::now();
        Rc::new_cyclic(|cell| {
            RefCell::new(Self {
                me,
                shards: ShardIx::try_from(count).unwrap_or(ShardIx::MAX),
                began: now,
                armed: now,
                earlier: Rc::default(),
                looked_at: now,
                floor: Floor::new(seconds(slow)),
                hub: Hub::new(Arc::new(limits)),
                home: Home::new(home_limits(count), usize::from(me), count, 0),
                post: Post::new(usize::from(me), shards.inboxes()),
                later: harbour::Later::default(),
                following: false,
                unanswered: 0,
                unanswered_bytes: 0,
                starved: false,
                questions: 0,
                lender: Lender::default(),
                scratch: vec![0; READ_CHUNK_BYTES],
                replies: Vec::new(),
                generation: 0,
                ping_every: seconds(every),
                ping_within: seconds(within),
                reports: Reports::default(),
                leaving: None,
                cell: cell.clone(),
                tally: Tally::default(),
                levels: Levels::default(),
                frames_in: 0,
                slow: 0,
                silent: 0,
                around,
            })
        })
    }

    /// Milliseconds since the shard began.
    fn now(&self) -> Ms {
        let elapsed = Instant::now().saturating_duration_since(self.began);
        Ms::try_from(elapsed.as_millis()).unwrap_or(Ms::MAX)
    }

    /// Starts a task of this shard.
    fn local<F>(&self, task: impl FnOnce(Cell) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        if let Some(cell) = self.cell.upgrade() {
            drop(spawn_local(task(cell)));
        }
    }

    /// Makes a connection of an upgraded socket and starts its task.
    fn admit(cell: &Cell, admitted: Admitted) {
        let who = cell.borrow_mut().enter(admitted);
        let cell = Rc::clone(cell);
        let task = poll_fn(move |context| cell.borrow_mut().poll_connection(who, context));
        drop(spawn_local(task));
    }

    fn enter(&mut self, admitted: Admitted) -> Address {
        let Admitted { stream, token, rest } = admitted;
        self.generation = self.generation.wrapping_add(1);
        let (generation, shard) = (self.generation, self.me);
        let now = self.floor.wheel.now();
        let first_ping = self.ping_every / 2 + rand::random_range(0..=self.ping_every / 2);
        let entry = self.floor.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let who = Address { shard, slot, generation };
        let link = Link::new(SessionId::fresh(), who);
        entry.insert(Box::new(Connection {
            stream,
            address: who,
            session: Session::new(link, self.around.session_limits()),
            subscriptions: Subscriptions::default(),
            inbound: Inbound::with_rest(rest, &mut self.lender),
            outbound: Outbound::default(),
            waker: None,
            phase: Phase::Serving,
            deadlines: Deadlines {
                ping_at: now.saturating_add(first_ping),
                pong_by: NEVER,
                connect_by: NEVER,
                expires_at: NEVER,
                close_by: NEVER,
                progress_at: now,
                armed_at: NEVER,
                unheard: 0,
            },
            behind: 0,
            requests: 0,
            dirty: false,
            blocked: false,
            paused: true,
            deaf: false,
            peer_closed: false,
            closed: false,
            detached: false,
            since_ms: self.around.clock.now_ms(),
        }));
        self.authenticate(who, token.unwrap_or_default());
        if self.leaving.is_some() {
            self.late_comer(who);
        }
        who
    }

    /// Ends what a connection takes part in: its rooms, its presence.
    fn detach(&mut self, who: Address, goodbye: bool) {
        let Some(connection) = self.floor.get(who) else { return };
        if std::mem::replace(&mut connection.detached, true) {
            return;
        }
        let rooms: Vec<_> = connection.subscriptions.iter().map(|(room, _)| room.clone()).collect();
        for room in rooms {
            if let Some(change) = self.change(who, |about| status::left(about, &room, goodbye)) {
                self.report(change);
            }
            self.hub.unsubscribe(&mut self.floor, who, room.as_str());
        }
        if let Some(change) = self.change(who, |about| status::disconnected(about, goodbye)) {
            self.report(change);
        }
        self.send_wants();
    }

    /// Looks at the clock: a process that stood still for longer than its lease was declared dead, and what
    /// it still holds must not be stored.
    fn look_at_clock(&mut self) {
        let now = Instant::now();
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        if gap > self.around.config.etcd.lease_ttl() {
            tracing::warn!(
                gap_ms = gap.as_millis(),
                shard = self.me,
                "This process stood still; its connections are closed."
            );
            self.around.metrics.freezes.inc();
            self.thaw();
        }
    }

    /// Writes to all that got something in this turn.
    fn write_all(&mut self, writer: &std::task::Waker) {
        let dirty = self.floor.take_dirty(writer);
        for slot in &dirty {
            self.write(*slot);
        }
        self.floor.return_dirty(dirty);
    }

    /// A place among the connections is free again.
    fn left_the_floor(&mut self) {
        self.around.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.look_whether_left();
    }
}
