//! What is under way in the model: pushes, calls and their replies, in no order. And what stands
//! around the two machines, which put things under way.

use std::collections::HashMap;

use sluice_gateway::room::link::{HandOver, Ms, Need, Page, Run};
use sluice_gateway::room::{Action, CallId, RoomOutput, SubscribedRoom};
use sluice_gateway::subscription::pages::PageReads;
use sluice_gateway::subscription::{Ask, ConnKey, SubFrame, SubKey};
use sluice_gateway::view::ViewOutput;
use sluice_proto::ids::{Epoch, Seq};

use super::clients::{Client, Item};

/// A page for subscribers: everybody who asked for the aligned one, or one asker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageOf {
    Aligned(Epoch, Seq),
    One(Waiter),
}

/// Who waits for a page: shard, subscription, ask.
pub type Waiter = (usize, SubKey, u64);

/// Under way. `None` in a call = it has not been executed yet.
pub enum Flying {
    /// A call that waits to be sent. It is sent some day, and never lost.
    Queued(Action),
    Notice {
        epoch: Epoch,
        first: Seq,
        last: Seq,
    },
    Push {
        epoch: Epoch,
        first: Seq,
        last: Seq,
    },
    Hint {
        epoch: Epoch,
        seq: Seq,
    },
    Subscribe {
        call: CallId,
        sent: Ms,
        stored: Option<bool>,
        reply: Option<SubscribedRoom>,
    },
    Unsubscribe {
        call: CallId,
        sent: Ms,
        reply: Option<bool>,
    },
    Read {
        call: CallId,
        after: Seq,
        reply: Option<Page>,
    },
    Heads {
        call: CallId,
        reply: Option<(Epoch, Seq)>,
    },
    Page {
        of: PageOf,
        after: Seq,
        reply: Option<Page>,
    },
}

/// In the queue from home to a shard.
pub enum ToView {
    Run(Run),
    HandOver(HandOver),
}

/// What the machines see of the world.
pub struct Around {
    pub now: Ms,
    pub number: u64,
    pub flying: Vec<Flying>,
    pub pages: PageReads<PageOf, Waiter>,
    pub clients: Vec<Client>,
    /// Queues from home; that of the home itself is emptied at once.
    pub queues: Vec<Vec<ToView>>,
    pub queue_max: usize,
    /// Shards whose hand-over found no space.
    pub refused: Vec<bool>,
    pub needs: Vec<Option<Need>>,
    pub forget: bool,
    /// Longest run so far.
    pub run_max: usize,
    /// The ask each subscription waits for: number, epoch, deadline.
    pub asks: HashMap<(usize, SubKey), (u64, Epoch, Ms)>,
    pub call_ms: Ms,
    pub ask_ms: Ms,
}

impl RoomOutput for Around {
    fn number(&mut self) -> CallId {
        self.number += 1;
        self.number
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Subscribe(_) | Action::Unsubscribe(_) | Action::Read { .. } | Action::AskHead(_) => {
                self.flying.push(Flying::Queued(action));
            }
            Action::Reannounced => {}
            Action::Conflict(seq) => panic!("two versions of {seq}"),
            Action::Forget => self.forget = true,
        }
    }

    fn run(&mut self, shard: usize, run: &Run) -> bool {
        self.run_max = self.run_max.max(run.frames.len());
        if shard > 0 && self.queues[shard].len() >= self.queue_max {
            return false;
        }
        self.queues[shard].push(ToView::Run(run.clone()));
        true
    }

    fn hand_over(&mut self, shard: usize, hand_over: HandOver) -> bool {
        self.refused[shard] = shard > 0 && self.queues[shard].len() >= self.queue_max;
        if !self.refused[shard] {
            self.queues[shard].push(ToView::HandOver(hand_over));
        }
        !self.refused[shard]
    }
}

/// One shard, as its view sees it.
pub struct In<'a>(pub usize, pub &'a mut Around);

impl ViewOutput for In<'_> {
    type Out = Client;

    fn outbound(&mut self, conn: ConnKey) -> &mut Client {
        &mut self.1.clients[conn as usize]
    }

    fn number(&mut self) -> u64 {
        RoomOutput::number(self.1)
    }

    fn tell(&mut self, conn: ConnKey, _sub: SubKey, told: SubFrame) {
        let client = self.outbound(conn);
        client.queue.push_back(Item::SubFrame(told, client.was_live));
    }

    fn ask(&mut self, ask: Ask) {
        let deadline = self.1.now + self.1.ask_ms;
        let entry = (ask.number, ask.epoch, deadline);
        if let Some((_, epoch, deadline)) = self.1.asks.insert((self.0, ask.sub), entry) {
            assert!(epoch != ask.epoch || deadline <= self.1.now, "S4: a second page asked");
        }
        let waiter = (self.0, ask.sub, ask.number);
        let of = if ask.shared { PageOf::Aligned(ask.epoch, ask.after) } else { PageOf::One(waiter) };
        if self.1.pages.join(of, waiter) {
            self.1.flying.push(Flying::Page { of, after: ask.after, reply: None });
        }
    }

    fn need(&mut self, need: Need) {
        self.1.needs[self.0] = Some(need);
    }

    fn behind(&mut self, conn: ConnKey, began: bool) {
        let client = self.outbound(conn);
        client.behind += if began { 1 } else { -1 };
        client.was_live |= !began;
    }
}
