//! How long one of the crowd was away: from the end of its connection, which was not its wish, until it is subscribed
//! to all its rooms on another and has everything that was there by then. Pure.

use std::collections::{HashMap, HashSet};

use super::{deliveries::short, folder::DeliveryEntry, windows::TimeWindow};
use sluice_judge::record::ClientEvent;

/// Close code of the client's own wish; a server never says it.
const OWN_WISH: u16 = 1000;

/// One absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absence {
    /// When it began.
    pub(super) from: u64,
    /// How long it was; to the end of the run for who did not come back.
    pub(super) took: u64,
    /// `reconnect_ms` told before it, in µs.
    pub(super) told: Option<u64>,
}

/// A client's way back, while its lines are read.
#[derive(Debug, Default)]
pub(super) struct ComebackMeter {
    /// All rooms it has asked for.
    rooms: HashSet<u64>,
    /// The newest connection.
    conn: u32,
    /// Rooms subscribed on it, and what they still lack: room → head.
    subscribed: HashSet<u64>,
    lacking: HashMap<u64, u64>,
    told: Option<u64>,
    away: Option<Absence>,
    absences: Vec<Absence>,
}

impl ComebackMeter {
    pub(super) fn got(&mut self, at: u64, got: &DeliveryEntry<'_>) {
        if self.away.is_none() || got.conn != self.conn {
            return;
        }
        let room = short(&got.room);
        if self.lacking.get(&room).is_some_and(|head| got.seq >= *head) {
            self.lacking.remove(&room);
            self.look(at);
        }
    }

    pub(super) fn see(&mut self, at: u64, what: &ClientEvent) {
        match what {
            ClientEvent::Open { conn, .. } => {
                self.conn = *conn;
                // what the connection before was told is kept by moving
                self.told = None;
                self.subscribed.clear();
                self.lacking.clear();
            }
            ClientEvent::Sub { room, .. } => drop(self.rooms.insert(short(room))),
            ClientEvent::Subscribed { conn, room, after, head, .. } if *conn == self.conn => {
                let room = short(room);
                self.subscribed.insert(room);
                if after < head {
                    self.lacking.insert(room, *head);
                }
                self.look(at);
            }
            ClientEvent::Skipped { conn, room, to, .. } if *conn == self.conn => {
                let room = short(room);
                if self.lacking.get(&room).is_some_and(|head| to >= head) {
                    self.lacking.remove(&room);
                    self.look(at);
                }
            }
            ClientEvent::Drain { conn, reconnect_ms, .. }
            | ClientEvent::Bye { conn, reconnect_ms: Some(reconnect_ms), .. }
                if *conn == self.conn =>
            {
                self.told = Some(reconnect_ms * 1_000);
            }
            ClientEvent::Closed { conn, code, .. } if *conn == self.conn => {
                let told = self.told.take();
                if *code != Some(OWN_WISH) {
                    self.away.get_or_insert(Absence { from: at, took: 0, told });
                }
            }
            ClientEvent::Subscribed { .. }
            | ClientEvent::Skipped { .. }
            | ClientEvent::Drain { .. }
            | ClientEvent::Bye { .. }
            | ClientEvent::Closed { .. }
            | ClientEvent::Client { .. }
            | ClientEvent::Failed { .. }
            | ClientEvent::Unsubscribed { .. }
            | ClientEvent::Send { .. }
            | ClientEvent::Answer { .. }
            | ClientEvent::Got { .. }
            | ClientEvent::History { .. }
            | ClientEvent::Paused { .. }
            | ClientEvent::Unpaused { .. }
            | ClientEvent::Error { .. }
            | ClientEvent::UserJoined { .. }
            | ClientEvent::UserLeft { .. }
            | ClientEvent::Stale { .. }
            | ClientEvent::End => {}
        }
    }

    /// Whether it is back.
    fn look(&mut self, at: u64) {
        if self.lacking.is_empty()
            && self.subscribed.len() == self.rooms.len()
            && let Some(away) = self.away.take()
        {
            self.absences.push(Absence { took: at.saturating_sub(away.from), ..away });
        }
    }

    /// Window of a fault → an absence that began in it.
    pub(super) fn finish(mut self, faults: &[TimeWindow], end: u64) -> Vec<(usize, Absence)> {
        if let Some(away) = self.away.take() {
            self.absences.push(Absence { took: end.saturating_sub(away.from), ..away });
        }
        let fault_at = |absence: Absence| {
            let window = faults.iter().rposition(|window| window.has(absence.from))?;
            Some((window, absence))
        };
        self.absences.into_iter().filter_map(fault_at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(conn: u32, room: &str, after: u64, head: u64) -> ClientEvent {
        let (room, epoch) = (room.to_owned(), "e".to_owned());
        ClientEvent::Subscribed { conn, room, after, head, epoch, recovered: true, asked: true }
    }

    fn asks(conn: u32, room: &str) -> ClientEvent {
        ClientEvent::Sub { conn, room: room.to_owned(), after: None, epoch: None }
    }

    fn opens(conn: u32) -> ClientEvent {
        ClientEvent::Open { conn, url: String::new(), instance: String::new(), epoch: String::new() }
    }

    fn closes(conn: u32, code: Option<u16>) -> ClientEvent {
        ClientEvent::Closed { conn, code, reason: String::new() }
    }

    fn got(conn: u32, room: &'static str, seq: u64) -> DeliveryEntry<'static> {
        DeliveryEntry { conn, seq, room: room.into(), from: "".into(), hash: 0 }
    }

    /// A client that reads two rooms.
    fn settled() -> ComebackMeter {
        let mut meter = ComebackMeter::default();
        for event in
            [opens(1), asks(1, "a"), asks(1, "b"), subscribed(1, "a", 0, 0), subscribed(1, "b", 0, 0)]
        {
            meter.see(1, &event);
        }
        meter
    }

    const WINDOWS: [TimeWindow; 1] = [TimeWindow { from: 50, to: 1_000_000 }];

    #[test]
    fn it_is_back_when_it_has_everything_in_every_room() {
        let mut meter = settled();
        meter.see(90, &ClientEvent::Drain { conn: 1, within_ms: 9, reconnect_ms: 2 });
        meter.see(100, &closes(1, Some(1012)));
        for event in
            [opens(2), asks(2, "a"), asks(2, "b"), subscribed(2, "a", 3, 5), subscribed(2, "b", 0, 0)]
        {
            meter.see(3_000, &event);
        }
        meter.got(3_500, &got(2, "a", 4));
        meter.got(4_000, &got(2, "a", 5));
        let absence = Absence { from: 100, took: 3_900, told: Some(2_000) };
        assert_eq!(meter.finish(&WINDOWS, 9_000), [(0, absence)]);
    }

    #[test]
    fn who_moves_before_the_end_was_never_away_and_who_stays_out_is_away_to_the_end() {
        let mut meter = settled();
        for event in [opens(2), subscribed(2, "a", 0, 0), subscribed(2, "b", 0, 0), closes(1, Some(1000))] {
            meter.see(60, &event);
        }
        meter.see(195, &ClientEvent::Drain { conn: 2, within_ms: 9, reconnect_ms: 2 });
        meter.see(196, &opens(4));
        meter.see(200, &closes(4, None));
        meter.see(300, &opens(5));
        meter.see(310, &subscribed(5, "a", 0, 0));
        let absence = Absence { from: 200, took: 800, told: None };
        assert_eq!(meter.finish(&WINDOWS, 1_000), [(0, absence)]);
    }
}
