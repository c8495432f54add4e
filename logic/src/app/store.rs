//! Reaches the store, and starts what answers calls on it.

use std::sync::Arc;

use sluice_cluster::{ClusterView, Instance, InstanceState, Service};
use sluice_lifecycle::{Scope, Stage};
use sluice_service::grpc::channels::{Caller, Channels, Target};
use sluice_service::process::StartError;
use sluice_service::tls::Role;
use sluice_store::{Store, StoreError};
use tokio::sync::watch;

use super::{Deps, Running};
use crate::defaults::{CLOSE_WITHIN, STORE_BACKOFF_MAX, STORE_BACKOFF_MIN};
use crate::disconnect::Disconnects;
use crate::due::Firing;
use crate::notices::Notices;
use crate::presence::PresenceService;
use crate::publish::Publisher;
use crate::read::Reader;
use crate::revocations::RevokedTokens;
use crate::rpc::Core;
use crate::sweep::Sweeper;

impl Running {
    /// Asks again and again, unless asking again cannot help.
    pub(super) async fn open_store(&self) -> Result<(Arc<dyn Store>, RevokedTokens), StartError> {
        let mut pause = STORE_BACKOFF_MIN;
        let mut opened = None;
        loop {
            // Whoever does not know what is revoked vouches for nobody.
            let both = async {
                let store = match &opened {
                    Some(store) => Arc::clone(store),
                    None => opened.insert((self.deps.store)().await?).clone(),
                };
                let revoked = RevokedTokens::load(Arc::clone(&store), self.metrics.clone()).await?;
                Ok::<_, StoreError>((store, revoked))
            };
            let error = match both.await {
                Ok(both) => return Ok(both),
                // Asking again cannot help: end, and say what to change.
                Err(error @ StoreError::Misconfigured(_)) => return Err(StartError::Unusable(error.into())),
                Err(error) => error,
            };
            let again_in_ms = pause.as_millis();
            tracing::debug!(%error, again_in_ms, "The store was not reached.");
            self.probe.saw_store(Err(error.to_string()));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STORE_BACKOFF_MAX);
        }
    }

    /// Starts what needs the store, and says how it ends.
    pub(super) fn start(&self, store: Arc<dyn Store>, revoked: RevokedTokens) {
        let Deps { queue, presence, clock, .. } = &self.deps;
        let scope = self.lifecycle.scope(Stage::Flush);
        let (queue, presence, clock) = (Arc::clone(queue), Arc::clone(presence), clock.clone());
        let (probe, metrics) = (self.probe.clone(), self.metrics.clone());
        let notices = Notices::start(&scope, Arc::clone(&queue), Arc::clone(&store), metrics.clone());
        let notices = Arc::new(notices);
        let publisher = Publisher::start(
            &scope,
            Arc::clone(&store),
            Arc::clone(&notices),
            clock,
            metrics.clone(),
            probe.clone(),
        );
        let publisher = Arc::new(publisher.traced(self.tracer.clone()));
        let probing =
            probe.clone().run(Arc::clone(&store), Arc::clone(&presence), metrics.clone(), scope.token());
        scope.spawn("probe", probing);
        // Registered with what it flushes: a stop before the store was reached has nothing to
        // flush.
        let firing = Firing::new(Arc::clone(&store), Arc::clone(&notices), metrics.clone());
        self.flush_with(Arc::clone(&publisher), Arc::clone(&notices));
        self.lifecycle
            .release("store", CLOSE_WITHIN, Arc::clone(&store), |store| async move { store.close().await });
        let retention = self.config.retention.policy();
        scope.spawn("revocations", revoked.clone().run(scope.token()));
        let gateways = self.gateways(&scope);
        let disconnects =
            Disconnects::new(Arc::clone(&store), revoked.clone(), gateways, self.deps.clock.clone());
        let core = Core {
            publisher,
            reader: Reader::new(Arc::clone(&store), Arc::clone(&presence), probe.clone(), metrics.clone()),
            reports: PresenceService::new(presence, notices, probe.clone(), self.alive(), metrics.clone()),
            sweeper: Sweeper::new(store, queue, retention, self.config.repair_bound(), metrics),
            firing,
            revoked,
            disconnects,
        };
        probe.saw_store(Ok(()));
        // Only once in a life: `serve` takes the app.
        let _ = self.core.set(core);
    }

    /// The way to all gateways that are registered.
    fn gateways(&self, scope: &Scope) -> Channels {
        let mut view = self.deps.cluster.view();
        let (sender, targets) = watch::channel(Arc::new(gateways(&view.borrow_and_update())));
        let stop = scope.token();
        scope.spawn("gateways", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    // An `Err` disables the arm: where the registry has ended, its last view stays in force.
                    Ok(()) = view.changed() => {
                        sender.send_replace(Arc::new(gateways(&view.borrow_and_update())));
                    }
                }
            }
        });
        let caller = Caller::new(self.deps.cluster.me()).identified(self.identity.clone());
        Channels::new(targets, Role::Gateway, caller)
    }
}

fn gateways(view: &ClusterView) -> Vec<Target> {
    let gateways = view.of(Service::Gateway);
    let target = |gateway: &Instance| Target {
        id: gateway.id.clone(),
        address: gateway.address.clone(),
        draining: gateway.state == InstanceState::Draining,
    };
    gateways.map(target).collect()
}
