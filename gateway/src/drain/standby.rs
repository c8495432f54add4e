//! A drain that the process survives: nobody comes in, clients move at the pace that the others have room for, until an
//! operator wants the gateway back or it stops. Logics and tasks are told nothing: none of them has to stay for a
//! gateway that can wait.

use std::time::Duration;

use futures::FutureExt as _;
use sluice_cluster::InstanceState;
use sluice_operator::DrainSwitch;
use sluice_service::grpc::health::Health;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::DrainHooks;
use super::pace::Pace;
use crate::defaults::{DROP_BEFORE_END, GIVE_UP_BEFORE_END, STANDBY_PATIENCE};
use crate::shard::inbox::{Close, Leaving, Order};

/// The way there and back.
#[derive(Clone)]
pub struct Standby {
    /// What it shares with the drain of a stop.
    pub drain: DrainHooks,
    /// What health checks of gRPC are told.
    pub health: Health,
}

impl Standby {
    /// Follows the operator's wish until `stop`.
    pub async fn follow(self, wish: DrainSwitch, stop: CancellationToken) {
        let (out, back) = (|| self.clone().leave(), || self.clone().come_back());
        wish.follow(stop, out, back).await;
        // The stop may have cut a way back that had said the opposite; noted at once, and not waited for.
        self.drain.cluster.set_state(InstanceState::Draining).now_or_never();
        self.health.not_serving().await;
    }

    /// Nobody comes in, and everybody leaves.
    async fn leave(self) {
        let DrainHooks { shared, shards, cluster, .. } = &self.drain;
        self.health.not_serving().await;
        cluster.set_state(InstanceState::Draining).await;
        sleep(Duration::from_millis(shared.config.drain.accept_grace_ms)).await;
        // Before the first client is told: one that moves at once must not come in here again.
        shared.upgrades.drain(true);
        let situation = self.drain.situation().unhurried();
        if !situation.peers {
            tracing::warn!("No other gateway serves: clients have nowhere to go until one does.");
        }
        shared.drain_begins(situation.connections);
        let pace = Pace::plan(&situation);
        tracing::info!(
            connections = situation.connections,
            rate_per_s = situation.rate_per_s,
            "Clients are told to reconnect; this gateway stays."
        );
        shards.ask_all(|told| Order::Notify(pace, Leaving::Drain, told)).await;
        let end = Instant::now() + pace.close_after + pace.close_within + STANDBY_PATIENCE;
        let close = Close {
            pace,
            leaving: Leaving::Drain,
            code: shared.config.drain.close_code,
            give_up_at: end - GIVE_UP_BEFORE_END,
            drop_at: end - DROP_BEFORE_END,
        };
        shards.ask_all(|empty| Order::Close(close, empty)).await;
        tracing::info!("All clients have left: this gateway may be stopped or killed.");
    }

    /// As before: who has not been closed stays, and new clients come in.
    async fn come_back(self) {
        let DrainHooks { shared, shards, cluster, .. } = &self.drain;
        shards.send_all(|| Order::Stay).await;
        shared.upgrades.drain(false);
        shared.metrics.drain_connections.set(0);
        self.health.serving().await;
        cluster.set_state(InstanceState::Serving).await;
    }
}
