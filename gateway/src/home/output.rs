//! What a home hands to the shard it is in. It goes nowhere by itself.

use sluice_proto::ids::{RoomId, Seq};
use sluice_trace::Parent;

use super::calls::HomeCall;
use crate::address::Address;
use crate::pushers::PusherId;
use crate::room::link::{HandOver, Page, Run, ShardId};
use crate::subscription::Ask;
use crate::uplink::Answered;

/// Where a home's messages and calls go. Called during an event, in order.
pub trait HomeOutput {
    /// Appends a run to the queue to `shard`. `false` = no space: a hand-over will be owed instead.
    fn run(&mut self, shard: ShardId, room: &RoomId, run: &Run) -> bool;
    /// A message is taken whose trace is recorded: a run that follows in this event may hold it.
    fn traced(&mut self, _room: &RoomId, _seq: Seq, _parent: Parent) {}
    /// Appends a hand-over to the queue to `shard`. `false` = no space: call [`Home::space`](super::Home::space) when
    /// there is.
    fn hand_over(&mut self, shard: ShardId, room: &RoomId, hand_over: HandOver) -> bool;
    /// The outcome of a publish, for the shard of its connection. Never dropped: publishes are bounded
    /// by what a shard may have unanswered.
    fn answer(&mut self, answered: Answered);
    /// A page for a subscription; `None` = it failed. Never dropped: a subscription has at most one ask.
    fn page(&mut self, to: PageTo, page: Option<Page>);
    /// What a connection caused by leaving a room as the last one is done.
    fn released(&mut self, who: Address);
    /// Makes a call on logic.
    fn ask(&mut self, asked: HomeCall);
    /// Two versions of a message met; its room opens itself anew.
    fn conflict(&mut self, conflict: Conflict);
    /// So many repairs found something that every room of this gateway, in all homes, is to announce its
    /// interest again: call [`Home::announce_all`](super::Home::announce_all) on each.
    fn announce_all(&mut self);
}

/// Two versions of one message.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The room.
    pub room: RoomId,
    /// Its position.
    pub seq: Seq,
    /// The streams that pushed to the room last, where versions came from them.
    pub pushers: [PusherId; 2],
}

/// The subscription a page is for.
#[derive(Debug, Clone)]
pub struct PageTo {
    /// The shard of the subscription.
    pub shard: ShardId,
    /// The room of the subscription.
    pub room: RoomId,
    /// What the subscription asks for.
    pub ask: Ask,
}
