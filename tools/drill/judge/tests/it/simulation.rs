//! A model of a good service and of good clients that writes records: connections are pipes that may be cut, publishes
//! are stored in order and once, answers may be lost, a store may be restored. Everything is drawn from a seed.

mod publishing;
mod reading;

use std::collections::BTreeMap;

use sluice_judge::record::{ClientEvent, FaultRecord, RunRecord, StoreRow};

use crate::records::Records;

/// Numbers from a seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below a bound that is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())].clone()) }
    }
}

/// The stored messages of a room.
pub type Room = Vec<StoreRow>;

pub struct Simulation {
    pub rng: Rng,
    pub now_us: u64,
    pub records: Records,
    pub rooms: BTreeMap<String, Room>,
    pub epoch: String,
    copy: Option<(u64, BTreeMap<String, Room>)>,
    pub people: BTreeMap<u32, Person>,
    minted: u64,
}

/// A client.
#[derive(Debug, Clone, Default)]
pub struct Person {
    pub user: String,
    pub role: String,
    pub library: bool,
    /// Its connections; the last is the one that is used.
    pub conns: Vec<Conn>,
    pub last_conn: u32,
    pub last_n: u64,
    /// What it has sent and not heard of, in order.
    pub unanswered: Vec<Publish>,
    /// What was answered ok, with key.
    pub answered: Vec<Publish>,
    /// Pipes of connections that are gone, still read by a gateway.
    pub ghosts: Vec<Vec<Publish>>,
    /// Where it is in each room: last seen and its epoch.
    pub cursors: BTreeMap<String, (u64, String)>,
}

/// A connection.
#[derive(Debug, Clone, Default)]
pub struct Conn {
    pub conn: u32,
    /// Sent and not yet handled.
    pub pipe: Vec<Publish>,
    /// What is subscribed, and the last seq written to it.
    pub subs: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub n: u64,
    pub room: String,
    pub key: Option<String>,
    pub hash: u64,
}

