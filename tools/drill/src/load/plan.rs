//! What the load shall be, and which client does what: pure, everything from the seed.

mod besides;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::zipf::Zipf;
use crate::seed::Seed;

/// The room that beacons publish to and everybody reads, after the prefix.
const BEACON_ROOM: &str = "beacon";
/// How many publish to it.
const BEACONS: u32 = 4;
/// Part of the clients that sends keys twice, when some shall.
const RESEND_SHARE: f64 = 0.05;
/// Rooms of an ordinary client besides the beacon's: one to this many.
const ROOMS_MAX: u32 = 3;

/// The load that is asked for. [`Plan::default`] is a nightly drill on two cores.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Of everything random.
    pub seed: u64,
    /// How many clients, the beacons included.
    pub clients: u32,
    /// Publishes a second, all senders together, backends too, the beacons not included.
    pub rate_per_s: u32,
    /// What the names of all rooms begin with: a store that is used again holds those of earlier loads.
    pub prefix: String,
    /// How many rooms, `r-0`… after the prefix.
    pub rooms: u32,
    /// How unlike their popularity is: exponent, 0 = all alike.
    pub zipf: f64,
    /// Publishes a second to [`Plan::beacon_room`].
    pub beacon_per_s: u32,
    /// Part of the clients that is written without the client library.
    pub plain_share: f64,
    /// Part of the clients that leave and come back, by unsubscribing, by goodbye, by cutting the connection; 0 = none.
    pub churn_share: f64,
    /// Part that reads slowly; 0 = none.
    pub slow_share: f64,
    /// Part that stops reading for seconds; 0 = none.
    pub stopped_share: f64,
    /// Some send keys twice, on one connection and over two gateways.
    pub resend: bool,
    /// Some publishes of plain clients have no key.
    pub keyless: bool,
    /// One message in so many has 64 KiB; 0 = none.
    pub large_in: u32,
    /// Some read history.
    pub history: bool,
    /// Clients besides, on one thread, that only read.
    pub crowd: u32,
    /// How many rooms each of them reads.
    pub crowd_rooms: u32,
    /// Clients besides, in a room of their own: the first two watch who comes and goes, the others stay, or end for good in
    /// the middle of the run, by their own wish or when their connection breaks.
    pub watched: u32,
    /// Part of the publishes that comes from backends by the HTTP API; 0 = none. They are clients besides.
    pub api_share: f64,
    /// Clients besides, that are written in other languages.
    pub foreign: ForeignClients,
}

/// How many clients are written in which other language, each a process of its own, or a tab of one browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForeignClients {
    /// With `client/js`, on Node.
    pub javascript: u32,
    /// With `client/python`.
    pub python: u32,
    /// With `client/js`, in tabs of a browser.
    pub tabs: u32,
}

impl ForeignClients {
    fn counts(self) -> [(u32, ClientKind); 3] {
        let Self { javascript, python, tabs } = self;
        [(javascript, ClientKind::JavaScript), (python, ClientKind::Python), (tabs, ClientKind::Tab)]
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.counts().iter().map(|(count, _)| count).sum()
    }

    /// The kind of each.
    pub(super) fn each(self) -> impl Iterator<Item = ClientKind> {
        self.counts().into_iter().flat_map(|(count, kind)| (0..count).map(move |_| kind))
    }

    /// The kinds there are some of.
    pub fn kinds(self) -> impl Iterator<Item = ClientKind> {
        self.counts().into_iter().filter(|(count, _)| *count > 0).map(|(_, kind)| kind)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            clients: 200,
            rate_per_s: 500,
            prefix: String::new(),
            rooms: 50,
            zipf: 1.0,
            beacon_per_s: 20,
            plain_share: 0.3,
            churn_share: 0.1,
            slow_share: 0.015,
            stopped_share: 0.02,
            resend: true,
            keyless: true,
            large_in: 2_000,
            history: true,
            crowd: 0,
            crowd_rooms: 10,
            watched: 0,
            api_share: 0.0,
            foreign: ForeignClients::default(),
        }
    }
}

/// How a client is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// With the client library.
    Library,
    /// By itself, from the description of the wire.
    Plain,
    /// The same, by server-sent events, with a token.
    Events,
    /// The same, as a browser's `EventSource`, with a ticket.
    EventSource,
    /// A backend that calls the HTTP API.
    Api,
    /// With the client for JavaScript, in a process of its own.
    JavaScript,
    /// With the client for Python, in a process of its own.
    Python,
    /// With the client for JavaScript, in a tab of a browser.
    Tab,
}

impl ClientKind {
    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Plain => "plain",
            Self::Events => "events",
            Self::EventSource => "event-source",
            Self::Api => "api",
            Self::JavaScript => "js",
            Self::Python => "python",
            Self::Tab => "tab",
        }
    }
}

