//! Presence inside one process: the contract, on a paused clock.

use std::sync::Arc;

use sluice_presence::Presence;
use sluice_presence::memory::MemoryPresence;

use crate::contract::{Bed, LEAVE_GRACE};

struct Memory(MemoryPresence);

impl Bed for Memory {
    async fn start() -> Self {
        Self(MemoryPresence::with_grace(LEAVE_GRACE))
    }

    fn connect(&self) -> Arc<dyn Presence> {
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
events_against_the_contract!(Memory, start_paused = true);

#[tokio::test]
async fn an_outage_forgets_nothing() {
    let presence = MemoryPresence::default();
    let marker = presence.marker().await.unwrap();
    presence.set_away(true);
    assert!(presence.marker().await.is_err());
    presence.set_away(false);
    assert_eq!(presence.share().marker().await, Ok(marker));
}
