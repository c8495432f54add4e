//! What a seeded bug does before a notice is carried: NATS hears that it is done a moment before anything is. Only
//! with the feature `seeded-bugs`.

use std::time::Duration;

use sluice_queue::Delivery;
use sluice_service::seeded::{self, Bug};
use tokio::time::sleep;

/// From the acknowledgement to the first push.
const EARLY: Duration = Duration::from_millis(300);

pub(super) async fn acknowledged(delivery: Delivery) -> Delivery {
    if !seeded::is(Bug::AckBeforePush) {
        return delivery;
    }
    let payload = delivery.payload.clone();
    delivery.ack().await;
    sleep(EARLY).await;
    Delivery::new(payload, async {})
}
