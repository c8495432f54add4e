//! A shard: one thread with its own runtime that owns its connections and what they are subscribed to, and
//! is the home of its share of the rooms and lanes. Nothing in it is locked and nothing in it is shared.
//!
//! Work enters by sockets that are ready (`sockets`, `socket`), the queue from other shards and from the
//! rest of the process ([`inbox`]), answers of logic, and time (`timers`). Everything runs in turns on one
//! thread (`turn`); what a turn wrote for clients leaves at its end.
//!
//! Data flows one way: socket → session → home or views → peers → socket. State has groups with private
//! fields; the methods of `Shard` stand in the file of the state they change.

mod authentications;
mod buffers;
mod conflicts;
pub mod connection;
pub mod connections;
mod counters;
mod deliveries;
mod dispatch;
mod draining;
pub mod event_stream;
mod events;
pub mod handle;
mod history;
mod home_driver;
pub mod inbound;
pub mod inbox;
pub mod peers;
mod presence;
pub mod removals;
mod reports;
mod requests;
pub mod runtime;
pub mod shared;
mod socket;
mod sockets;
mod timers;
mod tokens;
mod turn;
mod unanswered;
mod upgrade;
pub mod views;
pub mod watchers;
pub mod wheel;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;
use sluice_proto::ids::SessionId;
use tokio::time::Instant;

use self::authentications::Authentications;
use self::buffers::ReadBuffers;
use self::conflicts::Conflicts;
use self::connection::Connection;
use self::connections::{Connections, Timeouts};
use self::counters::Counters;
use self::draining::Draining;
use self::handle::Shards;
use self::history::History;
use self::home_driver::HomeDriver;
use self::inbound::Inbound;
use self::presence::Presences;
use self::reports::Reports;
use self::shared::Shared;
use self::sockets::Sockets;
use self::timers::Timers;
use self::turn::{ShardCell, WeakCell};
use self::unanswered::Unanswered;
use self::upgrade::Upgraded;
use self::views::Views;
use crate::address::{Address, ShardIx};
use crate::defaults::{QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES};
use crate::room::limits::ViewLimits;
use crate::session::grants::SeenGrants;
use crate::session::machine::{Session, SessionLimits};
use crate::status::change;
use crate::tick::ticks;
use crate::uplink::Link;

/// The state of one shard.
pub(crate) struct Shard {
    me: ShardIx,
    shared: Arc<Shared>,
    /// Its own handle, for the tasks it starts.
    cell: WeakCell,
    timers: Timers,
    sockets: Sockets,
    connections: Connections,
    buffers: ReadBuffers,
    unanswered: Unanswered,
    authentications: Authentications,
    presences: Presences,
    history: History,
    views: Views,
    driver: HomeDriver,
    conflicts: Conflicts,
    reports: Reports,
    session_limits: Arc<SessionLimits>,
    grants: SeenGrants,
    draining: Option<Draining>,
    /// How many of them there were.
    drain_rounds: u64,
    counters: Counters,
}

impl Shard {
    fn start(me: ShardIx, shared: Arc<Shared>, shards: &Shards, sockets: Sockets) -> ShardCell {
        let config = &shared.config;
        let limits = ViewLimits {
            max_behind: config.max_behind,
            queue_low: QUEUE_LOW_BYTES,
            queue_high: QUEUE_HIGH_BYTES,
            ..ViewLimits::default()
        };
        let seconds = |s| ticks(Duration::from_secs(s));
        let timeouts = Timeouts {
            slow: seconds(config.slow_timeout_s),
            ping_every: seconds(config.ping_every_s),
            ping_within: seconds(config.ping_timeout_s),
        };
        let driver = HomeDriver::new(me, shards, config.limits.scheduled_per_user);
        ShardCell::new(|cell| Self {
            me,
            cell,
            timers: Timers::new(Instant::now()),
            connections: Connections::new(me, timeouts, sockets.wanted()),
            sockets,
            buffers: ReadBuffers::default(),
            unanswered: Unanswered::default(),
            authentications: Authentications::default(),
            presences: Presences::default(),
            history: History::default(),
            views: Views::new(Arc::new(limits)),
            driver,
            conflicts: Conflicts::default(),
            reports: Reports::default(),
            session_limits: shared.session_limits(),
            grants: SeenGrants::default(),
            draining: None,
            drain_rounds: 0,
            counters: Counters::default(),
            shared,
        })
    }

    /// Makes a connection of an upgraded socket.
    ///
    /// # Errors
    /// The system has no more room for it; nothing is left of it then.
    fn enter(&mut self, upgraded: Upgraded) -> io::Result<()> {
        let Upgraded { stream, token, events, verdict, rest, seat, parent } = upgraded;
        // From the runtime's own set to ours.
        let stream = TcpStream::from_std(stream.into_std()?);
        let (limits, since_ms) = (Arc::clone(&self.session_limits), self.shared.clock.now_ms());
        let inbound = Inbound::with_rest(rest, &mut self.buffers.contexts);
        let who = self.connections.insert(|who, deadlines| {
            let session = Session::new(Link::part_of(parent, SessionId::fresh(), who), limits);
            Connection::new(stream, session, inbound, deadlines, since_ms, seat).reading(events)
        });
        if let Some(connection) = self.connections.get(who)
            && let Err(error) = self.sockets.enter(&mut connection.stream, who)
        {
            self.connections.remove(who.slot);
            return Err(error);
        }
        self.connections.want(who.slot);
        match verdict {
            Some((verdict, epoch)) => self.identified_by_ticket(who, verdict, epoch),
            None => self.authenticate(who, token.unwrap_or_default()),
        }
        // It was let in before the gate closed, and comes after everybody was listed: nobody else tells it.
        if self.draining.is_some() {
            self.admitted_while_draining(who);
        }
        Ok(())
    }

    /// Ends what a connection takes part in: its rooms, its presence.
    fn detach(&mut self, who: Address, goodbye: bool) {
        let Some(connection) = self.connections.get(who) else { return };
        if std::mem::replace(&mut connection.detached, true) {
            return;
        }
        self.forget_pages(who);
        // Who was told to move has a second connection by now, which may be told later than this one's end.
        let goodbye = goodbye && self.draining.is_none();
        let Some(connection) = self.connections.get(who) else { return };
        // All at once: taking a thousand out one by one would move the rest of the table each time.
        for (room, entry) in connection.subscriptions.take() {
            if entry.joined.get()
                && let Some(change) = self.change(who, |about| change::left(about, &room, goodbye))
            {
                self.report(change);
            }
            self.views.leave(&mut self.connections, &entry, who, None);
        }
        if let Some(change) = self.change(who, |about| change::disconnected(about, goodbye)) {
            self.report(change);
        }
        self.follow_up();
    }

    /// A place among the connections is free again.
    fn on_removed(&mut self) {
        self.shared.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.signal_if_empty();
    }
}

#[cfg(test)]
mod tests;
