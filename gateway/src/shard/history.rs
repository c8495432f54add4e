//! Pages of history that clients ask for: large, and never urgent. Each user in turn, a few calls at a time, and of
//! each connection one page at a time, asked for when its queue has room for it. Subscriptions and what they
//! read to catch up have their own way through the home and never wait for this.

use std::collections::VecDeque;

use sluice_proto::grpc::{ReadRange, ReadRequest, RoomPage};
use sluice_proto::ids::{RoomId, Seq, UserId};
use sluice_proto::limits::BATCH_BYTES_MAX;
use sluice_proto::wire::codec::{self, HistoryRange};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Shard;
use super::requests::more_of;
use super::turn::ShardCell;
use crate::address::Address;
use crate::defaults::{
    CALL_WITHIN, HISTORY_BYTES_MAX, HISTORY_CALLS_MAX, HISTORY_LOOKS_PER_TICK, QUEUE_LOW_BYTES,
};
use crate::fair_queue::FairQueue;
use crate::session::todo::RequestId;
use crate::slow_client;

/// What a shard has under way for all connections.
#[derive(Debug)]
pub(super) struct History {
    /// Connections whose next page may be asked for, by user.
    ready: FairQueue<UserId, Address>,
    calls: usize,
    /// Bytes of pages that may come, and of those that clients have not taken.
    bytes: usize,
}

/// What one connection asked for.
#[derive(Debug, Default)]
pub struct Asked {
    waiting: VecDeque<Page>,
    /// One is in the queue of those that are ready, or under way.
    active: bool,
    call: Option<AbortHandle>,
    /// Bytes of the page that was put into its queue last.
    unread: usize,
}

#[derive(Debug)]
struct Page {
    room: RoomId,
    range: HistoryRange,
    limit: u32,
    id: RequestId,
    /// Not asked for by then, it is refused.
    by: Instant,
}

impl Default for History {
    fn default() -> Self {
        Self { ready: FairQueue::new(1), calls: 0, bytes: 0 }
    }
}

impl History {
    const fn may_ask(&self) -> bool {
        // A page's bytes are known when it is there: the most it can have is reserved before.
        self.calls < HISTORY_CALLS_MAX && self.bytes + BATCH_BYTES_MAX <= HISTORY_BYTES_MAX
    }

    fn began(&mut self) {
        self.calls += 1;
        self.bytes += BATCH_BYTES_MAX;
    }

    fn ended(&mut self) {
        self.calls -= 1;
        self.bytes -= BATCH_BYTES_MAX;
    }
}

impl Shard {
    /// A client asks for a page.
    pub(super) fn history(
        &mut self,
        who: Address,
        room: RoomId,
        (range, limit): (HistoryRange, u32),
        id: RequestId,
    ) {
        let Some(connection) = self.connections.get(who) else { return };
        connection.requests += 1;
        let page = Page { room, range, limit, id, by: Instant::now() + CALL_WITHIN };
        connection.history.get_or_insert_default().waiting.push_back(page);
        self.offer_page(who);
        self.ask_pages();
    }

    /// Has the next page of a connection wait for its turn, if it has room and none is under way.
    fn offer_page(&mut self, who: Address) {
        let Some(connection) = self.connections.get(who) else { return };
        let Some(user) = connection.session.identity().map(|identity| identity.user.clone()) else { return };
        let has_room = slow_client::may_catch_up(connection.outbound.bytes(), QUEUE_LOW_BYTES);
        let Some(asked) = &mut connection.history else { return };
        if asked.active || !has_room || asked.waiting.is_empty() {
            return;
        }
        asked.active = true;
        self.history.ready.push(user, who);
    }

    fn ask_pages(&mut self) {
        while self.history.may_ask()
            && let Some(who) = self.history.ready.pop()
        {
            self.ask_page(who);
        }
    }

