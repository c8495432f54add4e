//! What operators do through the admin pages of any instance: see who is there and who owns what, have an instance
//! stop, drain or come back, take duties from their owners. Carries a command to the instance that is meant; how a
//! service drains is its own.

mod metrics;
mod routes;
mod switch;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use sluice_cluster::{Cluster, Command};
use sluice_lifecycle::{Lifecycle, Stage, StopReason};
use sluice_service::admin::AdminPages;
use sluice_service::metrics::Registry;

pub use crate::metrics::register as register_metrics;
pub use crate::switch::DrainSwitch;

/// The operator's side of one instance; clones share it.
#[derive(Clone)]
pub struct Operator {
    lifecycle: Lifecycle,
    cluster: Arc<dyn Cluster>,
    drain: DrainSwitch,
}

/// It stops: nothing else can be wanted of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stopping;

impl Operator {
    /// Of this process; its part of the cluster is among `metrics` from now on.
    #[must_use]
    pub fn new(lifecycle: Lifecycle, cluster: Arc<dyn Cluster>, metrics: &Registry) -> Self {
        register_metrics(metrics, Arc::clone(&cluster));
        Self { lifecycle, cluster, drain: DrainSwitch::default() }
    }

    /// Whether this process is to be drained.
    #[must_use]
    pub fn drain(&self) -> &DrainSwitch {
        &self.drain
    }

    /// Has the admin pages name its routes and say whether this process is to be drained.
    pub fn describe(&self, pages: &mut AdminPages) {
        let drain = self.drain.clone();
        pages.drained = Arc::new(move || drain.is_on());
        pages.more.extend(routes::PAGES);
    }

    /// The pages, to be added to the admin pages, which ask for the token.
    pub fn routes(&self) -> Router {
        routes::routes(self.clone())
    }

    /// Follows what operators ask of this process through others, until the stop.
    pub fn follow(&self) {
        let scope = self.lifecycle.scope(Stage::NotReady);
        let (stop, mut commanded, operator) = (scope.token(), self.cluster.commanded(), self.clone());
        // One that came before this was started counts too.
        commanded.mark_changed();
        scope.spawn("commands", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    // An `Err` disables the arm: where the registry has ended, nothing more comes.
                    Ok(()) = commanded.changed() => {}
                }
                let Some(heard) = commanded.borrow_and_update().clone() else { continue };
                tracing::info!(command = %heard.command, by = %heard.by, "An operator's command has arrived.");
                // It stops already: nothing to be said to anybody.
                operator.carry_out(heard.command).ok();
            }
        });
    }

    /// Does it in this process. Who asks for a stop that has begun gets what it wants, like who was first.
    fn carry_out(&self, command: Command) -> Result<(), Stopping> {
        let on = match command {
            Command::Stop => {
                self.lifecycle.stop(StopReason::Admin);
                return Ok(());
            }
            Command::Drain => true,
            Command::Undrain => false,
        };
        if self.lifecycle.stopping().is_cancelled() {
            return Err(Stopping);
        }
        self.drain.set(on);
        Ok(())
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("drain", &self.drain).finish_non_exhaustive()
    }
}
