//! A worker full of clients: one thread, one poll, no buffer for an idle connection. It connects a few hundred at a
//! time, then publishes and counts as it is told. It never decides what is measured.

mod connection;
mod feed;
mod tally;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::timerfd::TimerFd;
use sluice_launcher::token::{Grants, mint};
use socket2::{Domain, Socket, Type};

use crate::control::{self, Control, INPUT, TICK};
use crate::spec::{self, Command, Pace, Ready};
use crate::ws;
use connection::{Connection, Role};
use feed::Feed;
use tally::Tally;

/// Connections under way at once.
const CONNECTING_MAX: usize = 256;
/// Source addresses in turn, 127.0.0.2 and on: each has 28,000 ports.
const SOURCES: usize = 16;
/// Every so many subscribers one checks the order.
const CHECK_EVERY: usize = 16;
/// What one read takes at most.
const READ_BYTES: usize = 256 * 1024;
/// All clients must be there by then.
const READY_WITHIN: Duration = Duration::from_secs(120);

struct Load {
    spec: spec::Load,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    feed: Feed,
    tally: Tally,
    /// When to publish: since when, how many so far, and the timer; only in an open loop.
    open: Option<(Instant, u64, TimerFd)>,
}

/// Runs until the input ends.
pub(crate) fn run(mut control: Control, spec: spec::Load) -> anyhow::Result<()> {
    control::raise_file_limit()?;
    let data_bytes = spec.publishers.as_ref().map_or(0, |publishers| publishers.data_bytes);
    let mut load = Load {
        poll: Poll::new()?,
        connections: Vec::new(),
        buffer: vec![0; READ_BYTES],
        feed: Feed::new(&spec.tag, spec.rooms, data_bytes),
        tally: Tally::new(),
        open: None,
        spec,
    };
    let took_s = load.connect()?;
    control::say(&Ready { took_s, address: None })?;
    control.register(&load.poll)?;
    let mut events = Events::with_capacity(1024);
    loop {
        load.wait(&mut events, None)?;
        for event in &events {
            match event.token() {
                INPUT => match control.commands()? {
                    Some(commands) => load.obey(&commands)?,
                    None => return Ok(()),
                },
                TICK => load.tick(),
                Token(at) => load.attend(at, event.is_writable(), event.is_read_closed()),
            }
        }
    }
}

impl Load {
    fn wait(&mut self, events: &mut Events, limit: Option<Duration>) -> anyhow::Result<()> {
        match self.poll.poll(events, limit) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Connects, greets and subscribes all clients; returns the seconds that took.
    fn connect(&mut self) -> anyhow::Result<f64> {
        let publishers = self.spec.publishers.as_ref().map_or(0, |publishers| publishers.connections);
        let subscribers = self.spec.subscribers.as_ref().map_or(0, |subscribers| subscribers.connections);
        let start = Instant::now();
        let mut events = Events::with_capacity(1024);
        while self.tally.ready < publishers + subscribers {
            while self.connections.len() < (self.tally.ready + CONNECTING_MAX).min(publishers + subscribers) {
                let at = self.connections.len();
                let connection = self.open(at, at.checked_sub(publishers))?;
                self.connections.push(connection);
            }
            self.wait(&mut events, Some(READY_WITHIN))?;
            for event in &events {
                self.attend(event.token().0, event.is_writable(), event.is_read_closed());
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

    fn open(&mut self, at: usize, subscriber: Option<usize>) -> anyhow::Result<Connection> {
        let (address, role) = match (subscriber, &self.spec.subscribers, &self.spec.publishers) {
            (Some(n), Some(subscribers), _) => {
                let room = self.feed.room(n).to_owned();
                let check = subscribers.check && n.is_multiple_of(CHECK_EVERY);
                (subscribers.address, Role::subscriber(room, check, subscribers.timed))
            }
            (None, _, Some(publishers)) => (publishers.address, Role::publisher()),
            _ => bail!("a client without a role"),
        };
        let grants = Grants { sub: vec!["*".into()], publish: vec!["*".into()] };
        let ttl = Duration::from_secs(24 * 3600);
        let token = mint(&self.spec.secret, &format!("{}-{at}", self.spec.tag), grants, ttl)?;
        let mut stream = dial(address, at).with_context(|| format!("connection {at} to {address}"))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(at), interest)?;
        Ok(Connection::new(stream, role, ws::request(&address.to_string(), &token)))
    }

    fn attend(&mut self, at: usize, writable: bool, ended: bool) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        if writable {
            connection.flush(&mut self.tally);
        }
        connection.read(&mut self.buffer, ended, &mut self.tally);
        self.refill(at);
    }

    /// A closed loop: as many publishes as answers have come.
    fn refill(&mut self, at: usize) {
        let Some(Pace::Closed { depth }) = self.spec.publishers.as_ref().map(|publishers| publishers.pace)
        else {
            return;
        };
        if self.tally.going
            && let Some(connection) = self.connections.get_mut(at)
        {
            while connection.unanswered().is_some_and(|count| count < depth) {
                let now = self.tally.now_ns();
                connection.publish(&mut self.feed, now, &mut self.tally);
            }
            connection.flush(&mut self.tally);
        }
    }

    /// An open loop: everything that is due by now, timed from when it was due.
    fn tick(&mut self) {
        let Some(publishers) = &self.spec.publishers else { return };
        let Pace::Open { per_s } = publishers.pace else { return };
        let Some((since, sent, timer)) = &mut self.open else { return };
        timer.wait().ok(); // how often it expired is told by the clock
        let base = self.tally.ns_at(*since);
        while *sent < (since.elapsed().as_secs_f64() * f64::from(per_s)) as u64 {
            let due = base + *sent * 1_000_000_000 / u64::from(per_s);
            let at = (*sent % publishers.connections as u64) as usize;
            *sent += 1;
            if let Some(connection) = self.connections.get_mut(at) {
                connection.publish(&mut self.feed, due, &mut self.tally);
                connection.flush(&mut self.tally);
            }
        }
    }

    fn obey(&mut self, commands: &[Command]) -> anyhow::Result<()> {
        for command in commands {
            match command {
                Command::Go => {
                    self.tally.going = true;
                    if let Some(Pace::Open { per_s }) = self.spec.publishers.as_ref().map(|all| all.pace) {
                        self.open = Some((Instant::now(), 0, control::ticker(&self.poll, per_s)?));
                    }
                    for at in 0..self.spec.publishers.as_ref().map_or(0, |all| all.connections) {
                        self.refill(at);
                    }
                }
                Command::Peek => control::say(&self.tally.snapshot(false))?,
                Command::Mark => control::say(&self.tally.snapshot(true))?,
            }
        }
        Ok(())
    }
}

/// Begins a connection, from the source address whose turn it is.
fn dial(address: SocketAddr, turn: usize) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        let last = u8::try_from(2 + turn % SOURCES)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error.into()),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}
