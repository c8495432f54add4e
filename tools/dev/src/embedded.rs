//! What the services stand on inside one process, and how each of them is told about it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sluice_cluster::Etcd;
use sluice_cluster::solo::{SoloCluster, SoloRegistry};
use sluice_cluster::{Duty, Registration};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_presence::memory::MemoryPresence;
use sluice_queue::memory::MemoryQueue;
use sluice_service::clock::Clock;
use sluice_store::Store;

use crate::identities::Identities;
use crate::shared_store::SharedStore;

/// Shared by all services of the process.
pub(crate) struct Embedded {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) identities: Identities,
    queue: MemoryQueue,
    presence: MemoryPresence,
    registry: SoloRegistry,
}

impl Embedded {
    /// A leave is told of a user who was away for so long.
    pub(crate) fn new(store: Arc<dyn Store>, leave_grace: Duration, identities: Identities) -> Self {
        Self {
            store,
            identities,
            queue: MemoryQueue::default(),
            presence: MemoryPresence::with_grace(leave_grace),
            registry: SoloRegistry::new(Etcd::default().lease_ttl()),
        }
    }

    fn join(
        &self,
        lifecycle: &Lifecycle,
        registration: Registration,
        duties: BTreeSet<Duty>,
    ) -> Arc<SoloCluster> {
        Arc::new(self.registry.join(&lifecycle.scope(Stage::Release), registration, duties))
    }

    pub(crate) fn gateway(
        &self,
        lifecycle: &Lifecycle,
        registration: Registration,
    ) -> sluice_gateway::app::Deps {
        let cluster = self.join(lifecycle, registration, BTreeSet::new());
        sluice_gateway::app::Deps { cluster, clock: Clock::system() }
    }

    pub(crate) fn logic(&self, lifecycle: &Lifecycle, registration: Registration) -> sluice_logic::app::Deps {
        let store = Arc::clone(&self.store);
        sluice_logic::app::Deps {
            store: Box::new(move || {
                let shared = SharedStore(Arc::clone(&store));
                async move { Ok(Arc::new(shared) as Arc<dyn Store>) }.boxed()
            }),
            queue: Arc::new(self.queue.share()),
            presence: Arc::new(self.presence.share()),
            cluster: self.join(lifecycle, registration, BTreeSet::new()),
            clock: Clock::system(),
        }
    }

    pub(crate) fn task(&self, lifecycle: &Lifecycle, registration: Registration) -> sluice_task::app::Deps {
        sluice_task::app::Deps {
            queue: Arc::new(self.queue.share()),
            presence: Arc::new(self.presence.share()),
            cluster: self.join(lifecycle, registration, Duty::all()),
        }
    }
}
