//! Who of a shard is told who comes into a room and leaves it. Encoded once for the whole process; a subscription that does
//! not watch is not looked at. Never waits: who cannot take an event is told once that what it knows is stale, and hears
//! nothing more of the room until it asks who is there.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use indexmap::IndexMap;
use serde::de::IgnoredAny;
use sluice_proto::grpc::{PresenceEvent, RoomRun};
use sluice_proto::ids::RoomId;
use sluice_proto::wire::codec;

use super::connections::Connections;
use crate::defaults::{QUEUE_HIGH_BYTES, ROOM_TELLINGS_KEPT, ROOMS_PER_TURN};
use crate::session::outbound::text_frame;
use crate::slow_client;
use crate::subscription::ConnKey;

/// What happened in a room, as frames for all who watch it.
#[derive(Debug, Clone)]
pub struct RoomTelling {
    room: RoomId,
    /// The same for what a task brings a second time.
    id: u64,
    frames: Bytes,
}

impl RoomTelling {
    /// Encodes a run of events; `None` for a room or events that nobody here can have.
    #[must_use]
    pub fn encode(run: &RoomRun) -> Option<Self> {
        let room = RoomId::parse(&run.room).ok()?;
        let mut id = DefaultHasher::new();
        let (mut frames, mut text) = (Vec::new(), Vec::new());
        for event in &run.presence {
            let PresenceEvent { user, at_ms, left, info } = event;
            (room.as_str(), user, at_ms, left).hash(&mut id);
            text.clear();
            if *left {
                codec::leave(&mut text, &room, user, *at_ms);
            } else {
                // What a neighbour says is JSON would be half a frame if it is not.
                let info = serde_json::from_str::<IgnoredAny>(info).map_or("", |_| info.as_str());
                codec::join(&mut text, &room, user, *at_ms, info);
            }
            text_frame(&text, &mut frames);
        }
        (!frames.is_empty()).then(|| Self { room, id: id.finish(), frames: frames.into() })
    }

    /// Where it happened.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }
}

/// The watchers of a shard's rooms, by the keys of the rooms' views.
#[derive(Debug, Default)]
pub struct Watchers {
    rooms: IndexMap<u32, WatchedRoom>,
    /// So many rooms from the front on are still to be told that what is known of them is stale.
    stale: usize,
}

#[derive(Debug)]
struct WatchedRoom {
    room: RoomId,
    /// Of each connection whether it was told that what it knows is stale.
    by: HashMap<ConnKey, bool>,
    /// What was told last: a task that is killed leaves its notices to another one, which brings them again.
    told: VecDeque<u64>,
}

impl Watchers {
    /// A connection watches a room from now on.
    pub fn add(&mut self, view: u32, room: &RoomId, conn: ConnKey) {
        let begins = || WatchedRoom { room: room.clone(), by: HashMap::new(), told: VecDeque::new() };
        self.rooms.entry(view).or_insert_with(begins).by.insert(conn, false);
    }

    /// It no longer does.
    pub fn remove(&mut self, view: u32, conn: ConnKey) {
        let Some(watched) = self.rooms.get_mut(&view) else { return };
        watched.by.remove(&conn);
        if watched.by.is_empty() {
            // The last room takes its place: if that one was told already, it is looked at again, which tells only who came
            // meanwhile.
            self.rooms.swap_remove(&view);
            self.stale = self.stale.min(self.rooms.len());
        }
    }

    /// It asks who is there: from here on it is told again.
    pub fn asked(&mut self, view: u32, conn: ConnKey) {
        if let Some(stale) = self.rooms.get_mut(&view).and_then(|watched| watched.by.get_mut(&conn)) {
            *stale = false;
        }
    }

    /// Tells all watchers of a room that have room for it.
    pub fn tell(&mut self, connections: &mut Connections, view: u32, telling: &RoomTelling) {
        let Some(watched) = self.rooms.get_mut(&view) else { return };
        if watched.told.contains(&telling.id) {
            return;
        }
        if watched.told.len() >= ROOM_TELLINGS_KEPT {
            watched.told.pop_front();
        }
        watched.told.push_back(telling.id);
        let mut says_stale = None;
        for (conn, stale) in watched.by.iter_mut().filter(|(_, stale)| !**stale) {
            // Before any message falls behind for it: these can be asked for.
            if slow_client::stays_live(connections.queued_for(*conn), QUEUE_HIGH_BYTES) {
                connections.append(*conn, telling.frames.clone());
            } else {
                *stale = true;
                let frame = says_stale.get_or_insert_with(|| stale_frame(&watched.room));
                connections.append(*conn, frame.clone());
            }
        }
    }

    /// Something was missed, nobody knows what: all who watch are to be told so, by [`Watchers::tell_stale`].
    pub fn all_stale(&mut self) {
        self.stale = self.rooms.len();
    }

    /// Whether rooms are still to be told.
    #[must_use]
    pub const fn has_stale(&self) -> bool {
        self.stale > 0
    }

    /// Tells the watchers of the next rooms, as many as one turn looks at, each once until they ask.
    pub fn tell_stale(&mut self, connections: &mut Connections) {
        for _ in 0..ROOMS_PER_TURN.min(self.stale) {
            self.stale -= 1;
            if let Some((_, watched)) = self.rooms.get_index_mut(self.stale) {
                watched.tell_stale(connections);
            }
        }
    }
}

