//! Many sockets on one poll, each with what its client is. It decides neither when to connect nor what to say.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::destination::Destination;
use crate::dial::dial;
use crate::socket::{Gone, Heard, Socket, Speaks};
use crate::transport::Transport;

/// What one read takes at most.
const READ_BYTES: usize = 256 * 1024;
/// Events taken at once.
const EVENTS: usize = 1024;

/// Something is ready.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The key of a socket, or the token that its owner registered.
    pub key: usize,
    /// The socket takes bytes.
    pub writable: bool,
    /// It may have some.
    pub readable: bool,
    /// The other side has closed.
    pub ended: bool,
}

/// The sockets, and a `T` for each.
#[derive(Debug)]
pub struct Driver<T> {
    poll: Poll,
    events: Events,
    entries: Slab<(Socket, T)>,
    buffer: Vec<u8>,
    dialled: usize,
}

impl<T> Driver<T> {
    /// Without sockets.
    ///
    /// # Errors
    /// When the system has no poll left.
    pub fn new() -> io::Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(EVENTS));
        Ok(Self { poll, events, entries: Slab::new(), buffer: vec![0; READ_BYTES], dialled: 0 })
    }

    /// For other sources than sockets; tokens near `usize::MAX` are no key's.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// How many sockets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Begins a connection that writes `first` as soon as it is made; returns its key. Keys are used again.
    ///
    /// # Errors
    /// When the system has no socket or port left.
    pub fn dial(&mut self, address: SocketAddr, first: Vec<u8>, state: T) -> io::Result<usize> {
        self.dial_with(&address.into(), None, first, state)
    }

    /// The same to wherever it leads, with a receive buffer of so many bytes.
    ///
    /// # Errors
    /// As [`Driver::dial`].
    pub fn dial_with(
        &mut self,
        to: &Destination,
        receive_buffer: Option<usize>,
        first: Vec<u8>,
        state: T,
    ) -> io::Result<usize> {
        self.begin(to, receive_buffer, Speaks::Upgrade, first, state)
    }

    /// The same to a server of HTTP, which answers calls one after the other.
    ///
    /// # Errors
    /// As [`Driver::dial`].
    pub fn dial_http(&mut self, address: SocketAddr, state: T) -> io::Result<usize> {
        self.begin(&address.into(), None, Speaks::Http, Vec::new(), state)
    }

    fn begin(
        &mut self,
        to: &Destination,
        receive_buffer: Option<usize>,
        speaks: Speaks,
        first: Vec<u8>,
        state: T,
    ) -> io::Result<usize> {
        let mut stream = dial(to.address, self.dialled, receive_buffer)?;
        self.dialled += 1;
        let entry = self.entries.vacant_entry();
        let (key, interest) = (entry.key(), Interest::READABLE | Interest::WRITABLE);
        self.poll.registry().register(&mut stream, Token(key), interest)?;
        entry.insert((Socket::new(Transport::new(stream, to.tls.as_ref())?, speaks, first), state));
        Ok(key)
    }

    /// Waits until something is ready, and says what. Edges: what is not read or written now is not named again.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        ready.extend(self.events.iter().map(|event| Ready {
            key: event.token().0,
            writable: event.is_writable(),
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            ended: event.is_read_closed() || event.is_error(),
        }));
        Ok(())
    }

    /// Writes and reads what an event is about; frames that `on` queues are written at once. Returns how many reads
    /// brought something.
    ///
    /// # Errors
    /// The end of the connection, which stays until it is removed.
    pub fn attend(
        &mut self,
        ready: Ready,
        keep: bool,
        mut on: impl FnMut(&mut T, &mut Vec<u8>, Heard<'_>),
    ) -> Result<u64, Gone> {
        let Some((socket, state)) = self.entries.get_mut(ready.key) else { return Ok(0) };
        // What waits goes out before more is read: an answer may depend on it.
        if ready.writable {
            socket.flush(keep)?;
        }
        let reads = socket.read(&mut self.buffer, ready.ended, |out, heard| on(state, out, heard))?;
        // At once: an edge that has been told is not told again.
        if !socket.is_flushed() {
            socket.flush(keep)?;
        }
        Ok(reads)
    }

    /// A socket and its client.
    pub fn get_mut(&mut self, key: usize) -> Option<&mut (Socket, T)> {
        self.entries.get_mut(key)
    }

    /// A client.
    #[must_use]
    pub fn get(&self, key: usize) -> Option<&T> {
        self.entries.get(key).map(|(_, state)| state)
    }

    /// Closes a connection.
    pub fn remove(&mut self, key: usize) -> Option<T> {
        self.entries.try_remove(key).map(|(_, state)| state)
    }
}
