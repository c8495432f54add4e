//! Changes not told yet, the newest of each kind and place: what waits is bounded by what there is. Pure.

use std::collections::VecDeque;

use sluice_proto::grpc::StatusChange;
use sluice_service::batcher::{Bounds, Merged};

use tokio::sync::oneshot;

use crate::defaults::{STATUS_BYTES_MAX, STATUS_ITEMS_MAX, STATUS_QUEUE_MAX};

/// What a change is about: the newest of each is what holds. Who is in a room is known by the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ChangeKey {
    connection: String,
    user: String,
    room: String,
}

impl ChangeKey {
    fn of(change: &StatusChange) -> Self {
        // A connection that goes on as somebody else is two places: one left, one came.
        let user = if change.room.is_empty() { change.user.clone() } else { String::new() };
        Self { connection: change.connection.clone(), user, room: change.room.clone() }
    }
}

/// The newer one counts. What came and went is told as gone: whether an older report, one that seemed to
/// fail or a part of a full set has told that it came, nobody knows here, and saying so twice is harmless.
fn merge(_old: StatusChange, new: StatusChange) -> Option<StatusChange> {
    Some(new)
}

/// The changes not told yet. Pure.
#[derive(Debug)]
pub(super) struct PendingChanges {
    pub(super) queue: Merged<ChangeKey, StatusChange>,
    /// Too many changes: a full set has to tell.
    pub(super) lost: bool,
    /// Changes told so far.
    told: u64,
    /// Who waits until so many are told.
    marks: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl PendingChanges {
    pub(super) fn new() -> Self {
        let bounds = Bounds {
            items_max: STATUS_ITEMS_MAX,
            bytes_max: STATUS_BYTES_MAX,
            queue_items_max: STATUS_QUEUE_MAX,
            queue_bytes_max: usize::MAX,
        };
        let cost = |change: &StatusChange| {
            let StatusChange { connection, user, room, info, .. } = change;
            32 + connection.len() + user.len() + room.len() + info.len()
        };
        Self { queue: Merged::new(bounds, cost), lost: false, told: 0, marks: VecDeque::new() }
    }

    pub(super) fn add(&mut self, changes: Vec<StatusChange>) {
        for change in changes {
            // More than fits: the full set that follows tells all of it, also what is dropped here.
            self.lost |= self.queue.push(ChangeKey::of(&change), change, merge).is_err();
        }
    }

    pub(super) fn take(&mut self) -> Option<Vec<(ChangeKey, StatusChange)>> {
        self.queue.take()
    }

    /// Who waits is answered when all that waits now is told.
    pub(super) fn mark(&mut self, told: oneshot::Sender<()>) {
        self.marks.push_back((self.told + self.queue.len() as u64, told));
        self.answer();
    }

    /// A batch of so many changes is told.
    pub(super) fn done(&mut self, changes: usize) {
        self.queue.done();
        self.told += changes as u64;
        self.answer();
    }

    /// Nothing that waits is told any more, as everything is told anew.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.answer();
    }

    fn answer(&mut self) {
        // Changes that merged are fewer than they were counted: an empty queue has told everything.
        let all = self.queue.is_empty();
        while let Some((_, told)) = self.marks.pop_front_if(|(at, _)| all || *at <= self.told) {
            // Whoever waited may have gone.
            let _ = told.send(());
        }
    }

