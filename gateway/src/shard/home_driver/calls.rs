//! The calls of a home on logic: each is a task whose reply is the home's next event. Decides nothing.

use sluice_proto::grpc::{ReadRange, ReadRequest, StatusRequest};
use sluice_proto::ids::RoomId;
use sluice_proto::limits::PAGE_MESSAGES_MAX;

use super::super::Shard;
use super::super::turn::ShardCell;
use crate::defaults::CALL_WITHIN;
use crate::home::calls::{HomeCall, PublishCall, ReadCall, ReadTarget, RoomsCall};
use crate::status::change;

impl Shard {
    /// Makes a call on logic.
    pub(super) fn call(&mut self, call: HomeCall) {
        match call {
            HomeCall::Publish(call) => self.call_publish(call),
            HomeCall::Subscribe(call) => self.call_subscribe(call),
            HomeCall::Remove(call) => self.call_remove(call),
            HomeCall::Heads(call) => self.call_heads(call),
            HomeCall::Read(call) => self.call_read(call),
        }
    }

    fn call_publish(&mut self, mut call: PublishCall) {
        let shared = self.shared.clone();
        self.local(async move |cell: ShardCell| {
            // Taken, not copied: to match the reply only its numbers are needed.
            let request = std::mem::take(&mut call.call.request);
            let reply = shared.calls.publish(call.lane, request, call.call.within).await;
            cell.turn(|shard| {
                let clock = shard.clock();
                shard.home(|home, now, ports| home.published(&call, reply, now, clock, ports));
            });
        });
    }

    fn call_subscribe(&mut self, call: RoomsCall) {
        let shared = self.shared.clone();
        let rooms: Vec<RoomId> = call.rooms().cloned().collect();
        self.local(async move |cell: ShardCell| {
            let reply = shared.calls.subscribe(lane_for(&rooms), &rooms).await.ok();
            cell.turn(|shard| shard.home(|home, now, ports| home.subscribed(now, call, reply, ports)));
        });
    }

    fn call_remove(&mut self, call: RoomsCall) {
        let shared = self.shared.clone();
        if self.reports.full_set_under_way() {
            // A part of the full set may be adding them: not now. As a task, as the home is at work here.
            self.local(async move |cell: ShardCell| {
                cell.turn(|shard| {
                    shard.home(|home, now, ports| home.removed(now, call, Some(false), ports));
                });
            });
            return;
        }
        self.local(async move |cell: ShardCell| {
            let request = StatusRequest {
                instance: shared.me().to_string(),
                draining: shared.upgrades.is_closed(),
                changes: call.rooms().map(change::uninterested).collect(),
                full: None,
                gone: false,
            };
            let reply = shared.calls.report(request, CALL_WITHIN).await;
            let stored = reply.ok().map(|reply| reply.stored);
            cell.turn(|shard| shard.home(|home, now, ports| home.removed(now, call, stored, ports)));
        });
    }

    fn call_heads(&mut self, call: RoomsCall) {
        let shared = self.shared.clone();
        let rooms: Vec<RoomId> = call.rooms().cloned().collect();
        self.local(async move |cell: ShardCell| {
            let reply = shared.calls.heads(lane_for(&rooms), &rooms).await.ok();
            cell.turn(|shard| shard.home(|home, now, ports| home.heads(now, call, reply, ports)));
        });
    }

    fn call_read(&mut self, call: ReadCall) {
        let shared = self.shared.clone();
        let limit = u32::try_from(PAGE_MESSAGES_MAX).unwrap_or(u32::MAX);
        let range = |range: &ReadTarget| ReadRange {
            room: range.room.to_string(),
            after: range.after,
            before: 0,
            limit,
        };
        let request = ReadRequest { ranges: call.0.iter().map(range).collect(), history: false };
        let lane = call.0.first().map_or(0, |range| range.room.lane());
        self.local(async move |cell: ShardCell| {
            let reply = shared.calls.read(lane, request).await.ok();
            cell.turn(|shard| shard.home(|home, now, ports| home.read(now, call, reply, ports)));
        });
    }
}

/// Calls about many rooms go where the first one's publishes go.
fn lane_for(rooms: &[RoomId]) -> u8 {
    rooms.first().map_or(0, RoomId::lane)
}
