//! What a seeded bug does with a report: it tells every leave at once, whoever comes back. Only with the feature
//! `seeded-bugs`.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_presence::{RoomEvent, RoomEventKind};
use sluice_proto::grpc::{ChangeKind, StatusChange};
use sluice_proto::ids::{RoomId, UserId};
use sluice_service::seeded::{self, Bug};

/// What is told of these changes before anybody has looked who is there.
pub(super) fn leaves(changes: &[StatusChange]) -> Vec<RoomEvent> {
    if !seeded::is(Bug::LeaveAtDisconnect) {
        return Vec::new();
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    let left = |change: &StatusChange| {
        let (room, user) = (RoomId::parse(&change.room).ok()?, UserId::parse(&change.user).ok()?);
        Some(RoomEvent { room, user, at_ms, kind: RoomEventKind::Left })
    };
    changes.iter().filter(|change| change.kind() == ChangeKind::Left).filter_map(left).collect()
}
