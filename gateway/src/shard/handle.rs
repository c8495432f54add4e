//! The shards as the rest of the process sees them: one bounded queue each.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_proto::grpc::RoomRun;
use sluice_proto::ids::Epoch;
use tokio::sync::{mpsc, oneshot};

use super::inbox::{Incoming, Order};
use crate::address::{ShardIx, home_of};
use sluice_proto::ids::lane_of;

/// All shards; clones share them.
#[derive(Debug, Clone)]
pub struct Shards {
    inboxes: Arc<[mpsc::Sender<Incoming>]>,
    next: Arc<AtomicUsize>,
}

impl Shards {
    /// Shards by their queues.
    #[must_use]
    pub fn new(inboxes: Vec<mpsc::Sender<Incoming>>) -> Self {
        Self { inboxes: inboxes.into(), next: Arc::default() }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inboxes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inboxes.is_empty()
    }

    /// Their queues, by shard.
    #[must_use]
    pub fn inboxes(&self) -> &[mpsc::Sender<Incoming>] {
        &self.inboxes
    }

    /// Gives an order to each. Waits for space; a shard that has ended is passed over.
    pub async fn send_all(&self, order: impl Fn() -> Order) {
        for inbox in self.inboxes.iter() {
            drop(inbox.send(Incoming::Order(order())).await);
        }
    }

    /// Hands a client to the next shard in turn. Waits for space.
    pub async fn assign(&self, socket: TcpStream) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len().max(1);
        if let Some(inbox) = self.inboxes.get(turn) {
            drop(inbox.send(Incoming::Order(Order::Socket(socket))).await);
        }
    }

    /// Hands pushed runs to the homes of their rooms; returns when all have accepted them.
    pub async fn push(&self, epoch: Epoch, runs: Vec<RoomRun>) {
        let count = ShardIx::try_from(self.inboxes.len()).unwrap_or(ShardIx::MAX);
        let mut by_home: Vec<Vec<RoomRun>> = vec![Vec::new(); self.inboxes.len()];
        for run in runs {
            let home = home_of(lane_of(&run.room), count);
            if let Some(runs) = by_home.get_mut(usize::from(home)) {
                runs.push(run);
            }
        }
        for (inbox, runs) in self.inboxes.iter().zip(by_home) {
            if !runs.is_empty() {
                drop(inbox.send(Incoming::Order(Order::Pushed { epoch, runs })).await);
            }
        }
    }

    /// Gives each an order that it answers, and waits for all answers.
    pub async fn ask_all(&self, order: impl Fn(oneshot::Sender<()>) -> Order) {
        let mut answers = Vec::with_capacity(self.inboxes.len());
        for inbox in self.inboxes.iter() {
            let (answer, answered) = oneshot::channel();
            if inbox.send(Incoming::Order(order(answer))).await.is_ok() {
                answers.push(answered);
            }
        }
        for answer in answers {
            // A shard that has ended has nobody left to tell.
            drop(answer.await);
        }
    }
}
