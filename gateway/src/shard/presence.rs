//! Who is in a room, as clients ask: each answer may name hundreds and is never urgent. Each user in turn, a few calls
//! at a time, so that subscriptions and publishes find a logic that is not busy with questions; who asks for the same page
//! shares its read and its bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sluice_proto::grpc::{self, PresenceReply, PresenceRequest, presence_request};
use sluice_proto::ids::{RoomId, UserId};
use sluice_proto::wire::codec::{self, PresentPage, PresentUser};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Shard;
use super::turn::ShardCell;
use crate::address::Address;
use crate::defaults::{CALL_WITHIN, PRESENCE_CALLS_MAX, PRESENCE_SHARED_MAX, QUESTIONS_MAX};
use crate::fair_queue::FairQueue;
use crate::session::todo::RequestId;

/// What a shard has under way for all connections.
#[derive(Debug)]
pub(super) struct Presences {
    /// Whose turn it is, as the page that is asked for: each page that somebody waits for once.
    turns: FairQueue<UserId, PresentKey>,
    waiting: HashMap<PresentKey, VecDeque<PresenceQuery>>,
    /// Those that wait, and those that were asked.
    open: usize,
    calls: usize,
}

/// Which page. Who asks for the same one before it is read shares the read and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PresentKey {
    room: RoomId,
    /// Of the users after this one; empty = from the first.
    after: String,
    limit: u32,
    /// Asked by who is also told who comes and goes: nobody else waits until logic knows so.
    watches: bool,
}

#[derive(Debug)]
struct PresenceQuery {
    who: Address,
    user: UserId,
    id: RequestId,
    /// It is also told who comes and goes: when logic knows so.
    known: Option<oneshot::Receiver<()>>,
    /// Not asked by then, it is refused.
    by: Instant,
}

impl Default for Presences {
    fn default() -> Self {
        Self { turns: FairQueue::new(1), waiting: HashMap::new(), open: 0, calls: 0 }
    }
}

impl Presences {
    fn push(&mut self, key: PresentKey, query: PresenceQuery) {
        self.open += 1;
        let waiting = self.waiting.entry(key.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push(query.user.clone(), key);
        }
        waiting.push_back(query);
    }

    /// Those who came first of all that wait for a page, as many as one turn answers.
    fn take(&mut self, key: &PresentKey) -> Vec<PresenceQuery> {
        let Some(waiting) = self.waiting.get_mut(key) else { return Vec::new() };
        let taken = waiting.drain(..waiting.len().min(PRESENCE_SHARED_MAX)).collect();
        match waiting.front() {
            Some(next) => self.turns.push(next.user.clone(), key.clone()),
            None => drop(self.waiting.remove(key)),
        }
        taken
    }
}

impl Shard {
    /// A client asks who is in a room.
    pub(super) fn presence(
        &mut self,
        who: Address,
        room: RoomId,
        (after, limit): (Option<UserId>, u32),
        id: RequestId,
    ) {
        // Beyond what could be answered in time nothing is kept waiting.
        if self.presences.open >= QUESTIONS_MAX {
            return self.unavailable(who, id);
        }
        // With the first page it begins anew; before its answer nobody may come unseen.
        let watches = after.is_none() && self.views.asked(&mut self.connections, who, &room);
        let known = watches.then(|| self.reports.mark());
        let Some(connection) = self.connections.get(who) else { return };
        let Some(user) = connection.session.identity().map(|identity| identity.user.clone()) else { return };
        connection.requests += 1;
        let after = after.map(|user| user.to_string()).unwrap_or_default();
        let by = Instant::now() + CALL_WITHIN;
        let key = PresentKey { room, after, limit, watches };
        self.presences.push(key, PresenceQuery { who, user, id, known, by });
        self.ask_presence();
    }