impl WatchedRoom {
    fn tell_stale(&mut self, connections: &mut Connections) {
        let mut frame = None;
        for (conn, stale) in self.by.iter_mut().filter(|(_, stale)| !**stale) {
            *stale = true;
            let frame = frame.get_or_insert_with(|| stale_frame(&self.room));
            connections.append(*conn, frame.clone());
        }
    }
}

fn stale_frame(room: &RoomId) -> Bytes {
    let (mut text, mut frame) = (Vec::new(), Vec::new());
    codec::stale(&mut text, room);
    text_frame(&text, &mut frame);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{enter, shard};
    use super::*;
    use crate::address::Address;
    use crate::shard::Shard;

    fn joined(user: &str) -> RoomTelling {
        let event = PresenceEvent { user: user.into(), at_ms: 5, ..PresenceEvent::default() };
        let run = RoomRun { room: "news".into(), presence: vec![event], ..RoomRun::default() };
        RoomTelling::encode(&run).expect("valid")
    }

    fn queued(shard: &Shard, who: Address) -> usize {
        shard.connections.queued_for(who.slot)
    }

    #[tokio::test]
    async fn who_watches_is_told_once_and_nobody_else() {
        let cell = shard();
        let ((watcher, _a), (other, _b)) = (cell.turn(enter), cell.turn(enter));
        cell.turn(|shard| {
            let mut watchers = Watchers::default();
            let told = joined("ann");
            watchers.add(7, told.room(), watcher.slot);
            watchers.tell(&mut shard.connections, 7, &told);
            watchers.tell(&mut shard.connections, 8, &told);
            let once = queued(shard, watcher);
            assert_eq!((once, queued(shard, other)), (told.frames.len(), 0));
            watchers.tell(&mut shard.connections, 7, &told);
            assert_eq!(queued(shard, watcher), once, "what is brought again was told");
            watchers.remove(7, watcher.slot);
            watchers.tell(&mut shard.connections, 7, &joined("bob"));
            assert_eq!((queued(shard, watcher), watchers.rooms.len()), (once, 0));
        });
    }

    #[tokio::test]
    async fn who_has_no_room_is_told_once_that_it_is_stale_and_again_after_it_asked() {
        let cell = shard();
        let (watcher, _socket) = cell.turn(enter);
        cell.turn(|shard| {
            let mut watchers = Watchers::default();
            watchers.add(7, joined("ann").room(), watcher.slot);
            shard.connections.append(watcher.slot, vec![0; QUEUE_HIGH_BYTES].into());
            let before = queued(shard, watcher);
            let stale = stale_frame(joined("ann").room()).len();
            for n in 0..10 {
                watchers.tell(&mut shard.connections, 7, &joined(&format!("u{n}")));
            }
            assert_eq!(queued(shard, watcher), before + stale, "bounded, whatever happens in the room");
            watchers.all_stale();
            watchers.tell_stale(&mut shard.connections);
            assert_eq!(queued(shard, watcher), before + stale);
            watchers.asked(7, watcher.slot);
            watchers.all_stale();
            watchers.tell_stale(&mut shard.connections);
            assert_eq!(queued(shard, watcher), before + 2 * stale);
        });
    }

    #[tokio::test]
    async fn all_rooms_are_told_though_no_turn_looks_at_all_and_rooms_go_meanwhile() {
        let cell = shard();
        let (watcher, _socket) = cell.turn(enter);
        cell.turn(|shard| {
            let (mut watchers, telling) = (Watchers::default(), joined("ann"));
            let rooms = u32::try_from(2 * ROOMS_PER_TURN + 3).expect("a few");
            (0..rooms).for_each(|view| watchers.add(view, telling.room(), watcher.slot));
            watchers.all_stale();
            watchers.tell_stale(&mut shard.connections);
            let frame = stale_frame(telling.room()).len();
            assert_eq!(queued(shard, watcher), ROOMS_PER_TURN * frame);
            // One of those that are still to be told, and one that was.
            watchers.remove(0, watcher.slot);
            watchers.remove(rooms - 1, watcher.slot);
            while watchers.has_stale() {
                watchers.tell_stale(&mut shard.connections);
            }
            assert!(watchers.rooms.values().all(|watched| watched.by[&watcher.slot]));
            let told = usize::try_from(rooms).expect("a few") - 1;
            assert_eq!(queued(shard, watcher), told * frame, "each once");
        });
    }

    #[test]
    fn what_is_no_json_is_not_passed_on() {
        let event =
            |info: &str| PresenceEvent { user: "ann".into(), at_ms: 5, left: false, info: info.into() };
        let encode = |room: &str, presence| {
            RoomTelling::encode(&RoomRun { room: room.into(), presence, ..RoomRun::default() })
        };
        let text = |info: &str| encode("news", vec![event(info)]).map(|told| told.frames).expect("valid");
        assert_eq!(text("{\"n\":"), text(""));
        assert!(text("{\"n\":1}").ends_with(b",\"info\":{\"n\":1}}"));
        assert!(encode("news", vec![]).is_none() && encode("a\nb", vec![event("")]).is_none());
    }
}
