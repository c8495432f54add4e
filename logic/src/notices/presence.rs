//! Who came into watched rooms and who left them, as notices: handed over once, with nothing behind them that would say it
//! again. What does not fit is dropped and counted; whoever asks who is there hears the truth.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prost::Message as _;
use sluice_presence::{RoomEvent, RoomEventKind};
use sluice_proto::grpc::{Notice, PresenceEvent, RoomRun};
use sluice_proto::ids::{Epoch, RoomId};
use sluice_proto::limits::LANES;
use sluice_trace::Spans;

use super::{Notices, Outgoing};
use crate::defaults::{NOTICES_QUEUED_MAX, PRESENCE_NOTICE_BYTES_MAX};

impl Notices {
    /// Hands events over, or drops them. `epoch` is that of the store.
    pub fn tell(&self, epoch: u64, events: Vec<RoomEvent>) {
        for (lane, notices) in by_lane(epoch, events) {
            for notice in notices {
                let told = notice.runs.iter().map(|run| run.presence.len() as u64).sum();
                let offered = self.offer_presence(lane, &notice);
                let count =
                    if offered { &self.metrics.presence_events } else { &self.metrics.presence_dropped };
                count.inc_by(told);
            }
        }
    }

    fn offer_presence(&self, lane: u8, notice: &Notice) -> bool {
        // Not known yet: under an epoch of its own a notice would close the rooms of every gateway it reaches.
        let Some(epoch) = Epoch::from_wire(notice.epoch) else { return false };
        let lane = &self.lanes[usize::from(lane % LANES)];
        // The other half is for messages: those that are dropped come a second later.
        if lane.waiting() >= NOTICES_QUEUED_MAX / 2 {
            return false;
        }
        let out =
            Outgoing { epoch, bytes: notice.encode_to_vec().into(), note: None, spans: Spans::default() };
        self.in_hand.fetch_add(1, Ordering::Relaxed);
        let offered = lane.offer(out).is_ok();
        if !offered {
            self.in_hand.fetch_sub(1, Ordering::Relaxed);
        }
        offered
    }
}

/// Notices of bounded size, by lane, with a run for each room.
fn by_lane(epoch: u64, events: Vec<RoomEvent>) -> BTreeMap<u8, Vec<Notice>> {
    let mut by_room: BTreeMap<RoomId, Vec<PresenceEvent>> = BTreeMap::new();
    for event in events {
        by_room.entry(event.room.clone()).or_default().push(wire(event));
    }
    let mut lanes: BTreeMap<u8, Vec<Notice>> = BTreeMap::new();
    for (room, events) in by_room {
        let notices = lanes.entry(room.lane()).or_default();
        for event in events {
            add(notices, epoch, &room, event);
        }
    }
    lanes
}

/// Appends an event to the last notice, or begins another one.
fn add(notices: &mut Vec<Notice>, epoch: u64, room: &RoomId, event: PresenceEvent) {
    let run = |event| RoomRun { room: room.to_string(), presence: vec![event], ..RoomRun::default() };
    let bytes = room.as_str().len() + event.encoded_len();
    match notices.last_mut() {
        Some(notice) if notice.encoded_len() + bytes < PRESENCE_NOTICE_BYTES_MAX => {
            match notice.runs.last_mut().filter(|run| run.room == room.as_str()) {
                Some(run) => run.presence.push(event),
                None => notice.runs.push(run(event)),
            }
        }
        Some(_) | None => notices.push(Notice { epoch, runs: vec![run(event)] }),
    }
}

fn wire(event: RoomEvent) -> PresenceEvent {
    let (left, info) = match event.kind {
        RoomEventKind::Joined { info } => (false, info),
        RoomEventKind::Left => (true, String::new()),
    };
    PresenceEvent { user: event.user.to_string(), at_ms: event.at_ms, left, info }
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::UserId;

    use super::*;

    fn event(room: &str, user: &str, info: usize) -> RoomEvent {
        RoomEvent {
            room: RoomId::parse(room).expect("valid"),
            user: UserId::parse(user).expect("valid"),
            at_ms: 5,
            kind: RoomEventKind::Joined { info: "1".repeat(info) },
        }
    }

    #[test]
    fn a_room_is_a_run_and_a_lane_a_notice() {
        let left = RoomEvent { kind: RoomEventKind::Left, ..event("a", "bob", 0) };
        let lanes = by_lane(7, vec![event("a", "ann", 0), event("b", "ann", 0), left]);
        let runs: Vec<&RoomRun> = lanes.values().flatten().flat_map(|notice| &notice.runs).collect();
        assert_eq!(runs.len(), 2);
        let a = runs.iter().find(|run| run.room == "a").expect("a run");
        let told: Vec<_> = a.presence.iter().map(|event| (event.user.as_str(), event.left)).collect();
        assert_eq!((a.first, a.last, told), (0, 0, vec![("ann", false), ("bob", true)]));
        assert!(lanes.keys().all(|lane| *lane < LANES));
    }

    #[test]
    fn a_crowd_is_several_notices_of_bounded_size_with_everybody_in_order() {
        let crowd: Vec<_> = (0..1_000).map(|n| event("a", &format!("u{n:04}"), 1_024)).collect();
        let notices = by_lane(7, crowd).into_values().next().expect("one lane");
        assert!(notices.iter().all(|notice| notice.encoded_len() <= PRESENCE_NOTICE_BYTES_MAX));
        let users = notices.iter().flat_map(|notice| &notice.runs).flat_map(|run| &run.presence);
        let users: Vec<&str> = users.map(|event| event.user.as_str()).collect();
        assert!(users.len() == 1_000 && users.is_sorted() && notices.len() > 4);
    }
}
