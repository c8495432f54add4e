//! Messages that are to be published later, while all tasks are rolled and the first of them is killed: a thousand, of
//! which every third is cancelled when it is nearly due. What they were answered is written down for the judge.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use serde_json::value::RawValue;
use sluice_client::{Client, Due, Event, Events, Options, Position, Scheduled};
use sluice_judge::record::{CancelOutcome, DelayedRecord, FaultRecord, hash_of};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::process::add_note;
use super::{FaultInjector, append_lines};
use crate::place::Role;
use crate::run::token::token;

/// How many.
const COUNT: u32 = 1_000;
/// When the first is due, and the last.
const FIRST_MS: u64 = 2_000;
const LAST_MS: u64 = 10_000;
/// Later than this is late: who does the work is killed, so twice a lease of ten seconds, and what a busy machine needs.
const LATE: Duration = Duration::from_secs(25);
/// Every so many are cancelled.
const CANCELLED_OF: u32 = 3;
/// A schedule or a cancel has its answer within this: longer than any outage of a gateway.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(50);

/// Who schedules, and where.
struct Scheduler {
    client: Client,
    room: String,
    user: String,
    began: Instant,
}

impl FaultInjector<'_> {
    pub(super) async fn due(&mut self) -> anyhow::Result<Vec<FaultRecord>> {
        let (user, room) = (format!("due-{}", self.round), format!("{}due-{}", self.rooms, self.round));
        let (client, mut events) = match self.connect(&user, &room).await {
            Ok(connected) => connected,
            // A fault that hits nothing: the run is inconclusive, and says so.
            Err(error) => return Ok(vec![self.missed(Role::Task, &error)]),
        };
        let (scheduler, came) =
            (Scheduler { client, room, user, began: Instant::now() }, AtomicUsize::new(0));
        let work = async {
            let (delayed, faults) = tokio::join!(scheduler.all(), self.kill_and_roll(scheduler.began));
            scheduler.awaits(&delayed, &came).await;
            (delayed, faults)
        };
        let (delayed, faults) = tokio::select! {
            // Its events have to be read all the time.
            () = count(&mut events, &came) => bail!("the client of what is due has ended"),
            done = work => done,
        };
        let mut faults = faults?;
        if let Some(first) = faults.first_mut() {
            add_note(first, &format!("{COUNT} messages due meanwhile, {} came", came.load(Relaxed)));
        }
        append_lines(&self.dir.join("delayed.jsonl"), &delayed)?;
        scheduler.client.close().await;
        Ok(faults)
    }

    /// One task is killed as soon as there is something to publish, then each is told to stop.
    async fn kill_and_roll(&mut self, began: Instant) -> anyhow::Result<Vec<FaultRecord>> {
        sleep_until(began + Duration::from_millis(FIRST_MS)).await;
        let mut faults = vec![self.kill(Role::Task).await?];
        for _ in self.target.places(Role::Task) {
            self.turn += 1;
            faults.push(self.term(Role::Task).await?);
        }
        Ok(faults)
    }

    async fn connect(&self, user: &str, room: &str) -> anyhow::Result<(Client, Events)> {
        let mut urls = self.target.endpoints().into_iter();
        let first = Options::new(urls.next().context("there is no gateway")?).outbox_max(COUNT as usize);
        let mut options = urls.fold(first, Options::or).trust(self.trust.clone());
        if let Some(token) = token(self.target.token_secret(), user) {
            options = options.token(token);
        }
        let (client, events) = Client::connect(options).await?;
        client.subscribe(room, Position::Now).await?;
        Ok((client, events))
    }
}

impl Scheduler {
    async fn all(&self) -> Vec<DelayedRecord> {
        join_all((0..COUNT).map(|n| self.one(n))).await
    }

    /// Until all have come that were not cancelled, or are late.
    async fn awaits(&self, delayed: &[DelayedRecord], came: &AtomicUsize) {
        let awaited = delayed.iter().filter(|it| it.cancel != Some(CancelOutcome::Cancelled)).count();
        let by = self.began + Duration::from_millis(LAST_MS) + LATE;
        while came.load(Relaxed) < awaited && Instant::now() < by {
            sleep(LOOK).await;
        }
    }

    /// One message from its schedule to the answer to its cancel.
    async fn one(&self, n: u32) -> DelayedRecord {
        let key = format!("{}-{n}", self.user);
        let data = format!(r#"{{"due":{n}}}"#);
        let delay_ms = FIRST_MS + u64::from(n) * (LAST_MS - FIRST_MS) / u64::from(COUNT);
        let due = Due::In(Duration::from_millis(delay_ms));
        let scheduled = async {
            let data: Box<RawValue> = RawValue::from_string(data.clone()).ok()?;
            timeout(ANSWER, self.client.schedule(&self.room, &key, &*data, due)).await.ok()?.ok()
        };
        let due_ms = match scheduled.await {
            Some(Scheduled::Waits { due_ms, .. }) => Some(due_ms),
            Some(Scheduled::Published(_)) | None => None,
        };
        let cancel =
            if n.is_multiple_of(CANCELLED_OF) { Some(self.cancel(&key, delay_ms).await) } else { None };
        DelayedRecord {
            room: self.room.clone(),
            user: self.user.clone(),
            key,
            hash: hash_of(data.as_bytes()),
            due_ms,
            late_ms: i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX),
            cancel,
        }
    }

    /// In the moment in which it is due, so that both may come first.
    async fn cancel(&self, key: &str, delay_ms: u64) -> CancelOutcome {
        sleep_until(self.began + Duration::from_millis(delay_ms)).await;
        match timeout(ANSWER, self.client.cancel(&self.room, key)).await {
            Ok(Ok(true)) => CancelOutcome::Cancelled,
            Ok(Ok(false)) => CancelOutcome::TooLate,
            Ok(Err(_)) | Err(_) => CancelOutcome::Unknown,
        }
    }
}

/// Reads events until the client ends, and counts the messages that come.
async fn count(events: &mut Events, came: &AtomicUsize) {
    while let Some(event) = events.next().await {
        if matches!(event, Event::Message(_)) {
            came.fetch_add(1, Relaxed);
        }
    }
}
