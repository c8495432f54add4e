//! What all shards of a gateway share: settings, counters, the way to logic. Read-mostly; nothing in it is
//! waited for.

use std::sync::atomic::{AtomicU8, Ordering};

use sluice_proto::ids::{Epoch, InstanceId};
use sluice_proto::limits::{
    DATA_BYTES_MAX, FRAME_BYTES_MAX, ID_BYTES_MAX, JSON_DEPTH_MAX, NAME_BYTES_MAX, PAGE_MESSAGES_MAX,
    PRESENCE_USERS_MAX, ROOM_BYTES_MAX,
};
use sluice_proto::wire::WireLimits;
use sluice_service::clock::Clock;

use crate::calls::Calls;
use crate::config::Config;
use crate::defaults::{BAD_FRAMES_MAX, ROOMS_PER_CONNECTION_MAX, UNANSWERED_BYTES_MAX, UNANSWERED_ITEMS_MAX};
use crate::handshake::Admission;
use crate::metrics::{Metrics, Stats};
use crate::session::machine::{SessionLimits, WelcomeFacts};

/// Arc<Shared> by all shards.
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
}

/// The admission, as all shards and the listener see it.
#[derive(Debug, Default)]
pub struct UpgradeGate(AtomicU8);

impl UpgradeGate {
    /// From now on upgrades are refused.
    pub fn close(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    /// Whether upgrades are refused because the gateway stops.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 1
    }
}

impl Shared {
    /// Whether a new connection may come in now.
    #[must_use]
    pub fn admission(&self) -> Admission {
        if self.upgrades.is_closed() {
            Admission::Draining
        } else if self.stats.connections.load(Ordering::Relaxed) > self.config.connections_max {
            Admission::Full
        } else {
            Admission::Open
        }
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
    pub fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            unanswered_max: UNANSWERED_ITEMS_MAX,
            unanswered_bytes_max: UNANSWERED_BYTES_MAX,
            bad_frames_max: BAD_FRAMES_MAX,
            not_after_ms: i64::try_from(self.config.not_after().as_millis()).unwrap_or(i64::MAX),
        }
    }
}
