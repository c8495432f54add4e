//! Publishing at a pace that waits for nobody: a late tick still sends, an answer is never waited for. What stays
//! without one for a minute is given up; the library goes on asking, and nobody listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use sluice_checker::record::Outcome;
use sluice_client::{Client, Error, Stored};
use tokio::time::{Interval, interval};

use super::super::letter::Pen;
use super::super::pace::pace;
use super::super::plan::Part;
use super::super::world::{Phase, World};
use super::Life;

/// Between two looks for what is overdue.
const LOOK: Duration = Duration::from_secs(1);

/// What is on its way.
#[derive(Debug)]
pub(super) struct Sending {
    pen: Pen,
    /// Without an answer: when it was sent.
    pending: BTreeMap<u64, u64>,
    ticks: Option<Interval>,
}

impl Sending {
    pub(super) fn new(world: &Arc<World>, part: &Part) -> Self {
        let pen = Pen::new(&world.plan, part, &world.popularity, false);
        Self { pen, pending: BTreeMap::new(), ticks: None }
    }

    /// Nothing of what is pending will be listened for.
    pub(super) fn give_up(&mut self, life: &Life) {
        self.give_up_before(life, u64::MAX);
        self.ticks = None;
    }

    fn give_up_before(&mut self, life: &Life, sent_us: u64) {
        for (n, sent_us) in self.pending.extract_if(.., |_, sent| *sent < sent_us) {
            life.diary.answered(0, n, Outcome::GaveUp, Some(sent_us));
        }
        life.unanswered.store(self.pending.len(), Relaxed);
    }

    fn answered(&mut self, life: &Life, n: u64, result: Result<Stored, Error>) {
        let Some(sent_us) = self.pending.remove(&n) else { return }; // given up already
        life.unanswered.store(self.pending.len(), Relaxed);
        let outcome = match result {
            Ok(stored) => Outcome::Ok(stored.seq),
            Err(Error::Answer(error)) => Outcome::Refused(error.code.as_str().to_owned()),
            Err(_) => Outcome::GaveUp,
        };
        life.diary.answered(0, n, outcome, Some(sent_us));
    }
}

impl Life {
    /// Sends while the load runs; never returns.
    pub(super) async fn send(&self, client: &Client, sending: &mut Sending) {
        let mut receipts = FuturesUnordered::new();
        let mut look = interval(LOOK);
        loop {
            let phase = self.world.phase();
            if phase >= Phase::Settle {
                sending.give_up(self);
            }
            let runs = phase == Phase::Run && !self.held.load(Relaxed);
            let mut ticks = sending.ticks.take().filter(|_| runs);
            if ticks.is_none() && runs {
                ticks = pace(self.part.rate_per_s, self.part.phase);
            }
            tokio::select! {
                biased;
                Some((n, result)) = receipts.next() => sending.answered(self, n, result),
                () = self.world.leaves(phase), if phase < Phase::End => {}
                () = tick(ticks.as_mut()) => {
                    if !self.held.load(Relaxed)
                        && let Some(receipt) = self.publish(client, sending).await
                    {
                        receipts.push(receipt);
                    }
                }
                _ = look.tick() => {
                    sending.give_up_before(self, self.world.minute_ago_us());
                }
            }
            sending.ticks = ticks;
        }
    }

    async fn publish(
        &self,
        client: &Client,
        sending: &mut Sending,
    ) -> Option<impl Future<Output = (u64, Result<Stored, Error>)> + use<>> {
        let letter = sending.pen.write(self.world.clock.now_us());
        let (n, key) = (letter.n, letter.key.clone().unwrap_or_default());
        let sent_us = self.diary.sends(0, &letter, true);
        sending.pending.insert(n, sent_us);
        self.unanswered.store(sending.pending.len(), Relaxed);
        let data = RawValue::from_string(letter.data).ok()?; // it is JSON: written so
        match client.submit(&letter.room, &key, &*data).await {
            Ok(receipt) => Some(async move { (n, receipt.outcome().await) }),
            Err(error) => {
                sending.answered(self, n, Err(error));
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
