//! Publishing at a pace that waits for nobody: a late tick still sends, an answer is never waited for. What stays
//! without one for a minute is given up; the library goes on asking, and nobody listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use sluice_client::{Client, Error, Stored};
use sluice_judge::record::PublishOutcome;
use tokio::time::{Interval, interval};

use super::super::message::MessageGenerator;
use super::super::pace::pace;
use super::super::plan::ClientSpec;
use super::super::shared::{LoadPhase, LoadShared};
use super::LibraryClient;

/// Between two looks for what is overdue.
const LOOK: Duration = Duration::from_secs(1);

/// What is on its way.
#[derive(Debug)]
pub(super) struct LibraryPublisher {
    generator: MessageGenerator,
    /// Without an answer: when it was sent.
    pending: BTreeMap<u64, u64>,
    ticks: Option<Interval>,
}

impl LibraryPublisher {
    pub(super) fn new(shared: &Arc<LoadShared>, spec: &ClientSpec) -> Self {
        let generator = MessageGenerator::new(&shared.plan, spec, &shared.popularity, false);
        Self { generator, pending: BTreeMap::new(), ticks: None }
    }

    /// Nothing of what is pending will be listened for.
    pub(super) fn give_up(&mut self, library: &LibraryClient) {
        self.give_up_before(library, u64::MAX);
        self.ticks = None;
    }

    fn give_up_before(&mut self, library: &LibraryClient, sent_us: u64) {
        for (n, sent_us) in self.pending.extract_if(.., |_, sent| *sent < sent_us) {
            library.recorder.answered(0, n, PublishOutcome::GaveUp, Some(sent_us));
        }
        library.unanswered.store(self.pending.len(), Relaxed);
    }

    fn answered(&mut self, library: &LibraryClient, n: u64, result: Result<Stored, Error>) {
        let Some(sent_us) = self.pending.remove(&n) else { return }; // given up already
        library.unanswered.store(self.pending.len(), Relaxed);
        let outcome = match result {
            Ok(stored) => PublishOutcome::Ok(stored.seq),
            Err(Error::Answer(error)) => PublishOutcome::Refused(error.code.as_str().to_owned()),
            Err(_) => PublishOutcome::GaveUp,
        };
        library.recorder.answered(0, n, outcome, Some(sent_us));
    }
}

impl LibraryClient {
    /// Sends while the load runs; never returns.
    pub(super) async fn send(&self, client: &Client, publisher: &mut LibraryPublisher) {
        let mut receipts = FuturesUnordered::new();
        let mut look = interval(LOOK);
        loop {
            let phase = self.shared.phase();
            if phase >= LoadPhase::Settle {
                publisher.give_up(self);
            }
            // Before a goodbye nothing new: it would have no answer by then.
            let runs = phase == LoadPhase::Run && !self.held.load(Relaxed);
            let mut ticks = publisher.ticks.take().filter(|_| runs);
            if ticks.is_none() && runs {
                ticks = pace(self.spec.rate_per_s, self.spec.phase);
            }
            tokio::select! {
                // Answers first: a tick that is late may be followed by many that are due.
                biased;
                Some((n, result)) = receipts.next() => publisher.answered(self, n, result),
                () = self.shared.leaves(phase), if phase < LoadPhase::End => {}
                () = tick(ticks.as_mut()) => {
                    // Again: it may have been held while this waited for its tick.
                    if !self.held.load(Relaxed)
                        && let Some(receipt) = self.publish(client, publisher).await
                    {
                        receipts.push(receipt);
                    }
                }
                _ = look.tick() => {
                    publisher.give_up_before(self, self.shared.minute_ago_us());
                }
            }
            publisher.ticks = ticks;
        }
    }

    async fn publish(
        &self,
        client: &Client,
        publisher: &mut LibraryPublisher,
    ) -> Option<impl Future<Output = (u64, Result<Stored, Error>)> + use<>> {
        let message = publisher.generator.generate(self.shared.clock.now_us());
        let (n, key) = (message.n, message.key.clone().unwrap_or_default());
        // Before it is handed over: the library may have it on the wire before `submit` returns.
        let sent_us = self.recorder.sends(0, &message, true);
        publisher.pending.insert(n, sent_us);
        self.unanswered.store(publisher.pending.len(), Relaxed);
        let data = RawValue::from_string(message.data).ok()?; // it is JSON: written so
        match client.submit(&message.room, &key, &*data).await {
            Ok(receipt) => Some(async move { (n, receipt.outcome().await) }),
            Err(error) => {
                publisher.answered(self, n, Err(error));
                None
            }
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
