//! What a shard sends to others. Runs are refused when a queue is full; everything else waits here as a
//! level or in a backlog that its senders bound (publishes by what may be unanswered, asks and pages by
//! subscriptions). Every message costs the same, however many wait.

use std::collections::{HashMap, VecDeque};

use sluice_proto::ids::RoomId;
use tokio::sync::mpsc;

use super::inbox::{Incoming, ShardMessage};
use crate::address::Address;
use crate::defaults::ROOMS_PER_TURN;
use crate::room::link::{HandOver, Need, Run};

/// One value per room, the last one counts; sent in the order in which rooms began to wait. Taking the
/// first from an ordered map would move all others: with 100,000 rooms that is the shard's whole time.
#[derive(Debug)]
struct Levels<V> {
    order: VecDeque<RoomId>,
    values: HashMap<RoomId, V>,
}

impl<V> Default for Levels<V> {
    fn default() -> Self {
        Self { order: VecDeque::new(), values: HashMap::new() }
    }
}

impl<V> Levels<V> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The value of a room that waits.
    fn get_mut(&mut self, room: &RoomId) -> Option<&mut V> {
        self.values.get_mut(room)
    }

    fn set(&mut self, room: RoomId, value: V) {
        if self.values.insert(room.clone(), value).is_none() {
            self.order.push_back(room);
        }
    }

    fn pop(&mut self) -> Option<(RoomId, V)> {
        let room = self.order.pop_front()?;
        let value = self.values.remove(&room)?;
        if self.order.is_empty() {
            // A crowd that has passed leaves no empty places behind.
            *self = Self::default();
        }
        Some((room, value))
    }

    fn put_back(&mut self, room: RoomId, value: V) {
        self.values.insert(room.clone(), value);
        self.order.push_front(room);
    }
}

/// Another shard, and what waits for space in its queue.
#[derive(Debug)]
struct Peer {
    inbox: mpsc::Sender<Incoming>,
    backlog: VecDeque<ShardMessage>,
    needs: Levels<(Need, Option<Address>)>,
    /// Rooms of which a hand-over was refused.
    owed: Levels<()>,
    /// Somebody waits for space already.
    waiting: bool,
}

impl Peer {
    fn is_clear(&self) -> bool {
        self.backlog.is_empty() && self.needs.is_empty() && self.owed.is_empty()
    }
}

/// The ways to all shards.
#[derive(Debug)]
pub struct Peers {
    me: usize,
    peers: Vec<Peer>,
    /// Peers that ran out of space and need somebody to wait for it.
    full: Vec<usize>,
}

impl Peers {
    /// Ways to the other shards.
    #[must_use]
    pub fn new(me: usize, inboxes: &[mpsc::Sender<Incoming>]) -> Self {
        let peer = |inbox: &mpsc::Sender<Incoming>| Peer {
            inbox: inbox.clone(),
            backlog: VecDeque::new(),
            needs: Levels::default(),
            owed: Levels::default(),
            waiting: false,
        };
        Self { me, peers: inboxes.iter().map(peer).collect(), full: Vec::new() }
    }

    /// Sends a message that must arrive.
    pub fn send(&mut self, to: usize, message: ShardMessage) {
        let Some(peer) = self.peers.get_mut(to) else { return };
        // Behind what waits, or an answer would overtake an earlier one.
        if !peer.backlog.is_empty() {
            peer.backlog.push_back(message);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(Incoming::Peer(message))) =
            peer.inbox.try_send(Incoming::Peer(message))
        {
            peer.backlog.push_back(message);
            self.wait_for_space(to);
        }
    }

    /// Sends the present level of what this shard wants of a room, caused by a connection. Gives back one whose
    /// leaving will not be told, as this level takes its place.
    pub fn need(&mut self, to: usize, room: RoomId, need: Need, by: Option<Address>) -> Option<Address> {
        let me = self.me;
        let peer = self.peers.get_mut(to)?;
        // An older level of this room waits: sent past it, the newer one would be overwritten by it.
        if let Some(level) = peer.needs.get_mut(&room) {
            let (former, who) = std::mem::replace(level, (need, by));
            return who.filter(|_| !former.attached);
        }
        let message = Incoming::Peer(ShardMessage::Need(me, room.clone(), need, by));
        if let Err(mpsc::error::TrySendError::Full(_)) = peer.inbox.try_send(message) {
            peer.needs.set(room, (need, by));
            self.wait_for_space(to);
        }
        None
    }

    /// Sends a run if there is space.
    pub fn run(&mut self, to: usize, room: &RoomId, run: &Run) -> bool {
        let message = ShardMessage::Run(room.clone(), run.clone());
        // Never kept here: one hand-over makes good for any number of runs.
        self.peers.get(to).is_some_and(|peer| peer.inbox.try_send(Incoming::Peer(message)).is_ok())
    }

    /// Sends a hand-over if there is space; if not, the room is named by [`Peers::flush`] later.
    pub fn hand_over(&mut self, to: usize, room: &RoomId, hand_over: HandOver) -> bool {
        let message = ShardMessage::HandOver(room.clone(), hand_over);
        let Some(peer) = self.peers.get_mut(to) else { return true };
        if peer.inbox.try_send(Incoming::Peer(message)).is_ok() {
            return true;
        }
        // Only that it is owed: by the time there is space another hand-over will be the right one.
        peer.owed.set(room.clone(), ());
        self.wait_for_space(to);
        false
    }

