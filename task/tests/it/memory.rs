//! The parts inside one process, and nothing but them: what `sluice dev` stands on.

use std::sync::Arc;

use sluice_cluster::solo::SoloRegistry;
use sluice_cluster::{Cluster, Duty, Registration, Service};
use sluice_lifecycle::{Lifecycle, Scope, Stage};
use sluice_presence::Presence;
use sluice_presence::memory::MemoryPresence;
use sluice_queue::Queue;
use sluice_queue::memory::MemoryQueue;
use sluice_task::app::Deps;
use sluice_task::config::Config;

use crate::rig::{self, Ground};

pub struct Memory {
    queue: MemoryQueue,
    presence: MemoryPresence,
    registry: SoloRegistry,
}

all_cases!(crate::memory::Memory);

impl Ground for Memory {
    async fn start(_listed: bool) -> Self {
        let registry = SoloRegistry::new(rig::config(&[]).etcd.lease_ttl());
        Self { queue: MemoryQueue::default(), presence: MemoryPresence::default(), registry }
    }

    fn config(&self) -> Config {
        rig::config(&[])
    }

    /// What a task with servers knows without their registry stands in this one: it cannot be away.
    async fn deps(&self, config: &Config, lifecycle: &Lifecycle, registration: Registration) -> Deps {
        let scope = lifecycle.scope(Stage::Release);
        for address in config.logic.seeds.clone() {
            let (service, version) = (Service::Logic, String::new());
            self.list(&scope, Registration { service, address, url: None, version }).await;
        }
        Deps {
            queue: Arc::new(self.queue.share()),
            presence: Arc::new(self.presence.share()),
            cluster: Arc::new(self.registry.join(&scope, registration, Duty::all())),
        }
    }

    async fn list(&self, scope: &Scope, registration: Registration) -> Arc<dyn Cluster> {
        Arc::new(self.registry.join(scope, registration, [].into()))
    }

    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    fn presence(&self) -> &dyn Presence {
        &self.presence
    }

    fn presence_is_away(&self, away: bool) {
        self.presence.set_away(away);
    }

    async fn unsettled(&self) -> u64 {
        self.queue.unacknowledged().try_into().unwrap()
    }
}
