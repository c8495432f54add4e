//! The shards as the rest of the process sees them: one bounded queue each.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_proto::grpc::RoomRun;
use sluice_proto::ids::Epoch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::drain::pace::Pace;
use crate::exchange::{ShardIx, home_of};
use sluice_proto::ids::lane_of;

/// What a shard is told by the rest of the process.
#[derive(Debug)]
pub enum Order {
    /// A client has connected; the handshake is to come.
    Socket(TcpStream),
    /// Pushed by a task: runs whose home is this shard.
    Pushed {
        /// Of all of them.
        epoch: Epoch,
        /// The runs.
        runs: Vec<RoomRun>,
    },
    /// Tell the reporter everything, as this generation; until it is told no interest is removed.
    TellAll {
        /// Names the full set.
        generation: u64,
    },
    /// Everything of all shards is told, or the full set is given up.
    FullSetEnded,
    /// Tell the reporter what waits, and where it ends.
    TellRest,
    /// Tell all clients that this gateway stops, at this pace; answer when all are told.
    Notify(Pace, oneshot::Sender<()>),
    /// Close all connections; answer when all are gone.
    Close(Close, oneshot::Sender<()>),
}

/// How a shard closes its connections.
#[derive(Debug, Clone, Copy)]
pub struct Close {
    /// At which pace.
    pub pace: Pace,
    /// Close code.
    pub code: u16,
    /// When publishes without outcome are given up.
    pub give_up_at: Instant,
    /// When what is still there is dropped.
    pub drop_at: Instant,
}

/// All shards; clones share them.
#[derive(Debug, Clone)]
pub struct Shards {
    inboxes: Arc<[mpsc::Sender<super::Incoming>]>,
    next: Arc<AtomicUsize>,
}

impl Shards {
    /// Shards by their queues.
    #[must_use]
    pub fn new(inboxes: Vec<mpsc::Sender<super::Incoming>>) -> Self {
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
    pub fn inboxes(&self) -> &[mpsc::Sender<super::Incoming>] {
        &self.inboxes
    }

    /// Gives an order to each. Waits for space; a shard that has ended is passed over.
    pub async fn tell_all(&self, order: impl Fn() -> Order) {
        for inbox in self.inboxes.iter() {
            drop(inbox.send(super::Incoming::Order(order())).await);
        }
    }

    /// Hands a client to the next shard in turn. Waits for space.
    pub async fn hand(&self, socket: TcpStream) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len().max(1);
        if let Some(inbox) = self.inboxes.get(turn) {
            drop(inbox.send(super::Incoming::Order(Order::Socket(socket))).await);
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
                drop(inbox.send(super::Incoming::Order(Order::Pushed { epoch, runs })).await);
            }
        }
    }

    /// Gives each an order that it answers, and waits for all answers.
    pub async fn ask_all(&self, order: impl Fn(oneshot::Sender<()>) -> Order) {
        let mut answers = Vec::with_capacity(self.inboxes.len());
        for inbox in self.inboxes.iter() {
            let (answer, answered) = oneshot::channel();
            if inbox.send(super::Incoming::Order(order(answer))).await.is_ok() {
                answers.push(answered);
            }
        }
        for answer in answers {
            // A shard that has ended has nobody left to tell.
            drop(answer.await);
        }
    }
}
