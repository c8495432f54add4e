//! One connection of a plain client, from its `welcome` to its end: subscriptions first, then what is unanswered, then
//! what is new, while everything that comes is written down.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use sluice_judge::record::ClientEvent;
use sluice_load::server_frame::{ServerFrame, WelcomeFrame};
use tokio::time::{Instant, Interval, interval, sleep_until};

use super::super::pace::pace;
use super::super::plan::ClientRole;
use super::super::recorder::OWN_WISH;
use super::super::shared::LoadPhase;
use super::frame;
use super::socket::{Socket, Turn};
use super::{ConnectionEnd, PlainClient, UNWANTED};

/// Between two looks for what is overdue.
const LOOK: Duration = Duration::from_secs(1);
/// After `retry:true` the server says `bye` as soon as what it handed over has its outcome (10 s); one that does not is
/// left.
const FENCE_WAIT: Duration = Duration::from_secs(15);
/// A subscription that could not be served is asked for again after this.
const SUB_AGAIN: Duration = Duration::from_millis(500);
/// One publish in so many is sent twice by a resender.
const ECHO_IN: u32 = 20;

/// A request that is no publish.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Sub(String),
    Unsub(String),
    History(String, Option<u64>),
}

/// One connection.
pub(super) struct PlainConnection {
    pub conn: u32,
    /// Requests to be sent, before any publish.
    pub requests: VecDeque<Request>,
    /// Requests without an answer.
    pub asked: HashMap<u64, Request>,
    last_request: u64,
    /// Requests to be sent later.
    pub later: Vec<(Instant, Request)>,
    /// Not reading until then.
    pub paused_until: Option<Instant>,
    /// Bytes read since the last pause of one that reads slowly.
    pub read_bytes: usize,
    /// The server should have closed by then.
    pub fence_until: Option<Instant>,
    /// When to come back, as told.
    pub told: Option<Duration>,
}

/// What a turn of the loop is about.
enum Woken {
    Socket(Turn),
    Publish,
    Timer,
    Phase,
}

impl PlainConnection {
    fn new(conn: u32) -> Self {
        Self {
            conn,
            requests: VecDeque::new(),
            asked: HashMap::new(),
            last_request: 0,
            later: Vec::new(),
            paused_until: None,
            read_bytes: 0,
            fence_until: None,
            told: None,
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let later = self.later.iter().map(|(at, _)| *at);
        later.chain(self.paused_until).chain(self.fence_until).min()
    }

    /// The server refused a publish with `retry:true`.
    pub(super) fn fenced(&mut self) {
        self.fence_until.get_or_insert(Instant::now() + FENCE_WAIT);
    }

    /// The server said when to come back, or not to.
    pub(super) fn told(&mut self, reconnect: bool, reconnect_ms: Option<u64>) {
        self.told = if reconnect { reconnect_ms.map(Duration::from_millis) } else { Some(UNWANTED) };
    }

    pub(super) fn again_later(&mut self, room: String) {
        self.later.push((Instant::now() + SUB_AGAIN, Request::Sub(room)));
    }
}

impl PlainClient {
    /// Until it ends.
    pub(super) async fn run_connection(
        &mut self,
        mut socket: Socket,
        url: String,
        welcome: WelcomeFrame,
    ) -> ConnectionEnd {
        let mut connection = self.welcomed(url, welcome);
        let mut look = interval(LOOK);
        loop {
            self.note_gathered(&connection);
            let phase = self.shared.phase();
            if let Some(ended) = self.on_phase(phase, &mut connection) {
                return self.leave(socket, &connection, ended).await;
            }
            let write = !connection.requests.is_empty() || self.resends.next().is_some();
            // A client that stops reading still writes: its publishes must not stop with it.
            let read = connection.paused_until.is_none();
            let timer = connection.next_timer().into_iter().chain(self.behaviour.next_timer()).min();
            let ticks = self.ticks.as_mut().filter(|_| phase == LoadPhase::Run);
            let woken = tokio::select! {
                // The phase and timers first: a socket that always has something would starve them.
                biased;
                () = self.shared.leaves(phase), if phase < LoadPhase::End => Woken::Phase,
                () = at(timer) => Woken::Timer,
                _ = look.tick() => Woken::Timer,
                () = tick(ticks) => Woken::Publish,
                turn = socket.turn(write, read) => Woken::Socket(turn),
            };
            let ended = match woken {
                Woken::Phase => {
                    let back = connection.later.drain(..).map(|(_, request)| request);
                    connection.requests.extend(back);
                    None
                }
                Woken::Timer => self.on_time(&mut connection),
                Woken::Publish => {
                    self.publish();
                    None
                }
                Woken::Socket(Turn::Writable) => {
                    self.put(&mut socket, &mut connection);
                    None
                }
                Woken::Socket(Turn::Text(text)) => self.on_text(&text, &mut connection),
                Woken::Socket(Turn::Close(code, reason)) => {
                    // Written down before the answer to the close goes out: that may take two seconds.
                    self.end_of(&connection, code, &reason);
                    socket.see_off().await;
                    return ConnectionEnd::Lost(connection.told);
                }
                Woken::Socket(Turn::Broken(reason)) => {
                    self.end_of(&connection, None, &reason);
                    return ConnectionEnd::Lost(connection.told);
                }
            };
            if let Some(ended) = ended {
                return self.leave(socket, &connection, ended).await;
            }
        }
    }

    /// What comes first on a new connection.
    fn welcomed(&mut self, url: String, welcome: WelcomeFrame) -> PlainConnection {
        let mut connection = PlainConnection::new(self.recorder.moved(url, welcome.instance, welcome.epoch));
        self.recorder.state.come_back();
        self.resends.opened();
        // First of all requests: what is published before its `sub` would come by history only.
        let rooms = self.recorder.state.wanted();
        connection.requests.extend(rooms.into_iter().map(|(room, _)| Request::Sub(room)));
        connection
    }

