//! Pages of history that clients ask for: large, and never urgent. Each user in turn, a few calls at a time, and of
//! each connection one page at a time, asked for when its queue has room for it, within what its user and
//! its address may have unread. Who asks for the same page shares its read and its bytes. Subscriptions and
//! what they read to catch up have their own way through the home and never wait for this.

mod pages;

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use sluice_proto::grpc::{ReadRange, ReadRequest, RoomPage};
use sluice_proto::ids::{RoomId, Seq, UserId};
use sluice_proto::limits::BATCH_BYTES_MAX;
use sluice_proto::wire::codec::{self, HistoryRange};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::pages::{Left, PageKey, Pages, Round};
use super::Shard;
use super::requests::more_of;
use super::turn::ShardCell;
use crate::address::Address;
use crate::defaults::{
    CALL_WITHIN, HISTORY_BYTES_MAX, HISTORY_CALLS_MAX, HISTORY_LOOKS_PER_TICK, HISTORY_RESUMED_MAX,
    QUEUE_LOW_BYTES,
};
use crate::fair_queue::FairQueue;
use crate::limits::table::Share;
use crate::session::todo::RequestId;
use crate::slow_client;

/// What a shard has under way for all connections.
#[derive(Debug, Default)]
pub(super) struct History {
    pages: Pages<(Address, Instant), AbortHandle>,
    /// Connections whose user or address has too much unread, or had too much of late.
    parked: Parked,
    calls: usize,
    /// Bytes of pages that may come, and of those that clients have not taken; a page that many take counts once.
    bytes: Rc<Cell<usize>>,
}

#[derive(Debug)]
struct Parked(FairQueue<UserId, Address>);

impl Default for Parked {
    fn default() -> Self {
        Self(FairQueue::new(1))
    }
}

/// Bytes of a page, until the last one who takes it has done so.
#[derive(Debug)]
struct Reserved {
    bytes: usize,
    of: Rc<Cell<usize>>,
}

impl Reserved {
    fn new(of: &Rc<Cell<usize>>, bytes: usize) -> Self {
        of.set(of.get() + bytes);
        Self { bytes, of: Rc::clone(of) }
    }

    /// They are so many now.
    fn settle(&mut self, bytes: usize) {
        self.of.set(self.of.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.set(self.of.get() - self.bytes);
    }
}

/// What one connection asked for.
#[derive(Debug, Default)]
pub struct Asked {
    waiting: VecDeque<PageRequest>,
    /// Its user or address had too much unread.
    parked: bool,
    active: Option<Active>,
    /// Of the pages that were put into its queue and are not taken.
    unread: Vec<(Rc<Reserved>, Share)>,
}

#[derive(Debug)]
struct PageRequest {
    page: PageKey,
    id: RequestId,
    /// Not asked for by then, it is refused.
    by: Instant,
}

/// A question that waits for its turn, or for its answer.
#[derive(Debug)]
struct Active {
    question: PageRequest,
    round: Round,
    share: Share,
}

impl History {
    fn may_ask(&self) -> bool {
        // A page's bytes are known when it is there: the most it can have is reserved before.
        self.calls < HISTORY_CALLS_MAX && self.bytes.get() + BATCH_BYTES_MAX <= HISTORY_BYTES_MAX
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
        let page = PageKey { room, range, limit };
        let question = PageRequest { page, id, by: Instant::now() + CALL_WITHIN };
        connection.history.get_or_insert_default().waiting.push_back(question);
        self.offer_page(who);
        self.ask_pages();
    }

    /// Has the next page of a connection wait for its turn, if it has room and none is under way.
    fn offer_page(&mut self, who: Address) {
        let Some(connection) = self.connections.get(who) else { return };
        let Some(user) = connection.session.identity().map(|identity| identity.user.clone()) else { return };
        let has_room = slow_client::may_catch_up(connection.outbound.bytes(), QUEUE_LOW_BYTES);
        let seats = (connection.user_seat.as_ref(), connection.address_seat.as_ref());
        let Some(asked) = &mut connection.history else { return };
        if asked.active.is_some() || asked.parked || !has_room || asked.waiting.is_empty() {
            return;
        }
        let Some(share) = self.shared.usages.reserve(seats, BATCH_BYTES_MAX) else {
            asked.parked = true;
            // In the turn of its user: another connection is no other place in this queue.
            self.history.parked.0.push(user, who);
            self.shared.metrics.history_parked.inc();
            return;
        };
        let Some(question) = asked.waiting.pop_front() else { return };
        let (round, others) = self.history.pages.join(&user, &question.page, (who, question.by));
        if others {
            self.shared.metrics.history_shared.inc();
        }
        asked.active = Some(Active { question, round, share });
    }

    fn ask_pages(&mut self) {
        while self.history.may_ask()
            && let Some(key) = self.history.pages.pop()
        {
            self.ask_page(key);
        }
    }

