//! A client in another language, or in a browser: a program runs the client that one in that language would have, is told
//! what to do a line at a time, and tells what happens. What it tells is written down as of the client library here.
//! Reconnects and resends are its own.

mod browser;
mod program;
mod told;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use sluice_judge::record::{ClientEvent, PublishOutcome};
use tokio::time::{Interval, interval, timeout};

pub use self::browser::Browser;
use self::program::Runner;
pub use self::program::check;
pub(super) use self::program::log;
use self::told::Told;
use super::message::{MessageGenerator, OutgoingMessage};
use super::pace::pace;
use super::plan::ClientSpec;
use super::recorder::{OWN_WISH, Recorder};
use super::shared::{LoadPhase, LoadShared};
use crate::records::Delivery;

/// A goodbye takes this long at most.
const GOODBYE: Duration = Duration::from_secs(8);
/// Between two looks for what is overdue.
const LOOK: Duration = Duration::from_secs(1);

/// What clients in other languages are run with.
#[derive(Debug, Clone, Default)]
pub struct ForeignMeans {
    /// Certificate authority that they trust as well, PEM. Tabs do not: a browser has a store of its own.
    pub ca: Option<PathBuf>,
    /// Where [`Browser`] gives tabs.
    pub browser: Option<SocketAddr>,
}

