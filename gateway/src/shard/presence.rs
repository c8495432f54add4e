//! Who is in a room, as clients ask: each answer may name hundreds and is never urgent. Each user in turn, a few calls
//! at a time, so that subscriptions and publishes find a logic that is not busy with questions.

use sluice_proto::grpc::{self, PresenceReply, PresenceRequest, presence_request};
use sluice_proto::ids::{RoomId, UserId};
use sluice_proto::wire::codec::{self, PresentPage, PresentUser};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Shard;
use super::turn::ShardCell;
use crate::address::Address;
use crate::defaults::{CALL_WITHIN, PRESENCE_CALLS_MAX, QUESTIONS_MAX};
use crate::fair_queue::FairQueue;
use crate::session::todo::RequestId;

/// What a shard has under way for all connections.
#[derive(Debug)]
pub(super) struct Presences {
    waiting: FairQueue<UserId, PresenceQuery>,
    /// Those that wait, and those that were asked.
    open: usize,
    calls: usize,
}

#[derive(Debug)]
struct PresenceQuery {
    who: Address,
    room: RoomId,
    /// Of the users after this one; empty = from the first.
    after: String,
    limit: u32,
    id: RequestId,
    /// It is also told who comes and goes: when logic knows so.
    known: Option<oneshot::Receiver<()>>,
    /// Not asked by then, it is refused.
    by: Instant,
}

impl Default for Presences {
    fn default() -> Self {
        Self { waiting: FairQueue::new(1), open: 0, calls: 0 }
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
        self.presences.open += 1;
        self.presences.waiting.push(user, PresenceQuery { who, room, after, limit, id, known, by });
        self.ask_presence();
    }

    fn ask_presence(&mut self) {
        while self.presences.calls < PRESENCE_CALLS_MAX
            && let Some(mut question) = self.presences.waiting.pop()
        {
            // Whoever left while it waited costs no call.
            let is_wanted = self.connections.get(question.who).is_some_and(|connection| !connection.detached);
            // Or its time is over: a call that begins now would answer too late.
            if !is_wanted || question.by <= Instant::now() {
                self.presence_came(question, None);
                continue;
            }
            self.presences.calls += 1;
            let shared = self.shared.clone();
            self.local(async move |cell: ShardCell| {
                if let Some(known) = question.known.take() {
                    // Not in time: logic or Redis is away, and the question will hear so too.
                    drop(timeout_at(question.by, known).await);
                }
                let of = Some(presence_request::Of::Room(question.room.to_string()));
                let request = PresenceRequest { of, limit: question.limit, after: question.after.clone() };
                let reply = shared.calls.presence(question.room.lane(), request).await;
                cell.turn(|shard| {
                    shard.presences.calls -= 1;
                    shard.presence_came(question, reply.ok());
                    shard.ask_presence();
                });
            });
        }
    }

    /// The answer, or that there is none.
    fn presence_came(&mut self, question: PresenceQuery, reply: Option<PresenceReply>) {
        self.presences.open -= 1;
        let PresenceQuery { who, room, after, id, .. } = question;
        let Some(connection) = self.connections.get(who) else { return };
        connection.requests -= 1;
        if !connection.detached {
            match reply {
                Some(reply) => {
                    let page = present_page(reply, &after);
                    self.connections.text(who.slot, |out| {
                        codec::ok_presence(out, &room, &page, id.as_deref());
                    });
                }
                None => self.unavailable(who, id),
            }
        }
        self.settle(who);
    }
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
