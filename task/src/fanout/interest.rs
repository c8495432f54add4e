//! Asks Redis who wants the rooms of notices: many notices in one pipeline while another is under way.
//!
//! Never an error: where Redis does not answer, everybody gets everything.

use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexSet;
use sluice_lifecycle::Scope;
use sluice_presence::Presence;
use sluice_proto::ids::{InstanceId, RoomId};
use sluice_service::batcher::{Batcher, Bounds};
use tokio::time::Instant;

use crate::defaults::{LOOKUP_NOTICES_MAX, LOOKUP_ROOMS_MAX, NOTICES_MAX, REDIS_RESTS};
use crate::metrics::Metrics;

/// Who wants each room of a notice, in their order; `None` when nobody knows.
pub type InterestedGateways = Option<Vec<Vec<InstanceId>>>;

/// The lookups of one task.
pub struct Lookups(Batcher<Vec<RoomId>, InterestedGateways>);

struct Redis {
    presence: Arc<dyn Presence>,
    rests_until: Mutex<Option<Instant>>,
    metrics: Metrics,
}

impl Lookups {
    /// Lookups in `presence`, until the stage of `scope`.
    #[must_use]
    pub fn start(scope: &Scope, presence: Arc<dyn Presence>, metrics: Metrics) -> Self {
        let redis = Arc::new(Redis { presence, rests_until: Mutex::default(), metrics });
        let bounds = Bounds {
            items_max: LOOKUP_NOTICES_MAX,
            bytes_max: LOOKUP_ROOMS_MAX,
            queue_items_max: NOTICES_MAX,
            // Rooms, not bytes: bounded by the notices in hand.
            queue_bytes_max: usize::MAX,
        };
        Self(Batcher::spawn(scope, "lookups", bounds, Vec::len, move |notices| {
            let redis = Arc::clone(&redis);
            async move { redis.look(&notices).await }
        }))
    }

    /// Who wants these rooms.
    pub async fn of(&self, rooms: Vec<RoomId>) -> InterestedGateways {
        // Closed or lost: the process is ending, and everybody is a right answer.
        self.0.submit(rooms).await.ok().flatten()
    }
}

impl Redis {
    /// One answer for each notice. A room that several of them have is asked for once.
    async fn look(&self, notices: &[Vec<RoomId>]) -> Vec<InterestedGateways> {
        self.metrics.lookup_items.observe(notices.len() as f64);
        let mut asked = IndexSet::new();
        let places: Vec<Vec<usize>> = notices
            .iter()
            .map(|rooms| rooms.iter().map(|room| asked.insert_full(room.clone()).0).collect())
            .collect();
        let rooms: Vec<RoomId> = asked.into_iter().collect();
        let Some(found) = self.ask(&rooms).await else { return vec![None; notices.len()] };
        let answer = |places: Vec<usize>| places.into_iter().map(|place| found[place].clone()).collect();
        places.into_iter().map(answer).map(Some).collect()
    }

    async fn ask(&self, rooms: &[RoomId]) -> InterestedGateways {
        // Copied out: the lock must not be held over the call.
        let rests_until = *self.rests_until();
        if rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match self.presence.interested(rooms).await {
            Ok(found) if found.len() == rooms.len() => {
                if self.rests_until().take().is_some() {
                    tracing::debug!("Redis answers again.");
                }
                Some(found)
            }
            Ok(found) => {
                tracing::error!(asked = rooms.len(), found = found.len(), "Redis answered something else.");
                None
            }
            Err(error) => {
                self.metrics.lookups_failed.inc();
                if rests_until.is_none() {
                    tracing::debug!(%error, "Redis does not say who wants what: every gateway gets everything.");
                }
                // A Redis that swallows calls would cost every notice its timeout.
                *self.rests_until() = Some(Instant::now() + REDIS_RESTS);
                None
            }
        }
    }

    fn rests_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
