//! What a plain client does besides publishing and reading, each at its times: leaves and comes back, stops reading,
//! reads slowly, sends over a second connection, reads history.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_checker::record::What;
use tokio::time::Instant;

use super::super::pace::FIRST_S;
use super::super::plan::{Part, Role};
use super::visit::{Request, Visit};
use super::{Ended, Plain, side};

/// Time between two of the same, seconds.
const CHURN_S: Range<f64> = 4.0..16.0;
const READS_S: Range<f64> = 5.0..15.0;
const RESEND_S: Range<f64> = 1.0..5.0;
const HISTORY_S: Range<f64> = 5.0..20.0;
/// How long a room is left, reading is stopped, reading is slow.
const AWAY_S: Range<f64> = 0.2..2.0;
const STOPS_S: Range<f64> = 3.0..6.0;
const SLOW_S: Range<f64> = 5.0..15.0;
/// One that reads slowly takes so many bytes, then nothing for a while.
const SIP_BYTES: usize = 4 * 1024;
const SIP_PAUSE: Duration = Duration::from_secs(1);

/// When what is due. Nothing is before the run and after it.
#[derive(Debug, Default)]
pub(super) struct Habits {
    own_at: Option<Instant>,
    history_at: Option<Instant>,
    slow_until: Option<Instant>,
    turns: usize,
}

fn after(range: Range<f64>, rng: &mut SmallRng) -> Instant {
    Instant::now() + Duration::from_secs_f64(rng.random_range(range))
}

impl Habits {
    pub(super) fn begin(&mut self, part: &Part, rng: &mut SmallRng) {
        if self.own_at.is_none() && self.history_at.is_none() {
            self.own_at = own(part.role).map(|_| after(FIRST_S, rng));
            self.history_at = part.history.then(|| after(HISTORY_S, rng));
        }
    }

    pub(super) fn end(&mut self) {
        *self = Self { turns: self.turns, ..Self::default() };
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.own_at.into_iter().chain(self.history_at).min()
    }

    /// Whether it left, when it left, with a goodbye.
    pub(super) fn says_goodbye(&self) -> bool {
        self.turns % 8 < 4
    }

    /// When to come back to a room.
    pub(super) fn back_at(&self, rng: &mut SmallRng) -> Instant {
        if self.own_at.is_some() { after(AWAY_S, rng) } else { Instant::now() }
    }
}

/// Time between two of what this role does.
fn own(role: Role) -> Option<Range<f64>> {
    match role {
        Role::Beacon | Role::Sender | Role::Observer => None,
        Role::Churn => Some(CHURN_S),
        Role::Slow | Role::Stopped => Some(READS_S),
        Role::Resender => Some(RESEND_S),
    }
}

impl Plain {
    pub(super) fn on_habit(&mut self, visit: &mut Visit, now: Instant) -> Option<Ended> {
        if self.habits.history_at.is_some_and(|at| at <= now) {
            self.habits.history_at = Some(after(HISTORY_S, &mut self.rng));
            self.ask_history(visit);
        }
        if self.habits.own_at.is_none_or(|at| at > now) {
            return None;
        }
        self.habits.own_at = own(self.part.role).map(|range| after(range, &mut self.rng));
        self.habits.turns += 1;
        match self.part.role {
            Role::Beacon | Role::Sender | Role::Observer => {}
            Role::Churn if self.habits.turns % 4 < 2 => self.step_out(visit),
            Role::Churn => return Some(Ended::Left),
            Role::Stopped => {
                let until = after(STOPS_S, &mut self.rng);
                self.stop_reading(visit, until);
            }
            Role::Slow => {
                let until = after(SLOW_S, &mut self.rng);
                self.habits.slow_until = Some(until);
                self.habits.own_at = Some(until + Duration::from_secs_f64(READS_S.start));
            }
            Role::Resender => self.send_elsewhere(),
        }
        None
    }

    fn step_out(&mut self, visit: &mut Visit) {
        let mut rooms = self.diary.standing.live();
        rooms.retain(|room| *room != self.world.beacon_room);
        if !rooms.is_empty() {
            visit.requests.push_back(Request::Unsub(rooms.swap_remove(self.habits.turns % rooms.len())));
        }
    }

    fn ask_history(&mut self, visit: &mut Visit) {
        let rooms = &self.part.rooms;
        if !rooms.is_empty() {
            let room = rooms[self.rng.random_range(0..rooms.len())].clone();
            let last = self.diary.standing.held(&room).and_then(|held| held.last);
            let before = last.filter(|last| *last > 0 && self.rng.random_bool(0.5));
            visit.requests.push_back(Request::History(room, before));
        }
    }

    fn stop_reading(&self, visit: &mut Visit, until: Instant) {
        if visit.paused_until.replace(until).is_none() {
            self.diary.note(&What::Paused { conn: visit.conn });
        }
    }

    /// Reads again, if it did not.
    pub(super) fn read_on(&self, visit: &mut Visit) {
        if visit.paused_until.take().is_some() {
            self.diary.note(&What::Unpaused { conn: visit.conn });
        }
    }

    /// A frame of so many bytes was read.
    pub(super) fn reads_slowly(&self, visit: &mut Visit, bytes: usize) {
        visit.read_bytes += bytes;
        let slow = self.habits.slow_until.is_some_and(|until| until > Instant::now());
        if slow && visit.read_bytes >= SIP_BYTES {
            visit.read_bytes = 0;
            self.stop_reading(visit, Instant::now() + SIP_PAUSE);
        }
    }

    /// Sends a message once more, over a second connection.
    fn send_elsewhere(&mut self) {
        while self.side.try_join_next().is_some() {} // forget what has ended
        let first_choice = self.rng.random_bool(0.5);
        let letter = self.ledger.repeatable(first_choice).or_else(|| self.ledger.repeatable(!first_choice));
        let Some(letter) = letter.filter(|_| self.side.is_empty()) else { return };
        let url = self.world.entrances.url(self.gateway + 1);
        let token = self.world.entrances.token(&self.part.user);
        self.side.spawn(side::send_once_more(self.diary.clone(), url, token, letter.clone()));
    }
}
