//! Publishes what is due, a bounded step per call. Whoever calls, and however often, each message goes out once: it
//! leaves the schedule in the transaction that stores it.

mod detour;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_proto::grpc::{FireDueReply, FireDueRequest};
use sluice_proto::limits::LANES;
use sluice_store::{Fired, Store};
use tokio::time::Instant;

use crate::defaults::FIRE_MAX;
use crate::error::CallError;
use crate::metrics::{DelayedLabel, Metrics};
use crate::notices::Notices;
use detour::Detour;

/// Parts that firing is divided into: each has two lanes, which share a connection where there are as many connections.
const PARTS: u8 = LANES / 2;

/// Answers `FireDue`.
pub struct Firing {
    store: Arc<dyn Store>,
    notices: Arc<Notices>,
    metrics: Metrics,
    /// By lane.
    detours: [Mutex<Detour>; LANES as usize],
}

impl Firing {
    /// Over these parts.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, notices: Arc<Notices>, metrics: Metrics) -> Self {
        Self { store, notices, metrics, detours: Default::default() }
    }

    /// Publishes some of what is due of a part, and says when to come again.
    ///
    /// # Errors
    /// A part that does not exist, or the store; what was published before stays published.
    pub async fn fire(&self, request: FireDueRequest) -> Result<FireDueReply, CallError> {
        let part = u8::try_from(request.part).ok().filter(|part| *part < PARTS);
        let part =
            part.ok_or_else(|| CallError::Invalid(format!("part is {}, it must be 0…7", request.part)))?;
        let lanes = [part, part + PARTS];
        let next = self.store.next_due(&lanes).await?;
        if next != Some(Duration::ZERO) {
            let next_in_ms = next.map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
            return Ok(FireDueReply { fired: 0, next_in_ms });
        }
        let mut fired = 0;
        for lane in lanes {
            fired += self.step(lane).await?;
        }
        // There may be more: the next call looks.
        Ok(FireDueReply { fired, next_in_ms: Some(0) })
    }

    /// Some of what is due of a lane, beside rooms that somebody keeps locked; how much.
    async fn step(&self, lane: u8) -> Result<u64, CallError> {
        let detour = || self.detours[usize::from(lane)].lock().unwrap_or_else(PoisonError::into_inner);
        let asked = detour().ask(Instant::now());
        let step = self.store.fire_due(lane, FIRE_MAX, &asked).await?;
        self.announce(lane, &step);
        let passed_over = detour().learn(&asked, &step, Instant::now());
        if passed_over > 0 {
            self.metrics.due_rooms_locked.inc_by(passed_over);
            tracing::debug!(
                lane,
                rooms = passed_over,
                "Delayed messages wait on: somebody keeps their rooms locked."
            );
        }
        Ok(step.taken)
    }

    fn announce(&self, lane: u8, fired: &Fired) {
        self.metrics.delayed(DelayedLabel::Fired).inc_by(fired.taken - fired.conflicts);
        if fired.conflicts > 0 {
            self.metrics.delayed(DelayedLabel::Conflict).inc_by(fired.conflicts);
            let messages = fired.conflicts;
            tracing::warn!(
                messages,
                lane,
                "Delayed messages are not published: their senders used the keys for other data meanwhile."
            );
        }
        // Without the messages: gateways read what they have subscribers for.
        self.notices.offer_runs(lane, fired.epoch, &fired.runs, fired.note);
    }
}
