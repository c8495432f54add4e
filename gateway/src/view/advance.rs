//! The row that applies after every event of a view or a queue: a subscription that is not Live takes
//! from the ring, asks for a page, is told what is gone, or becomes Live. The rows are a table of
//! `docs/invariants.md`.

use sluice_proto::ids::{Epoch, Seq};

use super::{LiveSub, Place, SubscriberQueue, View, ViewOutput, key};
use crate::room::link::{Frame, Ms, Page};
use crate::rules::{Rule, Rules};
use crate::slow_client;
use crate::subscription::{Ask, CatchingUp, SubFrame, SubKey, WaitingFor, WaitingSub};

/// What the row says about one subscription.
enum Advance {
    Live,
    Skip,
    Append,
    Ask,
    Stay,
}

impl<R: Rules> View<R> {
    /// The row, for all. Those that became Live make room for the last one, which is looked at next.
    pub(super) fn advance_all(&mut self, now: Ms, shard: &mut impl ViewOutput) {
        let mut at = 0;
        while at < self.waiting.len() {
            if !self.advance_at(now, at, shard) {
                at += 1;
            }
        }
    }

    /// The row, for the one at `at` of `waiting`. `true` = it became Live and left that place.
    pub(super) fn advance_at(&mut self, now: Ms, at: usize, shard: &mut impl ViewOutput) -> bool {
        loop {
            match self.step(now, at, shard) {
                Advance::Stay => return false,
                Advance::Live => {
                    self.enter_live(at, shard);
                    return true;
                }
                Advance::Skip => self.skip(at, self.head, shard),
                Advance::Append => self.append_from_ring(at, shard),
                Advance::Ask => {
                    self.ask(now, at, shard);
                    return false;
                }
            }
        }
    }

    fn step(&self, now: Ms, at: usize, shard: &mut impl ViewOutput) -> Advance {
        let Some(WaitingSub { conn, waits_for: WaitingFor::CatchingUp(state), .. }) = self.waiting.get(at)
        else {
            return Advance::Stay;
        };
        let full = !slow_client::may_catch_up(shard.outbound(*conn).level(), self.limits.queue_low);
        // Live costs one append a run: at the head even a full queue is no reason to read pages (row 1).
        if state.cursor == self.head && full && !R::keeps(Rule::LiveWhateverTheQueue) {
            return Advance::Stay;
        }
        if state.cursor == self.head || (!R::keeps(Rule::LiveOnlyAtHead) && state.cursor + 1 == self.head) {
            return Advance::Live;
        }
        // Beyond the head: the room repairs itself up to here, and the runs come.
        if state.cursor > self.head || full {
            return Advance::Stay;
        }
        // Row 4 stands before row 5: what the ring has need not wait for a page that is under way.
        if self.ring.from(state.cursor + 1).is_some() {
            return Advance::Append;
        }
        if state.asked.is_some() {
            return Advance::Stay;
        }
        let was_live = state.was_live || !R::keeps(Rule::CutShortAfterLive);
        // Before the back-off: waiting would only make it fall behind further (B10).
        if slow_client::is_cut_short(was_live, self.head - state.cursor, self.limits.max_behind) {
            return Advance::Skip;
        }
        if state.backoff.until() > now { Advance::Stay } else { Advance::Ask }
    }

