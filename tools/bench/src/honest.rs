//! A worker full of clients that behave, beside a bad neighbour: each reads a room, publishes to it, and subscribes to
//! another now and then, all at a steady pace that asks nobody. A question without an answer counts with its age.

mod client;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluice_load::driver::Ready as Event;
use sluice_load::samples::{Quantiles, Samples};
use sluice_load::socket::Heard;
use sluice_load::{Driver, dial, frame};

use crate::control::{self, Control, INPUT};
use crate::spec::{Command, Place, Ready};
use crate::token;
use client::Client;

/// Clients, ten in a room.
pub(crate) const CLIENTS: usize = 50;
const CLIENTS_PER_ROOM: usize = 10;
/// Each subscribes to a room so often: 250 a second together.
const SUB_EVERY: Duration = Duration::from_millis(200);
/// Each publishes so often: 100 a second together, 1,000 deliveries.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// One more comes, is welcomed and leaves so often.
const VISIT_EVERY: Duration = Duration::from_millis(100);
/// Before a client whose connection ended comes back.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest wait of a turn: the precision of the paces.
const TURN: Duration = Duration::from_millis(1);
/// All are there by then.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Comes before the time in every message.
const STAMP_AFTER: &[u8] = b"\"data\":\"";

/// What the clients saw since the last mark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// From a `sub` to its answer.
    pub sub: Option<Quantiles>,
    /// From a publish to its answer.
    pub publish: Option<Quantiles>,
    /// From a publish to its delivery.
    pub delivery: Option<Quantiles>,
    /// From a connect to its `welcome`.
    pub connect: Option<Quantiles>,
    /// Connections that ended.
    pub disconnects: u64,
    /// Requests answered with an error.
    pub refused: u64,
    /// Breaks in the order of seq.
    pub gaps: u64,
    /// The first of what went wrong.
    pub trouble: Option<String>,
}

/// Counters and latencies since the last mark.
#[derive(Default)]
pub(crate) struct Tally {
    sub: Samples,
    publish: Samples,
    delivery: Samples,
    connect: Samples,
    disconnects: u64,
    refused: u64,
    gaps: u64,
    trouble: Option<String>,
}

/// Who a socket is: a client, or a visitor that connected then.
enum Who {
    Client(Client),
    Visitor(u64, bool),
}

struct Honest {
    place: Place,
    driver: Driver<Who>,
    /// The socket of each client, or when it comes back.
    places: Vec<Result<usize, Instant>>,
    start: Instant,
    subs: u64,
    publishes: u64,
    visits: u64,
    tally: Tally,
}

/// Runs until the input ends.
pub(crate) fn run(mut control: Control, place: Place) -> anyhow::Result<()> {
    dial::raise_file_limit()?;
    let start = Instant::now();
    let places = vec![Err(start); CLIENTS];
    let tally = Tally::default();
    let mut honest =
        Honest { place, driver: Driver::new()?, places, start, subs: 0, publishes: 0, visits: 0, tally };
    let mut events = Vec::new();
    while !honest.is_ready() {
        honest.turn(&mut events)?;
        anyhow::ensure!(
            start.elapsed() < READY_WITHIN,
            "not all clients are ready: {:?}",
            honest.tally.trouble
        );
    }
    control::say(&Ready { took_s: start.elapsed().as_secs_f64(), address: None })?;
    control.register(honest.driver.registry())?;
    // Paces count from here: the time of getting ready would be caught up on in one burst.
    honest.start = Instant::now();
    loop {
        honest.pace()?;
        for event in honest.turn(&mut events)? {
            let Some(commands) = control.commands()? else { return Ok(()) };
            if event.key == INPUT && commands.contains(&Command::Mark) {
                control::say(&honest.mark())?;
            }
        }
    }
}

impl Honest {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn is_ready(&self) -> bool {
        self.places.iter().all(|place| place.is_ok_and(|key| self.client(key).is_some_and(Client::is_ready)))
    }

    fn client(&self, key: usize) -> Option<&Client> {
        match self.driver.get(key) {
            Some(Who::Client(client)) => Some(client),
            _ => None,
        }
    }

