//! Owed work, driven by calls on logic while this task owns the duty: the sweep of the outbox, the reaping of what gone
//! instances left, telling who left rooms, and delayed messages. Effects are exact whoever does them, so a duty done
//! twice does no harm.

mod absent;
mod due;
mod leaves;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::{Cluster, ClusterView, Duty, InstanceState, Service};
use sluice_presence::Presence;
use sluice_proto::grpc::logic_client::LogicClient;
use sluice_proto::grpc::{ReapRequest, SweepRequest};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::{CallerChannel, Channels, Target};
use sluice_service::seeded::{self, Bug};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use self::absent::{Absent, Evidence};
use crate::defaults::{CALL_WITHIN, REAP_EVERY, REAP_MAX, REDIALS_WITHIN, SWEEP_EVERY};
use crate::metrics::Metrics;
use crate::outlet::Outlets;

/// What the duties stand on.
pub struct Duties {
    /// Says who owns what.
    pub cluster: Arc<dyn Cluster>,
    /// The logics.
    pub logics: Channels,
    /// Says who has something stored.
    pub presence: Arc<dyn Presence>,
    /// Say whose stream works.
    pub outlets: Outlets,
    /// How long a silent instance counts as there.
    pub lease_ttl: Duration,
    /// The metrics of duties.
    pub metrics: Metrics,
}

impl Duties {
    /// Sweeps once a second, and again at once while there is more, until `stop`.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        self.drive(Duty::Sweep, SWEEP_EVERY, &stop, || self.sweep_some(&stop)).await;
    }

    /// One step; whether there is more to do now.
    async fn sweep_some(&self, stop: &CancellationToken) -> bool {
        let swept = self
            .call(0, stop, async |mut logic| logic.sweep(SweepRequest {}).await.map(Response::into_inner));
        let Some(swept) = swept.await else { return false };
        self.metrics.sweeps.inc();
        if swept.renoticed + swept.outbox_removed + swept.messages_trimmed > 0 {
            tracing::debug!(?swept, "Swept.");
        }
        swept.more
    }

    /// A step every so often, and again at once while it says that there is more: as long as this task owns the duty, and
    /// until `stop`.
    async fn drive<F: Future<Output = bool>>(
        &self,
        duty: Duty,
        every: Duration,
        stop: &CancellationToken,
        step: impl Fn() -> F,
    ) {
        let owned = self.cluster.owned();
        let mut ticks = ticks(every);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // Looked at before each call: the duty may have gone to another task meanwhile.
            while owns(&owned, duty) && !stop.is_cancelled() && step().await {}
        }
    }

    /// Looks twice a second for what gone instances left, until `stop`.
    pub async fn reap(self: Arc<Self>, stop: CancellationToken) {
        let owned = self.cluster.owned();
        let mut absent = Absent::default();
        let mut ticks = ticks(REAP_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if !owns(&owned, Duty::Reap) || seeded::is(Bug::NoReaping) {
                // Who does not reap does not count: the other task counts for itself.
                absent.forget();
                continue;
            }
            let gone = self.gone(&mut absent).await;
            for gone in gone.chunks(REAP_MAX) {
                if stop.is_cancelled() || !owns(&owned, Duty::Reap) {
                    break;
                }
                self.reap_these(gone, &stop).await;
            }
        }
    }

    /// Who has something stored and is gone; nobody when this process does not see itself, or Redis is away.
    async fn gone(&self, absent: &mut Absent) -> Vec<InstanceId> {
        let view = Arc::clone(&self.cluster.view().borrow());
        if !view.sees_me {
            absent.forget();
            return Vec::new();
        }
        // Redis is away: then nothing can be reaped either.
        let Ok(stored) = self.presence.instances().await else { return Vec::new() };
        let living = self.outlets.living();
        // A working stream is life, whatever the registry says (C3).
        let lives = |id: &InstanceId| view.instances.contains_key(id) || living.contains(id);
        let evidence = Evidence {
            called_gone: &self.cluster.gone(),
            broken: &self.outlets.broken(),
            broken_for: REDIALS_WITHIN,
            absent_for: 2 * self.lease_ttl,
        };
        absent.gone(&stored, lives, &evidence, Instant::now())
    }

    async fn reap_these(&self, gone: &[InstanceId], stop: &CancellationToken) {
        let names: Vec<String> = gone.iter().map(ToString::to_string).collect();
        let reaped = self.call(1, stop, async |mut logic| {
            let request = ReapRequest { gone: names.clone() };
            logic.reap(request).await.map(Response::into_inner)
        });
        if let Some(reaped) = reaped.await {
            self.metrics.fields_reaped.inc_by(reaped.fields_removed);
            tracing::info!(
                instances = names.join(" "),
                fields = reaped.fields_removed,
                "Reaped gone instances."
            );
        }
    }

    /// One call, once: the next tick is the retry.
    async fn call<R>(
        &self,
        lane: u8,
        stop: &CancellationToken,
        ask: impl AsyncFnOnce(LogicClient<CallerChannel>) -> Result<R, Status>,
    ) -> Option<R> {
        let logic = self.logics.pick(lane)?;
        let answer = timeout(CALL_WITHIN, ask(LogicClient::new(logic.calls()))).await;
        let error = match answer {
            Ok(Ok(answer)) => {
                logic.succeeded();
                return Some(answer);
            }
            // Of the version before, during a roll: no sign that anything is wrong with it.
            Ok(Err(status)) if status.code() == Code::Unimplemented => return None,
            Ok(Err(status)) => status.to_string(),
            Err(_) => "no answer in time".into(),
        };
        // The next tick goes to another logic.
        logic.failed();
        // In a stop nobody waits for it any more, and whoever takes over tries again.
        if stop.is_cancelled() {
            return None;
        }
        self.metrics.duties_failed.inc();
        tracing::debug!(logic = %logic.target().id, error, "A call of a duty failed.");
        None
    }
}

fn owns(owned: &watch::Receiver<BTreeSet<Duty>>, duty: Duty) -> bool {
    owned.borrow().contains(&duty)
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The logics of a view, as targets of calls.
pub fn logics(view: &ClusterView) -> Arc<Vec<Target>> {
    let target = |logic: &sluice_cluster::Instance| Target {
        id: logic.id.clone(),
        address: logic.address.clone(),
        draining: logic.state == InstanceState::Draining,
    };
    Arc::new(view.of(Service::Logic).map(target).collect())
}

/// Keeps `targets` like the view, until `stop`.
pub async fn follow_logics(
    mut view: watch::Receiver<Arc<ClusterView>>,
    targets: watch::Sender<Arc<Vec<Target>>>,
    stop: CancellationToken,
) {
    loop {
        let now = logics(&view.borrow_and_update());
        targets.send_if_modified(|last| {
            // Equal lists wake nobody, or every heartbeat of the registry would reconcile all
            // channels.
            let changed = *last != now;
            if changed {
                *last = now;
            }
            changed
        });
        match stop.run_until_cancelled(view.changed()).await {
            Some(Ok(())) => {}
            // The last known set stays.
            Some(Err(_)) => return stop.cancelled().await,
            None => return,
        }
    }
}
