//! One connection of a plain client, from its `welcome` to its end: subscriptions first, then what is unanswered, then
//! what is new, while everything that comes is written down.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use sluice_checker::record::What;
use tokio::time::{Instant, Interval, interval, sleep_until};

use super::super::diary::OWN_WISH;
use super::super::pace::pace;
use super::super::plan::Role;
use super::super::world::Phase;
use super::heard::{self, Heard, Welcome};
use super::socket::{Socket, Turn};
use super::{Ended, Plain, UNWANTED};

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
pub(super) struct Visit {
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

impl Visit {
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

impl Plain {
    /// Until it ends.
    pub(super) async fn visit(&mut self, mut socket: Socket, url: String, welcome: Welcome) -> Ended {
        let conn = self.diary.moved(url, welcome.instance, welcome.epoch);
        let mut visit = Visit::new(conn);
        self.diary.standing.come_back();
        self.ledger.opened();
        let rooms = self.diary.standing.wanted();
        visit.requests.extend(rooms.into_iter().map(|(room, _)| Request::Sub(room)));
        let mut look = interval(LOOK);
        loop {
            self.note_gathered(&visit);
            let phase = self.world.phase();
            if let Some(ended) = self.on_phase(phase, &mut visit) {
                return self.leave(socket, &visit, ended).await;
            }
            let write = !visit.requests.is_empty() || self.ledger.next().is_some();
            let read = visit.paused_until.is_none();
            let timer = visit.next_timer().into_iter().chain(self.habits.next_timer()).min();
            let ticks = self.ticks.as_mut().filter(|_| phase == Phase::Run);
            let woken = tokio::select! {
                biased;
                () = self.world.leaves(phase), if phase < Phase::End => Woken::Phase,
                () = at(timer) => Woken::Timer,
                _ = look.tick() => Woken::Timer,
                () = tick(ticks) => Woken::Publish,
                turn = socket.turn(write, read) => Woken::Socket(turn),
            };
            let ended = match woken {
                Woken::Phase => {
                    let back = visit.later.drain(..).map(|(_, request)| request);
                    visit.requests.extend(back);
                    None
                }
                Woken::Timer => self.on_time(&mut visit),
                Woken::Publish => {
                    self.publish();
                    None
                }
                Woken::Socket(Turn::Writable) => {
                    self.put(&mut socket, &mut visit);
                    None
                }
                Woken::Socket(Turn::Text(text)) => self.on_text(&text, &mut visit),
                Woken::Socket(Turn::Close(code, reason)) => {
                    self.end_of(&visit, code, &reason);
                    socket.see_off().await;
                    return Ended::Lost(visit.told);
                }
                Woken::Socket(Turn::Broken(reason)) => {
                    self.end_of(&visit, None, &reason);
                    return Ended::Lost(visit.told);
                }
            };
            if let Some(ended) = ended {
                return self.leave(socket, &visit, ended).await;
            }
        }
    }

    fn note_gathered(&mut self, visit: &Visit) {
        if !self.gathered && visit.requests.is_empty() && self.diary.standing.is_live() {
            self.gathered = true;
            self.world.one_is_ready();
        }
    }

    fn on_phase(&mut self, phase: Phase, visit: &mut Visit) -> Option<Ended> {
        if phase == Phase::Run && self.ticks.is_none() {
            self.ticks = pace(self.part.rate_per_s, self.part.phase);
            self.habits.begin(&self.part, &mut self.rng);
        }
        if phase >= Phase::Quiet {
            self.ticks = None;
            self.habits.end();
            self.read_on(visit);
        }
        if phase >= Phase::Settle {
            let gone = self.ledger.give_up_all();
            self.give_up(gone);
        }
        (phase == Phase::End).then_some(Ended::End)
    }

    fn publish(&mut self) {
        let letter = self.pen.write(self.world.clock.now_us());
        let n = letter.n;
        self.ledger.take(letter);
        if self.part.role == Role::Resender && self.rng.random_ratio(1, ECHO_IN) {
            self.ledger.echo(n);
        }
    }

    /// Puts one frame on the wire: a request, else a publish.
    fn put(&mut self, socket: &mut Socket, visit: &mut Visit) {
        let conn = visit.conn;
        let text = if let Some(request) = visit.requests.pop_front() {
            visit.last_request += 1;
            let text = self.request(conn, visit.last_request, &request);
            visit.asked.insert(visit.last_request, request);
            text
        } else {
            let Some((letter, first)) = self.ledger.next().and_then(|n| self.ledger.letter(n)) else {
                return;
            };
            let (n, text) = (letter.n, heard::publish(letter));
            let now_us = self.diary.sends(conn, letter, first);
            self.ledger.sent(n, conn, now_us);
            text
        };
        socket.put(text).ok(); // what broke shows at the next turn
    }

    fn request(&self, conn: u32, id: u64, request: &Request) -> String {
        match request {
            Request::Sub(room) => {
                let held = self.diary.standing.held(room).unwrap_or_default();
                let epoch = held.last.is_some().then_some(held.epoch);
                let frame = match (held.last, &epoch) {
                    (Some(after), Some(epoch)) => json!({"sub": room, "after": after, "epoch": epoch}),
                    (_, _) => json!({"sub": room}),
                };
                self.diary.note(&What::Sub { conn, room: room.clone(), after: held.last, epoch });
                heard::request(id, frame)
            }
            Request::Unsub(room) => heard::request(id, json!({"unsub": room})),
            Request::History(room, None) => heard::request(id, json!({"history": room, "limit": 100})),
            Request::History(room, Some(before)) => {
                heard::request(id, json!({"history": room, "before": before, "limit": 100}))
            }
        }
    }

    fn on_text(&mut self, text: &str, visit: &mut Visit) -> Option<Ended> {
        match Heard::parse(text) {
            Ok(heard) => self.on_heard(heard, visit),
            Err(message) => {
                let code = "unreadable".to_owned();
                self.diary.note(&What::Error { conn: visit.conn, code, message });
                return Some(Ended::Lost(None));
            }
        }
        self.reads_slowly(visit, text.len());
        None
    }

    fn on_time(&mut self, visit: &mut Visit) -> Option<Ended> {
        let now = Instant::now();
        let overdue = self.ledger.give_up_before(self.world.minute_ago_us());
        self.give_up(overdue);
        if visit.paused_until.is_some_and(|until| until <= now) {
            self.read_on(visit);
        }
        for (_, request) in visit.later.extract_if(.., |(at, _)| *at <= now) {
            visit.requests.push_back(request);
        }
        if visit.fence_until.is_some_and(|until| until <= now) {
            let message = format!("no bye within {FENCE_WAIT:?} of retry:true");
            self.diary.note(&What::Error { conn: visit.conn, code: "no_bye".into(), message });
            return Some(Ended::Lost(None));
        }
        self.on_habit(visit, now)
    }

    /// The client itself ends the connection.
    async fn leave(&mut self, socket: Socket, visit: &Visit, ended: Ended) -> Ended {
        let kindly = match ended {
            Ended::End => true,
            Ended::Left => self.habits.says_goodbye(),
            Ended::Lost(_) => false,
        };
        if kindly {
            socket.goodbye().await;
        } else {
            drop(socket);
        }
        self.end_of(visit, OWN_WISH, if kindly { "goodbye" } else { "cut" });
        ended
    }

    fn end_of(&mut self, visit: &Visit, code: Option<u16>, reason: &str) {
        if visit.paused_until.is_some() {
            self.diary.note(&What::Unpaused { conn: visit.conn });
        }
        self.diary.closed(visit.conn, code, reason);
        let gone = self.ledger.closed();
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
