//! What the library tells, written down in its order; and readers that stop reading for a while. It asks for nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::RngExt;
use sluice_client::{Event, Events, Message, Position, Subscribed, Welcome};
use sluice_judge::record::ClientEvent;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::pace::FIRST_S;
use super::super::plan::ClientRole;
use super::super::recorder::{Confirmed, OWN_WISH, Recorder};
use super::super::shared::LoadPhase;
use super::{LeaveReason, LibraryClient};
use crate::records::Delivery;
use crate::seed::Seed;

/// How long somebody reads before it stops, and for how long it stops, seconds.
const READS_S: std::ops::Range<f64> = 5.0..15.0;
const STOPS_S: std::ops::Range<f64> = 3.0..6.0;

/// Where the reader stands.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    /// Where the last attempt led to.
    url: String,
    /// The connection in use, while there is one.
    conn: Option<u32>,
    /// Rooms with a `sub` that is not answered.
    asked: BTreeSet<String>,
}

impl EventReader {
    pub(super) fn conn(&self) -> Option<u32> {
        self.conn
    }
}

impl LibraryClient {
    /// Until the library ends.
    pub(super) async fn read(&self, events: &mut Events, reader: &mut EventReader) -> LeaveReason {
        let mut rng = Seed(self.shared.plan.seed).stream("stops", self.spec.client);
        let mut after = |range: std::ops::Range<f64>| Duration::from_secs_f64(rng.random_range(range));
        let stops = self.spec.role == ClientRole::Stopped;
        let mut stop_at = Instant::now() + after(FIRST_S);
        loop {
            let event = tokio::select! {
                // The stop of reading first: events that keep coming would put it off for ever.
                biased;
                () = sleep_until(stop_at), if stops => None,
                event = events.next() => match event {
                    Some(event) => Some(event),
                    None => return LeaveReason::Lost,
                },
            };
            match event {
                Some(event) => {
                    let breaks = matches!(event, Event::Closed { code: None | Some(1006), .. });
                    self.event(event, reader);
                    let quits = breaks && self.spec.role == ClientRole::Quitter;
                    if quits && self.shared.phase() == LoadPhase::Run {
                        return LeaveReason::Quit;
                    }
                }
                None => {
                    if self.shared.phase() == LoadPhase::Run {
                        self.stop_reading(after(STOPS_S)).await;
                    }
                    stop_at = Instant::now() + after(READS_S);
                }
            }
        }
    }

    async fn stop_reading(&self, time: Duration) {
        let conn = self.conn.load(Relaxed);
        self.recorder.note(&ClientEvent::Paused { conn });
        tokio::select! {
            () = sleep(time) => {}
            () = self.shared.leaves(LoadPhase::Run) => {}
        }
        self.recorder.note(&ClientEvent::Unpaused { conn });
    }

    fn event(&self, event: Event, reader: &mut EventReader) {
        let recorder = &self.recorder;
        let conn = reader.conn.unwrap_or_default();
        match event {
            Event::Message(message) | Event::OutOfOrder { message, .. } => got(recorder, conn, &message),
            Event::Skipped { room, from, to } => recorder.skipped(conn, &room, from, to),
            Event::Dialled { url, failed: Some(reason) } => recorder.failed(url, reason),
            Event::Dialled { url, failed: None } => reader.url = url,
            Event::Connected(welcome) => self.connected(welcome, reader),
            Event::Asked { room, from } => {
                let (after, epoch) = match from {
                    Position::Now => (None, None),
                    Position::After(after) => (Some(after), None),
                    Position::In { after, epoch } => (Some(after), Some(epoch)),
                };
                reader.asked.insert(room.clone());
                recorder.note(&ClientEvent::Sub { conn, room, after, epoch });
            }
            Event::Subscribed(at) | Event::Resumed(at) => {
                // The library tells both alike: only what was asked here is an answer.
                let asked = reader.asked.remove(&at.room);
                let Subscribed { room, after, head, epoch, recovered } = &at;
                let (after, head, recovered) = (*after, *head, *recovered);
                recorder.subscribed(conn, Confirmed { room, after, head, epoch, recovered, asked });
            }
            Event::UserJoined { room, user, at_ms, .. } => {
                recorder.note(&ClientEvent::UserJoined { conn, room, user, at_ms });
            }
            Event::UserLeft { room, user, at_ms } => {
                recorder.note(&ClientEvent::UserLeft { conn, room, user, at_ms });
            }
            Event::Stale { room } => {
                recorder.note(&ClientEvent::Stale { conn, room });
                self.stale.notify_one();
            }
            Event::Left { room } => recorder.unsubscribed(conn, &room),
            Event::Unsubscribed { room, error } => {
                error_of(recorder, conn, error.code.as_str(), error.message);
                recorder.unsubscribed(conn, &room);
            }
            Event::Drain(drain) => {
                let (within_ms, reconnect_ms) = (drain.within_ms, drain.reconnect_ms);
                recorder.note(&ClientEvent::Drain { conn, within_ms, reconnect_ms });
            }
            Event::Bye(bye) => {
                let (code, reconnect, reconnect_ms) = (bye.code, bye.reconnect, bye.reconnect_ms);
                recorder.note(&ClientEvent::Bye { conn, code, reconnect, reconnect_ms });
            }
            Event::Closed { code, reason, .. } => {
                reader.conn = None;
                recorder.closed(conn, code, &reason);
            }
            Event::Error(error) => error_of(recorder, conn, error.code.as_str(), error.message),
            Event::Reconnecting { .. } | _ => {} // attempts that begin; how they end is told
        }
    }

    fn connected(&self, welcome: Welcome, reader: &mut EventReader) {
        // The library moves without a `Closed` for the former connection, whose records have to end all the
        // same.
        if let Some(before) = reader.conn.take() {
            self.recorder.closed(before, OWN_WISH, "moved");
        }
        // Questions of the former connection are answered by nobody.
        reader.asked.clear();
        let conn = self.recorder.moved(reader.url.clone(), welcome.instance, welcome.epoch);
        reader.conn = Some(conn);
        self.conn.store(conn, Relaxed);
    }
}

fn got(recorder: &Recorder, conn: u32, message: &Message) {
    let Message { room, seq, from, key, data, .. } = message;
    let delivery = Delivery { conn, room, seq: *seq, from, key: key.as_deref(), hash: 0 };
    recorder.got(delivery, data.get());
}

fn error_of(recorder: &Recorder, conn: u32, code: &str, message: String) {
    recorder.note(&ClientEvent::Error { conn, code: code.to_owned(), message });
}
