//! The shards as the rest of the process sees them: one bounded queue each.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_proto::grpc::RoomRun;
use sluice_proto::ids::Epoch;
use tokio::sync::{mpsc, oneshot};

use super::inbox::{Incoming, Order};
use super::removals::Removals;
use super::watchers::RoomTelling;
use crate::address::{ShardIx, home_of};
use crate::defaults::PUSHED_PER_ORDER;
use crate::pushers::PusherId;
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

    /// How many shards there are.
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
    pub async fn push(&self, epoch: Epoch, by: PusherId, runs: Vec<RoomRun>) {
        let count = ShardIx::try_from(self.inboxes.len()).unwrap_or(ShardIx::MAX);
        let mut by_home: Vec<Vec<RoomRun>> = vec![Vec::new(); self.inboxes.len()];
        for run in runs {
            let home = home_of(lane_of(&run.room), count);
            if let Some(runs) = by_home.get_mut(usize::from(home)) {
                runs.push(run);
            }
        }
        // Waits for space, so that a push is answered only when all homes have it: task holds the rest back.
        for (inbox, runs) in self.inboxes.iter().zip(by_home) {
            for runs in orders(runs) {
                drop(inbox.send(Incoming::Order(Order::Pushed { epoch, by, runs })).await);
            }
        }
    }

    /// Tells all shards who came into rooms and left them; says whether each of them had room for it. Never waits: this
    /// is not worth holding messages up.
    #[must_use]
    pub fn tell(&self, tellings: &Arc<[RoomTelling]>) -> bool {
        let told = |inbox: &mpsc::Sender<Incoming>| {
            inbox.try_send(Incoming::Order(Order::Told(Arc::clone(tellings)))).is_ok()
        };
        // Each of them, also after the first that has none.
        self.inboxes.iter().filter(|inbox| told(inbox)).count() == self.inboxes.len()
    }

    /// Ends what the application wants ended, in all of them; how many there were. Waits for space and for all answers.
    pub async fn remove(&self, removals: Arc<Removals>) -> u32 {
        let mut answers = Vec::with_capacity(self.inboxes.len());
        for inbox in self.inboxes.iter() {
            let (done, answer) = oneshot::channel();
            let order = Order::Remove(Arc::clone(&removals), done);
            if inbox.send(Incoming::Order(order)).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut count = 0_u32;
        for answer in answers {
            // A shard that has ended has nobody left.
            count = count.saturating_add(answer.await.unwrap_or(0));
        }
        count
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
        // All are asked before the first is waited for: they work beside each other.
        for answer in answers {
            // A shard that has ended has nobody left to tell.
            drop(answer.await);
        }
    }
}

/// Runs in orders of bounded size: a push of thousands of small messages would hold a home for a long turn.
/// A run that is larger alone stays whole.
fn orders(runs: Vec<RoomRun>) -> Vec<Vec<RoomRun>> {
    let mut orders: Vec<Vec<RoomRun>> = Vec::new();
    let mut messages = usize::MAX;
    for run in runs {
        messages = messages.saturating_add(run.messages.len().max(1));
        match orders.last_mut() {
            Some(order) if messages <= PUSHED_PER_ORDER => order.push(run),
            Some(_) | None => {
                messages = run.messages.len().max(1);
                orders.push(vec![run]);
            }
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_proto::grpc::Message;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_large_push_is_several_orders_with_everything_in_its_order() {
        let run = |n: u64, messages: usize| RoomRun {
            last: n,
            messages: vec![Message::default(); messages],
            ..RoomRun::default()
        };
        let sizes = [100, 100, 100, 0, 300, 1, 255, 1];
        let runs: Vec<_> = (0..).zip(sizes).map(|(n, size)| run(n, size)).collect();
        let orders = orders(runs.clone());
        let lens: Vec<usize> = orders.iter().map(Vec::len).collect();
        assert_eq!(lens, [2, 2, 1, 2, 1]);
        assert_eq!(orders.concat(), runs);
        assert!(super::orders(Vec::new()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn d3_a_push_waits_for_the_homes_of_its_rooms_and_for_no_other_shard() {
        const SHARDS: ShardIx = 4;
        let run = RoomRun { room: "news".into(), ..RoomRun::default() };
        let home = usize::from(home_of(lane_of(&run.room), SHARDS));
        let epoch = Epoch::from_wire(7).unwrap();
        let (inboxes, mut queues): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| mpsc::channel(1)).unzip();
        let shards = Shards::new(inboxes);
        // The others hang: nothing more fits into their queues.
        for (_, inbox) in shards.inboxes().iter().enumerate().filter(|(at, _)| *at != home) {
            assert!(inbox.try_send(Incoming::Order(Order::FlushReports)).is_ok());
        }
        let pushed =
            || timeout(Duration::from_secs(1), shards.push(epoch, PusherId::default(), vec![run.clone()]));
        assert!(pushed().await.is_ok(), "the home has space");
        assert!(pushed().await.is_err(), "it has none, and the task holds the rest back");
        let Ok(Incoming::Order(Order::Pushed { runs, .. })) = queues[home].try_recv() else { panic!() };
        assert_eq!(runs, [run]);
    }
}
