//! The bare loop that a gateway is compared with: it writes frames that were encoded once to as many sockets, puts
//! what waits into one write, and does nothing else. It answers the upgrade without reading what is asked.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::timerfd::TimerFd;
use sluice_load::{dial, frame};
use socket2::{Domain, Socket, Type};

use crate::control::{self, Control, INPUT, TICK};
use crate::spec::{self, Command, Ready, Snapshot};

const LISTENER: usize = usize::MAX - 3;
const BACKLOG: i32 = 4096;
/// Most of one write: what a gateway puts into one.
const WRITE_BYTES: usize = 64 * 1024;

/// One subscriber.
struct Reader {
    stream: TcpStream,
    /// Frames it has not got yet, and how many bytes of the first one went out.
    owed: u64,
    offset: usize,
    /// Whether it is among those that wait for a write.
    waits: bool,
}

struct Floor {
    spec: spec::Floor,
    poll: Poll,
    listener: TcpListener,
    readers: Vec<Reader>,
    /// Those that are owed something and whose sockets may have room.
    waiting: Vec<usize>,
    /// The same frame, as often as one write may carry it.
    frames: Vec<u8>,
    frame_bytes: usize,
    greeting: Vec<u8>,
    going: Option<(Instant, u64, Option<TimerFd>)>,
    written: u64,
    start: Instant,
}

/// Runs until the input ends.
pub(crate) fn run(mut control: Control, spec: spec::Floor) -> anyhow::Result<()> {
    dial::raise_file_limit()?;
    let mut floor = Floor::bind(spec)?;
    control::say(&Ready { took_s: 0.0, address: Some(floor.listener.local_addr()?) })?;
    control.register(floor.poll.registry())?;
    let mut events = Events::with_capacity(1024);
    loop {
        // While somebody is owed something the poll only looks, or a socket with room would wait for an event.
        let limit = (!floor.waiting.is_empty()).then_some(Duration::ZERO);
        if let Err(error) = floor.poll.poll(&mut events, limit)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token().0 {
                INPUT => match control.commands()? {
                    Some(commands) => floor.obey(&commands)?,
                    None => return Ok(()),
                },
                LISTENER => floor.accept()?,
                TICK => floor.tick(),
                at => floor.waits(at),
            }
        }
        floor.write_all();
    }
}

impl Floor {
    fn bind(spec: spec::Floor) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
        let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        frame::server_frame(&mut greeting, frame::TEXT, br#"{"welcome":{}}"#);
        frame::server_frame(&mut greeting, frame::TEXT, br#"{"ok":"sub","after":0}"#);
        let mut message = Vec::new();
        let data = "x".repeat(spec.data_bytes.saturating_sub(2));
        // as long as a gateway's: room, sender, key and time included
        let text = format!(
            r#"{{"msg":"floor-1.0","seq":10000,"from":"floor-1-10","key":"{:032}","at":1763719200123,"data":"{data}"}}"#,
            0
        );
        frame::server_frame(&mut message, frame::TEXT, text.as_bytes());
        Ok(Self {
            poll,
            listener,
            readers: Vec::new(),
            waiting: Vec::new(),
            // Many copies: what is owed goes out in one write, as a gateway puts together what waits.
            frames: message.repeat((WRITE_BYTES / message.len()).max(1)),
            frame_bytes: message.len(),
            greeting,
            going: None,
            written: 0,
            start: Instant::now(),
            spec,
        })
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            stream.write_all(&self.greeting)?; // a new socket has room for it
            self.poll.registry().register(&mut stream, Token(self.readers.len()), Interest::WRITABLE)?;
            self.readers.push(Reader { stream, owed: 0, offset: 0, waits: false });
        }
    }

    /// Messages are owed to the subscribers of their rooms, one room after the other.
    fn tick(&mut self) {
        let (Some((since, sent, Some(timer))), Some(per_s)) = (&mut self.going, self.spec.per_s) else {
            return;
        };
        timer.wait().ok(); // how often it expired is told by the clock
        let burst = u64::from(self.spec.burst.max(1));
        // In whole bursts, so that as many messages are in a write as the gateway had.
        let due = (since.elapsed().as_secs_f64() * f64::from(per_s)) as u64 / burst * burst;
        let (from, rooms) = (*sent, self.spec.rooms);
        *sent = due;
        for message in from..due {
            let room = (message / burst % rooms as u64) as usize;
            for at in (room..self.readers.len()).step_by(rooms) {
                let reader = &mut self.readers[at];
                reader.owed += 1;
                if reader.owed == 1 {
                    self.waits(at); // if it was owed some before, it waits here or for its socket
                }
            }
        }
    }

    /// Its turn comes, once.
    fn waits(&mut self, at: usize) {
        if let Some(reader) = self.readers.get_mut(at)
            && reader.owed > 0
            && !std::mem::replace(&mut reader.waits, true)
        {
            self.waiting.push(at);
        }
    }

    /// One write to each that waits.
    fn write_all(&mut self) {
        for at in std::mem::take(&mut self.waiting) {
            let reader = &mut self.readers[at];
            reader.waits = false;
            let most = self.frames.len() / self.frame_bytes;
            let frames = usize::try_from(reader.owed).unwrap_or(usize::MAX).min(most);
            match reader.stream.write(&self.frames[reader.offset..frames * self.frame_bytes]) {
                Ok(count) => {
                    let bytes = reader.offset + count;
                    // A write may end inside a frame: the next goes on there.
                    reader.offset = bytes % self.frame_bytes;
                    let done = (bytes / self.frame_bytes) as u64;
                    reader.owed -= done;
                    self.written += done;
                    self.waits(at);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {} // the poll says when there is room
                Err(_) => reader.owed = 0,                                // it left
            }
        }
    }

    fn obey(&mut self, commands: &[Command]) -> anyhow::Result<()> {
        for command in commands {
            match command {
                Command::Go => {
                    let timer = self
                        .spec
                        .per_s
                        .map(|per_s| control::ticker(self.poll.registry(), per_s))
                        .transpose()?;
                    // Flat out: everybody is always owed one more.
                    if timer.is_none() {
                        for at in 0..self.readers.len() {
                            self.readers[at].owed = u64::MAX;
                            self.waits(at);
                        }
                    }
                    self.going = Some((Instant::now(), 0, timer));
                }
                Command::Peek | Command::Mark => control::say(&Snapshot {
                    at_s: self.start.elapsed().as_secs_f64(),
                    published: self.written,
                    ..Snapshot::default()
                })?,
            }
        }
        Ok(())
    }
}
