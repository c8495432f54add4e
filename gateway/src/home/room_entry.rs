//! One room of a home, and what it wants done during an event. Pure.

use std::sync::Arc;

use sluice_proto::ids::RoomId;

use super::calls::{Asker, ReadFor, ReadTarget};
use super::{Conflict, Home, HomeOutput};
use crate::address::Address;
use crate::pushers::PusherId;
use crate::room::limits::RoomLimits;
use crate::room::link::{HandOver, Ms, Run, ShardId};
use crate::room::{Action, CallId, Room, RoomOutput};

/// A room with what the home keeps about it.
#[derive(Debug)]
pub(super) struct RoomEntry {
    pub(super) room: Room,
    /// A message or a new subscriber was seen less than the activity time ago.
    pub(super) active_until: Ms,
    /// Its head is being asked by a slice.
    pub(super) asked_head: bool,
    /// The stream that pushed to it last.
    pub(super) pushed_by: PusherId,
    /// The deadline that stands in the home's heap.
    pub(super) due: Option<Ms>,
    /// The connection that subscribed last: its turn pays for calls about the room's interest.
    pub(super) asker: Option<Asker>,
    /// Connections that left as the last of their shard, and wait until that is carried out.
    leavers: Option<Box<Leavers>>,
}

#[derive(Debug, Default)]
struct Leavers(Vec<Address>);

impl RoomEntry {
    pub(super) fn new(limits: Arc<RoomLimits>, shards: usize) -> Self {
        Self {
            room: Room::new(limits, shards),
            active_until: 0,
            asked_head: false,
            pushed_by: PusherId::default(),
            due: None,
            asker: None,
            leavers: None,
        }
    }

    /// This connection left as the last of its shard.
    pub(super) fn leaves(&mut self, who: Address) {
        self.leavers.get_or_insert_default().0.push(who);
    }

    /// Those that wait until their leaving is carried out: it is.
    pub(super) fn take_leavers(&mut self) -> impl Iterator<Item = Address> + use<> {
        self.leavers.take().into_iter().flat_map(|leavers| leavers.0)
    }
}

/// The outlet of one room during one event: messages go out at once, actions are kept for the home.
pub(super) struct RoomPorts<'a, P> {
    room: &'a RoomId,
    calls: &'a mut CallId,
    ports: &'a mut P,
    pub(super) actions: Vec<Action>,
}

impl<'a, P: HomeOutput> RoomPorts<'a, P> {
    pub(super) fn new(room: &'a RoomId, calls: &'a mut CallId, ports: &'a mut P) -> Self {
        Self { room, calls, ports, actions: Vec::new() }
    }
}

impl<P: HomeOutput> RoomOutput for RoomPorts<'_, P> {
    fn number(&mut self) -> CallId {
        *self.calls += 1;
        *self.calls
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn run(&mut self, shard: ShardId, run: &Run) -> bool {
        self.ports.run(shard, self.room, run)
    }

    fn hand_over(&mut self, shard: ShardId, hand_over: HandOver) -> bool {
        self.ports.hand_over(shard, self.room, hand_over)
    }
}

impl Home {
    /// Does what a room asked for, gathered with what others ask for.
    pub(super) fn act(&mut self, now: Ms, room: &RoomId, actions: Vec<Action>, ports: &mut impl HomeOutput) {
        for action in actions {
            let name = room.clone();
            match action {
                Action::Subscribe(call) => self.subscribes.push(self.asker(room), (name, call)),
                Action::Unsubscribe(call) => self.removes.push(self.asker(room), (name, call)),
                Action::AskHead(call) => self.heads.push(Asker::Room(name.clone()), (name, Some(call))),
                Action::Read { call, after } => {
                    let asker = Asker::Room(name.clone());
                    self.reads.push(asker, ReadTarget { room: name, after, reader: ReadFor::Room(call) });
                }
                Action::Reannounced => {
                    if self.repair.found(now) {
                        ports.announce_all();
                    }
                }
                Action::Conflict(seq) => {
                    ports.conflict(Conflict { room: name, seq, pushers: self.pushers(room) })
                }
                Action::Forget => {
                    // The last room takes its number: passes go downwards and have seen that one.
                    let gone = self.rooms.swap_remove(room);
                    let leavers = gone.into_iter().flat_map(|mut entry| entry.take_leavers());
                    leavers.for_each(|who| ports.released(who));
                }
            }
        }
        self.send(now, ports);
    }

    /// Whose pushes may have brought the two versions that met: the one of now and the one before it.
    fn pushers(&self, room: &RoomId) -> [PusherId; 2] {
        if self.pushing != [PusherId::default(); 2] {
            return self.pushing;
        }
        let before = self.rooms.get(room).map(|entry| entry.pushed_by);
        [before.unwrap_or_default(), PusherId::default()]
    }

    /// Whose turn a call about a room's interest takes.
    fn asker(&self, room: &RoomId) -> Asker {
        // The one that wants it pays: a thousand rooms of one connection take that one's turn only.
        let asker = self.rooms.get(room).and_then(|entry| entry.asker.clone());
        asker.unwrap_or_else(|| Asker::Room(room.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_in_which_nothing_happens_stays_small() {
        let size = size_of::<RoomEntry>();
        assert!(size <= 384, "{size}: the next class of the allocator, for each room of a gateway");
    }
}