/// What one is asked for.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Wish<'a> {
    Begin { urls: Vec<String>, token: Option<String>, rooms: &'a [String] },
    Publish { n: u64, room: &'a str, key: Option<&'a str>, data: &'a str },
}

/// A client from its beginning to its end.
struct ForeignClient {
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    /// The connection in use.
    conn: Option<u32>,
    /// Without an answer: when it was sent.
    pending: BTreeMap<u64, u64>,
    gathered: bool,
}

/// Lives until the load ends. What its process says besides goes to `log`.
pub(super) async fn live(
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    log: PathBuf,
) -> anyhow::Result<()> {
    let mut client =
        ForeignClient { shared, spec, recorder, conn: None, pending: BTreeMap::new(), gathered: false };
    let lived = client.live(&log).await;
    client.give_up_before(u64::MAX);
    if let Some(conn) = client.conn.take() {
        client.recorder.closed(conn, OWN_WISH, "goodbye");
    }
    client.recorder.state.gone();
    client.recorder.note(&ClientEvent::End);
    lived.with_context(|| format!("what its process said is in {}", log.display()))
}

impl ForeignClient {
    async fn live(&mut self, log: &Path) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut runner = Runner::start(self.spec.kind, shared.endpoints.means(), log).await?;
        let urls = shared.endpoints.from(self.spec.client as usize);
        let token = shared.endpoints.token(&self.spec.user);
        runner.wire.ask(&Wish::Begin { urls, token, rooms: &self.spec.rooms })?;
        let mut generator = MessageGenerator::new(&shared.plan, &self.spec, &shared.popularity, false);
        let (mut ticks, mut look) = (None, interval(LOOK));
        loop {
            let phase = shared.phase();
            match phase {
                LoadPhase::Run if ticks.is_none() => ticks = pace(self.spec.rate_per_s, self.spec.phase),
                LoadPhase::Gather | LoadPhase::Run | LoadPhase::Quiet => {}
                LoadPhase::Settle => self.give_up_before(u64::MAX),
                LoadPhase::End => return self.end(runner).await,
            }
            tokio::select! {
                // What came first: a tick that is late may be followed by many that are due.
                biased;
                told = runner.wire.next() => match told? {
                    Some(told) => self.told(told),
                    None => bail!("it ended by itself: {}", runner.ending().await),
                },
                () = shared.leaves(phase) => {}
                () = tick(ticks.as_mut()), if phase == LoadPhase::Run => {
                    let message = generator.generate(shared.clock.now_us());
                    self.publish(&mut runner, &message)?;
                }
                _ = look.tick() => self.give_up_before(shared.minute_ago_us()),
            }
        }
    }

    fn publish(&mut self, runner: &mut Runner, message: &OutgoingMessage) -> anyhow::Result<()> {
        // Before it is handed over: it may be on the wire before this returns.
        let sent_us = self.recorder.sends(0, message, true);
        self.pending.insert(message.n, sent_us);
        let OutgoingMessage { n, room, key, data } = message;
        runner.wire.ask(&Wish::Publish { n: *n, room, key: key.as_deref(), data })
    }

    /// Says goodbye, and hears what still comes.
    async fn end(&mut self, mut runner: Runner) -> anyhow::Result<()> {
        runner.wire.finish();
        let rest = async {
            while let Some(told) = runner.wire.next().await? {
                self.told(told);
            }
            anyhow::Ok(())
        };
        timeout(GOODBYE, rest).await.context("it does not end")?
    }

    fn give_up_before(&mut self, sent_us: u64) {
        for (n, sent_us) in self.pending.extract_if(.., |_, sent| *sent < sent_us) {
            self.recorder.answered(0, n, PublishOutcome::GaveUp, Some(sent_us));
        }
    }

    fn told(&mut self, told: Told) {
        let conn = self.conn.unwrap_or_default();
        let recorder = Arc::clone(&self.recorder);
        match told {
            Told::Connected { instance, epoch } => {
                // It moves without a word of the former connection.
                if let Some(before) = self.conn.take() {
                    recorder.closed(before, OWN_WISH, "moved");
                }
                self.conn = Some(recorder.moved(String::new(), instance, epoch));
            }
            Told::Message { room, seq, from, key, data } => {
                let key = key.as_deref();
                recorder.got(Delivery { conn, room: &room, seq, from: &from, key, hash: 0 }, &data);
            }
            Told::Subscribed(at) => {
                recorder.subscribed(conn, at.confirmed(true));
                if !self.gathered && recorder.state.is_live() {
                    self.gathered = true;
                    self.shared.one_is_ready();
                }
            }
            Told::Resumed(at) => recorder.subscribed(conn, at.confirmed(false)),
            Told::Skipped { room, from, to } => recorder.skipped(conn, &room, from, to),
            Told::Unsubscribed { room, error } => {
                let (code, message) = (error.code, error.message);
                recorder.note(&ClientEvent::Error { conn, code, message });
                recorder.unsubscribed(conn, &room);
            }
            // It does not tell which message came in the place of another, and nobody ever sent this one: it is found.
            Told::Gap { room, seq } => {
                let from = "a message out of its order";
                recorder.got(Delivery { conn, room: &room, seq, from, key: None, hash: 0 }, "");
            }
            Told::Answer { n, seq, code } => self.answered(n, seq, code),
            Told::Drain { within_ms, reconnect_ms } => {
                recorder.note(&ClientEvent::Drain { conn, within_ms, reconnect_ms });
            }
            Told::Bye { code, reconnect, reconnect_ms } => {
                recorder.note(&ClientEvent::Bye { conn, code, reconnect, reconnect_ms });
            }
            Told::Closed { code, reason } => match self.conn.take() {
                Some(conn) => recorder.closed(conn, code, &reason),
                None => recorder.failed(String::new(), reason),
            },
            Told::Error { error } => {
                recorder.note(&ClientEvent::Error { conn, code: error.code, message: error.message });
            }
            Told::Ended { reason } => {
                let code = "ended".to_owned();
                recorder.note(&ClientEvent::Error { conn, code, message: reason });
            }
        }
    }

    fn answered(&mut self, n: u64, seq: Option<u64>, code: Option<String>) {
        let Some(sent_us) = self.pending.remove(&n) else { return }; // given up already
        let outcome = match (seq, code) {
            (Some(seq), _) => PublishOutcome::Ok(seq),
            // The client's own words for an answer that it did not get.
            (None, Some(code)) if !["unknown", "closed", "busy"].contains(&&*code) => {
                PublishOutcome::Refused(code)
            }
            (None, _) => PublishOutcome::GaveUp,
        };
        self.recorder.answered(0, n, outcome, Some(sent_us));
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
