//! The world of the model: gateways with the real machines, calls that are lost, late or executed by a
//! frozen logic, and a store. What clients were told is held against it in [`verdict`]. Tests only.

mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::grpc::{self, PublishReply, PublishRequest, PublishResult};
use sluice_proto::ids::{Epoch, InstanceId, SessionId, UserId, lane_of};
use sluice_proto::wire::WireLimits;

use super::Mutant;
use super::client::{Client, Known, Planned};
use sluice_gateway::address::Address;
use sluice_gateway::ending::Ending;
use sluice_gateway::rules::Rules;
use sluice_gateway::session::grants::Grants;
use sluice_gateway::session::machine::{Identity, Session, SessionLimits, Sink, WelcomeFacts};
use sluice_gateway::session::todo::Todo;
use sluice_gateway::uplink::lane::{CallFailed, Lane, LaneLimits};
use sluice_gateway::uplink::{Answered, Link, Outcome, Publish};

const ROOMS: [&str; 3] = ["a", "b", "news"];
const STEPS: usize = 160;
/// Far beyond every horizon: what is not resolved by then is stuck.
const QUIET_STEPS: usize = 4_000;

#[derive(Default)]
struct Frames(Vec<String>);

impl Sink for Frames {
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.0.push(String::from_utf8(bytes).expect("UTF-8"));
    }
}

struct Connection {
    session: Session,
    client: usize,
    open: bool,
    inbox: Vec<String>,
    waiting: Vec<Publish>,
    /// With [`Mutant::NoFenceWhenClosed`] each publish has a mark of its own, and only an open connection
    /// marks all of them.
    links: Vec<Arc<Link>>,
}

struct Gateway<R> {
    lanes: HashMap<u8, Lane<R>>,
    connections: Vec<Connection>,
    draining: bool,
    incarnation: u64,
}

struct ModelCall {
    gateway: usize,
    incarnation: u64,
    lane: u8,
    number: u64,
    request: PublishRequest,
    reply: Option<PublishReply>,
}

pub(super) struct World<R> {
    random: u64,
    mutant: Option<Mutant>,
    start: Instant,
    now_ms: u64,
    gateways: Vec<Gateway<R>>,
    clients: Vec<Client>,
    calls: Vec<ModelCall>,
    store: HashMap<String, Vec<(String, String, bytes::Bytes)>>,
    broken: Option<String>,
}

fn limits() -> LaneLimits {
    LaneLimits {
        queue_items_max: 3,
        queue_bytes_max: 10_000,
        locked_horizon: Duration::from_millis(1_500),
        horizon: Duration::from_millis(500),
        try_for: Duration::from_millis(100),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(40),
        scheduled_max: 0,
    }
}