    fn ask_page(&mut self, who: Address) {
        let Some(asked) = self.connections.get(who).and_then(|connection| connection.history.as_mut()) else {
            return;
        };
        let Some(page) = asked.waiting.pop_front() else { return };
        if page.by <= Instant::now() {
            return self.page_refused(who, page.id);
        }
        self.history.began();
        let shared = self.shared.clone();
        let call = self.abortable(async move |cell: ShardCell| {
            let (after, before) = match page.range {
                // The largest position a store can hold.
                HistoryRange::Newest => (0, i64::MAX as Seq),
                HistoryRange::Before(before) => (0, before),
                HistoryRange::After(after) => (after, 0),
            };
            let range = ReadRange { room: page.room.to_string(), after, before, limit: page.limit };
            let reply = shared.calls.read(page.room.lane(), ReadRequest { ranges: vec![range] }).await;
            let read = reply.ok().and_then(|reply| reply.pages.into_iter().next());
            let read = read.filter(|read| !read.deferred);
            cell.turn(|shard| shard.page_came(who, &page, read.as_ref(), before > 0));
        });
        if let Some(asked) = self.connections.get(who).and_then(|connection| connection.history.as_mut()) {
            asked.call = call;
        }
    }

    fn page_came(&mut self, who: Address, page: &Page, read: Option<&RoomPage>, backward: bool) {
        self.history.ended();
        let Some(connection) = self.connections.get(who) else { return };
        if let Some(asked) = &mut connection.history {
            asked.call = None;
        }
        match read {
            Some(read) => {
                connection.requests -= 1;
                let before = connection.outbound.bytes();
                let more = more_of(read, backward);
                self.connections.text(who.slot, |out| {
                    codec::ok_history(out, &page.room, &read.messages, more, page.id.as_deref());
                });
                let unread = self.connections.queued_for(who.slot).saturating_sub(before);
                if let Some(asked) = self.connections.get(who).and_then(|it| it.history.as_mut()) {
                    asked.active = false;
                    asked.unread += unread;
                    self.history.bytes += unread;
                }
            }
            None => self.page_refused(who, page.id.clone()),
        }
        self.settle(who);
        self.offer_page(who);
        self.ask_pages();
    }

    fn page_refused(&mut self, who: Address, id: RequestId) {
        if let Some(connection) = self.connections.get(who) {
            connection.requests -= 1;
            if let Some(asked) = &mut connection.history {
                asked.active = false;
            }
        }
        self.unavailable(who, id);
        self.offer_page(who);
    }

    /// A connection's queue is short again: what it took makes room for others' pages, and for its next one.
    pub(super) fn page_taken(&mut self, who: Address) {
        let Some(asked) = self.connections.get(who).and_then(|it| it.history.as_mut()) else { return };
        self.history.bytes -= std::mem::take(&mut asked.unread);
        self.offer_page(who);
        self.ask_pages();
    }

    /// Nobody waits for the pages of this connection any more: the call under way is dropped, which logic
    /// hears as a cancelled request.
    pub(super) fn forget_pages(&mut self, who: Address) {
        let Some(asked) = self.connections.get(who).and_then(|it| it.history.take()) else { return };
        self.history.bytes -= asked.unread;
        if let Some(call) = asked.call {
            call.abort();
            self.history.ended();
        }
        self.ask_pages();
    }

    /// While clients do not take their pages others' wait for no longer than a call would take.
    pub(super) fn refuse_late_pages(&mut self) {
        if self.history.may_ask() {
            return;
        }
        let now = Instant::now();
        for _ in 0..HISTORY_LOOKS_PER_TICK.min(self.history.ready.len()) {
            let Some(who) = self.history.ready.pop() else { return };
            let Some(connection) = self.connections.get(who) else { continue };
            let user = connection.session.identity().map(|identity| identity.user.clone());
            let Some((asked, user)) = connection.history.as_mut().zip(user) else { continue };
            match asked.waiting.pop_front_if(|page| page.by <= now) {
                Some(page) => self.page_refused(who, page.id),
                None => self.history.ready.push(user, who),
            }
        }
    }
}