/// What a client does besides reading its rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientRole {
    /// Publishes to the room of beacons.
    Beacon,
    /// Publishes.
    Sender,
    /// Reads only.
    Observer,
    /// Publishes, leaves and comes back.
    Churn,
    /// Reads a few KiB a second for a while.
    Slow,
    /// Stops reading for seconds.
    Stopped,
    /// Publishes, and sends some of it twice.
    Resender,
    /// One of many who only read and come back.
    Crowd,
    /// Is told who comes into its room and leaves it.
    Watcher,
    /// Is in the room that is watched, and comes back whatever happens.
    Guest,
    /// The same, but ends for good in the middle of the run.
    Leaver,
    /// The same, but ends for good when its connection breaks.
    Quitter,
    /// Publishes for others, and reads nothing.
    Backend,
}

impl ClientRole {
    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Beacon => "beacon",
            Self::Sender => "sender",
            Self::Observer => "observer",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Stopped => "stopped",
            Self::Resender => "resender",
            Self::Crowd => "crowd",
            Self::Watcher => "watcher",
            Self::Guest => "guest",
            Self::Leaver => "leaver",
            Self::Quitter => "quitter",
            Self::Backend => "backend",
        }
    }

    fn sends(self) -> bool {
        matches!(self, Self::Sender | Self::Churn | Self::Resender)
    }
}

/// What one client is and does.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSpec {
    /// Its number, from 1.
    pub client: u32,
    /// Its name.
    pub user: String,
    /// How it is written.
    pub kind: ClientKind,
    /// What it does.
    pub role: ClientRole,
    /// Rooms it reads, without repetition.
    pub rooms: Vec<String>,
    /// Publishes a second; 0 = none.
    pub rate_per_s: f64,
    /// When its first publish is due, as a part of the time between two.
    pub phase: f64,
    /// Whether it reads history now and then.
    pub history: bool,
    /// Whether it goes on sending to a connection that has told it to come back; a backend: before it has an answer.
    pub eager: bool,
}

impl Plan {
    /// Popularity of the rooms.
    #[must_use]
    pub fn popularity(&self) -> Zipf {
        Zipf::new(self.rooms, self.zipf)
    }

    /// Everybody's part; the same plan gives the same parts.
    #[must_use]
    pub fn specs(&self) -> Vec<ClientSpec> {
        let beacons = if self.beacon_per_s > 0 { BEACONS.min(self.clients) } else { 0 };
        let mut rng = Seed(self.seed).stream("parts", 0);
        let popularity = self.popularity();
        let mut roles = self.roles(self.clients - beacons, &mut rng);
        roles.splice(0..0, (0..beacons).map(|_| (ClientRole::Beacon, ClientKind::Library)));
        let mut specs: Vec<ClientSpec> = (1..)
            .zip(roles)
            .map(|(client, (role, kind))| ClientSpec {
                client,
                user: format!("u{client}"),
                kind,
                role,
                rooms: if role == ClientRole::Beacon {
                    Vec::new()
                } else {
                    self.some_rooms(&popularity, &mut rng)
                },
                rate_per_s: if role.sends() { rng.random_range(0.5..1.5) } else { 0.0 },
                phase: rng.random(),
                history: self.history && role != ClientRole::Beacon && rng.random_bool(0.1),
                eager: rng.random_bool(0.5),
            })
            .collect();
        // In proportion: everybody has another rate, and all together have the one that was asked for.
        let weights: f64 = specs.iter().map(|spec| spec.rate_per_s).sum();
        for spec in &mut specs {
            spec.rate_per_s *=
                f64::from(self.rate_per_s) * (1.0 - self.api_share) / weights.max(f64::MIN_POSITIVE);
            if spec.role == ClientRole::Beacon {
                spec.rate_per_s = f64::from(self.beacon_per_s) / f64::from(beacons);
                spec.phase = f64::from(spec.client - 1) / f64::from(beacons);
            }
        }
        self.read_events(&mut specs);
        specs.extend(self.crowd());
        specs.extend(self.watched());
        specs.extend(self.foreign());
        specs.extend(self.backends());
        specs
    }

    /// How many connect.
    #[must_use]
    pub fn everybody(&self) -> u32 {
        self.clients + self.crowd + self.watched + self.foreign.count()
    }

