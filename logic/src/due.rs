//! Publishes what is due, a bounded step per call. Whoever calls, and however often, each message goes out once: it
//! leaves the schedule in the transaction that stores it.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::grpc::{FireDueReply, FireDueRequest};
use sluice_proto::limits::LANES;
use sluice_store::{Fired, Store};

use crate::defaults::FIRE_MAX;
use crate::error::CallError;
use crate::metrics::{DelayedLabel, Metrics};
use crate::notices::Notices;

/// Parts that firing is divided into: each has two lanes, which share a connection where there are as many connections.
const PARTS: u8 = LANES / 2;

/// Answers `FireDue`.
pub struct Firing {
    store: Arc<dyn Store>,
    notices: Arc<Notices>,
    metrics: Metrics,
}

impl Firing {
    /// Over these parts.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, notices: Arc<Notices>, metrics: Metrics) -> Self {
        Self { store, notices, metrics }
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
            let step = self.store.fire_due(lane, FIRE_MAX).await?;
            fired += step.taken;
            self.announce(lane, &step);
        }
        // There may be more: the next call looks.
        Ok(FireDueReply { fired, next_in_ms: Some(0) })
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
