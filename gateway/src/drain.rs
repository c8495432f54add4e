//! How clients leave when the gateway stops. The arithmetic is in [`pace`]; the shards carry it out.

pub mod pace;
pub mod standby;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_cluster::{Cluster, InstanceState, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use tokio::time::{Instant, sleep};

use self::pace::{Pace, Situation, SpareCapacity, rate_for, rate_for_rooms, returns_per_s};
use crate::defaults::{DROP_BEFORE_END, GIVE_UP_BEFORE_END, SAY_SO_WITHIN, budget};
use crate::shard::handle::Shards;
use crate::shard::inbox::{Close, Leaving, Order};
use crate::shard::shared::Shared;

/// The parts of a stop that concern clients, one per stage.
#[derive(Clone)]
pub struct DrainHooks {
    /// How far the stop is.
    pub lifecycle: Lifecycle,
    /// What this gateway shares with its shards.
    pub shared: Arc<Shared>,
    /// Where the clients are.
    pub shards: Shards,
    /// Whether somebody else serves.
    pub cluster: Arc<dyn Cluster>,
}

impl DrainHooks {
    /// Stage not-ready: everybody who has to know hears that this gateway drains, and balancers get their
    /// grace. Nobody is waited for: a registry that is away must not hold up the stop.
    pub async fn announce_draining(&self) {
        // Tasks of a later stage: this one is over after its grace, whether or not anybody has heard.
        let scope = self.lifecycle.scope(Stage::Flush);
        // Until the flush, which ends with the registration: a registry that is away must not take its time.
        let (cluster, until) = (Arc::clone(&self.cluster), scope.token());
        scope.spawn_transient("say-draining", async move {
            until.run_until_cancelled(cluster.set_state(InstanceState::Draining)).await;
        });
        let (shared, until) = (Arc::clone(&self.shared), scope.token());
        scope.spawn_transient("tell-logics", async move {
            until.run_until_cancelled(shared.calls.tell_draining(SAY_SO_WITHIN)).await;
        });
        sleep(Duration::from_millis(self.shared.config.drain.accept_grace_ms)).await;
    }

    /// Stage notify: upgrades are refused, all clients are told.
    pub async fn notify(&self) {
        let situation = self.situation();
        // Before the first client is told: one that moves at once must not come in here again.
        self.shared.upgrades.close(&self.lifecycle, situation.peers);
        let stats = &self.shared.stats;
        self.shared.drain_begins(situation.connections);
        stats.drain_unknown.store(stats.unknown.load(Ordering::Relaxed), Ordering::Relaxed);
        let pace = Pace::plan(&situation);
        tracing::info!(
            connections = situation.connections,
            rate_per_s = situation.rate_per_s,
            close_within_ms = u64::try_from(pace.close_within.as_millis()).unwrap_or(u64::MAX),
            reconnect_ms_max = pace.reconnect_ms_max,
            "Clients are told to reconnect."
        );
        self.shards.ask_all(|told| Order::Notify(pace, Leaving::Stop, told)).await;
    }

    /// Stage drain: every accepted publish gets its outcome, every connection is closed.
    pub async fn close(&self) {
        let situation = self.situation();
        let now = Instant::now();
        // By the stage's own end where that is nearer: a stage before this one may have been late.
        let stage = if situation.peers { situation.close_for } else { situation.close_for_last };
        let end = self.lifecycle.progress().borrow().deadline.map_or(now + stage, |end| end.min(now + stage));
        let close = Close {
            pace: Pace::plan(&situation),
            leaving: Leaving::Stop,
            code: self.shared.config.drain.close_code,
            give_up_at: before(end, GIVE_UP_BEFORE_END, now),
            drop_at: before(end, DROP_BEFORE_END, now),
        };
        self.shards.ask_all(|empty| Order::Close(close, empty)).await;
    }

    fn situation(&self) -> Situation {
        let view = self.cluster.view();
        let me = self.cluster.me();
        let view = view.borrow();
        let me = me.borrow();
        let serving = || view.others(Service::Gateway, &me).filter(|one| one.state == InstanceState::Serving);
        let config = &self.shared.config;
        let (drain, stages) = (&config.drain, &config.shutdown.stages);
        let connections = self.shared.stats.connections();
        let peers = serving().next().is_some();
        let gateways = view.others(Service::Gateway, &me);
        // This one too: all who leave now share the room of those who stay.
        let leaving = gateways.filter(|one| one.state == InstanceState::Draining).count() as u64 + 1;
        // Without peers nobody can be spared: the budget decides.
        let room = if peers {
            SpareCapacity::of(serving().map(|one| one.headroom), leaving)
        } else {
            SpareCapacity::default()
        };
        let subscriptions = self.shared.stats.subscriptions.load(Ordering::Relaxed);
        // Shards add changes one after the other: for a moment the sum may be below zero.
        let subscriptions = usize::try_from(subscriptions).unwrap_or(0);
        let rate_per_s =
            rate_for_rooms(drain.rate_per_s, connections, subscriptions, drain.subscriptions_per_s);
        let rate_per_s = rate_for(rate_per_s, connections, room);
        // Those who take our place let in as many as we do.
        let own = u64::from(config.limits.handshakes_per_s);
        let let_in_per_s = if peers { room.handshakes_per_s } else { (own > 0).then_some(own) };
        let sharing = if peers { 1 } else { leaving };
        let close_for = Duration::from_millis(stages.drain_ms);
        Situation {
            connections,
            peers,
            rate_per_s,
            returns_per_s: returns_per_s(rate_per_s, let_in_per_s, sharing),
            notify_for: Duration::from_millis(stages.notify_ms),
            move_for: budget::MOVE,
            close_for,
            close_for_last: budget::DRAIN_LAST.min(close_for),
            reconnect_ms_max: drain.reconnect_ms_max,
        }
    }
}

fn before(end: Instant, margin: Duration, now: Instant) -> Instant {
    end.checked_sub(margin).unwrap_or(now).max(now)
}