    /// Roles and kinds of the ordinary clients, shuffled. Who reads slowly or resends is written by hand.
    fn roles(&self, clients: u32, rng: &mut SmallRng) -> Vec<(ClientRole, ClientKind)> {
        let some = |share: f64| {
            let count = (f64::from(clients) * share).round().max(1.0);
            if share > 0.0 && clients >= 8 { count as usize } else { 0 } // few, so that there are others
        };
        let (churn, slow) = (some(self.churn_share), some(self.slow_share));
        let (stopped, resend) =
            (some(self.stopped_share), some(if self.resend { RESEND_SHARE } else { 0.0 }));
        let mut roles = Vec::new();
        roles.extend((0..slow).map(|_| (ClientRole::Slow, ClientKind::Plain)));
        roles.extend((0..resend).map(|_| (ClientRole::Resender, ClientKind::Plain)));
        let all_plain = self.plain_share >= 1.0;
        let either = |n: usize| {
            if n.is_multiple_of(2) && !all_plain { ClientKind::Library } else { ClientKind::Plain }
        };
        roles.extend((0..churn).map(|n| (ClientRole::Churn, either(n))));
        roles.extend((0..stopped).map(|n| (ClientRole::Stopped, either(n))));
        let mut plain = (f64::from(clients) * self.plain_share).round() as usize;
        // Those that are written by hand anyway count first.
        plain = plain.saturating_sub(roles.iter().filter(|(_, kind)| *kind == ClientKind::Plain).count());
        for n in 0..(clients as usize).saturating_sub(roles.len()) {
            let role = if n % 4 == 3 { ClientRole::Observer } else { ClientRole::Sender };
            roles.push((role, if n < plain { ClientKind::Plain } else { ClientKind::Library }));
        }
        roles.shuffle(rng);
        roles
    }

    /// Deliveries a second that the parts amount to, when everything runs.
    #[must_use]
    pub fn deliveries_per_s(&self, specs: &[ClientSpec]) -> f64 {
        let popularity = self.popularity();
        let mut readers_of: HashMap<&str, usize> = HashMap::new();
        for room in specs.iter().flat_map(|spec| &spec.rooms) {
            *readers_of.entry(room).or_default() += 1;
        }
        let readers = |room: &str| readers_of.get(room).copied().unwrap_or_default();
        let ordinary: f64 =
            (0..self.rooms as usize).map(|n| popularity.share(n) * readers(&self.room(n)) as f64).sum();
        ordinary * f64::from(self.rate_per_s)
            + f64::from(self.beacon_per_s) * readers(&self.beacon_room()) as f64
    }

    /// Name of the room with this popularity.
    #[must_use]
    pub(super) fn room(&self, place: usize) -> String {
        format!("{}r-{place}", self.prefix)
    }

    /// Name of the room that beacons publish to and everybody reads.
    #[must_use]
    pub fn beacon_room(&self) -> String {
        format!("{}{BEACON_ROOM}", self.prefix)
    }

    fn some_rooms(&self, popularity: &Zipf, rng: &mut SmallRng) -> Vec<String> {
        let mut rooms: Vec<String> = Vec::new();
        for _ in 0..rng.random_range(1..=ROOMS_MAX) {
            let name = self.room(popularity.pick(rng));
            if !rooms.contains(&name) {
                rooms.push(name);
            }
        }
        if self.beacon_per_s > 0 {
            rooms.push(self.beacon_room());
        }
        rooms
    }
}

