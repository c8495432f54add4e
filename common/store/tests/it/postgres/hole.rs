//! A way to a server that becomes a black hole: both ends stay connected, and nothing arrives any more.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub struct Hole {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    swallows: AtomicBool,
    /// Whether these words of a client, which the server still hears, make it swallow.
    armed: AtomicBool,
    words: &'static [u8],
    open: Mutex<Vec<TcpStream>>,
}

impl Hole {
    /// Leads to this port until it is told to [`Hole::swallow`].
    pub fn before(port: u16) -> Self {
        Self::after(port, b"")
    }

    /// Swallows every answer after a client has said these words, once it was told to [`Hole::arm`].
    pub fn after(port: u16, words: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State { words, ..State::default() });
        let shared = Arc::clone(&state);
        // Ends with the process: a listener of the standard library has no other end.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                shared.connect(&client, &server);
            }
        });
        Self { port: own, state }
    }

    pub fn swallow(&self) {
        self.state.swallows.store(true, Ordering::SeqCst);
    }

    pub fn arm(&self) {
        self.state.armed.store(true, Ordering::SeqCst);
    }
}

/// Both ends hear the end: a server would else keep the session until its own patience is over.
impl Drop for Hole {
    fn drop(&mut self) {
        for stream in &*self.state.open.lock().unwrap() {
            stream.shutdown(Shutdown::Both).ok(); // it may have ended
        }
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let copy = |stream: &TcpStream| stream.try_clone().unwrap();
        self.open.lock().unwrap().extend([copy(client), copy(server)]);
        for (from, to, from_client) in
            [(copy(client), copy(server), true), (copy(server), copy(client), false)]
        {
            let state = Arc::clone(self);
            std::thread::spawn(move || state.carry(from, to, from_client));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, from_client: bool) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if self.swallows.load(Ordering::SeqCst) {
                continue;
            }
            let said = &bytes[..count];
            let armed = from_client && self.armed.load(Ordering::SeqCst) && !self.words.is_empty();
            if armed && said.windows(self.words.len()).any(|words| words == self.words) {
                self.swallows.store(true, Ordering::SeqCst);
            }
            if to.write_all(said).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok(); // the other end may be gone
    }
}