    pub(super) fn failed(&mut self, batch: Vec<(ChangeKey, StatusChange)>) {
        self.queue.failed(batch, merge);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use sluice_proto::grpc::ChangeKind;
    use sluice_proto::ids::{RoomId, SessionId, UserId};

    use super::*;
    use crate::status::change::{About, joined, left};

    fn room(n: u8) -> RoomId {
        RoomId::parse(&format!("room{n}")).unwrap()
    }

    /// Who is in which room: of each connection its user.
    type There = BTreeMap<(String, String), String>;

    fn apply(there: &mut There, change: &StatusChange) {
        let key = (change.connection.clone(), change.room.clone());
        match change.kind() {
            ChangeKind::Joined => drop(there.insert(key, change.user.clone())),
            ChangeKind::Left => drop(there.remove(&key)),
            ChangeKind::None
            | ChangeKind::Connected
            | ChangeKind::Disconnected
            | ChangeKind::InterestAdded
            | ChangeKind::InterestRemoved => {}
        }
    }

    fn told(pending: &mut PendingChanges, redis: &mut There, arrives: bool, answered: bool) {
        let Some(batch) = pending.take() else { return };
        if arrives {
            batch.iter().for_each(|(_, change)| apply(redis, change));
        }
        if arrives && answered { pending.done(batch.len()) } else { pending.failed(batch) }
    }

    #[test]
    fn who_left_is_told_so_whatever_came_between() {
        let user = UserId::parse("ann").unwrap();
        let about = About { session: SessionId(1), user: &user, since_ms: 5, info: "" };
        let (mut pending, mut redis) = (PendingChanges::new(), There::new());
        pending.add(vec![joined(&about, &room(1), false)]);
        told(&mut pending, &mut redis, true, true);
        assert_eq!(redis.len(), 1);
        pending.add(vec![
            left(&about, &room(1), false),
            joined(&about, &room(1), false),
            left(&about, &room(1), false),
        ]);
        told(&mut pending, &mut redis, true, true);
        assert!(redis.is_empty());
    }

    #[test]
    fn a_mark_is_answered_when_what_was_before_it_is_told() {
        let user = UserId::parse("ann").unwrap();
        let about = About { session: SessionId(1), user: &user, since_ms: 5, info: "" };
        let (mut pending, mut redis) = (PendingChanges::new(), There::new());
        let mark = |pending: &mut PendingChanges| {
            let (told, answered) = oneshot::channel();
            pending.mark(told);
            answered
        };
        assert!(mark(&mut pending).try_recv().is_ok(), "nothing waits");
        pending.add(vec![joined(&about, &room(1), true)]);
        let mut first = mark(&mut pending);
        told(&mut pending, &mut redis, true, false);
        assert!(first.try_recv().is_err(), "it may not have arrived");
        pending.add(vec![left(&about, &room(1), false), joined(&about, &room(2), true)]);
        let mut second = mark(&mut pending);
        told(&mut pending, &mut redis, true, true);
        assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
        pending.add(vec![joined(&about, &room(3), true)]);
        let mut third = mark(&mut pending);
        pending.clear();
        assert!(third.try_recv().is_ok(), "nobody waits for what is not told any more");
    }

    proptest! {
        /// Connections come to and leave rooms, also as another user; reports are lost, or only their
        /// answers are; parts of full sets pass by: in the end what was told is what is.
        #[test]
        fn in_the_end_what_was_told_is_what_is(
            steps in prop::collection::vec((0..9_u8, 0..2_u8, 0..2_u8, 0..2_u8), 0..80),
        ) {
            let (mut pending, mut redis, mut real) = (PendingChanges::new(), There::new(), There::new());
            for (step, connection, user, number) in steps {
                let user = UserId::parse(&format!("user{user}")).unwrap();
                let session = SessionId(u64::from(connection).into());
                let about = About { session, user: &user, since_ms: 1, info: "" };
                let change = match step {
                    0..=2 => joined(&about, &room(number), false),
                    3 | 4 => left(&about, &room(number), false),
                    5 => {
                        // A part holds what is true now and overtakes what waits here.
                        let all: BTreeSet<_> = real.keys().cloned().collect();
                        for key in all {
                            let user = real[&key].clone();
                            redis.insert(key, user);
                        }
                        continue;
                    }
                    6 => { told(&mut pending, &mut redis, false, false); continue }
                    7 => { told(&mut pending, &mut redis, true, false); continue }
                    _ => { told(&mut pending, &mut redis, true, true); continue }
                };
                apply(&mut real, &change);
                pending.add(vec![change]);
            }
            while !pending.queue.is_empty() {
                told(&mut pending, &mut redis, true, true);
            }
            prop_assert_eq!(redis, real);
        }
    }
}