    /// Takes over what a page brought, as far as the queue and the head allow.
    pub(super) fn take_page(&mut self, now: Ms, at: usize, page: &Page, shard: &mut impl ViewOutput) {
        let (head, high, items) = (self.head, self.limits.queue_high, self.limits.page_items);
        let Some(state) = self.catching_up(at) else { return };
        state.backoff.succeeded();
        let from = state.cursor;
        // Retention has removed what lies between: it must be told, or the next message looks like a gap (B5).
        if page.oldest > from + 1 {
            self.skip(at, page.oldest - 1, shard);
        }
        let Some(WaitingSub { conn, waits_for: WaitingFor::CatchingUp(state), .. }) =
            self.waiting.get_mut(at)
        else {
            return;
        };
        let cursor = state.cursor;
        let fresh = page.frames.iter().skip_while(|frame| frame.seq <= cursor);
        // Not beyond the head: those come as runs, and a page has no place among runs (S1).
        let fresh = fresh.take_while(|frame| frame.seq <= head);
        append(page.epoch, &mut state.cursor, fresh, high, shard.outbound(*conn));
        if !R::keeps(Rule::PageReachesItsEnd) {
            state.cursor = head;
        }
        let last = page.frames.last().map_or(0, |frame| frame.seq);
        // The shared page may have been read before our message was stored: asked again it would say the same.
        if state.cursor == from && last <= from && R::keeps(Rule::UnsharedAsk) {
            let again = state.unshared.replace(from / items).is_some();
            if again {
                self.back_off(now, at);
            }
        }
    }

    /// Ends the ask `number` of `sub` if that is the one waited for: where the subscription lies.
    pub(super) fn end_ask(&mut self, sub: SubKey, number: u64) -> Option<usize> {
        let Place::Waiting(at) = *self.places.get(sub as usize)? else { return None };
        let state = self.catching_up(at as usize)?;
        // A late answer to an ask that was given up would be taken for the one under way.
        state.asked.take_if(|(asked, _)| *asked == number || !R::keeps(Rule::OnlyTheAskWaitedFor))?;
        Some(at as usize)
    }

    pub(super) fn back_off(&mut self, now: Ms, at: usize) {
        let bounds = (self.limits.backoff_min_ms, self.limits.backoff_max_ms);
        let Some(state) = self.catching_up(at) else { return };
        state.backoff.failed(now, bounds);
        let until = state.backoff.until();
        self.due_by(until);
    }

    /// The live subscription at `at` falls behind, at the head it has seen.
    pub(super) fn leave_live(&mut self, at: usize, shard: &mut impl ViewOutput) {
        let Some(LiveSub { conn, sub }) = self.live.get(at).copied() else { return };
        self.take_live(key(at));
        // The head it has seen: the run that found no space is not part of it.
        let state = CatchingUp { cursor: self.head, was_live: true, ..CatchingUp::default() };
        if let Some(place) = self.places.get_mut(sub as usize) {
            *place = Place::Waiting(key(self.waiting.len()));
        }
        self.waiting.push(WaitingSub { sub, conn, waits_for: WaitingFor::CatchingUp(state) });
        shard.behind(conn, true);
    }

    /// Closes the hole that the one at `at` leaves in `live`.
    pub(super) fn take_live(&mut self, at: u32) {
        self.live.swap_remove(at as usize);
        // `swap_remove` moves the last one into the hole: its place must follow.
        if let Some(moved) = self.live.get(at as usize)
            && let Some(place) = self.places.get_mut(moved.sub as usize)
        {
            *place = Place::Live(at);
        }
    }

    /// Takes the one at `at` out of `waiting` and closes the hole.
    pub(super) fn take_waiting(&mut self, at: u32) -> WaitingSub {
        let taken = self.waiting.swap_remove(at as usize);
        if let Some(moved) = self.waiting.get(at as usize)
            && let Some(place) = self.places.get_mut(moved.sub as usize)
        {
            *place = Place::Waiting(at);
        }
        if self.waiting.is_empty() {
            // A crowd that caught up leaves no empty places behind, and nearly all rooms are caught up.
            self.waiting = Vec::new();
        }
        taken
    }

    fn enter_live(&mut self, at: usize, shard: &mut impl ViewOutput) {
        let WaitingSub { sub, conn, .. } = self.take_waiting(key(at));
        if let Some(place) = self.places.get_mut(sub as usize) {
            *place = Place::Live(key(self.live.len()));
        }
        if self.live.capacity() == 0 {
            self.live.reserve_exact(1);
        }
        self.live.push(LiveSub { conn, sub });
        shard.behind(conn, false);
    }

