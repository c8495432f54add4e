//! A shard: one thread with its own runtime that owns its connections and what they are subscribed to, and
//! is the home of its share of the rooms and lanes. Nothing in it is locked and nothing in it is shared.
//!
//! Work enters by the tasks of connections (`socket`), the queue from other shards and from the rest of
//! the process ([`inbox`]), answers of logic, and time ([`runtime`]). Everything runs in turns on one thread;
//! what a turn wrote for clients leaves at its end.

pub mod connection;
pub mod connections;
mod counters;
mod dispatch;
mod draining;
pub mod handle;
mod home_driver;
pub mod inbound;
pub mod inbox;
pub mod peers;
mod reports;
mod requests;
pub mod runtime;
pub mod shared;
mod socket;
mod timers;
mod unanswered;
mod upgrade;
pub mod views;
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

use self::connection::{Connection, ConnectionPhase, Deadlines};
use self::connections::Connections;
use self::counters::{Levels, Tally};
use self::handle::Shards;
use self::inbound::{ContextPool, Inbound};
use self::peers::Peers;
use self::reports::Reports;
use self::shared::Shared;
use self::upgrade::Upgraded;
use self::views::Views;
use crate::address::{Address, ShardIx};
use crate::defaults::{QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES, READ_CHUNK_BYTES, home_limits};
use crate::home::Home;
use crate::room::limits::ViewLimits;
use crate::room::link::Ms;
use crate::session::machine::Session;
use crate::session::outbound::Outbound;
use crate::status;
use crate::subscription::Subscriptions;
use crate::tick::{NEVER, Tick, ticks};
use crate::uplink::Link;

/// A shard, as its own tasks hold it.
pub(crate) type Cell = Rc<RefCell<Shard>>;

/// The state of one shard.
pub(crate) struct Shard {
    me: ShardIx,
    shards: ShardIx,
    shared: Arc<Shared>,
    began: Instant,
    /// When the timer wakes next.
    armed: Instant,
    /// Wakes the timer, as something is due earlier.
    earlier: Rc<Notify>,
    /// When the clock was last looked at: a gap above the lease's life is a freeze.
    clock_read_at: Instant,
    connections: Connections,
    views: Views,
    home: Home,
    peers: Peers,
    follow_ups: home_driver::FollowUps,
    /// What homes and views decide is being carried out.
    following: bool,
    /// Publishes of this shard's connections without outcome, and their bytes.
    unanswered: usize,
    unanswered_bytes: usize,
    /// There are too many of them: no socket is read.
    over_budget: bool,
    /// Clients' questions that logic has not answered.
    questions: usize,
    contexts: ContextPool,
    scratch: Vec<u8>,
    replies: Vec<u8>,
    generation: u32,
    ping_every: Tick,
    ping_within: Tick,
    /// For the reporter.
    reports: Reports,
    draining: Option<draining::Draining>,
    /// Its own handle, for the tasks it starts.
    cell: std::rc::Weak<RefCell<Shard>>,
    tally: Tally,
    levels: Levels,
    frames_in: u64,
    slow: u64,
    ping_timeouts: u64,
}

impl Shard {
    fn new(me: ShardIx, shared: Arc<Shared>, shards: &Shards) -> Cell {
        let config = &shared.config;
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
                clock_read_at: now,
                connections: Connections::new(seconds(slow)),
                views: Views::new(Arc::new(limits)),
                home: Home::new(home_limits(count), usize::from(me), count, 0),
                peers: Peers::new(usize::from(me), shards.inboxes()),
                follow_ups: home_driver::FollowUps::default(),
                following: false,
                unanswered: 0,
                unanswered_bytes: 0,
                over_budget: false,
                questions: 0,
                contexts: ContextPool::default(),
                scratch: vec![0; READ_CHUNK_BYTES],
                replies: Vec::new(),
                generation: 0,
                ping_every: seconds(every),
                ping_within: seconds(within),
                reports: Reports::default(),
                draining: None,
                cell: cell.clone(),
                tally: Tally::default(),
                levels: Levels::default(),
                frames_in: 0,
                slow: 0,
                ping_timeouts: 0,
                shared,
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
    fn admit(cell: &Cell, upgraded: Upgraded) {
        let who = cell.borrow_mut().enter(upgraded);
        let cell = Rc::clone(cell);
        let task = poll_fn(move |context| cell.borrow_mut().poll_connection(who, context));
        drop(spawn_local(task));
    }

    fn enter(&mut self, upgraded: Upgraded) -> Address {
        let Upgraded { stream, token, rest } = upgraded;
        self.generation = self.generation.wrapping_add(1);
        let (generation, shard) = (self.generation, self.me);
        let now = self.connections.wheel.now();
        let first_ping = self.ping_every / 2 + rand::random_range(0..=self.ping_every / 2);
        let entry = self.connections.by_slot.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let who = Address { shard, slot, generation };
        let link = Link::new(SessionId::fresh(), who);
        entry.insert(Box::new(Connection {
            stream,
            address: who,
            session: Session::new(link, self.shared.session_limits()),
            subscriptions: Subscriptions::default(),
            inbound: Inbound::with_rest(rest, &mut self.contexts),
            outbound: Outbound::default(),
            waker: None,
            phase: ConnectionPhase::Serving,
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
            discard_input: false,
            peer_closed: false,
            closed: false,
            detached: false,
            since_ms: self.shared.clock.now_ms(),
        }));
        self.authenticate(who, token.unwrap_or_default());
        if self.draining.is_some() {
            self.admitted_while_draining(who);
        }
        who
    }

    /// Ends what a connection takes part in: its rooms, its presence.
    fn detach(&mut self, who: Address, goodbye: bool) {
        let Some(connection) = self.connections.get(who) else { return };
        if std::mem::replace(&mut connection.detached, true) {
            return;
        }
        let rooms: Vec<_> = connection.subscriptions.iter().map(|(room, _)| room.clone()).collect();
        for room in rooms {
            if let Some(change) = self.change(who, |about| status::left(about, &room, goodbye)) {
                self.report(change);
            }
            self.views.unsubscribe(&mut self.connections, who, room.as_str());
        }
        if let Some(change) = self.change(who, |about| status::disconnected(about, goodbye)) {
            self.report(change);
        }
        self.send_wants();
    }

    /// Looks at the clock: a process that stood still for longer than its lease was declared dead, and what
    /// it still holds must not be stored.
    fn check_freeze(&mut self) {
        let now = Instant::now();
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.clock_read_at, now));
        if gap > self.shared.config.etcd.lease_ttl() {
            tracing::warn!(
                gap_ms = gap.as_millis(),
                shard = self.me,
                "This process stood still; its connections are closed."
            );
            self.shared.metrics.freezes.inc();
            self.on_freeze();
        }
    }

    /// Writes to all that got something in this turn.
    fn write_all(&mut self, writer: &std::task::Waker) {
        let dirty = self.connections.take_dirty(writer);
        for slot in &dirty {
            self.write(*slot);
        }
        self.connections.return_dirty(dirty);
    }

    /// A place among the connections is free again.
    fn on_removed(&mut self) {
        self.shared.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.signal_if_empty();
    }
}
