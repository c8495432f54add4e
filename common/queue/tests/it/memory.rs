//! The queue inside one process: the contract, on a paused clock.

use std::sync::Arc;

use sluice_queue::Queue;
use sluice_queue::memory::MemoryQueue;

use crate::contract::Bed;

struct Memory(MemoryQueue);

impl Bed for Memory {
    async fn start() -> Self {
        Self(MemoryQueue::default())
    }

    async fn small(bytes_max: u16) -> Self {
        Self(MemoryQueue::with_bytes_max(bytes_max.into()))
    }

    async fn connect(&self) -> Arc<dyn Queue> {
        Arc::new(self.0.share())
    }

    async fn down(&mut self) {
        self.0.set_away(true);
    }

    async fn up_and_empty(&mut self) {
        self.0.wipe();
        self.0.set_away(false);
    }
}

against_the_contract!(Memory, start_paused = true);

/// What is acknowledged into the void comes again, and nothing is lost while nobody is reached.
#[tokio::test(start_paused = true)]
async fn what_waits_survives_an_outage_that_forgets_nothing() {
    let queue = MemoryQueue::default();
    let mut consumer = queue.consumer().await.unwrap();
    queue.publish(0, "a".into()).await.unwrap();
    let in_hand = consumer.next().await.unwrap();
    queue.publish(0, "b".into()).await.unwrap();
    queue.set_away(true);
    in_hand.ack().await;
    queue.set_away(false);
    for expected in ["b", "a"] {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.payload, expected);
        delivery.ack().await;
    }
}
