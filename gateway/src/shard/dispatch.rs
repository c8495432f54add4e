//! Gives what came through a shard's queue to whoever acts on it. Decides nothing.

use std::collections::VecDeque;

use super::inbox::{Incoming, Order};
use super::turn::{Budget, ShardCell};
use super::{Shard, upgrade};
use crate::repair::Missed;

impl Shard {
    /// Messages from the queue, as many as the turn has time for.
    pub(super) fn take_incoming(&mut self, messages: &mut VecDeque<Incoming>, budget: Budget) {
        while let Some(message) = messages.pop_front() {
            self.on_incoming(message);
            if budget.is_spent() {
                break;
            }
        }
        // Whatever came may be due before the timer would wake.
        self.rearm();
    }

    fn on_incoming(&mut self, message: Incoming) {
        match message {
            Incoming::Peer(message) => self.on_peer_message(message),
            Incoming::Order(order) => self.on_order(order),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Socket(socket) => {
                // As a task: the first bytes of a client may take seconds.
                let shared = self.shared.clone();
                self.local(|cell: ShardCell| upgrade::serve(cell, shared, socket));
            }
            Order::Pushed { epoch, by, runs } => {
                self.home(|home, now, ports| home.pushed(now, (epoch, by), &runs, ports));
            }
            Order::Told(tellings) => self.views.tell(&mut self.connections, &tellings),
            Order::Stale => self.views.all_stale(),
            Order::BeginFullSet { generation } => self.reports.begin(generation),
            Order::FullSetEnded => self.reports.end(),
            Order::FlushReports => self.reports.finish(),
            Order::Notify(pace, leaving, told) => self.notify_all(pace, leaving, told),
            Order::Close(close, empty) => self.close_all(close, empty),
            Order::Remove(removals, done) => self.remove(removals, done),
            Order::Stay => self.stay(),
        }
    }

    /// Pushes may have been missed.
    pub(super) fn missed(&mut self, before: Missed, now: Missed) {
        let all = before.resync != now.resync;
        if all || before.told != now.told {
            self.views.all_stale();
        }
        self.home(|home, at, ports| home.missed(at, all, ports));
        // Whoever watches is told by the timer, as many in a turn as it has time for.
        self.rearm();
    }
}
