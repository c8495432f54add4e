//! The clients of the model and their outbound queues. A client judges everything it reads.

use std::collections::VecDeque;

use bytes::Bytes;
use sluice_gateway::room::link::Frame;
use sluice_gateway::subscription::{SubFrame, SubKey};
use sluice_gateway::view::SubscriberQueue;
use sluice_proto::ids::{Epoch, Seq};

use super::store::{FRAME_BYTES, Store};

pub enum Item {
    Message(Bytes),
    /// And whether the subscription had been Live by then.
    SubFrame(SubFrame, bool),
}

/// What a `sub` asked for, and where the store stood then.
pub struct Asked {
    pub after: Option<Seq>,
    pub epoch: Option<Epoch>,
    pub store: (Epoch, Seq),
}

pub enum Status {
    Away,
    Asked(Asked),
    SubscribedRoom,
}

pub struct Client {
    pub shard: usize,
    pub sub: Option<SubKey>,
    pub status: Status,
    /// Last position seen, of `epoch`.
    pub seen: Seq,
    pub epoch: Option<Epoch>,
    pub queue: VecDeque<Item>,
    pub level: usize,
    /// Reads its socket.
    pub reading: bool,
    /// Subscriptions of it that are CatchingUp, as the view says.
    pub behind: i32,
    pub was_live: bool,
}

impl Client {
    pub fn new() -> Self {
        Self {
            shard: 0,
            sub: None,
            status: Status::Away,
            seen: 0,
            epoch: None,
            queue: VecDeque::new(),
            level: 0,
            reading: true,
            behind: 0,
            was_live: false,
        }
    }

    /// The connection is gone, with all that was queued.
    pub fn left(&mut self) {
        self.sub = None;
        self.status = Status::Away;
        self.queue.clear();
        self.level = 0;
        self.was_live = false;
        assert_eq!(self.behind, 0, "the count of those behind is off");
    }

    /// Reads one frame. `lossless` = nobody is cut short for being slow.
    pub fn read(&mut self, store: &Store, lossless: bool) {
        match self.queue.pop_front() {
            None => {}
            Some(Item::Message(bytes)) => {
                self.level -= FRAME_BYTES;
                assert!(matches!(self.status, Status::SubscribedRoom), "a message before the ok");
                let (seq, id) = Store::decode(&bytes);
                assert_eq!(seq, self.seen + 1, "a hole or a repetition");
                assert_eq!(Some(id), store.id(self.epoch.unwrap(), seq), "not what the store has");
                self.seen = seq;
            }
            Some(Item::SubFrame(SubFrame::Skipped { epoch, from, to }, was_live)) => {
                assert_eq!(self.epoch, Some(epoch), "a skip of another history");
                assert_eq!(from, self.seen + 1, "a skip that does not follow");
                assert!(from <= to && to <= store.head(epoch), "a skip beyond the store");
                assert!((!lossless && was_live) || to < store.oldest(epoch), "a skip of what is kept");
                self.seen = to;
            }
            Some(Item::SubFrame(
                SubFrame::Ok { after, head, epoch, recovered, solicited, resumed: _ },
                _,
            )) => {
                self.ok(store, (after, head, epoch), recovered, solicited);
            }
        }
    }

    fn ok(
        &mut self,
        store: &Store,
        (after, head, epoch): (Seq, Seq, Epoch),
        recovered: bool,
        solicited: bool,
    ) {
        assert!(after <= head && head <= store.head(epoch), "positions that do not exist");
        let former = self.epoch.map_or(0, |former| former.0);
        assert!(epoch.0 >= former, "back to a former epoch");
        match std::mem::replace(&mut self.status, Status::SubscribedRoom) {
            Status::Away => panic!("an ok to nobody"),
            Status::SubscribedRoom => {
                assert!(!solicited && !recovered && epoch.0 > former, "a second ok without need");
            }
            Status::Asked(asked) => {
                assert!(solicited, "the first ok is the answer");
                match (asked.after, asked.epoch) {
                    (Some(position), Some(of)) if of == epoch => {
                        assert!(recovered && after == position, "a position not honoured");
                    }
                    (Some(_), Some(_)) => assert!(!recovered, "a position of another epoch honoured"),
                    (Some(position), None) => assert!(!recovered || after == position, "recovered elsewhere"),
                    (None, _) => assert!(recovered, "from now is always possible"),
                }
                if !(recovered && asked.after.is_some()) && asked.store.0 == epoch {
                    assert!(after >= asked.store.1, "from the past instead of from now");
                }
            }
        }
        self.epoch = Some(epoch);
        self.seen = after;
    }
}

impl SubscriberQueue for Client {
    fn level(&self) -> usize {
        self.level
    }

    fn append(&mut self, _: Epoch, frame: &Frame) {
        self.level += frame.bytes.len();
        self.queue.push_back(Item::Message(frame.bytes.clone()));
    }
}