    fn ask_presence(&mut self) {
        while self.presences.calls < PRESENCE_CALLS_MAX
            && let Some(key) = self.presences.turns.pop()
        {
            let (mut asked, now) = (Vec::new(), Instant::now());
            for query in self.presences.take(&key) {
                // Whoever left while it waited costs no call. Or its time is over: it would be answered too late.
                let is_here = self.connections.get(query.who).is_some_and(|connection| !connection.detached);
                if is_here && query.by > now {
                    asked.push(query);
                } else {
                    self.presence_came(query, None);
                }
            }
            // They are in the order in which they came: nobody waits for the marks of others for longer than for its own.
            let Some(by) = asked.first().map(|first| first.by) else { continue };
            self.shared.metrics.presence_shared.inc_by(asked.len() as u64 - 1);
            self.presences.calls += 1;
            let shared = self.shared.clone();
            self.local(async move |cell: ShardCell| {
                for query in &mut asked {
                    if let Some(known) = query.known.take() {
                        // Not in time: logic or Redis is away, and the question will hear so too.
                        drop(timeout_at(by, known).await);
                    }
                }
                let of = Some(presence_request::Of::Room(key.room.to_string()));
                let request = PresenceRequest { of, limit: key.limit, after: key.after.clone() };
                let reply = shared.calls.presence(key.room.lane(), request).await;
                let page = reply.ok().map(|reply| body(&key, reply));
                cell.turn(|shard| {
                    shard.presences.calls -= 1;
                    for query in asked {
                        shard.presence_came(query, page.as_ref());
                    }
                    shard.ask_presence();
                });
            });
        }
    }

    /// The answer, or that there is none.
    fn presence_came(&mut self, PresenceQuery { who, id, .. }: PresenceQuery, page: Option<&Bytes>) {
        self.presences.open -= 1;
        let Some(connection) = self.connections.get(who) else { return };
        connection.requests -= 1;
        if !connection.detached {
            match page {
                Some(page) => {
                    let mut end = Vec::new();
                    codec::answer_end(&mut end, id.as_deref());
                    self.connections.append_shared(who.slot, page, &end);
                }
                None => self.unavailable(who, id),
            }
        }
        self.settle(who);
    }
}

/// A page as everybody gets it who asked for it.
fn body(key: &PresentKey, reply: PresenceReply) -> Bytes {
    let mut out = Vec::new();
    codec::ok_presence(&mut out, &key.room, &present_page(reply, &key.after));
    out.into()
}

fn present_page(reply: PresenceReply, after: &str) -> PresentPage {
    let PresenceReply { users, count, connections, more } = reply;
    // A logic of the version before this one knows no pages: it gives everybody, and no count.
    let users = users.into_iter().filter(|user| after.is_empty() || user.user.as_str() > after);
    let users: Vec<PresentUser> = users
        .map(|grpc::PresentUser { user, connections, since_ms: since, info }| {
            // Nothing rather than half a frame, should another version have let through what is no JSON.
            let info = (!info.is_empty()).then(|| serde_json::from_str(&info).ok()).flatten();
            PresentUser { user, connections, since, info }
        })
        .collect();
    let here = u32::try_from(users.len()).unwrap_or(u32::MAX);
    let connections = connections.max(users.iter().map(|user| user.connections).sum());
    PresentPage { users, count: count.max(here), connections, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_turn_however_many_wait_for_it() {
        let mut presences = Presences::default();
        let room = RoomId::parse("news").expect("valid");
        let key = PresentKey { room, after: String::new(), limit: 100, watches: false };
        let who = Address { shard: 0, slot: 0, generation: 1 };
        for n in 0..PRESENCE_SHARED_MAX + 44 {
            let user = UserId::parse(&format!("u{n}")).expect("valid");
            let query = PresenceQuery { who, user, id: None, known: None, by: Instant::now() };
            presences.push(key.clone(), query);
        }
        for taken in [PRESENCE_SHARED_MAX, 44] {
            assert_eq!(presences.turns.len(), 1);
            assert_eq!(presences.turns.pop().as_ref(), Some(&key));
            assert_eq!(presences.take(&key).len(), taken);
        }
        assert!(presences.turns.is_empty() && presences.waiting.is_empty());
    }
}
