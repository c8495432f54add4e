//! What a shard sends to others. Runs are refused when a queue is full; everything else waits here as a
//! level or in a backlog that its senders bound (publishes by what may be unanswered, asks and pages by subscriptions).

use std::collections::VecDeque;

use indexmap::{IndexMap, IndexSet};
use sluice_proto::ids::RoomId;
use tokio::sync::mpsc;

use super::Incoming;
use crate::home::PageTo;
use crate::room::link::{HandOver, Need, Page, Run};
use crate::uplink::{Answered, Publish};

/// From a shard to another.
#[derive(Debug)]
pub enum Letter {
    /// To the home: what a shard wants of a room.
    Need(usize, RoomId, Need),
    /// To the home: a publish.
    Publish(Publish),
    /// To the home: a page is asked for.
    Ask(PageTo),
    /// From the home: the next messages of a room.
    Run(RoomId, Run),
    /// From the home: where a room stands.
    HandOver(RoomId, HandOver),
    /// From the home: the outcome of a publish.
    Answered(Answered),
    /// From the home: a page; `None` = it failed.
    Page(PageTo, Option<Page>),
    /// To every home: all rooms announce their interest again.
    AnnounceAll,
}

/// One way to another shard.
#[derive(Debug)]
struct Way {
    inbox: mpsc::Sender<Incoming>,
    backlog: VecDeque<Letter>,
    needs: IndexMap<RoomId, Need>,
    /// Rooms of which a hand-over was refused.
    owed: IndexSet<RoomId>,
    /// Somebody waits for space already.
    waiting: bool,
}

impl Way {
    fn is_clear(&self) -> bool {
        self.backlog.is_empty() && self.needs.is_empty() && self.owed.is_empty()
    }
}

/// The ways to all shards.
#[derive(Debug)]
pub struct Post {
    me: usize,
    ways: Vec<Way>,
    /// Ways that ran out of space and need somebody to wait for it.
    full: Vec<usize>,
}

impl Post {
    /// Ways by shard.
    #[must_use]
    pub fn new(me: usize, inboxes: &[mpsc::Sender<Incoming>]) -> Self {
        let way = |inbox: &mpsc::Sender<Incoming>| Way {
            inbox: inbox.clone(),
            backlog: VecDeque::new(),
            needs: IndexMap::new(),
            owed: IndexSet::new(),
            waiting: false,
        };
        Self { me, ways: inboxes.iter().map(way).collect(), full: Vec::new() }
    }

    /// Sends a letter that must arrive.
    pub fn send(&mut self, to: usize, letter: Letter) {
        let Some(way) = self.ways.get_mut(to) else { return };
        if !way.backlog.is_empty() {
            way.backlog.push_back(letter);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(Incoming::Letter(letter))) =
            way.inbox.try_send(Incoming::Letter(letter))
        {
            way.backlog.push_back(letter);
            self.is_full(to);
        }
    }

    /// Sends the present level of what this shard wants of a room.
    pub fn need(&mut self, to: usize, room: RoomId, need: Need) {
        let me = self.me;
        let Some(way) = self.ways.get_mut(to) else { return };
        if let Some(level) = way.needs.get_mut(&room) {
            *level = need;
            return;
        }
        let letter = Incoming::Letter(Letter::Need(me, room.clone(), need));
        if let Err(mpsc::error::TrySendError::Full(_)) = way.inbox.try_send(letter) {
            way.needs.insert(room, need);
            self.is_full(to);
        }
    }

    /// Sends a run if there is space.
    pub fn run(&mut self, to: usize, room: &RoomId, run: &Run) -> bool {
        let letter = Letter::Run(room.clone(), run.clone());
        self.ways.get(to).is_some_and(|way| way.inbox.try_send(Incoming::Letter(letter)).is_ok())
    }

    /// Sends a hand-over if there is space; if not, the room is named by [`Post::clear`] later.
    pub fn hand_over(&mut self, to: usize, room: &RoomId, hand_over: HandOver) -> bool {
        let letter = Letter::HandOver(room.clone(), hand_over);
        let Some(way) = self.ways.get_mut(to) else { return true };
        if way.inbox.try_send(Incoming::Letter(letter)).is_ok() {
            return true;
        }
        way.owed.insert(room.clone());
        self.is_full(to);
        false
    }

    /// Ways somebody has to wait for: call [`Post::clear`] as soon as each has space.
    pub fn take_full(&mut self) -> Vec<(usize, mpsc::Sender<Incoming>)> {
        let full = std::mem::take(&mut self.full);
        full.into_iter().filter_map(|to| self.ways.get(to).map(|way| (to, way.inbox.clone()))).collect()
    }

    /// There is space: sends what waits. Gives the rooms whose home has to offer its hand-over again, and
    /// whether still something waits.
    pub fn clear(&mut self, to: usize) -> (Vec<RoomId>, bool) {
        let me = self.me;
        let Some(way) = self.ways.get_mut(to) else { return (Vec::new(), false) };
        while let Some(letter) = way.backlog.pop_front() {
            if let Err(error) = way.inbox.try_send(Incoming::Letter(letter)) {
                if let mpsc::error::TrySendError::Full(Incoming::Letter(letter)) = error {
                    way.backlog.push_front(letter);
                    return (Vec::new(), true);
                }
                break;
            }
        }
        while let Some((room, need)) = way.needs.first().map(|(room, need)| (room.clone(), *need)) {
            let letter = Incoming::Letter(Letter::Need(me, room.clone(), need));
            if let Err(mpsc::error::TrySendError::Full(_)) = way.inbox.try_send(letter) {
                return (Vec::new(), true);
            }
            way.needs.shift_remove(&room);
        }
        way.backlog.shrink_to_fit();
        (way.owed.drain(..).collect(), false)
    }

    /// Nobody waits for this way any more, unless something waits again: then `true`, go on waiting.
    pub fn still_waits(&mut self, to: usize) -> bool {
        let Some(way) = self.ways.get_mut(to) else { return false };
        way.waiting = !way.is_clear();
        way.waiting
    }

    fn is_full(&mut self, to: usize) {
        if let Some(way) = self.ways.get_mut(to)
            && !std::mem::replace(&mut way.waiting, true)
        {
            self.full.push(to);
        }
    }
}
