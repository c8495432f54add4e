//! Who is there besides the ordinary clients, and which of those read server-sent events. Numbered after all others and
//! chosen without chance, or from a stream of its own: with or without them all others do the same with the same seed.

use rand::seq::index::sample;

use super::{ClientKind, ClientRole, ClientSpec, Plan};
use crate::seed::Seed;

/// The room whose comings and goings are watched, after the prefix.
const WATCHED_ROOM: &str = "watched";
/// How many watch it: one at each of two gateways.
const WATCHERS: u32 = 2;
/// Of the observers with the client library each of so many reads server-sent events instead.
const EVENTS_EACH: usize = 3;
/// Backends that publish by the API: two that await each answer, two that do not.
const BACKENDS: u32 = 4;

impl Plan {
    /// Some of those who only read do so by server-sent events: every second as `curl` does, with a token, every second as
    /// an `EventSource`, with a ticket. Half of each read one room by its ids, half read all of theirs by ids that name
    /// them all.
    pub(super) fn read_events(&self, specs: &mut [ClientSpec]) {
        let observers = specs
            .iter_mut()
            .filter(|spec| spec.role == ClientRole::Observer && spec.kind == ClientKind::Library);
        let beacon = self.beacon_room();
        for (n, spec) in observers.step_by(EVENTS_EACH).enumerate() {
            let kind = if n.is_multiple_of(2) { ClientKind::EventSource } else { ClientKind::Events };
            (spec.kind, spec.history) = (kind, false);
            if n % 4 < 2 {
                continue;
            }
            let has_beacon = spec.rooms.contains(&beacon);
            spec.rooms.retain(|room| !has_beacon || *room == beacon);
            spec.rooms.truncate(1);
        }
    }

    /// Those in other languages: the usual rooms, and as much to send as an ordinary client has on the average.
    pub(super) fn foreign(&self) -> impl Iterator<Item = ClientSpec> {
        let mut rng = Seed(self.seed).stream("foreign", 0);
        let popularity = self.popularity();
        let first = self.clients + self.crowd + self.watched + 1;
        let rate_per_s = f64::from(self.rate_per_s) / f64::from(self.clients.max(1));
        let count = f64::from(self.foreign.count());
        (0..).zip(self.foreign.each()).map(move |(n, kind)| ClientSpec {
            client: first + n,
            user: format!("u{}", first + n),
            kind,
            role: ClientRole::Sender,
            rooms: self.some_rooms(&popularity, &mut rng),
            rate_per_s,
            phase: f64::from(n) / count,
            history: false,
            eager: false,
        })
    }

    /// Backends, which connect nowhere. The number after those who do is that of who asks questions.
    pub(super) fn backends(&self) -> impl Iterator<Item = ClientSpec> {
        let (first, count) = (self.everybody() + 2, if self.api_share > 0.0 { BACKENDS } else { 0 });
        let rate_per_s = f64::from(self.rate_per_s) * self.api_share / f64::from(BACKENDS);
        (0..count).map(move |n| ClientSpec {
            client: first + n,
            user: format!("u{}", first + n),
            kind: ClientKind::Api,
            role: ClientRole::Backend,
            rooms: Vec::new(),
            rate_per_s,
            phase: f64::from(n) / f64::from(BACKENDS),
            history: false,
            eager: n.is_multiple_of(2),
        })
    }

    /// The crowd, numbered after all others: any rooms but the beacon's, which would be too loud for so many.
    pub(super) fn crowd(&self) -> impl Iterator<Item = ClientSpec> {
        let mut rng = Seed(self.seed).stream("crowd", 0);
        let rooms = self.crowd_rooms.min(self.rooms) as usize;
        (1..=self.crowd).map(move |n| ClientSpec {
            client: self.clients + n,
            user: format!("u{}", self.clients + n),
            kind: ClientKind::Plain,
            role: ClientRole::Crowd,
            rooms: sample(&mut rng, self.rooms as usize, rooms)
                .into_iter()
                .map(|place| self.room(place))
                .collect(),
            rate_per_s: 0.0,
            phase: 0.0,
            history: false,
            eager: false,
        })
    }

    /// Who is in the room that is watched, numbered after all others. Half of the guests stay.
    pub(super) fn watched(&self) -> impl Iterator<Item = ClientSpec> {
        (0..self.watched).map(|n| {
            let client = self.clients + self.crowd + n + 1;
            let role = match n.checked_sub(WATCHERS).map(|guest| guest % 4) {
                None => ClientRole::Watcher,
                Some(1) => ClientRole::Leaver,
                Some(3) => ClientRole::Quitter,
                Some(_) => ClientRole::Guest,
            };
            ClientSpec {
                client,
                user: format!("u{client}"),
                kind: ClientKind::Library,
                role,
                rooms: vec![format!("{}{WATCHED_ROOM}", self.prefix)],
                rate_per_s: 0.0,
                phase: 0.0,
                history: false,
                eager: false,
            }
        })
    }
}
