//! The world of the model: a random step at a time while there is trouble, then quiet until all is well.

use std::sync::Arc;

use sluice_gateway::room::limits::{RoomLimits, ViewLimits};
use sluice_gateway::room::link::Ms;
use sluice_gateway::room::{Room, RoomOutput};
use sluice_gateway::rules::Rules;
use sluice_gateway::subscription::SubscriptionState;
use sluice_gateway::view::View;

use super::calls::{Around, Flying, In, ToView};
use super::clients::{Asked, Client, Status};
use super::store::{FRAME_BYTES, Rng, Store};

const SHARDS: usize = 3;
const STEPS: usize = 300;
/// Quiet time allowed until all is well, ms: a few back-offs, heads periods, and the linger.
const QUIET_MS: Ms = 20_000;

pub struct World<R: Rules> {
    pub rng: Rng,
    pub store: Store,
    /// The room's interest as Redis has it.
    pub interest: bool,
    pub room: Option<Room<R>>,
    pub views: Vec<Option<View<R>>>,
    pub shared: Around,
    /// Most messages in one Read: less than an aligned page when messages are large.
    pub read_max: u64,
    pub trouble: bool,
    publishing: bool,
    room_limits: Arc<RoomLimits>,
    view_limits: Arc<ViewLimits>,
}