    /// Peers somebody has to wait for: call [`Peers::flush`] as soon as each has space.
    pub fn take_full(&mut self) -> Vec<(usize, mpsc::Sender<Incoming>)> {
        let full = std::mem::take(&mut self.full);
        full.into_iter().filter_map(|to| self.peers.get(to).map(|peer| (to, peer.inbox.clone()))).collect()
    }

    /// There is space: sends what waits. Gives the rooms whose home has to offer its hand-over again, no
    /// more of them than there is space for, and whether still something waits.
    pub fn flush(&mut self, to: usize) -> (Vec<RoomId>, bool) {
        let me = self.me;
        let Some(peer) = self.peers.get_mut(to) else { return (Vec::new(), false) };
        while let Some(message) = peer.backlog.pop_front() {
            if let Err(error) = peer.inbox.try_send(Incoming::Peer(message)) {
                if let mpsc::error::TrySendError::Full(Incoming::Peer(message)) = error {
                    peer.backlog.push_front(message);
                    return (Vec::new(), true);
                }
                break;
            }
        }
        while let Some((room, (need, by))) = peer.needs.pop() {
            let message = Incoming::Peer(ShardMessage::Need(me, room.clone(), need, by));
            if let Err(mpsc::error::TrySendError::Full(_)) = peer.inbox.try_send(message) {
                peer.needs.put_back(room, (need, by));
                return (Vec::new(), true);
            }
        }
        peer.backlog.shrink_to_fit();
        // Offering all of them for a few places would cost all of them again at the next place.
        let space = peer.inbox.capacity().min(ROOMS_PER_TURN);
        let owed = std::iter::from_fn(|| peer.owed.pop()).map(|(room, ())| room).take(space).collect();
        (owed, !peer.owed.is_empty())
    }

    /// Nobody waits for this peer any more, unless something waits again: then `true`, go on waiting.
    pub fn still_waits(&mut self, to: usize) -> bool {
        let Some(peer) = self.peers.get_mut(to) else { return false };
        peer.waiting = !peer.is_clear();
        peer.waiting
    }

    fn wait_for_space(&mut self, to: usize) {
        if let Some(peer) = self.peers.get_mut(to)
            && !std::mem::replace(&mut peer.waiting, true)
        {
            self.full.push(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::Epoch;

    use super::*;

    const WHO: Address = Address { shard: 0, slot: 3, generation: 1 };
    const NEED: Need = Need { attached: true, number: 1 };

    fn room(n: usize) -> RoomId {
        RoomId::parse(&format!("room{n}")).unwrap()
    }

    fn pair(places: usize) -> (Peers, mpsc::Receiver<Incoming>) {
        let (own, _) = mpsc::channel(1);
        let (other, inbox) = mpsc::channel(places);
        (Peers::new(0, &[own, other]), inbox)
    }

    fn needs(inbox: &mut mpsc::Receiver<Incoming>) -> Vec<(RoomId, u64)> {
        let received = std::iter::from_fn(|| inbox.try_recv().ok());
        received
            .map(|message| match message {
                Incoming::Peer(ShardMessage::Need(0, room, need, _)) => (room, need.number),
                other @ (Incoming::Peer(_) | Incoming::Order(_)) => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn levels_wait_in_their_order_and_the_last_value_counts() {
        let (mut peers, mut inbox) = pair(2);
        assert!((0..5).all(|n| peers.need(1, room(n), NEED, None).is_none()));
        let left = Need { attached: false, number: 7 };
        assert_eq!(peers.need(1, room(3), left, Some(WHO)), None);
        assert_eq!(peers.need(1, room(3), left, None), Some(WHO), "its leaving is not told any more");
        let mut seen = needs(&mut inbox);
        while peers.flush(1).1 {
            seen.extend(needs(&mut inbox));
        }
        seen.extend(needs(&mut inbox));
        assert_eq!(seen, [(room(0), 1), (room(1), 1), (room(2), 1), (room(3), 7), (room(4), 1)]);
    }

    /// A crowd of rooms behind a queue of one place: each costs the same, or this takes minutes.
    #[test]
    fn what_waits_costs_nothing_per_message() {
        let (mut peers, mut inbox) = pair(1);
        let rooms = 200_000;
        assert!((0..rooms).all(|n| peers.need(1, room(n), NEED, None).is_none()));
        let mut seen = 0;
        loop {
            seen += needs(&mut inbox).len();
            if !peers.flush(1).1 {
                break;
            }
        }
        assert_eq!(seen + needs(&mut inbox).len(), rooms);
    }

    #[test]
    fn no_more_hand_overs_are_offered_than_there_is_space_for() {
        let (mut peers, mut inbox) = pair(2);
        let to = HandOver { epoch: Epoch(1), opened: 0, head: 0, known: 0, answered: 0 };
        let refused = (0..9).filter(|n| !peers.hand_over(1, &room(*n), to)).count();
        assert_eq!(refused, 7);
        let (offered, more) = peers.flush(1);
        assert!(offered.is_empty() && more, "no space");
        assert!(inbox.try_recv().is_ok() && inbox.try_recv().is_ok());
        assert_eq!(peers.flush(1), (vec![room(2), room(3)], true));
    }
}
