//! What is ended by the will of the application: connections of a user, or their subscriptions. All connections of a shard
//! are looked at, in as many turns as that needs.
//!
//! Who is ended takes nothing more, gets the outcomes that are there within a moment, then `bye`. A client that does not
//! read is cut a second later.

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::sync::Arc;

use sluice_proto::ids::{RoomId, SessionId, UserId};
use sluice_proto::revocation::is_refused;
use sluice_proto::wire::ErrorCode;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Shard;
use super::connection::{Connection, ConnectionPhase};
use super::turn::{Budget, ShardCell};
use crate::address::Address;
use crate::defaults::{CLOSE_WITHIN, REMOVED_OUTCOMES_WITHIN};
use crate::ending::Ending;
use crate::tick::{NEVER, ticks};

/// What a client is told whose subscription was ended.
const REASON: &str = "ended by the application";

/// What is ended, by user.
#[derive(Debug, Default)]
pub struct Removals(HashMap<UserId, Removal>);

/// What of a user is ended.
#[derive(Debug)]
pub struct Removal {
    /// Of this session alone.
    pub session: Option<SessionId>,
    /// Which part of it.
    pub what: Removed,
}

/// What is ended of a connection.
#[derive(Debug)]
pub enum Removed {
    /// The connection, which may come back.
    Connection,
    /// What came with a token that was issued up to this second, or does not say when: the connection, or rooms that a
    /// token of their own opened.
    Revoked {
        /// Seconds since 1970.
        issued_until_s: u32,
    },
    /// A subscription, or all.
    Subscriptions(Option<RoomId>),
}

impl FromIterator<(UserId, Removal)> for Removals {
    fn from_iter<T: IntoIterator<Item = (UserId, Removal)>>(removals: T) -> Self {
        Self(removals.into_iter().collect())
    }
}

impl Removals {
    /// Leaves out users.
    pub fn retain(&mut self, keep: impl Fn(&UserId) -> bool) {
        self.0.retain(|user, _| keep(user));
    }

    /// Whether nothing is ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is ended of a connection.
    fn of(&self, connection: &Connection) -> Option<&Removed> {
        let who = connection.session.identity()?;
        let Removal { session, what } = self.0.get(&who.user)?;
        if session.is_some_and(|session| session != connection.session.link().session) {
            return None;
        }
        Some(what)
    }
}

/// How far a shard has come.
#[derive(Debug, Default)]
struct Progress {
    from_slot: usize,
    count: u32,
    /// Connections that were ended, with the reason.
    ended: VecDeque<(Address, Ending)>,
}

impl Shard {
    /// Ends what is to be ended, and says how many there were.
    pub(super) fn remove(&mut self, removals: Arc<Removals>, done: oneshot::Sender<u32>) {
        self.local(async move |cell: ShardCell| {
            let mut progress = Progress::default();
            while cell.turn(|shard| shard.remove_some(&removals, &mut progress, Budget::begin())) {
                // What was said in this turn is written before the next.
                yield_now().await;
            }
            // Whoever asked may have run out of time.
            let _ = done.send(progress.count);
            if progress.ended.is_empty() {
                return;
            }
            sleep(REMOVED_OUTCOMES_WITHIN).await;
            while cell.turn(|shard| shard.finish_some(&mut progress.ended, Budget::begin())) {
                yield_now().await;
            }
        });
    }

    /// As far as a turn has time; `true`: there are more connections.
    fn remove_some(&mut self, removals: &Removals, progress: &mut Progress, budget: Budget) -> bool {
        while let Some((slot, connection)) = self.connections.from_slot(progress.from_slot) {
            progress.from_slot = slot + 1;
            let who = connection.address();
            match removals.of(connection) {
                None => {}
                Some(Removed::Connection) => self.end_by_will(who, Ending::Disconnected, progress),
                Some(Removed::Revoked { issued_until_s }) => {
                    self.end_revoked(who, *issued_until_s, progress);
                }
                Some(Removed::Subscriptions(room)) => {
                    progress.count += self.end_subscriptions(who, room.as_ref());
                }
            }
            if budget.is_spent() {
                return true;
            }
        }
        false
    }