    /// Who is due comes back, and what is ready is attended to; returns what is not a socket.
    fn turn(&mut self, events: &mut Vec<Event>) -> anyhow::Result<Vec<Event>> {
        let now = Instant::now();
        for n in 0..self.places.len() {
            if self.places[n].is_err_and(|due| due <= now) {
                let tag = &self.place.tag;
                let client = Client::new(n, tag, format!("{tag}.room.{}", n / CLIENTS_PER_ROOM));
                self.places[n] = Ok(self.dial(&format!("{tag}-{n}"), Who::Client(client))?);
            }
        }
        self.driver.wait(Some(TURN), events)?;
        let (others, sockets) = events.drain(..).partition(|event| event.key == INPUT);
        let sockets: Vec<Event> = sockets;
        sockets.into_iter().for_each(|event| self.attend(event));
        Ok(others)
    }

    fn dial(&mut self, user: &str, who: Who) -> anyhow::Result<usize> {
        let token = token::of(&self.place.secret, user)?;
        let first = frame::request(&self.place.address.to_string(), Some(&token));
        Ok(self.driver.dial(self.place.address, first, who)?)
    }

    fn attend(&mut self, event: Event) {
        let now = self.now_ns();
        let Self { driver, tally, .. } = self;
        let mut is_over = false;
        let outcome = driver.attend(event, true, |who, out, heard| {
            let Heard::Text(text) = heard else { return };
            match who {
                Who::Client(client) => client.on(out, text, now, tally),
                Who::Visitor(since, welcomed) => {
                    if !std::mem::replace(welcomed, true) {
                        tally.connect.took(now.saturating_sub(*since));
                    }
                    is_over = true;
                }
            }
        });
        let why = match outcome {
            Err(gone) => gone.to_string(),
            Ok(_) if is_over => String::new(),
            Ok(_) => return,
        };
        match driver.remove(event.key) {
            Some(Who::Client(client)) => {
                tally.disconnects += 1;
                // What it still waited for counts with its age: silence must not look like speed.
                client.ages(now, tally);
                tally.trouble.get_or_insert(why);
                self.places[client.n] = Err(Instant::now() + AGAIN);
            }
            Some(Who::Visitor(since, welcomed)) if !welcomed => {
                tally.refused += 1;
                tally.connect.took(now.saturating_sub(since));
                tally.trouble.get_or_insert(why);
            }
            Some(Who::Visitor(..)) | None => {}
        }
    }

    /// What is due by now is sent, timed from when it was due.
    fn pace(&mut self) -> anyhow::Result<()> {
        let clients = CLIENTS as u64;
        // Each counts from when it was due, not from when it was sent: all feel the stall that held them up.
        while let Some(due) = self.due(self.subs, SUB_EVERY / CLIENTS as u32) {
            self.with(self.subs % clients, |client, out, tally| client.subscribe(out, due, tally));
            self.subs += 1;
        }
        while let Some(due) = self.due(self.publishes, PUBLISH_EVERY / CLIENTS as u32) {
            self.with(self.publishes % clients, |client, out, _| client.publish(out, due));
            self.publishes += 1;
        }
        while let Some(due) = self.due(self.visits, VISIT_EVERY) {
            self.visits += 1;
            self.dial(&format!("{}-visitor", self.place.tag), Who::Visitor(due, false))?;
        }
        Ok(())
    }

    /// When number `n` of something that happens this often was due, if it was.
    fn due(&self, n: u64, every: Duration) -> Option<u64> {
        let due = n.saturating_mul(every.as_nanos() as u64);
        (due <= self.now_ns()).then_some(due)
    }

    fn with(&mut self, n: u64, act: impl FnOnce(&mut Client, &mut Vec<u8>, &mut Tally)) {
        let Some(Ok(key)) = self.places.get(n as usize) else { return };
        if let Some((socket, Who::Client(client))) = self.driver.get_mut(*key) {
            act(client, socket.out(), &mut self.tally);
            socket.flush(true).ok(); // what broke shows at the next read
        }
    }

    fn mark(&mut self) -> Seen {
        let now = self.now_ns();
        for key in self.places.iter().flatten() {
            if let Some(Who::Client(client)) = self.driver.get(*key) {
                client.ages(now, &mut self.tally);
            }
        }
        // Each part of a measurement starts from nothing.
        let mut tally = std::mem::take(&mut self.tally);
        Seen {
            sub: tally.sub.take(),
            publish: tally.publish.take(),
            delivery: tally.delivery.take(),
            connect: tally.connect.take(),
            disconnects: tally.disconnects,
            refused: tally.refused,
            gaps: tally.gaps,
            trouble: tally.trouble,
        }
    }
}