pub const ROOMS: [&str; 3] = ["ants", "bees", "cats"];
const PEOPLE: [(&str, &str); 8] = [
    ("sender", "plain"),
    ("sender", "plain"),
    ("sender", "library"),
    ("observer", "plain"),
    ("observer", "plain"),
    ("observer", "library"),
    ("slow", "plain"),
    ("churn", "plain"),
];

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let run = RunRecord {
            scenario: "calm".into(),
            clients: 8,
            started_ms: 1_700_000_000_000,
            ..RunRecord::default()
        };
        let records = Records { run, ..Records::default() };
        let rooms = ROOMS.map(|room| (room.to_owned(), Room::new())).into();
        let (rng, epoch, people) = (Rng::new(seed), "e1".to_owned(), BTreeMap::new());
        let mut simulation = Self { rng, now_us: 1, records, rooms, epoch, copy: None, people, minted: 0 };
        for (id, (role, kind)) in (1..).zip(PEOPLE) {
            let user = format!("user-{id}");
            let person = Person {
                user: user.clone(),
                role: role.into(),
                library: kind == "library",
                ..Person::default()
            };
            simulation.people.insert(id, person);
            simulation.write(id, ClientEvent::Client { user, role: role.into(), kind: kind.into() });
            simulation.open(id);
            for room in ROOMS {
                simulation.subscribe(id, room, Some(0));
            }
        }
        simulation
    }

    /// A run: so many things happen, then everything settles.
    pub fn run(seed: u64, steps: usize) -> Records {
        let mut simulation = Self::new(seed);
        for _ in 0..steps {
            simulation.anything();
        }
        simulation.settle();
        simulation.records
    }

    /// The same with a restore from a copy between.
    pub fn restored(seed: u64, steps: usize) -> Records {
        let mut simulation = Self::new(seed);
        for part in 0..3 {
            for _ in 0..steps / 3 {
                simulation.anything();
            }
            match part {
                0 => simulation.copy(),
                1 => simulation.restore(),
                _ => simulation.settle(),
            }
        }
        simulation.records
    }

    pub fn write(&mut self, client: u32, what: ClientEvent) {
        self.now_us += 1 + self.rng.next() % 1_000;
        let now_us = self.now_us;
        self.records.clients.entry(client).or_default().push((now_us, what));
    }

    /// One thing that happens to somebody.
    pub fn anything(&mut self) {
        let ids: Vec<u32> = self.people.keys().copied().collect();
        let client = self.rng.pick(&ids).unwrap();
        let is_sender = self.people[&client].role == "sender";
        match self.rng.below(20) {
            0..=5 if is_sender => self.publish_new(client),
            0..=9 => self.handle(client),
            10..=16 => self.deliver(client),
            17 => self.odd(client),
            18 => self.page(client),
            _ => self.reconnect(client),
        }
    }

    fn odd(&mut self, client: u32) {
        match self.rng.below(6) {
            0 => self.send_again(client),
            1 => self.fence(client),
            2 if self.people[&client].role == "slow" => self.skip(client),
            3 if self.people[&client].role == "churn" => self.look_elsewhere(client),
            4 => self.ghosts(client),
            _ => self.conflict(client),
        }
    }

    pub fn open(&mut self, client: u32) {
        let gateway = 1 + self.rng.below(2);
        let (url, instance) = (format!("ws://gateway-{gateway}/ws"), format!("gateway-host-{gateway}"));
        let person = self.people.get_mut(&client).unwrap();
        person.last_conn += 1;
        let conn = person.last_conn;
        person.conns.push(Conn { conn, ..Conn::default() });
        let epoch = self.epoch.clone();
        self.write(client, ClientEvent::Open { conn, url, instance, epoch });
    }

    /// The connection that a client uses.
    pub fn conn(&mut self, client: u32) -> &mut Conn {
        self.people.get_mut(&client).unwrap().conns.last_mut().unwrap()
    }

    /// Either the connection breaks and another follows, or the client moves before it closes the old one.
    pub fn reconnect(&mut self, client: u32) {
        if self.rng.one_in(2) {
            self.cut(client, None);
            self.open(client);
            self.resume(client);
            return;
        }
        while self.conn(client).pipe.iter().any(|publish| publish.key.is_none()) {
            self.handle(client); // what has no key is not sent again
        }
        let within = ClientEvent::Drain { conn: self.conn(client).conn, within_ms: 2_000, reconnect_ms: 10 };
        self.write(client, within);
        self.open(client);
        self.resume(client);
        for _ in 0..self.rng.below(6) {
            self.deliver(client);
        }
        let person = self.people.get_mut(&client).unwrap();
        let old = person.conns.remove(0);
        person.ghosts.push(old.pipe);
        if !person.library {
            let (code, reason) = (Some(1000), "moved".to_owned());
            self.write(client, ClientEvent::Closed { conn: old.conn, code, reason });
        }
    }

    /// A connection ends; what is in its pipe may be read for a while, or up to somewhere.
    pub fn cut(&mut self, client: u32, code: Option<u16>) {
        let keeps = self.rng.below(4);
        let person = self.people.get_mut(&client).unwrap();
        let mut old = person.conns.pop().unwrap();
        old.pipe.truncate(keeps);
        person.ghosts.push(old.pipe);
        self.write(client, ClientEvent::Closed { conn: old.conn, code, reason: "cut".into() });
        self.give_up_keyless(client);
    }

    pub fn resume(&mut self, client: u32) {
        let cursors = self.people[&client].cursors.clone();
        for (room, (after, epoch)) in cursors {
            self.subscribe_in(client, &room, Some(after), Some(epoch));
        }
        self.send_unanswered(client);
    }

    fn copy(&mut self) {
        self.copy = Some((self.now_us, self.rooms.clone()));
    }

    fn restore(&mut self) {
        let (copied_us, rooms) = self.copy.take().unwrap();
        let began_us = self.now_us;
        (self.rooms, self.epoch) = (rooms, "e2".into());
        let ids: Vec<u32> = self.people.keys().copied().collect();
        for client in ids {
            self.tell_epoch(client);
        }
        self.records.run.scenario = "restore".into();
        self.records.faults.push(FaultRecord {
            round: 1,
            kind: "restore postgres".into(),
            target: "postgres".into(),
            began_us,
            healed_us: self.now_us,
            hit: true,
            exit: None,
            copied_us: Some(copied_us),
            note: String::new(),
        });
    }

    /// Loads end, everything is answered and delivered, the store is read.
    pub fn settle(&mut self) {
        let ids: Vec<u32> = self.people.keys().copied().collect();
        self.records.run.load_us = self.now_us;
        for client in &ids {
            while !self.people[client].unanswered.is_empty() {
                self.handle(*client);
                if self.conn(*client).pipe.is_empty() {
                    self.send_unanswered(*client);
                }
            }
            self.ghosts(*client);
        }
        self.records.run.settled_us = self.now_us;
        for client in &ids {
            self.deliver_all(*client);
        }
        self.now_us = self.records.run.settled_us + 11_000_000;
        for client in ids {
            self.write(client, ClientEvent::End);
        }
        self.records.rows = self.rooms.values().flatten().cloned().collect();
        let heads = self.rooms.iter().map(|(room, rows)| (room.clone(), rows.len() as u64));
        self.records.leftovers.heads = heads.collect();
    }
}