impl<R: Rules> World<R> {
    /// One schedule. Panics where a promise is broken.
    pub fn run(seed: u64) {
        let mut world = Self::new(seed);
        let last_publish = STEPS - world.rng.below(STEPS / 2);
        for step in 0..STEPS {
            world.publishing = step < last_publish;
            world.step();
            world.check();
        }
        world.trouble = false;
        let end = world.shared.now + QUIET_MS;
        while !world.is_well() {
            assert!(world.shared.now < end, "not well after {QUIET_MS} quiet ms: {}", world.ill());
            world.quiet();
            world.check();
        }
    }

    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let room_limits = RoomLimits {
            ahead_items: 1 + rng.below(6),
            ring_items: 1 + rng.below(4),
            hold_max_ms: 100,
            call_ms: 20 + rng.below(180) as Ms,
            backoff_min_ms: 10,
            backoff_max_ms: 50,
            linger_ms: 1 + rng.below(60) as Ms,
            reannounce_ms: 50,
            ..RoomLimits::default()
        };
        let view_limits = ViewLimits {
            ring_items: 1 + rng.below(4),
            queue_low: FRAME_BYTES * (1 + rng.below(3)),
            queue_high: FRAME_BYTES * (4 + rng.below(3)),
            max_behind: [3, 8, 1_000][rng.below(3)],
            ask_ms: 20 + rng.below(180) as Ms,
            backoff_min_ms: 10,
            backoff_max_ms: 50,
            page_items: 4,
            ..ViewLimits::default()
        };
        let shared = Around {
            now: 1_000,
            number: 0,
            flying: Vec::new(),
            pages: Default::default(),
            clients: (0..=rng.below(5)).map(|_| Client::new()).collect(),
            queues: (0..SHARDS).map(|_| Vec::new()).collect(),
            queue_max: 1 + rng.below(4),
            refused: vec![false; SHARDS],
            needs: vec![None; SHARDS],
            forget: false,
            run_max: 0,
            asks: Default::default(),
            call_ms: room_limits.call_ms,
            ask_ms: view_limits.ask_ms,
        };
        Self {
            store: Store::new(),
            interest: false,
            room: None,
            views: (0..SHARDS).map(|_| None).collect(),
            shared,
            read_max: 1 + rng.below(6) as u64,
            trouble: true,
            publishing: true,
            room_limits: Arc::new(room_limits),
            view_limits: Arc::new(view_limits),
            rng,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..18 if self.publishing => self.publish(),
            18..54 => self.fly(),
            54..62 => {
                self.shared.now += self.rng.below(40) as Ms;
                self.tick();
            }
            62..70 => {
                let shard = self.rng.below(SHARDS);
                self.deliver_need(shard);
            }
            70..80 => {
                let shard = self.rng.below(SHARDS);
                self.take_from_home(shard);
            }
            80..83 => {
                let shard = self.rng.below(SHARDS);
                self.space(shard);
            }
            83..95 => {
                let client = self.rng.below(self.shared.clients.len());
                self.act(client);
            }
            95 => self.ask_heads(),
            96 => self.hint(),
            97 if self.rng.chance(30) => self.store.trim(&mut self.rng),
            98 if self.rng.chance(60) => self.store.restore(&mut self.rng),
            _ => {}
        }
    }

    /// A turn without trouble: everything under way arrives, everybody reads.
    fn quiet(&mut self) {
        for _ in 0..self.shared.flying.len() {
            self.fly();
        }
        for shard in 0..SHARDS {
            self.deliver_need(shard);
            while !self.shared.queues[shard].is_empty() {
                self.take_from_home(shard);
            }
            self.space(shard);
        }
        for client in 0..self.shared.clients.len() {
            self.shared.clients[client].reading = true;
            self.read(client, 1_000);
        }
        let before = self.shared.now;
        self.shared.now += 5;
        if before / 100 != self.shared.now / 100 {
            self.ask_heads();
        }
        self.tick();
    }

    fn publish(&mut self) {
        let first = self.store.append();
        let mut last = first;
        while self.rng.chance(30) {
            last = self.store.append();
        }
        let epoch = self.store.epoch();
        self.shared.flying.push(Flying::Notice { epoch, first, last });
        if self.rng.chance(25) {
            self.shared.flying.push(Flying::Push { epoch, first, last });
        }
    }

    fn hint(&mut self) {
        let epoch = self.store.epoch();
        let seq = self.rng.below(self.store.head(epoch) as usize + 1) as u64;
        self.shared.flying.push(Flying::Hint { epoch, seq });
    }

    fn ask_heads(&mut self) {
        if self.room.is_some() {
            let call = RoomOutput::number(&mut self.shared);
            self.shared.flying.push(Flying::Heads { call, reply: None });
        }
    }

    /// An event of the room, if there is one.
    pub fn with_room(&mut self, event: impl FnOnce(&mut Room<R>, &mut Around, &Store)) {
        if let Some(room) = &mut self.room {
            event(room, &mut self.shared, &self.store);
            self.home_shard();
        }
    }

    /// The home's own shard has no queue.
    fn home_shard(&mut self) {
        while !self.shared.queues[0].is_empty() {
            self.take_from_home(0);
        }
        if std::mem::take(&mut self.shared.forget) {
            self.room = None;
        }
    }

    fn deliver_need(&mut self, shard: usize) {
        let Some(need) = self.shared.needs[shard].take() else { return };
        let limits = &self.room_limits;
        self.room.get_or_insert_with(|| Room::with_rules(limits.clone(), SHARDS));
        self.with_room(|room, shared, _| room.need(shared.now, shard, need, shared));
    }

    fn take_from_home(&mut self, shard: usize) {
        if self.shared.queues[shard].is_empty() {
            return;
        }
        let item = self.shared.queues[shard].remove(0);
        let Some(view) = &mut self.views[shard] else { return };
        let now = self.shared.now;
        let mut shard = In(shard, &mut self.shared);
        match item {
            ToView::HandOver(to) => view.hand_over(now, to, &mut shard),
            ToView::Run(run) => {
                assert!(view.epoch().is_none() || view.epoch() == Some(run.epoch), "a run of another epoch");
                assert!(
                    view.epoch().is_none() || view.head() + 1 == run.first(),
                    "a run that does not follow"
                );
                view.run(now, &run, &mut shard);
            }
        }
    }

    fn space(&mut self, shard: usize) {
        if self.shared.refused[shard] && self.shared.queues[shard].len() < self.shared.queue_max {
            self.shared.refused[shard] = false;
            self.with_room(|room, shared, _| room.space(shared.now, shared));
        }
    }

    fn tick(&mut self) {
        let now = self.shared.now;
        if self.room.as_ref().is_some_and(|room| room.next_deadline().is_some_and(|due| due <= now)) {
            self.with_room(|room, shared, _| room.on_tick(now, shared));
        }
        for (shard, view) in self.views.iter_mut().enumerate() {
            if let Some(view) = view
                && view.next_deadline().is_some_and(|due| due <= now)
            {
                view.on_tick(now, &mut In(shard, &mut self.shared));
            }
        }
    }

    fn act(&mut self, at: usize) {
        if matches!(self.shared.clients[at].status, Status::Away) {
            if self.rng.chance(30) {
                self.subscribe(at);
            }
            return;
        }
        match self.rng.below(100) {
            0..75 => {
                let items = 1 + self.rng.below(5);
                self.read(at, items);
            }
            75..85 => self.shared.clients[at].reading ^= true,
            85..100 => self.leave(at),
            _ => {}
        }
    }

    fn subscribe(&mut self, at: usize) {
        let shard = self.rng.below(SHARDS);
        let epoch = self.store.epoch();
        let store = (epoch, self.store.head(epoch));
        let client = &mut self.shared.clients[at];
        let (after, epoch) = match self.rng.below(10) {
            0..7 if client.epoch.is_some() => (Some(client.seen), client.epoch),
            7 => (Some(client.seen), None),
            _ => (None, None),
        };
        client.status = Status::Asked(Asked { after, epoch, store });
        client.shard = shard;
        let limits = &self.view_limits;
        let view = self.views[shard].get_or_insert_with(|| View::with_rules(limits.clone()));
        let sub = view.sub(at as u32, after, epoch, &mut In(shard, &mut self.shared));
        self.shared.clients[at].sub = Some(sub);
    }

    fn leave(&mut self, at: usize) {
        let Client { shard, sub: Some(sub), .. } = self.shared.clients[at] else { return };
        let view = self.views[shard].as_mut().unwrap();
        if view.unsub(sub, &mut In(shard, &mut self.shared)) {
            self.views[shard] = None;
        }
        self.shared.asks.remove(&(shard, sub));
        self.shared.clients[at].left();
    }

    fn read(&mut self, at: usize, items: usize) {
        let client = &mut self.shared.clients[at];
        if !client.reading {
            return;
        }
        for _ in 0..items {
            client.read(&self.store, self.view_limits.max_behind == 1_000);
        }
        let (shard, Some(sub)) = (client.shard, client.sub) else { return };
        if client.behind > 0 {
            let now = self.shared.now;
            let view = self.views[shard].as_mut().unwrap();
            view.advance(now, sub, &mut In(shard, &mut self.shared));
        }
    }

    fn check(&self) {
        if let Some(room) = &self.room {
            room.check().unwrap();
            if let Some(epoch) = room.epoch() {
                assert!(room.known() <= self.store.head(epoch), "R1: known beyond the store");
            }
        }
        for view in self.views.iter().flatten() {
            view.check().unwrap();
            if let Some(epoch) = view.epoch() {
                assert!(view.head() <= view.known(), "a view's head beyond its known");
                assert!(view.known() <= self.store.head(epoch), "a view's known beyond the store");
            }
        }
        let most = self.view_limits.queue_high + self.shared.run_max * FRAME_BYTES;
        for client in &self.shared.clients {
            assert!(client.level <= most, "S3: a queue beyond its high mark and a run");
        }
    }

    fn is_well(&self) -> bool {
        let shared = &self.shared;
        let (epoch, needs) = (self.store.epoch(), shared.needs.iter().any(Option::is_some));
        if !shared.flying.is_empty() || needs || shared.queues.iter().any(|queue| !queue.is_empty()) {
            return false;
        }
        let head = self.store.head(epoch);
        let well = |client: &Client| match client.status {
            Status::Away => true,
            Status::Asked(_) => false,
            Status::SubscribedRoom => {
                let view = self.views[client.shard].as_ref().unwrap();
                let live = view.state(client.sub.unwrap()) == Some(SubscriptionState::Live);
                live && client.queue.is_empty() && client.seen == head && client.epoch == Some(epoch)
            }
        };
        let room_well = match &self.room {
            None => self.views.iter().all(Option::is_none) && !self.interest,
            Some(room) => {
                let wanted = self.views.iter().any(Option::is_some);
                let at_head = room.head() == head && room.known() == head && room.epoch() == Some(epoch);
                wanted && self.interest && room.is_open() && at_head
            }
        };
        room_well && shared.clients.iter().all(well)
    }

    fn ill(&self) -> String {
        let epoch = self.store.epoch();
        let clients: Vec<_> =
            self.shared.clients.iter().map(|c| (c.seen, c.epoch, c.shard, c.queue.len())).collect();
        let views: Vec<_> = self.views.iter().flatten().map(|v| (v.head(), v.known(), v.epoch())).collect();
        let room =
            self.room.as_ref().map(|r| (r.head(), r.known(), r.epoch(), r.is_open(), r.next_deadline()));
        let head = self.store.head(epoch);
        format!("store {head} of {epoch}, interest {}, {room:?}, views {views:?}, {clients:?}", self.interest)
    }
}
