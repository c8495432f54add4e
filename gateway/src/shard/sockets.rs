//! Which sockets of a shard can be read or written: one set of the system for all of them, itself one source of the
//! shard's runtime. A socket costs a number there, instead of a task, a waker and the runtime's own record of it.
//!
//! The system tells each change once. What it told stands at the connection until the socket says that there is no more.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::io::Interest as RuntimeInterest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::Shard;
use super::turn::{Budget, ShardCell};
use crate::address::Address;
use crate::defaults::SOCKET_EVENTS_MAX;

/// The set, as a source of the shard's runtime.
pub(super) type WatchedPoll = AsyncFd<Poll>;

/// Where sockets of a shard are entered.
#[derive(Debug)]
pub(super) struct Sockets {
    registry: Registry,
    /// Told when a connection wants to be looked at.
    wanted: Rc<Notify>,
}

impl Sockets {
    /// Without sockets, inside a runtime; the poll is for [`run`].
    pub(super) fn new() -> io::Result<(Self, WatchedPoll)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        Ok((Self { registry, wanted: Rc::default() }, watched(poll)?))
    }

    /// From now on [`run`] hears of this socket. It is forgotten when it is closed.
    pub(super) fn enter(&self, stream: &mut TcpStream, who: Address) -> io::Result<()> {
        self.registry.register(stream, token(who), Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn wanted(&self) -> Rc<Notify> {
        Rc::clone(&self.wanted)
    }
}

/// Slot and generation: what is told of a socket that was closed meanwhile is about nobody.
fn token(who: Address) -> Token {
    Token((who.generation as usize) << 32 | who.slot as usize)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a token")]
const fn slot_and_generation(token: Token) -> (u32, u32) {
    (token.0 as u32, (token.0 >> 32) as u32)
}

/// Looks after the sockets of a shard. Ends with the shard's thread.
pub(super) async fn run(cell: ShardCell, mut poll: WatchedPoll) -> io::Result<()> {
    let mut events = Events::with_capacity(SOCKET_EVENTS_MAX);
    let wanted = cell.turn(|shard| shard.sockets.wanted());
    loop {
        tokio::select! {
            biased;
            () = wanted.notified() => poll_now(poll.get_mut(), &mut events)?,
            ready = poll.readable_mut() => {
                let mut ready = ready?;
                poll_now(ready.get_inner_mut(), &mut events)?;
                // Not while there may be more: the runtime is told of changes alone.
                if events.iter().count() < SOCKET_EVENTS_MAX {
                    ready.clear_ready();
                }
            }
        }
        while cell.turn(|shard| shard.attend_sockets(&events, Budget::begin())) {
            // Others have their turn; what happened to sockets meanwhile is looked at as well, so that those that are
            // always ready go round with all others.
            yield_now().await;
            poll_now(poll.get_mut(), &mut events)?;
        }
    }
}

/// What the runtime asks of whoever registers a descriptor holds: a poll owns its own, and has the same one until it is
/// dropped.
#[expect(deprecated, reason = "what came instead is unsafe, as it takes types of which nobody knows that")]
fn watched(poll: Poll) -> io::Result<WatchedPoll> {
    AsyncFd::with_interest(poll, RuntimeInterest::READABLE)
}

fn poll_now(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    events.clear();
    match poll.poll(events, Some(Duration::ZERO)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Shard {
    /// Notes what is told of sockets, then looks after those that are ready, each in turn, as far as the turn has time.
    /// `true` = there is more.
    pub(super) fn attend_sockets(&mut self, events: &Events, budget: Budget) -> bool {
        self.connections.begin_look();
        for event in events {
            let (slot, generation) = slot_and_generation(event.token());
            let who = Address { shard: self.me, slot, generation };
            let ended = event.is_read_closed() || event.is_error();
            self.connections.told(who, event.is_readable() || ended, event.is_writable() || ended, ended);
        }
        // Who has more to say after its turn stands at the end, and is looked at when writers and others have had theirs.
        for _ in 0..self.connections.ready_len() {
            let Some(who) = self.connections.next_ready() else { break };
            self.attend(who);
            if budget.is_spent() {
                break;
            }
        }
        self.connections.end_look()
    }
}
