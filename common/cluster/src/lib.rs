//! Who is there and who owns which duty: instances, their leases, and the duties of tasks.
//!
//! Membership is advice: it makes balancing and reaping quick, and nothing of what clients were promised
//! depends on it. An owner of a duty is never exclusive (two for a moment do no harm), and nobody is
//! declared gone by an observer who cannot see itself.

mod command;
#[cfg(feature = "etcd")]
pub mod etcd;
mod known;
pub mod last;
pub mod pages;
mod registrant;
mod section;
mod shown;
pub mod solo;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use command::{ClusterCounts, Command, Commanded, LeaseLeft, NotCarried, Released, UnknownCommand};
pub use section::Etcd;
pub use view::{
    ClusterView, Duty, DutyInfo, Headroom, Instance, InstanceState, Registration, Service, UnknownDuty,
    UnknownService,
};

/// This process's place among the instances. Cheap to share as `Arc<dyn Cluster>`.
///
/// Nothing here fails: while the registry is away the last known state stays and work goes on.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// All instances, as last known. Changes at every change of any of them.
    fn view(&self) -> watch::Receiver<Arc<ClusterView>>;

    /// The instance id of this process. Changes when the lease was lost: announce everything again under the new one.
    fn me(&self) -> watch::Receiver<InstanceId>;

    /// Makes the state public. Returns when it is written, at the latest after 500 ms; it is written again
    /// after every loss.
    async fn set_state(&self, state: InstanceState);

    /// Whether the registry answers; the reason, for people, when it does not.
    ///
    /// # Errors
    /// It is away: the last known state stays.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// How much more this process would take. Made public when it has changed much, within a third of the lease.
    fn set_headroom(&self, headroom: Headroom);

    /// Instances that were absent for two lease times in a view in which this process saw itself.
    /// Remembered for an hour.
    fn gone(&self) -> Vec<InstanceId>;

    /// Duties this process is to do now: those it owns, and those it may do because nobody owned them
    /// for two lease times. Look before each start of the work.
    fn owned(&self) -> watch::Receiver<BTreeSet<Duty>>;

    /// All duties this process is a candidate for or has seen owned, in order.
    fn duties(&self) -> Vec<DutyInfo>;

    /// Gives all duties back and takes no more until [`Cluster::resume_duties`]: the process is draining from now on.
    /// Returns within 500 ms; [`Cluster::owned`] is empty at once.
    async fn release_duties(&self);

    /// Serves again, and takes its share of the duties. Returns within 500 ms.
    async fn resume_duties(&self);

    /// Takes a duty from its owner, whoever that is; another task takes it at once, the former owner not for a moment.
    /// Who had it, if anybody did.
    ///
    /// # Errors
    /// The registry did not take it.
    async fn release_duty(&self, duty: Duty) -> Result<Option<InstanceId>, NotCarried>;

    /// Takes every duty from its owner, and removes registrations that nobody stands behind. Safe at any moment, as
    /// effects are exact whoever does a duty; who lives registers again.
    ///
    /// # Errors
    /// The registry did not take it.
    async fn release_everything(&self) -> Result<Released, NotCarried>;

    /// Carries a command to an instance, which follows it as soon as it hears of it; the last one counts.
    ///
    /// # Errors
    /// The registry did not take it.
    async fn command(&self, to: &InstanceId, command: Command) -> Result<(), NotCarried>;

    /// What an operator wants of this process, asked through another one.
    fn commanded(&self) -> watch::Receiver<Option<Commanded>>;

    /// What is left of the leases of all; nothing for those of whom the registry did not say it within a second.
    async fn leases(&self) -> HashMap<InstanceId, LeaseLeft>;

    /// What became of this process's registration and duties.
    fn counts(&self) -> ClusterCounts;

    /// Gives duties and lease back, within 500 ms also when the registry is away. Harmless when repeated.
    ///
    /// # Errors
    /// The lease could not be given back: the others see this process until it expires.
    async fn close(&self) -> Result<(), NotGivenBack>;
}

/// The lease could not be given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: the others see this process until its lease expires, {} s at most", .expires_in.as_secs())]
pub struct NotGivenBack {
    /// What etcd said, or that it said nothing.
    pub reason: String,
    /// After so long.
    pub expires_in: Duration,
}

/// Runs a task until the close, then waits for the stage it dies in: to end earlier would be a failure.
async fn until(
    (closed, stage): (CancellationToken, CancellationToken),
    task: impl Future<Output = ()> + Send,
) {
    tokio::select! {
        biased;
        () = closed.cancelled() => {}
        () = task => {}
    }
    stage.cancelled().await;
}
