//! What a plain client does besides publishing and reading, each at its times: leaves and comes back, stops reading,
//! reads slowly, sends over a second connection, reads history.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_judge::record::ClientEvent;
use tokio::time::Instant;

use super::super::pace::FIRST_S;
use super::super::plan::{ClientRole, ClientSpec};
use super::connection::{PlainConnection, Request};
use super::{ConnectionEnd, PlainClient, second_connection};

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
pub(super) struct Behaviour {
    own_at: Option<Instant>,
    history_at: Option<Instant>,
    slow_until: Option<Instant>,
    turns: usize,
}

fn after(range: Range<f64>, rng: &mut SmallRng) -> Instant {
    Instant::now() + Duration::from_secs_f64(rng.random_range(range))
}

impl Behaviour {
    pub(super) fn begin(&mut self, spec: &ClientSpec, rng: &mut SmallRng) {
        // Only once: called at each new connection, it would put everything off.
        if self.own_at.is_none() && self.history_at.is_none() {
            self.own_at = Routine::of(spec.role).map(|_| after(FIRST_S, rng));
            self.history_at = spec.history.then(|| after(HISTORY_S, rng));
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

/// What some roles do again and again.
#[derive(Debug, Clone, Copy)]
enum Routine {
    Churn,
    Stop,
    ReadSlowly,
    Resend,
}

impl Routine {
    fn of(role: ClientRole) -> Option<Self> {
        match role {
            ClientRole::Beacon
            | ClientRole::Sender
            | ClientRole::Observer
            | ClientRole::Crowd
            | ClientRole::Watcher
            | ClientRole::Guest
            | ClientRole::Leaver
            | ClientRole::Quitter
            | ClientRole::Backend => None,
            ClientRole::Churn => Some(Self::Churn),
            ClientRole::Slow => Some(Self::ReadSlowly),
            ClientRole::Stopped => Some(Self::Stop),
            ClientRole::Resender => Some(Self::Resend),
        }
    }

    /// Time between two of them.
    fn every(self) -> Range<f64> {
        match self {
            Self::Churn => CHURN_S,
            Self::Stop | Self::ReadSlowly => READS_S,
            Self::Resend => RESEND_S,
        }
    }
}

impl PlainClient {
    pub(super) fn on_behaviour(
        &mut self,
        connection: &mut PlainConnection,
        now: Instant,
    ) -> Option<ConnectionEnd> {
        if self.behaviour.history_at.is_some_and(|at| at <= now) {
            self.behaviour.history_at = Some(after(HISTORY_S, &mut self.rng));
            self.ask_history(connection);
        }
        if self.behaviour.own_at.is_none_or(|at| at > now) {
            return None;
        }
        let routine = Routine::of(self.spec.role)?;
        // Drawn before it is done: how long that takes must not change what the seed brings next.
        self.behaviour.own_at = Some(after(routine.every(), &mut self.rng));
        self.behaviour.turns += 1;
        match routine {
            Routine::Churn if self.behaviour.turns % 4 < 2 => self.step_out(connection),
            Routine::Churn => return Some(ConnectionEnd::Left),
            Routine::Stop => {
                let until = after(STOPS_S, &mut self.rng);
                self.stop_reading(connection, until);
            }
            Routine::ReadSlowly => {
                let until = after(SLOW_S, &mut self.rng);
                self.behaviour.slow_until = Some(until);
                // After the slow time, or it would never read fast in between.
                self.behaviour.own_at = Some(until + Duration::from_secs_f64(READS_S.start));
            }
            Routine::Resend => self.send_elsewhere(),
        }
        None
    }

    fn step_out(&mut self, connection: &mut PlainConnection) {
        let mut rooms = self.recorder.state.live();
        // Silence is measured in the beacon's room: nobody leaves it by wish.
        rooms.retain(|room| *room != self.shared.beacon_room);
        if !rooms.is_empty() {
            connection
                .requests
                .push_back(Request::Unsub(rooms.swap_remove(self.behaviour.turns % rooms.len())));
        }
    }

    fn ask_history(&mut self, connection: &mut PlainConnection) {
        let rooms = &self.spec.rooms;
        if !rooms.is_empty() {
            let room = rooms[self.rng.random_range(0..rooms.len())].clone();
            let last = self.recorder.state.held(&room).and_then(|held| held.last);
            let before = last.filter(|last| *last > 0 && self.rng.random_bool(0.5));
            connection.requests.push_back(Request::History(room, before));
        }
    }

    fn stop_reading(&self, connection: &mut PlainConnection, until: Instant) {
        if connection.paused_until.replace(until).is_none() {
            self.recorder.note(&ClientEvent::Paused { conn: connection.conn });
        }
    }

    /// Reads again, if it did not.
    pub(super) fn read_on(&self, connection: &mut PlainConnection) {
        if connection.paused_until.take().is_some() {
            self.recorder.note(&ClientEvent::Unpaused { conn: connection.conn });
        }
    }

    /// A frame of so many bytes was read.
    pub(super) fn reads_slowly(&self, connection: &mut PlainConnection, bytes: usize) {
        connection.read_bytes += bytes;
        let slow = self.behaviour.slow_until.is_some_and(|until| until > Instant::now());
        // In sips: a reader that took all at once after a pause would never fill the queue of the gateway.
        if slow && connection.read_bytes >= SIP_BYTES {
            connection.read_bytes = 0;
            self.stop_reading(connection, Instant::now() + SIP_PAUSE);
        }
    }

    /// Sends a message once more, over a second connection.
    fn send_elsewhere(&mut self) {
        while self.second_connection.try_join_next().is_some() {} // forget what has ended
        let first_choice = self.rng.random_bool(0.5);
        let message =
            self.resends.repeatable(first_choice).or_else(|| self.resends.repeatable(!first_choice));
        // One at a time: two would be two orders, and nobody could say which was meant.
        let Some(message) = message.filter(|_| self.second_connection.is_empty()) else { return };
        let url = self.shared.endpoints.url(self.gateway + 1);
        let token = self.shared.endpoints.token(&self.spec.user);
        self.second_connection.spawn(second_connection::send_once_more(
            self.recorder.clone(),
            url,
            token,
            self.shared.endpoints.trust(),
            message.clone(),
        ));
    }
}
