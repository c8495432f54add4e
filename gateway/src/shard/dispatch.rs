//! Gives what came through a shard's queue to whoever acts on it. Decides nothing.

use super::inbox::{Incoming, Order};
use super::{Cell, Shard, upgrade};
use crate::push::Missed;

impl Shard {
    /// A message from the queue.
    pub(super) fn on_incoming(&mut self, message: Incoming) {
        match message {
            Incoming::Peer(message) => self.on_peer_message(message),
            Incoming::Order(order) => self.on_order(order),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Socket(socket) => {
                let shared = self.shared.clone();
                self.local(|cell: Cell| upgrade::serve(cell, shared, socket));
            }
            Order::Pushed { epoch, runs } => {
                self.home(|home, now, ports| home.pushed(now, epoch, &runs, ports));
            }
            Order::BeginFullSet { generation } => self.reports.begin(generation),
            Order::FullSetEnded => self.reports.end(),
            Order::FlushReports => self.reports.finish(),
            Order::Notify(pace, told) => self.notify_all(pace, told),
            Order::Close(close, empty) => self.close_all(close, empty),
        }
    }

    /// Pushes may have been missed.
    pub(super) fn missed(&mut self, before: Missed, now: Missed) {
        let all = before.resync != now.resync;
        self.home(|home, at, ports| home.missed(at, all, ports));
    }
}
