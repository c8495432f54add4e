//! A crowd: thousands of clients that each read some rooms, and come back as the wire says when their connection ends,
//! with their positions. They publish nothing. A client that is idle costs its rooms' positions and a socket.
//!
//! At `drain` a client opens a second connection when it was told to, subscribes there, and says goodbye to the first.

mod client;
mod people;
mod timers;

use std::io;
use std::time::{Duration, Instant};

use crate::destination::Destination;
use crate::driver::{Driver, Ready};
use crate::frame;
use crate::server_frame::ServerFrame;
use crate::socket::{Gone, Heard};
use client::{Connection, Stage};
use people::{People, Todo};
use timers::Timer;

/// Handshake and `welcome` together.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For the other side of a goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Who gives a user a token; `None`: it comes without a name and keeps the one it is given.
pub type Token = Box<dyn Fn(&str) -> Option<String> + Send>;

/// A gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// As people write it.
    pub url: String,
    /// Where it is.
    pub to: Destination,
}

/// What happens to a client. `conn` counts its connections from 1.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection was welcomed, and is the one that is used from now on.
    Welcomed {
        /// Which.
        conn: u32,
        /// To whom.
        url: &'a str,
        /// As it called itself.
        instance: &'a str,
        /// Of its store.
        epoch: &'a str,
    },
    /// A connection could not be made.
    Failed {
        /// To whom.
        url: &'a str,
        /// Why.
        reason: String,
    },
    /// A `sub` goes out.
    Asked {
        /// Over which connection.
        conn: u32,
        /// For which room.
        room: &'a str,
        /// From where; `None` = from now.
        after: Option<u64>,
        /// The epoch of that.
        epoch: Option<&'a str>,
    },
    /// The server said something else.
    Frame {
        /// Over which connection.
        conn: u32,
        /// What.
        frame: &'a ServerFrame<'a>,
        /// Whether it answers a question.
        is_answer: bool,
    },
    /// All rooms are subscribed to on the connection that is used.
    Live,
    /// A connection ended.
    Closed {
        /// Which.
        conn: u32,
        /// Close code; `None` = it broke off, 1000 = the client's own wish.
        code: Option<u16>,
        /// Reason given, or what broke.
        reason: String,
        /// Whether it was the one that is used.
        is_current: bool,
    },
}

/// Receives what happens: the number of the client, as [`Crowd::join`] gave it, and what.
pub trait Witness {
    /// Something happened.
    fn see(&mut self, client: usize, event: Event<'_>);
}

impl<F: FnMut(usize, Event<'_>)> Witness for F {
    fn see(&mut self, client: usize, event: Event<'_>) {
        self(client, event);
    }
}

/// The clients and their sockets.
pub struct Crowd {
    driver: Driver<Connection>,
    people: People,
    gateways: Vec<Gateway>,
    token: Token,
    /// First connections under way at once.
    gathering_max: usize,
    ready: Vec<Ready>,
}

impl Crowd {
    /// Without clients. Of those that join, `gathering_max` connect at once; who comes back asks nobody.
    ///
    /// # Errors
    /// When the system has no poll left.
    pub fn new(token: Token, gathering_max: usize, seed: u64) -> io::Result<Self> {
        let (driver, people) = (Driver::new()?, People::new(seed));
        Ok(Self { driver, people, gateways: Vec::new(), token, gathering_max, ready: Vec::new() })
    }

    /// Where clients connect from now on.
    pub fn set_gateways(&mut self, gateways: Vec<Gateway>) {
        self.people.gateways = gateways.len();
        self.gateways = gateways;
    }

    /// One more client, with its rooms; returns its number, from 0.
    pub fn join(&mut self, user: &str, rooms: &[String]) -> usize {
        self.people.join(user, rooms)
    }

    /// How many are subscribed to everything.
    #[must_use]
    pub fn live(&self) -> usize {
        self.people.live
    }

    /// Messages that did not follow the one before, on one connection and in one room.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.people.gaps
    }

