//! What a shard sends to others. Runs are refused when a queue is full; everything else waits here as a
//! level or in a backlog that its senders bound (publishes by what may be unanswered, asks and pages by subscriptions).

use std::collections::VecDeque;

use indexmap::{IndexMap, IndexSet};
use sluice_proto::ids::RoomId;
use tokio::sync::mpsc;

use super::inbox::{Incoming, ShardMessage};
use crate::room::link::{HandOver, Need, Run};

/// Another shard, and what waits for space in its queue.
#[derive(Debug)]
struct Peer {
    inbox: mpsc::Sender<Incoming>,
    backlog: VecDeque<ShardMessage>,
    needs: IndexMap<RoomId, Need>,
    /// Rooms of which a hand-over was refused.
    owed: IndexSet<RoomId>,
    /// Somebody waits for space already.
    waiting: bool,
}

impl Peer {
    fn is_clear(&self) -> bool {
        self.backlog.is_empty() && self.needs.is_empty() && self.owed.is_empty()
    }
}

/// The peers to all shards.
#[derive(Debug)]
pub struct Peers {
    me: usize,
    peers: Vec<Peer>,
    /// Peers that ran out of space and need somebody to wait for it.
    full: Vec<usize>,
}

impl Peers {
    /// Peers by shard.
    #[must_use]
    pub fn new(me: usize, inboxes: &[mpsc::Sender<Incoming>]) -> Self {
        let peer = |inbox: &mpsc::Sender<Incoming>| Peer {
            inbox: inbox.clone(),
            backlog: VecDeque::new(),
            needs: IndexMap::new(),
            owed: IndexSet::new(),
            waiting: false,
        };
        Self { me, peers: inboxes.iter().map(peer).collect(), full: Vec::new() }
    }

    /// Sends a message that must arrive.
    pub fn send(&mut self, to: usize, message: ShardMessage) {
        let Some(peer) = self.peers.get_mut(to) else { return };
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

    /// Sends the present level of what this shard wants of a room.
    pub fn need(&mut self, to: usize, room: RoomId, need: Need) {
        let me = self.me;
        let Some(peer) = self.peers.get_mut(to) else { return };
        if let Some(level) = peer.needs.get_mut(&room) {
            *level = need;
            return;
        }
        let message = Incoming::Peer(ShardMessage::Need(me, room.clone(), need));
        if let Err(mpsc::error::TrySendError::Full(_)) = peer.inbox.try_send(message) {
            peer.needs.insert(room, need);
            self.wait_for_space(to);
        }
    }

    /// Sends a run if there is space.
    pub fn run(&mut self, to: usize, room: &RoomId, run: &Run) -> bool {
        let message = ShardMessage::Run(room.clone(), run.clone());
        self.peers.get(to).is_some_and(|peer| peer.inbox.try_send(Incoming::Peer(message)).is_ok())
    }

    /// Sends a hand-over if there is space; if not, the room is named by [`Peers::flush`] later.
    pub fn hand_over(&mut self, to: usize, room: &RoomId, hand_over: HandOver) -> bool {
        let message = ShardMessage::HandOver(room.clone(), hand_over);
        let Some(peer) = self.peers.get_mut(to) else { return true };
        if peer.inbox.try_send(Incoming::Peer(message)).is_ok() {
            return true;
        }
        peer.owed.insert(room.clone());
        self.wait_for_space(to);
        false
    }

    /// Peers somebody has to wait for: call [`Peers::flush`] as soon as each has space.
    pub fn take_full(&mut self) -> Vec<(usize, mpsc::Sender<Incoming>)> {
        let full = std::mem::take(&mut self.full);
        full.into_iter().filter_map(|to| self.peers.get(to).map(|peer| (to, peer.inbox.clone()))).collect()
    }

    /// There is space: sends what waits. Gives the rooms whose home has to offer its hand-over again, and
    /// whether still something waits.
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
        while let Some((room, need)) = peer.needs.first().map(|(room, need)| (room.clone(), *need)) {
            let message = Incoming::Peer(ShardMessage::Need(me, room.clone(), need));
            if let Err(mpsc::error::TrySendError::Full(_)) = peer.inbox.try_send(message) {
                return (Vec::new(), true);
            }
            peer.needs.shift_remove(&room);
        }
        peer.backlog.shrink_to_fit();
        (peer.owed.drain(..).collect(), false)
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
