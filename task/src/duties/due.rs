//! Delayed messages: while this task owns a part, logic is asked to publish what is due of it, again when the next one will
//! be. Ends first in a stop, at once or with the call under way; what it leaves is on the schedule in the store.

use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::Duty;
use sluice_proto::grpc::{FireDueReply, FireDueRequest};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::Response;

use super::{Duties, owns};
use crate::defaults::{FIRE_AGAIN_MIN, FIRE_EVERY};

impl Duties {
    /// Publishes what is due of a part, until `stop`.
    pub async fn fire(self: Arc<Self>, part: u8, stop: CancellationToken) {
        let mut owned = self.cluster.owned();
        loop {
            // Looked at before each call: the duty may have gone to another task meanwhile.
            let pause =
                if owns(&owned, Duty::Due(part)) { self.fire_some(part, &stop).await } else { FIRE_EVERY };
            tokio::select! {
                // A stop wins over what is due.
                biased;
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                // A part that was taken over has waited long enough.
                Ok(()) = owned.changed() => {}
            }
        }
    }

    /// One step; how long until the next.
    async fn fire_some(&self, part: u8, stop: &CancellationToken) -> Duration {
        let request = FireDueRequest { part: u32::from(part) };
        let fired =
            self.call(part, stop, async |mut logic| logic.fire_due(request).await.map(Response::into_inner));
        let Some(fired) = fired.await else { return FIRE_EVERY };
        self.metrics.messages_fired.inc_by(fired.fired);
        pause(fired)
    }
}

/// Until the next one is due, but never longer than a message that is stored meanwhile may wait.
fn pause(FireDueReply { fired, next_in_ms }: FireDueReply) -> Duration {
    match next_in_ms {
        Some(0) if fired > 0 => Duration::ZERO,
        // What is due is in other hands: it is gone in a moment.
        Some(ms) => Duration::from_millis(ms).clamp(FIRE_AGAIN_MIN, FIRE_EVERY),
        None => FIRE_EVERY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_the_next_is_due_in_short_segments() {
        let pause = |fired, next_in_ms| pause(FireDueReply { fired, next_in_ms });
        assert_eq!(pause(3, Some(0)), Duration::ZERO, "there may be more");
        assert_eq!(pause(0, Some(0)), FIRE_AGAIN_MIN, "somebody else has it: no busy loop");
        assert_eq!(pause(0, Some(123)), Duration::from_millis(123));
        assert_eq!(pause(0, Some(86_400_000)), FIRE_EVERY, "an earlier one may be stored meanwhile");
        assert_eq!(pause(0, None), FIRE_EVERY);
    }
}