    fn ask_page(&mut self, key: PageKey) {
        self.refuse_late_of(&key);
        if !self.history.pages.begin(&key) {
            return;
        }
        self.history.calls += 1;
        let mut reserved = Reserved::new(&self.history.bytes, BATCH_BYTES_MAX);
        let (shared, asked) = (self.shared.clone(), key.clone());
        let call = self.abortable(async move |cell: ShardCell| {
            // Backwards from the end for the newest: a page by position would need the head first.
            let (after, before) = match asked.range {
                // The largest position a store can hold.
                HistoryRange::Newest => (0, i64::MAX as Seq),
                HistoryRange::Before(before) => (0, before),
                HistoryRange::After(after) => (after, 0),
            };
            let range = ReadRange { room: asked.room.to_string(), after, before, limit: asked.limit };
            let request = ReadRequest { ranges: vec![range], history: true };
            let reply = shared.calls.read(asked.room.lane(), request).await;
            let read = reply.ok().and_then(|reply| reply.pages.into_iter().next());
            let body = read.filter(|read| !read.deferred).map(|read| body(&asked, &read, before > 0));
            reserved.settle(body.as_ref().map_or(0, Bytes::len));
            cell.turn(|shard| shard.page_came(&asked, body.as_ref(), &Rc::new(reserved)));
        });
        self.history.pages.called(&key, call);
    }

    fn page_came(&mut self, key: &PageKey, body: Option<&Bytes>, reserved: &Rc<Reserved>) {
        self.history.calls -= 1;
        for (who, _) in self.history.pages.end(key) {
            match body {
                Some(body) => self.page_for(who, body, reserved),
                None => self.page_refused(who),
            }
            self.settle(who);
            self.offer_page(who);
        }
        self.ask_pages();
    }

    /// Gives a page to one who waited for it and is still here.
    fn page_for(&mut self, who: Address, body: &Bytes, reserved: &Rc<Reserved>) {
        let Some(connection) = self.connections.get(who) else { return };
        let Some(active) = connection.history.as_mut().and_then(|asked| asked.active.take()) else { return };
        connection.requests -= 1;
        let mut end = Vec::new();
        codec::answer_end(&mut end, active.question.id.as_deref());
        let (mut share, bytes) = (active.share, body.len() + end.len());
        share.settle(bytes);
        let seats = (connection.user_seat.as_ref(), connection.address_seat.as_ref());
        self.shared.usages.charge_page(seats, bytes);
        self.connections.append_shared(who.slot, body, &end);
        if let Some(asked) = self.connections.get(who).and_then(|it| it.history.as_mut()) {
            asked.unread.push((Rc::clone(reserved), share));
        }
    }

    fn page_refused(&mut self, who: Address) {
        let Some(connection) = self.connections.get(who) else { return };
        let Some(active) = connection.history.as_mut().and_then(|asked| asked.active.take()) else { return };
        connection.requests -= 1;
        self.unavailable(who, active.question.id);
    }

    /// A connection's queue is short again: what it took makes room for others' pages, and for its next one.
    pub(super) fn page_taken(&mut self, who: Address) {
        let Some(asked) = self.connections.get(who).and_then(|it| it.history.as_mut()) else { return };
        if !asked.unread.is_empty() {
            asked.unread = Vec::new();
            self.resume_parked(HISTORY_RESUMED_MAX);
        }
        self.offer_page(who);
        self.ask_pages();
    }

    /// Nobody waits for the pages of this connection any more: a call that is for nobody else is dropped,
    /// which logic hears as a cancelled request.
    pub(super) fn forget_pages(&mut self, who: Address) {
        let Some(asked) = self.connections.get(who).and_then(|it| it.history.take()) else { return };
        if let Some(active) = &asked.active {
            match self.history.pages.leave(&active.question.page, active.round) {
                Left::Others => {}
                Left::Nobody(call) => {
                    self.history.calls -= 1;
                    call.iter().for_each(AbortHandle::abort);
                }
            }
        }
        // What it had reserved and not taken is for others.
        drop(asked);
        self.resume_parked(HISTORY_RESUMED_MAX);
        self.ask_pages();
    }

    /// While clients do not take their pages others' wait for no longer than a call would take.
    pub(super) fn refuse_late_pages(&mut self) {
        // What another shard gave back is seen here.
        self.resume_parked(HISTORY_LOOKS_PER_TICK);
        self.ask_pages();
        if self.history.may_ask() {
            return;
        }
        for _ in 0..HISTORY_LOOKS_PER_TICK.min(self.history.pages.ready_len()) {
            let Some(key) = self.history.pages.pop() else { return };
            self.refuse_late_of(&key);
            self.history.pages.put_back(key);
        }
    }

    fn refuse_late_of(&mut self, key: &PageKey) {
        let now = Instant::now();
        while let Some((who, _)) = self.history.pages.take_late(key, |(_, by)| by <= now) {
            let asked = self.connections.get(who).and_then(|it| it.history.as_ref());
            // One that left has said so already.
            let Some(round) = asked.and_then(|asked| asked.active.as_ref()).map(|active| active.round) else {
                continue;
            };
            self.history.pages.leave(key, round);
            self.page_refused(who);
            self.offer_page(who);
        }
    }

    /// Looks at some of those who had too much unread: whether they still have, and whether they waited too long.
    fn resume_parked(&mut self, most: usize) {
        let now = Instant::now();
        for _ in 0..most.min(self.history.parked.0.len()) {
            let Some(who) = self.history.parked.0.pop() else { return };
            let Some(connection) = self.connections.get(who) else { continue };
            let Some(asked) = connection.history.as_mut() else { continue };
            asked.parked = false;
            if let Some(late) = asked.waiting.pop_front_if(|question| question.by <= now) {
                connection.requests -= 1;
                self.unavailable(who, late.id);
            }
            self.offer_page(who);
        }
    }
}

/// A page as everybody gets it who asked for it.
fn body(page: &PageKey, read: &RoomPage, backward: bool) -> Bytes {
    let mut out = Vec::new();
    codec::ok_history(&mut out, &page.room, &read.messages, more_of(read, backward));
    out.into()
}
