//! The clients without their sockets: what each makes of what it hears, and when it comes back.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{Client, Connection, Room, Stage};
use super::timers::{Timer, Timers};
use super::{Event, Gateway, Witness};
use crate::comeback::Comeback;
use crate::frame;
use crate::server_frame::{ServerFrame, WelcomeFrame};
use crate::socket::Gone;

/// A subscription that could not be served is asked for again after this.
const SUB_AGAIN: Duration = Duration::from_millis(500);
/// Before coming back to a server that said not to: the load goes on all the same.
const UNWANTED: Duration = Duration::from_secs(2);

/// What must be done to a socket.
pub(super) enum Todo {
    Goodbye(usize),
    Drop(usize, String),
}

pub(super) struct People {
    clients: Vec<Client>,
    names: HashMap<Box<str>, Rc<str>>,
    rng: SmallRng,
    serials: u64,
    pub timers: Timers,
    pub todo: Vec<Todo>,
    /// Clients that have not connected yet.
    pub waiting: VecDeque<usize>,
    /// Connections that are not welcomed yet.
    pub greeting: usize,
    pub live: usize,
    pub gaps: u64,
    /// How many gateways there are.
    pub gateways: usize,
    has_left: bool,
}

impl People {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            clients: Vec::new(),
            names: HashMap::new(),
            rng: SmallRng::seed_from_u64(seed),
            serials: 0,
            timers: Timers::default(),
            todo: Vec::new(),
            waiting: VecDeque::new(),
            greeting: 0,
            live: 0,
            gaps: 0,
            gateways: 0,
            has_left: false,
        }
    }

    pub(super) fn join(&mut self, user: &str, rooms: &[String]) -> usize {
        let number = self.clients.len();
        let rooms = rooms.iter().map(|room| Room { name: self.name(room), at: None }).collect();
        self.clients.push(Client {
            user: user.into(),
            rooms,
            token: None,
            turn: number,
            comeback: Comeback::default(),
            conns: 0,
            due: None,
            coming: None,
            current: None,
            url: None,
            former: None,
            is_live: false,
        });
        self.waiting.push_back(number);
        number
    }

    /// One copy of each name, however many clients know it.
    fn name(&mut self, name: &str) -> Rc<str> {
        if let Some(known) = self.names.get(name) {
            return Rc::clone(known);
        }
        let shared: Rc<str> = name.into();
        self.names.insert(name.into(), Rc::clone(&shared));
        shared
    }

    /// Nobody comes back any more; the connections that are open.
    pub(super) fn depart(&mut self) -> Vec<usize> {
        self.has_left = true;
        self.waiting.clear();
        let open = |client: &Client| [client.coming, client.former, client.current].into_iter().flatten();
        self.clients.iter().flat_map(open).collect()
    }

    pub(super) fn spread(&mut self, within: Duration, gateways: &[Gateway]) {
        for number in 0..self.clients.len() {
            // Only who stands still: one that is on its way arrives somewhere by itself.
            let client = &mut self.clients[number];
            if client.due.is_none() && client.coming.is_none() && !is_at_home(number, client, gateways) {
                client.turn = number;
                let pause = within.mul_f64(self.rng.random());
                self.comes_back(number, pause);
            }
        }
    }

    pub(super) fn at_home(&self, gateways: &[Gateway]) -> usize {
        let clients = self.clients.iter().enumerate();
        clients.filter(|(number, client)| is_at_home(*number, client, gateways)).count()
    }

    pub(super) fn is_due(&mut self, client: usize, at: Instant) -> bool {
        let client = &mut self.clients[client];
        // By the very time: timers are never cancelled, and an older one means nothing.
        !self.has_left && client.coming.is_none() && client.due.take_if(|due| *due == at).is_some()
    }

    /// Where a client connects next, and who it is.
    pub(super) fn next_gateway<'a>(
        &mut self,
        client: usize,
        gateways: &'a [Gateway],
    ) -> Option<(&'a Gateway, &str)> {
        let client = &mut self.clients[client];
        let gateway = gateways.get(client.turn % gateways.len().max(1))?;
        client.turn += 1;
        Some((gateway, &client.user))
    }

    pub(super) fn token_of(&self, client: usize) -> Option<String> {
        self.clients[client].token.as_deref().map(str::to_owned)
    }

    pub(super) fn connection(&mut self, client: usize, url: &str) -> Connection {
        self.serials += 1;
        let (serial, url) = (self.serials, self.name(url));
        let (stage, next, told) = (Stage::Greeting, Box::default(), None);
        Connection { client, serial, stage, conn: 0, url, next, unanswered: 0, told, said_bye: false }
    }

    pub(super) fn dialled(&mut self, client: usize, key: usize) {
        self.clients[client].coming = Some(key);
        self.greeting += 1;
    }

    /// An attempt failed; the next one comes later.
    pub(super) fn failed(&mut self, number: usize, retry_after_s: Option<u64>) {
        let (random, spread) = (self.rng.random(), self.rng.random());
        let client = &mut self.clients[number];
        client.comeback.failed();
        if let Some(after_s) = retry_after_s {
            // Its turn went on to the next one when it was dialled.
            let refused = client.turn.wrapping_sub(1) % self.gateways.max(1);
            client.comeback.refused(refused, after_s, Instant::now(), spread);
        }
        let pause = client.comeback.pause(None, self.gateways, random);
        self.comes_back(number, pause);
    }

    fn comes_back(&mut self, number: usize, pause: Duration) {
        if !self.has_left {
            let client = &mut self.clients[number];
            let (turn, at) = client.comeback.choose(client.turn, self.gateways, Instant::now() + pause);
            (client.turn, client.due) = (turn, Some(at));
            self.timers.add(at, Timer::Dial(number));
        }
    }

    pub(super) fn on_text(
        &mut self,
        key: usize,
        connection: &mut Connection,
        out: &mut Vec<u8>,
        text: &[u8],
        witness: &mut impl Witness,
    ) {
        // It has said goodbye: what was on its way belongs to nobody.
        if connection.stage == Stage::Leaving {
            return;
        }
        let text = String::from_utf8_lossy(text);
        let frame = match ServerFrame::parse(&text) {
            Ok(frame) => frame,
            Err(reason) => return self.todo.push(Todo::Drop(key, reason)),
        };
        match (&frame.welcome, connection.stage) {
            (Some(welcome), Stage::Greeting) => self.welcomed(key, connection, welcome, out, witness),
            (None, Stage::Greeting) => {
                let reason = frame.error.map_or_else(|| text.to_string(), |error| error.message);
                self.todo.push(Todo::Drop(key, reason));
            }
            _ => self.on_frame(key, connection, &frame, witness),
        }
    }

    fn welcomed(
        &mut self,
        key: usize,
        connection: &mut Connection,
        welcome: &WelcomeFrame,
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) {
        self.greeting -= 1;
        let client = &mut self.clients[connection.client];
        client.comeback.connected();
        client.conns += 1;
        client.coming = None;
        // A third connection beside two is a move that was overtaken: the oldest is still to be left.
        client.former = client.current.replace(key).or(client.former);
        client.url = Some(Rc::clone(&connection.url));
        if let Some(token) = &welcome.token {
            client.token = Some(token.as_str().into());
        }
        // Until its rooms are answered here it misses what comes over the former connection only.
        self.live -= usize::from(std::mem::replace(&mut client.is_live, false));
        (connection.conn, connection.stage) = (client.conns, Stage::Welcomed);
        connection.next = vec![0; client.rooms.len()].into();
        connection.unanswered = client.rooms.len();
        let (instance, epoch) = (welcome.instance.as_str(), welcome.epoch.as_str());
        let event = Event::Welcomed { conn: client.conns, url: &connection.url, instance, epoch };
        witness.see(connection.client, event);
        for place in 0..connection.next.len() {
            self.ask(connection, place, out, witness);
        }
    }

    pub(super) fn ask(
        &self,
        connection: &Connection,
        place: usize,
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) {
        let Some(room) = self.clients[connection.client].rooms.get(place) else { return };
        let (after, epoch) = room.at.as_ref().map(|(after, epoch)| (*after, &**epoch)).unzip();
        let request = match (after, epoch) {
            (Some(after), Some(epoch)) => {
                json!({"sub": &*room.name, "after": after, "epoch": epoch, "id": place})
            }
            (_, _) => json!({"sub": &*room.name, "id": place}),
        };
        let (conn, room) = (connection.conn, &*room.name);
        witness.see(connection.client, Event::Asked { conn, room, after, epoch });
        frame::client_frame(out, frame::TEXT, request.to_string().as_bytes());
    }

    fn on_frame(
        &mut self,
        key: usize,
        connection: &mut Connection,
        frame: &ServerFrame<'_>,
        witness: &mut impl Witness,
    ) {
        let place = frame.id.map(RawValue::get).and_then(|id| id.parse::<usize>().ok());
        let place = place.filter(|place| *place < connection.next.len());
        let conn = connection.conn;
        witness.see(connection.client, Event::Frame { conn, frame, is_answer: place.is_some() });
        if let Some(room) = &frame.msg {
            self.reached(connection, room, frame.seq.unwrap_or_default(), true);
        } else if let Some(room) = &frame.skipped {
            self.reached(connection, room, frame.to.unwrap_or_default(), false);
        } else if let Some(drain) = &frame.drain {
            let pause = Duration::from_millis(drain.reconnect_ms);
            connection.told = Some(pause);
            let client = &self.clients[connection.client];
            // Not the former connection's: its client has moved already.
            if client.current == Some(key) && client.due.is_none() && client.coming.is_none() {
                self.comes_back(connection.client, pause);
            }
        } else if let Some(bye) = &frame.bye {
            let told = bye.reconnect_ms.map(Duration::from_millis);
            connection.said_bye = true;
            // `bye` counts more than `drain`; without a time of its own the one of `drain` stands.
            connection.told = if bye.reconnect { told.or(connection.told) } else { Some(UNWANTED) };
        } else if let (Some(error), Some(place)) = (&frame.error, place) {
            let pause = if error.retry { SUB_AGAIN } else { UNWANTED };
            self.timers.add(Instant::now() + pause, Timer::Sub(key, connection.serial, place));
        } else if frame.ok.as_deref() == Some("sub") {
            self.subscribed(key, connection, frame, place, witness);
        }
    }

    fn subscribed(
        &mut self,
        key: usize,
        connection: &mut Connection,
        frame: &ServerFrame<'_>,
        place: Option<usize>,
        witness: &mut impl Witness,
    ) {
        let epoch = self.name(frame.epoch.as_deref().unwrap_or_default());
        let client = &mut self.clients[connection.client];
        let named = |room: &Room| frame.room.as_deref() == Some(&*room.name);
        let Some(place) = place.or_else(|| client.rooms.iter().position(named)) else { return };
        let after = frame.after.unwrap_or_default();
        // News of another epoch come the same way, and answer nothing.
        let is_first = connection.next[place] == 0;
        connection.next[place] = after + 1;
        client.rooms[place].at = Some((after, epoch));
        connection.unanswered -= usize::from(is_first);
        if is_first && connection.unanswered == 0 && client.current == Some(key) {
            client.is_live = true;
            self.live += 1;
            // Only now: before the last room is answered the former one is the only one that is whole.
            self.todo.extend(client.former.map(Todo::Goodbye));
            witness.see(connection.client, Event::Live);
        }
    }

    /// Everything up to `seq` has come, or is gone.
    fn reached(&mut self, connection: &mut Connection, room: &str, seq: u64, is_next: bool) {
        let rooms = &mut self.clients[connection.client].rooms;
        let Some(place) = rooms.iter().position(|known| &*known.name == room) else { return };
        self.gaps += u64::from(is_next && connection.next[place] != seq);
        connection.next[place] = seq + 1;
        if let Some((at, _)) = &mut rooms[place].at {
            *at = seq.max(*at); // two connections bring the same for a moment
        }
    }

    /// The client ends a connection by itself.
    pub(super) fn leaves(&mut self, key: usize, connection: &mut Connection, witness: &mut impl Witness) {
        let stage = std::mem::replace(&mut connection.stage, Stage::Leaving);
        let is_current = self.forget(key, connection.client, stage);
        if stage == Stage::Welcomed {
            let (conn, reason) = (connection.conn, "goodbye".to_owned());
            witness.see(connection.client, Event::Closed { conn, code: Some(1000), reason, is_current });
        }
    }

    /// A connection ended by itself.
    pub(super) fn gone(
        &mut self,
        key: usize,
        connection: &Connection,
        gone: &Gone,
        witness: &mut impl Witness,
    ) {
        let number = connection.client;
        match connection.stage {
            Stage::Leaving => {}
            Stage::Greeting => {
                self.forget(key, number, Stage::Greeting);
                witness.see(number, Event::Failed { url: &connection.url, reason: gone.to_string() });
                let retry_after_s = match gone {
                    Gone::Refused { retry_after_s, .. } => *retry_after_s,
                    Gone::Closed(..) | Gone::Broken(_) => None,
                };
                self.failed(number, retry_after_s);
            }
            Stage::Welcomed => {
                let is_current = self.forget(key, number, Stage::Welcomed);
                let (conn, code) = match gone {
                    Gone::Closed(code, _) => (connection.conn, Some(*code)),
                    Gone::Refused { .. } | Gone::Broken(_) => (connection.conn, None),
                };
                let reason = gone.to_string();
                witness.see(number, Event::Closed { conn, code, reason, is_current });
                let client = &self.clients[number];
                // One that `drain` has sent on its way keeps its time, unless the last words said another.
                if is_current && client.coming.is_none() && (client.due.is_none() || connection.said_bye) {
                    let random = self.rng.random();
                    let pause = client.comeback.pause(connection.told, self.gateways, random);
                    self.comes_back(number, pause);
                }
            }
        }
    }

    /// Whether it was the connection that is used.
    fn forget(&mut self, key: usize, client: usize, stage: Stage) -> bool {
        let client = &mut self.clients[client];
        client.coming.take_if(|coming| *coming == key);
        client.former.take_if(|former| *former == key);
        let is_current = client.current.take_if(|current| *current == key).is_some();
        if is_current {
            self.live -= usize::from(std::mem::replace(&mut client.is_live, false));
        }
        self.greeting -= usize::from(stage == Stage::Greeting);
        is_current
    }
}

/// Whether it is at the gateway that its number gives it.
fn is_at_home(number: usize, client: &Client, gateways: &[Gateway]) -> bool {
    let home = gateways.get(number % gateways.len().max(1)).map(|gateway| gateway.url.as_str());
    client.current.is_some() && client.is_live && client.url.as_deref() == home
}

#[cfg(test)]
mod tests;
