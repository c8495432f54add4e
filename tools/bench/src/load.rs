//! A worker full of clients: one thread, one poll, no buffer for an idle connection. It connects a few hundred at a
//! time, then publishes and counts as it is told. It never decides what is measured.

mod connection;
mod feed;
mod tally;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::sys::timerfd::TimerFd;
use sluice_client::Trust;
use sluice_load::driver::Ready as Event;
use sluice_load::{Destination, Driver, dial, frame};

use crate::control::{self, Control, INPUT, TICK};
use crate::spec::{self, Command, Entrance, Pace, Ready};
use crate::token;
use connection::{Connection, Role, Server};
use feed::Feed;
use tally::Tally;

/// Connections under way at once.
pub(crate) const CONNECTING_MAX: usize = 256;
/// Every so many subscribers one checks the order.
const CHECK_EVERY: usize = 16;
/// All clients must be there by then.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Where each kind of client connects, looked up once.
struct Entrances {
    subscribers: Option<Destination>,
    publishers: Option<Destination>,
}

impl Entrances {
    fn of(spec: &spec::Load) -> anyhow::Result<Self> {
        Ok(Self {
            subscribers: spec.subscribers.as_ref().map(|all| destination(&all.to)).transpose()?,
            publishers: spec.publishers.as_ref().map(|all| destination(&all.to)).transpose()?,
        })
    }
}

fn destination(to: &Entrance) -> anyhow::Result<Destination> {
    match to {
        Entrance::Address(address) => Ok((*address).into()),
        Entrance::Url(url, ca) => {
            let trust = match ca {
                None => Trust::default(),
                Some(file) => {
                    let pem =
                        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                    Trust::with_ca(&pem).map_err(|why| anyhow!("{}: {why}", file.display()))?
                }
            };
            Destination::of(url, &trust.config()).map_err(|why| anyhow!(why))
        }
    }
}

struct Load {
    spec: spec::Load,
    entrances: Entrances,
    driver: Driver<Connection>,
    /// The sockets of the publishers, in order.
    publishers: Vec<usize>,
    feed: Feed,
    tally: Tally,
    /// When to publish: since when, how many so far, and the timer; only in an open loop.
    open: Option<(Instant, u64, TimerFd)>,
}

/// Runs until the input ends.
pub(crate) fn run(mut control: Control, spec: spec::Load) -> anyhow::Result<()> {
    dial::raise_file_limit()?;
    let data_bytes = spec.publishers.as_ref().map_or(0, |publishers| publishers.data_bytes);
    let mut load = Load {
        driver: Driver::new()?,
        publishers: Vec::new(),
        feed: Feed::new(&spec.tag, spec.rooms, data_bytes),
        tally: Tally::new(),
        open: None,
        entrances: Entrances::of(&spec)?,
        spec,
    };
    let took_s = load.connect()?;
    control::say(&Ready { took_s, address: None })?;
    control.register(load.driver.registry())?;
    let mut events = Vec::new();
    loop {
        load.driver.wait(None, &mut events)?;
        for event in events.drain(..) {
            match event.key {
                INPUT => match control.commands()? {
                    Some(commands) => load.obey(&commands)?,
                    None => return Ok(()),
                },
                TICK => load.expire(),
                _ => load.attend(event),
            }
        }
    }
}

