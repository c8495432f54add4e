//! What becomes of the things under way in the model: executed late, answered late, failed, or lost.

use sluice_gateway::room::{Action, CallId, SubscribedRoom};
use sluice_gateway::rules::Rules;

use super::calls::{Flying, In, PageOf};
use super::world::World;

impl<R: Rules> World<R> {
    /// Takes one of the things under way a step further.
    pub fn fly(&mut self) {
        if self.shared.flying.is_empty() {
            return;
        }
        let at = self.rng.below(self.shared.flying.len());
        let flying = self.shared.flying.swap_remove(at);
        match flying {
            Flying::Notice { epoch, first, last } => {
                if self.interest && !self.trouble(12) {
                    self.shared.flying.push(Flying::Push { epoch, first, last });
                }
            }
            Flying::Push { epoch, first, last } => {
                if self.trouble(10) {
                    self.shared.flying.push(Flying::Push { epoch, first, last });
                }
                self.with_room(|room, shared, store| {
                    let messages = (first..=last).map(|seq| (seq, move || store.bytes(epoch, seq)));
                    room.push(shared.now, epoch, messages, shared);
                });
            }
            Flying::Hint { epoch, seq } => {
                self.with_room(|room, shared, _| room.hint(shared.now, epoch, seq, shared));
            }
            Flying::Queued(action) => self.send(action),
            page @ Flying::Page { .. } => self.page(page),
            Flying::Subscribe { call, .. }
            | Flying::Unsubscribe { call, .. }
            | Flying::Read { call, .. }
            | Flying::Heads { call, .. } => {
                if !self.fails(call) {
                    self.call(flying);
                }
            }
        }
    }

    /// Sends a call that waited, if the room still wants it.
    fn send(&mut self, action: Action) {
        let (Action::Subscribe(call)
        | Action::Unsubscribe(call)
        | Action::Read { call, .. }
        | Action::AskHead(call)) = action
        else {
            return;
        };
        let (sent, mut wanted) = (self.shared.now, false);
        self.with_room(|room, _, _| wanted = room.sent(sent, call));
        if !wanted {
            return;
        }
        self.shared.flying.push(match action {
            Action::Unsubscribe(_) => Flying::Unsubscribe { call, sent, reply: None },
            Action::Read { after, .. } => Flying::Read { call, after, reply: None },
            Action::AskHead(_) => Flying::Heads { call, reply: None },
            Action::Subscribe(_) | Action::Reannounced | Action::Conflict(_) | Action::Forget => {
                Flying::Subscribe { call, sent, stored: None, reply: None }
            }
        });
    }

    fn trouble(&mut self, percent: usize) -> bool {
        self.trouble && self.rng.chance(percent)
    }

    /// A call of the room failed: before or after it had its effect, told or silent.
    fn fails(&mut self, call: CallId) -> bool {
        let fails = self.trouble(8);
        if fails && self.rng.chance(60) {
            self.with_room(|room, shared, _| room.failed(shared.now, call, shared));
        }
        fails
    }

    fn call(&mut self, flying: Flying) {
        let now = self.shared.now;
        match flying {
            // Calls carry their deadline: past it they have no effect any more.
            Flying::Subscribe { sent, stored: None, .. } if sent + self.shared.call_ms <= now => {}
            Flying::Unsubscribe { sent, reply: None, .. } if sent + self.shared.call_ms <= now => {}
            Flying::Subscribe { call, sent, stored: None, reply } => {
                let stored = !self.trouble(12);
                self.interest |= stored;
                self.shared.flying.push(Flying::Subscribe { call, sent, stored: Some(stored), reply });
            }
            Flying::Subscribe { call, sent, stored: Some(stored), reply: None } => {
                let epoch = self.store.epoch();
                let reply = Some(SubscribedRoom { epoch, head: self.store.head(epoch), stored });
                self.shared.flying.push(Flying::Subscribe { call, sent, stored: Some(stored), reply });
            }
            Flying::Subscribe { call, reply: Some(reply), .. } => {
                self.with_room(|room, shared, _| room.subscribed(shared.now, call, reply, shared));
            }
            Flying::Unsubscribe { call, sent, reply: None } => {
                let removed = !self.trouble(12);
                self.interest &= !removed;
                self.shared.flying.push(Flying::Unsubscribe { call, sent, reply: Some(removed) });
            }
            Flying::Unsubscribe { call, reply: Some(removed), .. } => {
                self.with_room(|room, shared, _| room.removed(shared.now, call, removed, shared));
            }
            Flying::Read { call, after, reply: None } => {
                let reply = Some(self.store.read(after, self.read_max));
                self.shared.flying.push(Flying::Read { call, after, reply });
            }
            Flying::Read { call, reply: Some(page), .. } => {
                self.with_room(|room, shared, _| room.page(shared.now, call, &page, shared));
            }
            Flying::Heads { call, reply: None } => {
                let epoch = self.store.epoch();
                let reply = Some((epoch, self.store.head(epoch)));
                self.shared.flying.push(Flying::Heads { call, reply });
            }
            Flying::Heads { call, reply: Some((epoch, head)) } => {
                self.with_room(|room, shared, _| room.head_is(shared.now, call, epoch, head, shared));
            }
            Flying::Queued(_)
            | Flying::Notice { .. }
            | Flying::Push { .. }
            | Flying::Hint { .. }
            | Flying::Page { .. } => {}
        }
    }

    fn page(&mut self, flying: Flying) {
        let Flying::Page { of, after, reply } = flying else { return };
        if self.trouble(6) {
            return self.page_failed(of);
        }
        let Some(page) = reply else {
            let limit = self.read_max.min(4);
            let reply = Some(self.store.read(after, limit));
            return self.shared.flying.push(Flying::Page { of, after, reply });
        };
        if self.rng.chance(50) {
            self.shared.flying.push(Flying::Hint { epoch: page.epoch, seq: page.store_head });
        }
        for (shard, sub, number) in self.shared.pages.end(&of) {
            if self.trouble(10) {
                continue;
            }
            self.asked_no_more(shard, sub, number);
            if let Some(view) = &mut self.views[shard] {
                view.page(self.shared.now, sub, number, &page, &mut In(shard, &mut self.shared));
            }
        }
    }

    fn page_failed(&mut self, of: PageOf) {
        for (shard, sub, number) in self.shared.pages.end(&of) {
            if self.rng.chance(40) {
                continue;
            }
            self.asked_no_more(shard, sub, number);
            if let Some(view) = &mut self.views[shard] {
                view.page_failed(self.shared.now, sub, number, &mut In(shard, &mut self.shared));
            }
        }
    }

    fn asked_no_more(&mut self, shard: usize, sub: u32, number: u64) {
        if self.shared.asks.get(&(shard, sub)).is_some_and(|(asked, ..)| *asked == number) {
            self.shared.asks.remove(&(shard, sub));
        }
    }
}