    /// Whether nobody has a socket any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.driver.is_empty()
    }

    /// Whoever is not where it connected first moves there within this, as at a `drain`: after a fault all may be at the
    /// gateway that was left, and the next fault would hit nobody or everybody.
    pub fn spread(&mut self, within: Duration) {
        self.people.spread(within, &self.gateways);
    }

    /// How many are where they connected first.
    #[must_use]
    pub fn at_home(&self) -> usize {
        self.people.at_home(&self.gateways)
    }

    /// Everybody says goodbye and comes back no more.
    pub fn leave(&mut self, witness: &mut impl Witness) {
        for key in self.people.depart() {
            self.goodbye(key, witness);
        }
    }

    /// Waits for `limit` at most, and does what is to be done.
    ///
    /// # Errors
    /// When the system has no sockets left.
    pub fn turn(&mut self, limit: Duration, witness: &mut impl Witness) -> io::Result<()> {
        self.gather(witness)?;
        let now = Instant::now();
        // Not beyond the next timer: nobody else wakes this thread.
        let limit =
            self.people.timers.next().map_or(limit, |at| limit.min(at.saturating_duration_since(now)));
        let mut ready = std::mem::take(&mut self.ready);
        self.driver.wait(Some(limit), &mut ready)?;
        for ready in ready.drain(..) {
            self.attend(ready, witness);
        }
        self.ready = ready;
        self.on_time(witness)
    }

    fn gather(&mut self, witness: &mut impl Witness) -> io::Result<()> {
        while self.people.greeting < self.gathering_max
            && let Some(client) = self.people.waiting.pop_front()
        {
            self.dial(client, witness)?;
        }
        Ok(())
    }

    fn attend(&mut self, ready: Ready, witness: &mut impl Witness) {
        let people = &mut self.people;
        let outcome = self.driver.attend(ready, false, |connection, out, heard| match heard {
            Heard::Upgraded | Heard::Answer(..) => {}
            Heard::Text(text) => people.on_text(ready.key, connection, out, text, witness),
        });
        if let Err(gone) = outcome {
            self.gone(ready.key, &gone, witness);
        }
        // After the read: what closes a socket would take it from under the one that reads it.
        while let Some(todo) = self.people.todo.pop() {
            match todo {
                Todo::Goodbye(key) => self.goodbye(key, witness),
                Todo::Drop(key, reason) => self.gone(key, &Gone::Broken(reason), witness),
            }
        }
    }

    fn on_time(&mut self, witness: &mut impl Witness) -> io::Result<()> {
        let now = Instant::now();
        while let Some((at, timer)) = self.people.timers.pop(now) {
            match timer {
                Timer::Dial(client) => {
                    // A timer that was overtaken: another time was set since.
                    if self.people.is_due(client, at) {
                        self.dial(client, witness)?;
                    }
                }
                Timer::Connect(key, serial) => {
                    let is_it = |it: &Connection| it.serial == serial && it.stage == Stage::Greeting;
                    if self.driver.get(key).is_some_and(is_it) {
                        let reason = format!("no welcome within {CONNECT_WITHIN:?}");
                        self.gone(key, &Gone::Broken(reason), witness);
                    }
                }
                Timer::Close(key, serial) => {
                    if self.driver.get(key).is_some_and(|it| it.serial == serial) {
                        self.driver.remove(key);
                    }
                }
                Timer::Sub(key, serial, place) => {
                    if let Some((socket, connection)) = self.driver.get_mut(key)
                        && connection.serial == serial
                        && connection.stage == Stage::Welcomed
                    {
                        self.people.ask(connection, place, socket.out(), witness);
                        socket.flush(false).ok(); // what broke shows at the next read
                    }
                }
            }
        }
        Ok(())
    }

    fn dial(&mut self, client: usize, witness: &mut impl Witness) -> io::Result<()> {
        let Some((gateway, user)) = self.people.next_gateway(client, &self.gateways) else { return Ok(()) };
        let token = (self.token)(user).or_else(|| self.people.token_of(client));
        let first = frame::request(&gateway.to.host, token.as_deref());
        let connection = self.people.connection(client, &gateway.url);
        let serial = connection.serial;
        match self.driver.dial_with(&gateway.to, None, first, connection) {
            Ok(key) => {
                self.people.dialled(client, key);
                self.people.timers.add(Instant::now() + CONNECT_WITHIN, Timer::Connect(key, serial));
                Ok(())
            }
            // no file or port left: the whole run would be a lie
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
            Err(error) => {
                let (url, reason) = (gateway.url.as_str(), error.to_string());
                witness.see(client, Event::Failed { url, reason });
                self.people.failed(client, None);
                Ok(())
            }
        }
    }

    fn gone(&mut self, key: usize, gone: &Gone, witness: &mut impl Witness) {
        if let Some(connection) = self.driver.remove(key) {
            self.people.gone(key, &connection, gone, witness);
        }
    }

    /// The client's own wish; the server answers it, or is left.
    fn goodbye(&mut self, key: usize, witness: &mut impl Witness) {
        let Some((socket, connection)) = self.driver.get_mut(key) else { return };
        frame::client_close(socket.out(), 1000);
        let is_flushed = socket.flush(false).is_ok();
        // Written down before the close is out: the server may be faster than this thread.
        self.people.leaves(key, connection, witness);
        if is_flushed {
            self.people.timers.add(Instant::now() + CLOSE_WITHIN, Timer::Close(key, connection.serial));
        } else {
            self.driver.remove(key);
        }
    }
}
