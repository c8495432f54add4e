//! What all shards of a gateway share: settings, counters, the way to logic. Read-mostly; nothing in it is
//! waited for.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sluice_lifecycle::Lifecycle;
use sluice_proto::ids::{Epoch, InstanceId};
use sluice_proto::limits::{
    DATA_BYTES_MAX, FRAME_BYTES_MAX, ID_BYTES_MAX, JSON_DEPTH_MAX, NAME_BYTES_MAX, PAGE_MESSAGES_MAX,
    PRESENCE_USERS_MAX, ROOM_BYTES_MAX,
};
use sluice_proto::wire::WireLimits;
use sluice_service::clock::Clock;
use sluice_trace::Tracer;
use tokio::sync::Semaphore;

use crate::calls::Calls;
use crate::config::Config;
use crate::defaults::{
    BAD_FRAMES_MAX, ROOMS_PER_CONNECTION_MAX, UNANSWERED_BYTES_MAX, UNANSWERED_ITEMS_MAX, budget,
};
use crate::handshake::{Admission, Names, Proxies, Rules, Stopping};
use crate::limits::Usages;
use crate::metrics::{Metrics, Stats};
use crate::pushers::Pushers;
use crate::refusals::Refusals;
use crate::revocations::RevokedTokens;
use crate::session::machine::{SessionLimits, WelcomeFacts};

/// What all shards of a gateway share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// Calls on logic.
    pub calls: Calls,
    /// Sums for `/status`.
    pub stats: Stats,
    /// The metrics of the gateway.
    pub metrics: Metrics,
    /// The wall clock.
    pub clock: Clock,
    /// Whether anybody may come in.
    pub upgrades: UpgradeGate,
    /// Names that may stand in an upgrade.
    pub names: Names,
    /// Proxies that are believed.
    pub proxies: Proxies,
    /// What clients use of their limits.
    pub usages: Usages,
    /// Upgrades refused.
    pub refusals: Arc<Refusals>,
    /// Who pushes.
    pub pushers: Pushers,
    /// Which tokens are revoked.
    pub revoked: RevokedTokens,
    /// Turns of questions about tickets.
    pub ticket_calls: Semaphore,
    /// Begins traces.
    pub tracer: Tracer,
}

/// The admission, as all shards and the listener see it.
#[derive(Default)]
pub struct UpgradeGate {
    stop: OnceLock<ClosedBy>,
    drained: AtomicBool,
}

struct ClosedBy {
    lifecycle: Lifecycle,
    /// Whether another gateway serves.
    peers: bool,
}

impl UpgradeGate {
    /// From now on upgrades are refused, for this life's stop; `peers`: another gateway serves.
    pub fn close(&self, lifecycle: &Lifecycle, peers: bool) {
        self.stop.get_or_init(|| ClosedBy { lifecycle: lifecycle.clone(), peers });
    }

    /// Whether upgrades are refused because the gateway stops.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.stop.get().is_some()
    }

    /// From now on upgrades are refused, or let in again, because an operator wants it so. A stop refuses all the same.
    pub fn drain(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// What a client is told that comes while the gateway stops.
    fn stopping(&self) -> Option<Stopping> {
        let ClosedBy { lifecycle, peers } = self.stop.get()?;
        // Others take it at once. Alone, this one's place is free when it has ended, and that is when its clients have left:
        // the stages behind nearly always end at once. Whoever comes too soon finds a closed port and a back-off of its own;
        // whoever is sent away for the whole plan would stay away for seconds in which the next one serves.
        let ends_within = || lifecycle.ends_within().unwrap_or_default();
        let away = if *peers { Duration::ZERO } else { ends_within().min(budget::DRAIN_LAST) };
        let retry_after_s = away.as_secs() + 1;
        Some(Stopping { stage: lifecycle.stage(), retry_after_s })
    }
}

impl fmt::Debug for UpgradeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpgradeGate").field(&self.is_closed()).finish()
    }
}

impl Shared {
    /// What an upgrade is judged by.
    #[must_use]
    pub fn rules(&self) -> Rules<'_> {
        Rules { names: &self.names, proxies: &self.proxies, admission: self.admission() }
    }

    /// Whether a new connection may come in now.
    #[must_use]
    pub fn admission(&self) -> Admission {
        if let Some(stopping) = self.upgrades.stopping() {
            Admission::Draining(stopping)
        } else if self.upgrades.drained.load(Ordering::Relaxed) {
            Admission::Drained
        // Above it, not at it: the listener has counted the one that asks.
        } else if self.stats.connections.load(Ordering::Relaxed) > self.config.connections_max {
            Admission::Full
        } else {
            Admission::Open
        }
    }

    /// A drain of so many connections begins.
    pub fn drain_begins(&self, connections: usize) {
        self.stats.drain_total.store(connections, Ordering::Relaxed);
        self.metrics.drain_connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// What stands in `welcome`.
    #[must_use]
    pub fn welcome_facts(&self, epoch: Epoch) -> WelcomeFacts {
        WelcomeFacts {
            instance: self.me(),
            epoch,
            ping_s: self.config.ping_every_s,
            limits: WireLimits {
                frame_bytes: FRAME_BYTES_MAX,
                data_bytes: DATA_BYTES_MAX,
                json_depth: JSON_DEPTH_MAX,
                name_bytes: NAME_BYTES_MAX,
                room_bytes: ROOM_BYTES_MAX,
                id_bytes: ID_BYTES_MAX,
                rooms: ROOMS_PER_CONNECTION_MAX,
                history_messages: PAGE_MESSAGES_MAX,
                presence_users: PRESENCE_USERS_MAX,
                unanswered: UNANSWERED_ITEMS_MAX,
                unanswered_bytes: UNANSWERED_BYTES_MAX,
                scheduled: self.config.limits.scheduled_per_user as usize,
            },
        }
    }

    /// This gateway's instance id.
    #[must_use]
    pub fn me(&self) -> InstanceId {
        self.calls.me()
    }

    /// Bounds of every session.
    #[must_use]
    pub fn session_limits(&self) -> Arc<SessionLimits> {
        Arc::new(SessionLimits {
            unanswered_max: UNANSWERED_ITEMS_MAX,
            unanswered_bytes_max: UNANSWERED_BYTES_MAX,
            bad_frames_max: BAD_FRAMES_MAX,
            not_after_ms: i64::try_from(self.config.not_after().as_millis()).unwrap_or(i64::MAX),
            expiring_ms: i64::try_from(self.config.token_expiring_s.saturating_mul(1_000))
                .unwrap_or(i64::MAX),
        })
    }
}
