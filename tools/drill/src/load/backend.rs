//! A backend that publishes by the HTTP API of logic, as a server of somebody's would: the same call with the same
//! idempotency key, to one logic after the other, until one has answered for good. It subscribes to nothing and has no
//! connection that is judged.
//!
//! Half of them await each answer before the next call, so that their order in a room is theirs. The others call when it is
//! time, and promise no order.

mod answer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use sluice_judge::record::{ClientEvent, PublishOutcome};
use tokio::time::{Interval, sleep, timeout};

use self::answer::{Answer, read};
use super::message::{MessageGenerator, OutgoingMessage};
use super::pace::pace;
use super::plan::ClientSpec;
use super::recorder::Recorder;
use super::shared::{GIVE_UP, LoadPhase, LoadShared};
use crate::api::{ApiAccess, Calls};

/// One call has its answer within this: shorter than a logic that stands still, so that another is asked meanwhile.
const WITHIN: Duration = Duration::from_secs(4);
/// Pauses between two calls for the same message that nobody told: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// `Retry-After` is kept to up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3);
/// Calls of one backend under way at once, four of whom share a key that may have 256.
const AT_ONCE: usize = 60;

struct Backend {
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    calls: Calls,
    api: Arc<ApiAccess>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

/// Lives until the load ends.
pub(super) async fn live(
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    api: Arc<ApiAccess>,
) {
    // Nobody waits for it, or finds it among those who are connected.
    recorder.state.gone();
    shared.one_is_ready();
    let turn = AtomicUsize::new(spec.client as usize);
    let backend = Backend { shared, spec, recorder, calls: Calls::default(), api, turn };
    backend.shared.reaches(LoadPhase::Run).await;
    backend.run().await;
    backend.recorder.note(&ClientEvent::End);
}

impl Backend {
    async fn run(&self) {
        let Self { shared, spec, .. } = self;
        let mut generator = MessageGenerator::new(&shared.plan, spec, &shared.popularity, false);
        let mut ticks = pace(spec.rate_per_s, spec.phase);
        let mut under_way = FuturesUnordered::new();
        let most = if spec.eager { AT_ONCE } else { 1 };
        loop {
            let phase = shared.phase();
            if phase == LoadPhase::End {
                return; // what was under way had given up before
            }
            let sends = phase == LoadPhase::Run && under_way.len() < most;
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                () = shared.leaves(phase) => {}
                () = tick(ticks.as_mut()), if sends => {
                    under_way.push(self.publish(generator.generate(shared.clock.now_us())));
                }
            }
        }
    }

    /// One message to its outcome.
    async fn publish(&self, message: OutgoingMessage) {
        // Each its own where nothing is awaited: the judge holds nobody to an order that was not asked for.
        let conn = if self.spec.eager { u32::try_from(message.n).unwrap_or(u32::MAX) } else { 0 };
        let sent_us = self.recorder.sends(conn, &message, true);
        let outcome = tokio::select! {
            biased;
            outcome = timeout(GIVE_UP, self.outcome(&message)) => outcome.unwrap_or(PublishOutcome::GaveUp),
            () = self.shared.reaches(LoadPhase::Settle) => PublishOutcome::GaveUp,
        };
        self.recorder.answered(conn, message.n, outcome, Some(sent_us));
    }

    /// Calls until there is an answer for good.
    async fn outcome(&self, message: &OutgoingMessage) -> PublishOutcome {
        let body = body(message, &self.spec.user);
        let mut pause = PAUSE.0;
        loop {
            let urls = self.api.urls();
            // Another one each time: the first may be gone, and not know it yet.
            let turn = self.turn.fetch_add(1, Relaxed);
            let url = urls.get(turn % urls.len().max(1)).cloned().unwrap_or_default();
            let call = self.calls.post(&url, "/v1/publish", self.api.key(), body.clone());
            let (reason, told) = match timeout(WITHIN, call).await {
                Ok(Ok(said)) => match read(&said) {
                    Answer::Stored(seq) => return PublishOutcome::Ok(seq),
                    Answer::Refused(code) => return PublishOutcome::Refused(code),
                    Answer::Again { why, after } => (why, after),
                },
                Ok(Err(reason)) => (reason, None),
                Err(_) => (format!("no answer within {WITHIN:?}"), None),
            };
            self.recorder.note(&ClientEvent::Failed { url, reason });
            sleep(told.map_or(pause, |told| told.min(RETRY_AFTER_MAX))).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// What is sent, byte for byte the same each time.
#[derive(serde::Serialize)]
struct PublishBody<'a> {
    room: &'a str,
    /// As it stands, so that the hash is that of what others receive.
    data: &'a RawValue,
    key: Option<&'a str>,
    from: &'a str,
}

fn body(message: &OutgoingMessage, user: &str) -> String {
    let data: &RawValue = serde_json::from_str(&message.data).unwrap_or(RawValue::NULL); // it is JSON: written so
    let body = PublishBody { room: &message.room, data, key: message.key.as_deref(), from: user };
    serde_json::to_string(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_sent_as_it_was_written() {
        let data = r#"{"c":1, "pad":"x"}"#.to_owned();
        let message = OutgoingMessage { n: 1, room: "r".into(), key: Some("k".into()), data };
        let wanted = r#"{"room":"r","data":{"c":1, "pad":"x"},"key":"k","from":"u9"}"#;
        assert_eq!(body(&message, "u9"), wanted);
    }
}