    /// A later token of the connection does not vouch for the earlier one of a room: each counts for what it opened.
    fn end_revoked(&mut self, who: Address, issued_until_s: u32, progress: &mut Progress) {
        let Some(connection) = self.connections.get(who) else { return };
        let session = &mut connection.session;
        let issued_at_s = session.identity().and_then(|known| known.issued_at_s);
        if is_refused(issued_at_s.map(NonZero::get), issued_until_s) {
            return self.end_by_will(who, Ending::Revoked, progress);
        }
        for room in session.revoke_room_tokens(issued_until_s) {
            self.end_subscription(who, &room, ErrorCode::Unauthorized, "the token for this room was revoked");
        }
    }

    fn end_by_will(&mut self, who: Address, ending: Ending, progress: &mut Progress) {
        let reconnect_ms = self.resend_ms();
        // Who is closing already has a last word of its own.
        let serving = |it: &&mut Connection| it.phase == ConnectionPhase::Serving;
        let Some(connection) = self.connections.get(who).filter(serving) else { return };
        connection.session.end(ending.clone(), reconnect_ms);
        progress.count += 1;
        progress.ended.push_back((who, ending));
        self.settle(who);
    }

    /// As far as a turn has time; `true`: there are more.
    fn finish_some(&mut self, ended: &mut VecDeque<(Address, Ending)>, budget: Budget) -> bool {
        while let Some((who, ending)) = ended.pop_front() {
            self.finish(who, ending);
            if budget.is_spent() {
                break;
            }
        }
        !ended.is_empty()
    }

    /// No outcome is waited for any more, and no socket that takes nothing.
    fn finish(&mut self, who: Address, ending: Ending) {
        let close_by = self.connections.tick().saturating_add(ticks(CLOSE_WITHIN));
        let (label, reconnect_ms) = (ending.label(), self.resend_ms());
        let Some(connection) = self.connections.get(who) else { return };
        // None: it was said, behind the last of its outcomes.
        if let Some(bye) = connection.session.take_last_bye(ending, reconnect_ms) {
            self.shared.metrics.ended(label);
            // First out of its rooms: a run after the queue was given up would stand behind a gap.
            self.detach(who, false);
            self.connections.give_up_queue(who.slot);
            self.append_bye(who, &bye);
        }
        let Some(connection) = self.connections.get(who) else { return };
        if connection.deadlines.close_by == NEVER {
            connection.deadlines.close_by = close_by;
        }
        self.connections.arm(who.slot);
    }

    /// How many there were.
    fn end_subscriptions(&mut self, who: Address, room: Option<&RoomId>) -> u32 {
        let Some(connection) = self.connections.get(who).filter(|connection| !connection.detached) else {
            return 0;
        };
        let rooms: Vec<RoomId> = match room {
            Some(room) => vec![room.clone()],
            None => connection.subscriptions.iter().map(|(room, _)| room.clone()).collect(),
        };
        let ended = rooms.iter().filter(|room| self.remove_from_room(who, room)).count();
        self.follow_up();
        u32::try_from(ended).unwrap_or(u32::MAX)
    }

    fn remove_from_room(&mut self, who: Address, room: &RoomId) -> bool {
        let Some(connection) = self.connections.get(who) else { return false };
        let id = connection.subscriptions.get(room.as_str()).and_then(|entry| entry.id.take());
        match self.views.unsubscribe(&mut self.connections, who, room.as_str()) {
            None => return false,
            // Its `sub` is still to be answered, and this is the answer.
            Some(false) => self.refuse(who, ErrorCode::Forbidden, REASON.to_owned(), false, id),
            Some(true) => self.tell_unsubscribed(who, room, (ErrorCode::NotSubscribed, REASON), true),
        }
        true
    }
}