    fn note_gathered(&mut self, connection: &PlainConnection) {
        if !self.gathered && connection.requests.is_empty() && self.recorder.state.is_live() {
            self.gathered = true;
            self.shared.one_is_ready();
        }
    }

    fn on_phase(&mut self, phase: LoadPhase, connection: &mut PlainConnection) -> Option<ConnectionEnd> {
        if phase == LoadPhase::Run && self.ticks.is_none() {
            self.ticks = pace(self.spec.rate_per_s, self.spec.phase);
            self.behaviour.begin(&self.spec, &mut self.rng);
        }
        // From here on nobody is away on purpose, or the judge would miss what came meanwhile.
        if phase >= LoadPhase::Quiet {
            self.ticks = None;
            self.behaviour.end();
            self.read_on(connection);
        }
        if phase >= LoadPhase::Settle {
            let gone = self.resends.give_up_all();
            self.give_up(gone);
        }
        (phase == LoadPhase::End).then_some(ConnectionEnd::End)
    }

    fn publish(&mut self) {
        let message = self.generator.generate(self.shared.clock.now_us());
        let n = message.n;
        self.resends.take(message);
        if self.spec.role == ClientRole::Resender && self.rng.random_ratio(1, ECHO_IN) {
            self.resends.echo(n);
        }
    }

    /// Puts one frame on the wire: a request, else a publish.
    fn put(&mut self, socket: &mut Socket, connection: &mut PlainConnection) {
        let conn = connection.conn;
        // Subscriptions first: what is published may come back only to who is subscribed.
        let text = if let Some(request) = connection.requests.pop_front() {
            connection.last_request += 1;
            let text = self.request(conn, connection.last_request, &request);
            connection.asked.insert(connection.last_request, request);
            text
        } else {
            let Some((message, first)) = self.resends.next().and_then(|n| self.resends.message(n)) else {
                return;
            };
            let (n, text) = (message.n, frame::publish(message));
            // Stamped before the bytes leave: nobody can have it earlier than its record says.
            let now_us = self.recorder.sends(conn, message, first);
            self.resends.sent(n, conn, now_us);
            text
        };
        socket.put(text).ok(); // what broke shows at the next turn
    }

    fn request(&self, conn: u32, id: u64, request: &Request) -> String {
        match request {
            Request::Sub(room) => {
                let held = self.recorder.state.held(room).unwrap_or_default();
                let epoch = held.last.is_some().then_some(held.epoch);
                let frame = match (held.last, &epoch) {
                    (Some(after), Some(epoch)) => json!({"sub": room, "after": after, "epoch": epoch}),
                    (_, _) => json!({"sub": room}),
                };
                self.recorder.note(&ClientEvent::Sub { conn, room: room.clone(), after: held.last, epoch });
                frame::request(id, frame)
            }
            Request::Unsub(room) => frame::request(id, json!({"unsub": room})),
            Request::History(room, None) => frame::request(id, json!({"history": room, "limit": 100})),
            Request::History(room, Some(before)) => {
                frame::request(id, json!({"history": room, "before": before, "limit": 100}))
            }
        }
    }

    fn on_text(&mut self, text: &str, connection: &mut PlainConnection) -> Option<ConnectionEnd> {
        match ServerFrame::parse(text) {
            Ok(frame) => self.on_frame(frame, connection),
            Err(message) => {
                let code = "unreadable".to_owned();
                self.recorder.note(&ClientEvent::Error { conn: connection.conn, code, message });
                return Some(ConnectionEnd::Lost(None));
            }
        }
        self.reads_slowly(connection, text.len());
        None
    }

    fn on_time(&mut self, connection: &mut PlainConnection) -> Option<ConnectionEnd> {
        let now = Instant::now();
        let overdue = self.resends.give_up_before(self.shared.minute_ago_us());
        self.give_up(overdue);
        if connection.paused_until.is_some_and(|until| until <= now) {
            self.read_on(connection);
        }
        for (_, request) in connection.later.extract_if(.., |(at, _)| *at <= now) {
            connection.requests.push_back(request);
        }
        // A gateway that fences and never says `bye` would hold this client for ever.
        if connection.fence_until.is_some_and(|until| until <= now) {
            let message = format!("no bye within {FENCE_WAIT:?} of retry:true");
            self.recorder.note(&ClientEvent::Error { conn: connection.conn, code: "no_bye".into(), message });
            return Some(ConnectionEnd::Lost(None));
        }
        self.on_behaviour(connection, now)
    }

    /// The client itself ends the connection.
    async fn leave(
        &mut self,
        socket: Socket,
        connection: &PlainConnection,
        ended: ConnectionEnd,
    ) -> ConnectionEnd {
        let kindly = match ended {
            ConnectionEnd::End => true,
            ConnectionEnd::Left => self.behaviour.says_goodbye(),
            ConnectionEnd::Lost(_) => false,
        };
        if kindly {
            socket.goodbye().await;
        } else {
            drop(socket);
        }
        self.end_of(connection, OWN_WISH, if kindly { "goodbye" } else { "cut" });
        ended
    }

    fn end_of(&mut self, connection: &PlainConnection, code: Option<u16>, reason: &str) {
        if connection.paused_until.is_some() {
            self.recorder.note(&ClientEvent::Unpaused { conn: connection.conn });
        }
        self.recorder.closed(connection.conn, code, reason);
        let gone = self.resends.closed();
        self.give_up(gone);
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