impl<R: Rules> World<R> {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            mutant,
            start: Instant::now(),
            now_ms: 0,
            gateways: Vec::new(),
            clients: Vec::new(),
            calls: Vec::new(),
            store: HashMap::new(),
            broken: None,
        };
        world.gateways = (0..2).map(|_| world.fresh_gateway(0)).collect();
        world.clients = (0..3).map(|n| world.fresh_client(n)).collect();
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.draw(below as u64)).expect("small")
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn fresh_gateway(&self, incarnation: u64) -> Gateway<R> {
        let lanes = ROOMS.iter().map(|room| (lane_of(room), Lane::with_rules(limits()))).collect();
        Gateway { lanes, connections: Vec::new(), draining: false, incarnation }
    }

    fn fresh_client(&mut self, n: usize) -> Client {
        let plan = (0..8)
            .map(|_| Planned {
                room: ROOMS[self.pick(if n == 0 { 1 } else { ROOMS.len() })],
                keyed: self.draw(4) > 0,
                poison: self.draw(10) == 0,
                known: Known::Unsent,
            })
            .collect();
        Client { name: format!("u{n}"), plan, connection: None, resend: Vec::new(), broken: None }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn wall_ms(&self) -> i64 {
        i64::try_from(self.now_ms).expect("small")
    }

    /// One schedule; what was broken, if anything.
    pub(super) fn run(mut self) -> Option<String> {
        for _ in 0..STEPS {
            self.step(true);
        }
        for _ in 0..QUIET_STEPS {
            if self.clients.iter().all(Client::finished) {
                break;
            }
            self.step(false);
        }
        self.verdict()
    }

    fn step(&mut self, faults: bool) {
        match self.draw(if faults { 20 } else { 14 }) {
            0..3 => self.client_sends(),
            3..6 => self.gateway_reads(),
            6..8 => self.lane_turns(),
            8..10 => self.logic_executes(false),
            10..12 => self.reply_arrives(),
            12 => self.now_ms += self.draw(if faults { 300 } else { 200 }),
            13 => self.client_connects(),
            14 | 17 => self.call_fails(CallFailed::Unknown),
            15 => self.call_fails(CallFailed::NotSent),
            16 => self.connection_cut(),
            18 if self.draw(3) == 0 => self.gateway_drains(),
            18 if self.draw(4) == 0 => self.gateway_ends(),
            19 => self.logic_executes(true),
            _ => self.client_sends(),
        }
        self.settle();
    }

    fn client_connects(&mut self) {
        let n = self.pick(self.clients.len());
        if self.clients[n].connection.is_some() {
            return;
        }
        let gateway = self.pick(self.gateways.len());
        if self.gateways[gateway].draining {
            return;
        }
        if self.has(Mutant::NewIdentity) {
            self.clients[n].name.push('+');
        }
        let slot = self.gateways[gateway].connections.len();
        let session = if self.has(Mutant::MintedAgain) { n as u128 } else { u128::from(self.draw(u64::MAX)) };
        let address = Address { shard: 0, slot: u32::try_from(slot).expect("small"), generation: 0 };
        let link = Link::new(SessionId(session), address);
        let limits = SessionLimits {
            unanswered_max: 6,
            unanswered_bytes_max: 10_000,
            bad_frames_max: 10,
            not_after_ms: 60_000,
            expiring_ms: 0,
        };
        let mut session = Session::new(link, Arc::new(limits));
        let grants = Grants::from(grpc::Grants { sub: vec![], r#pub: vec!["*".into()] });
        let user = UserId::parse(&self.clients[n].name).expect("valid");
        let identity = Identity {
            user,
            grants,
            anonymous: false,
            token: None,
            expires_at_ms: None,
            issued_at_s: None,
            info: None,
        };
        session.identified(Ok(identity), false, &greeting(), &mut Frames::default());
        let inbox = Vec::new();
        self.gateways[gateway].connections.push(Connection {
            session,
            client: n,
            open: true,
            inbox,
            waiting: vec![],
            links: Vec::new(),
        });
        self.clients[n].connected(gateway, slot);
    }

    fn client_sends(&mut self) {
        let n = self.pick(self.clients.len());
        let Some((gateway, slot)) = self.clients[n].connection else { return };
        if let Some(frame) = self.clients[n].next(self.mutant) {
            self.gateways[gateway].connections[slot].inbox.push(frame);
        }
    }

    fn gateway_reads(&mut self) {
        let gateway = self.pick(self.gateways.len());
        let count = self.gateways[gateway].connections.len();
        if count == 0 {
            return;
        }
        let (slot, wall_ms, differ) = (self.pick(count), self.wall_ms(), self.has(Mutant::LimitsDiffer));
        let overload = self.has(Mutant::OverloadRefused);
        let connection = &mut self.gateways[gateway].connections[slot];
        let wants = connection.session.wants_frames() && connection.waiting.is_empty();
        if connection.inbox.is_empty() || (!wants && !overload) {
            return;
        }
        let frame = connection.inbox.remove(0);
        let mut out = Frames::default();
        if let Todo::Publish(publish) = connection.session.on_text(&frame, wall_ms, &mut out) {
            // Gateway 1 finds long keys too long, gateway 0 does not.
            let refused = (overload && !wants) || (differ && gateway == 1 && publish.key.as_str() == "k1");
            if refused {
                let outcome = Outcome::Refused {
                    code: sluice_proto::wire::ErrorCode::BadRequest,
                    message: String::new(),
                };
                connection.session.answered(&Answered { publish, outcome }, &mut out);
            } else {
                connection.waiting.push(publish);
            }
        }
        self.deliver(gateway, slot, out);
        self.lanes_take(gateway, slot);
    }

    /// Hands what waits for space to its lane.
    fn lanes_take(&mut self, gateway: usize, slot: usize) {
        let mut answers = Vec::new();
        let forget = self.has(Mutant::WaitingForgotten);
        let Gateway { lanes, connections, .. } = &mut self.gateways[gateway];
        let connection = &mut connections[slot];
        for mut publish in std::mem::take(&mut connection.waiting) {
            if self.mutant == Some(Mutant::NoFenceWhenClosed)
                && Arc::ptr_eq(&publish.link, connection.session.link())
            {
                publish.link = Link::new(publish.link.session, publish.link.address);
                if connection.session.link().fenced() {
                    publish.link.fence();
                }
                connection.links.push(Arc::clone(&publish.link));
            }
            if forget && publish.link.fenced() {
                continue;
            }
            let lane = lanes.get_mut(&publish.room.lane()).expect("known room");
            if let Err(back) = lane.push(publish, &mut answers) {
                connection.waiting.push(back);
            }
        }
        self.answer(gateway, answers);
    }

    fn lane_turns(&mut self) {
        let gateway = self.pick(self.gateways.len());
        let lane = lane_of(ROOMS[self.pick(ROOMS.len())]);
        let (now, wall_ms) = (self.now(), self.wall_ms());
        let mut answers = Vec::new();
        let Gateway { lanes, incarnation, .. } = &mut self.gateways[gateway];
        let call = lanes.get_mut(&lane).and_then(|machine| machine.next(now, wall_ms, &mut answers));
        if let Some(call) = call {
            let incarnation = *incarnation;
            self.calls.push(ModelCall {
                gateway,
                incarnation,
                lane,
                number: call.number,
                request: call.request,
                reply: None,
            });
        }
        self.answer(gateway, answers);
    }

    /// Executes a call that no one has executed; a frozen logic does so long after its caller gave up.
    fn logic_executes(&mut self, twice: bool) {
        if self.calls.is_empty() {
            return;
        }
        let n = self.pick(self.calls.len());
        if self.calls[n].reply.is_some() && !twice {
            return;
        }
        let items = self.calls[n].request.items.clone();
        let unkeyed = self.has(Mutant::NoMintedKey);
        let results = items
            .into_iter()
            .map(|item| {
                if item.data.ends_with(b",true]") {
                    let outcome = grpc::Outcome::Refused.into();
                    return PublishResult { outcome, code: "bad_request".into(), ..PublishResult::default() };
                }
                let log = self.store.entry(item.room).or_default();
                let same = |row: &(String, String, bytes::Bytes)| row.0 == item.sender && row.1 == item.key;
                let old = if unkeyed && item.key.starts_with('~') { None } else { log.iter().position(same) };
                let (outcome, seq) = match old {
                    Some(at) if log[at].2 != item.data => (grpc::Outcome::Conflict, 0),
                    Some(at) => (grpc::Outcome::Duplicate, at as u64 + 1),
                    None => {
                        log.push((item.sender, item.key, item.data));
                        (grpc::Outcome::Stored, log.len() as u64)
                    }
                };
                PublishResult { outcome: outcome.into(), seq, ..PublishResult::default() }
            })
            .collect();
        self.calls[n].reply = Some(PublishReply { results, epoch: 1, delayed: Vec::new() });
    }

    fn reply_arrives(&mut self) {
        let ready: Vec<_> = (0..self.calls.len()).filter(|n| self.calls[*n].reply.is_some()).collect();
        if ready.is_empty() {
            return;
        }
        let n = ready[self.pick(ready.len())];
        let call = self.calls.swap_remove(n);
        let reply = call.reply.clone().ok_or(CallFailed::Unknown);
        self.resolve(&call, reply);
    }

    /// The caller learns that a call failed. Unknown: somebody may still execute it later.
    fn call_fails(&mut self, how: CallFailed) {
        if self.calls.is_empty() {
            return;
        }
        let n = self.pick(self.calls.len());
        let mut call = self.calls.swap_remove(n);
        if how == CallFailed::NotSent && call.reply.is_some() {
            self.calls.push(call);
            return;
        }
        self.resolve(&call, Err(how));
        if how == CallFailed::Unknown {
            call.incarnation = u64::MAX;
            self.calls.push(call);
        }
    }

    fn resolve(&mut self, call: &ModelCall, reply: Result<PublishReply, CallFailed>) {
        let now = self.now();
        let gateway = &mut self.gateways[call.gateway];
        if gateway.incarnation != call.incarnation {
            return;
        }
        let mut answers = Vec::new();
        let lane = gateway.lanes.get_mut(&call.lane).expect("known lane");
        lane.replied(call.number, reply, now, &mut answers);
        self.answer(call.gateway, answers);
    }

    fn answer(&mut self, gateway: usize, answers: Vec<Answered>) {
        for answered in answers {
            let slot = answered.publish.link.address.slot as usize;
            let connection = &mut self.gateways[gateway].connections[slot];
            if answered.outcome.is_retry() && connection.open {
                connection.links.iter().chain([connection.session.link()]).for_each(|link| link.fence());
            }
            let mut out = Frames::default();
            connection.session.answered(&answered, &mut out);
            self.deliver(gateway, slot, out);
        }
    }

    fn deliver(&mut self, gateway: usize, slot: usize, frames: Frames) {
        let connection = &mut self.gateways[gateway].connections[slot];
        if !connection.open {
            return;
        }
        let client = connection.client;
        for frame in frames.0 {
            if self.clients[client].hear(&frame) {
                connection.open = false;
                self.clients[client].lost(true);
            }
        }
    }

    fn connection_cut(&mut self) {
        let n = self.pick(self.clients.len());
        if let Some((gateway, slot)) = self.clients[n].connection {
            self.cut(gateway, slot);
        }
    }

    fn cut(&mut self, gateway: usize, slot: usize) {
        let connection = &mut self.gateways[gateway].connections[slot];
        if std::mem::take(&mut connection.open) {
            self.clients[connection.client].lost(false);
        }
    }

    fn gateway_drains(&mut self) {
        let gateway = self.pick(self.gateways.len());
        self.gateways[gateway].draining = true;
        for slot in 0..self.gateways[gateway].connections.len() {
            self.gateways[gateway].connections[slot].session.end(Ending::Restart { code: 1012 }, 1);
            if self.has(Mutant::DrainDropsOutcomes) {
                let connection = &mut self.gateways[gateway].connections[slot];
                if std::mem::take(&mut connection.open) {
                    self.clients[connection.client].lost(true);
                }
            }
        }
    }

    /// Killed, or thawed after its lease: a new one takes its place.
    fn gateway_ends(&mut self) {
        let gateway = self.pick(self.gateways.len());
        for slot in 0..self.gateways[gateway].connections.len() {
            self.cut(gateway, slot);
        }
        let incarnation = self.gateways[gateway].incarnation + 1;
        self.gateways[gateway] = self.fresh_gateway(incarnation);
    }

    /// What follows at once from every event: space in lanes is used, who has to leave says goodbye.
    fn settle(&mut self) {
        for gateway in 0..self.gateways.len() {
            for slot in 0..self.gateways[gateway].connections.len() {
                self.lanes_take(gateway, slot);
                let connection = &mut self.gateways[gateway].connections[slot];
                if !connection.waiting.is_empty() {
                    continue;
                }
                if connection.session.take_bye(1).is_some() {
                    self.deliver(gateway, slot, Frames(vec![r#"{"bye":{}}"#.into()]));
                }
            }
            let all_left = self.gateways[gateway].connections.iter().all(|connection| !connection.open);
            if self.gateways[gateway].draining && all_left {
                let incarnation = self.gateways[gateway].incarnation + 1;
                self.gateways[gateway] = self.fresh_gateway(incarnation);
            }
        }
    }
}

fn greeting() -> WelcomeFacts {
    let limits = WireLimits::default();
    WelcomeFacts { instance: InstanceId::fresh("gateway", "model"), epoch: Epoch(1), ping_s: 25, limits }
}