    fn append_from_ring(&mut self, at: usize, shard: &mut impl ViewOutput) {
        let Some(epoch) = self.epoch else { return };
        let Some(WaitingSub { conn, waits_for: WaitingFor::CatchingUp(state), .. }) =
            self.waiting.get_mut(at)
        else {
            return;
        };
        if let Some(frames) = self.ring.from(state.cursor + 1) {
            append(epoch, &mut state.cursor, frames, self.limits.queue_high, shard.outbound(*conn));
        }
    }

    /// Moves the cursor to `to` and says that nothing before will come.
    fn skip(&mut self, at: usize, to: Seq, shard: &mut impl ViewOutput) {
        let Some(epoch) = self.epoch else { return };
        let Some(WaitingSub { sub, conn, waits_for: WaitingFor::CatchingUp(state) }) =
            self.waiting.get_mut(at)
        else {
            return;
        };
        let from = std::mem::replace(&mut state.cursor, to) + 1;
        self.farthest = self.farthest.max(to);
        if R::keeps(Rule::SkipTold) {
            shard.tell(*conn, *sub, SubFrame::Skipped { epoch, from, to });
        }
    }

    fn ask(&mut self, now: Ms, at: usize, shard: &mut impl ViewOutput) {
        let (items, deadline) = (self.limits.page_items, now + self.limits.ask_ms);
        let Some(epoch) = self.epoch else { return };
        let Some(WaitingSub { sub, conn, waits_for: WaitingFor::CatchingUp(state) }) =
            self.waiting.get_mut(at)
        else {
            return;
        };
        let number = shard.number();
        state.asked = Some((number, deadline));
        // Only inside that page is the shared copy known to bring nothing.
        state.unshared.take_if(|page| *page != state.cursor / items);
        let shared = state.unshared.is_none();
        let after = if shared { state.cursor / items * items } else { state.cursor };
        shard.ask(Ask { sub: *sub, conn: *conn, number, epoch, after, shared });
        self.due_by(deadline);
    }

    fn catching_up(&mut self, at: usize) -> Option<&mut CatchingUp> {
        match &mut self.waiting.get_mut(at)?.waits_for {
            WaitingFor::CatchingUp(state) => Some(state),
            WaitingFor::Pending { .. } => None,
        }
    }

    fn due_by(&mut self, at: Ms) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Checks S2 and the places; `Err` names what is broken.
    ///
    /// # Errors
    /// The name of the broken invariant.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.live.len() + self.waiting.len() != self.places.len() {
            return Err("a subscription is lost");
        }
        for (sub, place) in &self.places {
            let found = match *place {
                Place::Live(at) => self.live.get(at as usize).map(|live| live.sub),
                Place::Waiting(at) => self.waiting.get(at as usize).map(|waiting| waiting.sub),
            };
            if found != Some(key(sub)) {
                return Err("a subscription is at another place");
            }
        }
        let at_head = |waiting: &WaitingSub| match &waiting.waits_for {
            WaitingFor::Pending { .. } => false,
            WaitingFor::CatchingUp(state) => state.cursor == self.head,
        };
        // A closed view has no head that anybody could be at.
        if self.epoch.is_some() && self.waiting.iter().any(at_head) {
            return Err("S2: CatchingUp at the head");
        }
        if self.ring.ends().is_some_and(|(_, last)| last != self.head) {
            return Err("the view's ring does not end at its head");
        }
        Ok(())
    }
}

/// Appends what follows the cursor until the queue reaches its high mark.
fn append<'a>(
    epoch: Epoch,
    cursor: &mut Seq,
    frames: impl Iterator<Item = &'a Frame>,
    high: usize,
    out: &mut impl SubscriberQueue,
) {
    for frame in frames {
        if !slow_client::stays_live(out.level(), high) || frame.seq != *cursor + 1 {
            return;
        }
        out.append(epoch, frame);
        *cursor = frame.seq;
    }
}