impl Load {
    /// Connects, greets and subscribes all clients; returns the seconds that took.
    fn connect(&mut self) -> anyhow::Result<f64> {
        let publishers = self.spec.publishers.as_ref().map_or(0, |publishers| publishers.connections);
        let subscribers = self.spec.subscribers.as_ref().map_or(0, |subscribers| subscribers.connections);
        // Signed before the clock starts: clients have their tokens from elsewhere.
        let sign = |at| token::of(&self.spec.secret, &format!("{}-{at}", self.spec.tag));
        let tokens = (0..publishers + subscribers).map(sign).collect::<Result<Vec<_>, _>>()?;
        let (start, mut events, mut begun) = (Instant::now(), Vec::new(), 0);
        while self.tally.ready < tokens.len() {
            // A few hundred at a time: more would overflow the backlog and wait for SYNs sent again.
            while begun < (self.tally.ready + CONNECTING_MAX).min(tokens.len()) {
                self.open(begun, &tokens[begun], begun.checked_sub(publishers))?;
                begun += 1;
            }
            self.driver.wait(Some(READY_WITHIN), &mut events)?;
            for event in events.drain(..) {
                self.attend(event);
            }
            if let Some(trouble) = &self.tally.trouble {
                bail!("a client could not connect: {trouble}");
            }
            if start.elapsed() > READY_WITHIN {
                bail!("only {} of {} clients are ready", self.tally.ready, publishers + subscribers);
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// A caller of the API is ready at once: its first call waits for the connection.
    fn open_caller(&mut self, server: Arc<Server>, address: SocketAddr) -> anyhow::Result<()> {
        let dialled = self.driver.dial_http(address, Connection::new(Role::caller(server)));
        self.publishers.push(dialled.with_context(|| format!("a connection to {address}"))?);
        self.tally.ready += 1;
        Ok(())
    }

    fn open(&mut self, at: usize, token: &str, subscriber: Option<usize>) -> anyhow::Result<()> {
        if let (None, Some(to), Some(key)) = (
            subscriber,
            &self.entrances.publishers,
            self.spec.publishers.as_ref().and_then(|all| all.api_key.as_ref()),
        ) {
            let (server, address) = (Server { host: to.host.clone(), key: key.clone() }, to.address);
            return self.open_caller(Arc::new(server), address);
        }
        let Entrances { subscribers, publishers } = &self.entrances;
        let (to, role) = match (subscriber, &self.spec.subscribers, subscribers, publishers) {
            (Some(n), Some(subscribers), Some(to), _) => {
                let room = self.feed.room(n).to_owned();
                let check = subscribers.check && n.is_multiple_of(CHECK_EVERY);
                (to, Role::subscriber(room, check, subscribers.timed))
            }
            (None, _, _, Some(to)) => (to, Role::publisher()),
            _ => bail!("a client without a role"),
        };
        let first = frame::request(&to.host, Some(token));
        let dialled = self.driver.dial_with(to, None, first, Connection::new(role));
        let key = dialled.with_context(|| format!("connection {at} to {}", to.host))?;
        if subscriber.is_none() {
            self.publishers.push(key);
        }
        Ok(())
    }

    fn attend(&mut self, event: Event) {
        let Self { driver, tally, .. } = self;
        let Some(connection) = driver.get(event.key) else { return };
        let is_publisher = connection.is_publisher();
        let now = tally.now_ns();
        let on = |connection: &mut Connection, out: &mut Vec<u8>, heard: sluice_load::socket::Heard<'_>| {
            connection.on(out, heard, now, tally);
        };
        match driver.attend(event, is_publisher, on) {
            Ok(_) if is_publisher => {}
            Ok(reads) => tally.reads += reads,
            Err(gone) => {
                driver.remove(event.key);
                tally.trouble(|| gone.to_string());
            }
        }
        if is_publisher {
            self.refill(event.key);
            self.tick(); // what was due while no connection was free
        }
    }

    /// A closed loop: as many publishes as answers have come.
    fn refill(&mut self, key: usize) {
        let Some(Pace::Closed { depth }) = self.spec.publishers.as_ref().map(|publishers| publishers.pace)
        else {
            return;
        };
        let Self { driver, feed, tally, .. } = self;
        if tally.going
            && let Some((socket, connection)) = driver.get_mut(key)
        {
            // The closed loop: an answer makes room for the next, so the service sets the pace.
            while connection.is_free() && connection.unanswered().is_some_and(|count| count < depth) {
                let now = tally.now_ns();
                connection.publish(socket.out(), feed, now, tally);
            }
            socket.flush(true).ok(); // what broke shows at the next read
        }
    }

    /// The timer has expired, maybe several times: how often is told by the clock.
    fn expire(&mut self) {
        if let Some((_, _, timer)) = &mut self.open {
            timer.wait().ok();
        }
        self.tick();
    }

    /// An open loop: everything that is due by now, timed from when it was due.
    fn tick(&mut self) {
        let Some(publishers) = &self.spec.publishers else { return };
        let Pace::Open { per_s } = publishers.pace else { return };
        let Self { driver, feed, tally, open, publishers, .. } = self;
        let Some((since, sent, _)) = open else { return };
        let base = tally.ns_at(*since);
        while *sent < (since.elapsed().as_secs_f64() * f64::from(per_s)) as u64 {
            // By when it was due: a stall counts for all that should have been sent in it.
            let due = base + *sent * 1_000_000_000 / u64::from(per_s);
            let turn = (*sent % publishers.len().max(1) as u64) as usize;
            // In turn; who waits for an answer, and cannot send before it, is passed over.
            let (before, after) = publishers.split_at(turn);
            let mut keys = after.iter().chain(before);
            let Some(key) = keys.find(|key| driver.get(**key).is_some_and(Connection::is_free)) else {
                return;
            };
            *sent += 1;
            if let Some((socket, connection)) = driver.get_mut(*key) {
                connection.publish(socket.out(), feed, due, tally);
                socket.flush(true).ok(); // likewise
            }
        }
    }

    fn obey(&mut self, commands: &[Command]) -> io::Result<()> {
        for command in commands {
            match command {
                Command::Go => {
                    self.tally.going = true;
                    if let Some(Pace::Open { per_s }) = self.spec.publishers.as_ref().map(|all| all.pace) {
                        let timer = control::ticker(self.driver.registry(), per_s)?;
                        self.open = Some((Instant::now(), 0, timer));
                    }
                    for key in self.publishers.clone() {
                        self.refill(key);
                    }
                }
                Command::Peek => control::say(&self.tally.snapshot(false))?,
                Command::Mark => control::say(&self.tally.snapshot(true))?,
            }
        }
        Ok(())
    }
}