/// Which client does what, in a line: `60 sender/library, 4 beacon/library, …`.
#[derive(Debug)]
pub struct Summary<'a>(pub &'a [ClientSpec]);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<(ClientRole, ClientKind), u32> = BTreeMap::new();
        for spec in self.0 {
            *counts.entry((spec.role, spec.kind)).or_default() += 1;
        }
        let said =
            counts.iter().map(|((role, kind), count)| format!("{count} {}/{}", role.name(), kind.name()));
        f.write_str(&said.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_parts_and_another_gives_others() {
        let plan = Plan::default();
        assert_eq!(plan.specs(), plan.specs());
        assert_ne!(plan.specs(), Plan { seed: 2, ..Plan::default() }.specs());
    }

    #[test]
    fn all_are_plain_or_slow_when_that_is_asked_for() {
        let plan = Plan { clients: 60, plain_share: 1.0, ..Plan::default() };
        let is_plain = |spec: &ClientSpec| spec.kind == ClientKind::Plain || spec.role == ClientRole::Beacon;
        assert!(plan.specs().iter().all(is_plain), "{}", Summary(&plan.specs()));
        let plan = Plan { clients: 20, slow_share: 0.5, stopped_share: 0.25, ..Plan::default() };
        let count = |role| plan.specs().iter().filter(|spec| spec.role == role).count();
        assert_eq!([count(ClientRole::Slow), count(ClientRole::Stopped)], [8, 4], "of sixteen");
    }

    #[test]
    fn rates_and_shares_are_what_was_asked_for() {
        for (clients, beacon_per_s) in [(200, 20), (20, 20), (200, 0), (3, 20), (1, 0)] {
            let plan = Plan { clients, beacon_per_s, ..Plan::default() };
            let specs = plan.specs();
            assert_eq!(specs.len(), clients as usize);
            let rate = |beacon: bool| -> f64 {
                let these = specs.iter().filter(|spec| (spec.role == ClientRole::Beacon) == beacon);
                these.map(|spec| spec.rate_per_s).sum()
            };
            assert!((rate(true) - f64::from(beacon_per_s)).abs() < 1e-6, "{clients}");
            assert!(clients < 4 || (rate(false) - 500.0).abs() < 1e-6, "{clients}: {}", rate(false));
            let plain = specs.iter().filter(|spec| spec.kind == ClientKind::Plain).count() as f64;
            assert!((plain - f64::from(clients) * 0.3).abs() <= 2.0, "{clients}: {plain} plain");
            assert!(specs.iter().all(|spec| spec.role == ClientRole::Beacon
                || beacon_per_s == 0
                || spec.rooms.iter().filter(|room| **room == plan.beacon_room()).count() == 1));
        }
        let specs = Plan::default().specs();
        for kind in [ClientKind::Events, ClientKind::EventSource] {
            let events: Vec<_> = specs.iter().filter(|spec| spec.kind == kind).collect();
            assert!(events.len() >= 2, "{}", Summary(&specs));
            assert!(events.iter().all(|spec| spec.role == ClientRole::Observer));
            let several = events.iter().filter(|spec| spec.rooms.len() > 1).count();
            assert!((1..events.len()).contains(&several), "of one room, and of several: {several}");
        }
        for role in [
            ClientRole::Sender,
            ClientRole::Observer,
            ClientRole::Churn,
            ClientRole::Slow,
            ClientRole::Stopped,
            ClientRole::Resender,
        ] {
            assert!(specs.iter().filter(|spec| spec.role == role).count() >= 2, "{role:?}");
        }
        let herd = Plan { crowd: 30, crowd_rooms: 10, ..Plan::default() };
        let (herd, ordinary) = (herd.specs(), &specs);
        assert_eq!(&herd[..200], &ordinary[..], "a crowd moves nobody else");
        let rooms = |spec: &ClientSpec| spec.rooms.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(herd.len() == 230 && herd[200..].iter().all(|spec| rooms(spec) == 10), "each room once");
        let watched = Plan { watched: 14, ..Plan::default() };
        let watched = watched.specs();
        let count = |role| watched.iter().filter(|spec| spec.role == role).count();
        assert_eq!(&watched[..200], &ordinary[..], "nor do those in a watched room");
        let roles = [ClientRole::Watcher, ClientRole::Guest, ClientRole::Leaver, ClientRole::Quitter];
        assert_eq!(roles.map(count), [2, 6, 3, 3]);
        let api = Plan { api_share: 0.1, ..Plan::default() }.specs();
        let rate = |specs: &[ClientSpec]| -> f64 {
            specs.iter().filter(|spec| spec.role != ClientRole::Beacon).map(|spec| spec.rate_per_s).sum()
        };
        assert!((rate(&api[..200]) - 450.0).abs() < 1e-6 && (rate(&api[200..]) - 50.0).abs() < 1e-6);
        assert_eq!((api.len(), api[200].client), (204, 202), "nobody else has their numbers");
        let foreign = ForeignClients { javascript: 2, python: 1, tabs: 1 };
        let foreign = Plan { foreign, api_share: 0.1, watched: 14, ..Plan::default() };
        assert_eq!((foreign.everybody(), foreign.specs().len()), (218, 222));
        let foreign = &foreign.specs()[214..];
        let js = ClientKind::JavaScript;
        let kinds = [js, js, ClientKind::Python, ClientKind::Tab, ClientKind::Api];
        assert!(foreign.iter().map(|spec| spec.kind).take(5).eq(kinds), "{}", Summary(foreign));
        let numbers = foreign.iter().map(|spec| spec.client).take(5);
        assert!(numbers.eq([215, 216, 217, 218, 220]), "219 asks questions");
        let (none, resend) = (0.0, false);
        let calm =
            Plan { churn_share: none, slow_share: none, stopped_share: none, resend, ..Plan::default() };
        let calm = calm.specs();
        assert!(
            calm.iter().all(|spec| matches!(
                spec.role,
                ClientRole::Beacon | ClientRole::Sender | ClientRole::Observer
            ))
        );
        assert!(Summary(&calm).to_string().starts_with("4 beacon/library, "), "{}", Summary(&calm));
        let deliveries = Plan::default().deliveries_per_s(&specs);
        assert!((8_000.0..25_000.0).contains(&deliveries), "{deliveries}");
    }
}
