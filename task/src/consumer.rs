//! Takes notices from the queue and has several of them carried at once, bounded by number and bytes. A slow
//! notice holds no other one up.

#[cfg(feature = "seeded-bugs")]
mod early;

use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sluice_operator::DrainSwitch;
use sluice_queue::{Delivery, Queue, QueueError};
use tokio_util::sync::CancellationToken;

use crate::defaults::{NOTICES_BYTES_MAX, NOTICES_MAX};
use crate::fanout::FanOut;
use crate::metrics::Metrics;

/// Carries notices until `finish`, then those in hand to their end; none while an operator has this task drained.
///
/// # Errors
/// When the queue was closed before.
pub async fn run(
    queue: Arc<dyn Queue>,
    fanout: FanOut,
    metrics: Metrics,
    (drain, finish): (DrainSwitch, CancellationToken),
) -> Result<(), QueueError> {
    while finish.run_until_cancelled(drain.becomes(false)).await.is_some() {
        let until = finish.child_token();
        let drained = async {
            drain.becomes(true).await;
            until.cancel();
            // Those in hand are carried on.
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            ended = carry_until(&queue, &fanout, &metrics, &until) => ended?,
            never = drained => match never {},
        }
        if finish.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn carry_until(
    queue: &Arc<dyn Queue>,
    fanout: &FanOut,
    metrics: &Metrics,
    finish: &CancellationToken,
) -> Result<(), QueueError> {
    let mut reader = queue.consumer().await?;
    let mut in_hand = FuturesUnordered::new();
    let (mut bytes, mut finishing, mut ended) = (0, false, false);
    while !(ended && in_hand.is_empty()) {
        // Two bounds: 2,048 notices of a megabyte each would be 2 GiB.
        let room = in_hand.len() < NOTICES_MAX && bytes < NOTICES_BYTES_MAX;
        tokio::select! {
            biased;
            () = finish.cancelled(), if !finishing => {
                finishing = true;
                // What was fetched before still comes out, or it would wait 2 s for another task.
                reader.finish();
            }
            // Before new ones: finished work frees its space first.
            Some(done) = in_hand.next(), if !in_hand.is_empty() => bytes -= done,
            next = reader.next(), if !ended && room => match next {
                Ok(delivery) => {
                    bytes += delivery.payload.len();
                    in_hand.push(carry(fanout, delivery));
                }
                // After `finish` the end of the reader is what was asked for.
                Err(_) if finishing => ended = true,
                Err(error) => return Err(error),
            },
        }
        metrics.notices_in_flight.set(i64::try_from(in_hand.len()).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Returns the bytes that are no longer held.
async fn carry(fanout: &FanOut, delivery: Delivery) -> usize {
    let bytes = delivery.payload.len();
    #[cfg(feature = "seeded-bugs")]
    let delivery = early::acknowledged(delivery).await;
    fanout.carry(delivery).await;
    bytes
}
