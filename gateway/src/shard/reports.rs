//! What a shard has to tell logic: its changes in order and, in turn with them, everything it has (a full
//! set), of which each part is made when it is taken: whatever is still to be told costs nothing.
//!
//! Never tells an older state after a newer one: a part is what is true when it is made, and leaves at once.

use std::collections::VecDeque;
use std::rc::Rc;

use sluice_proto::grpc::StatusChange;
use tokio::sync::{Notify, oneshot};

use super::Shard;
use super::connection::Connection;
use super::connections::Connections;
use crate::defaults::{STATUS_ITEMS_MAX, STATUS_QUEUE_MAX};
use crate::home::Home;
use crate::session::info::UserInfo;
use crate::status::{Report, change};

/// Changes and the full set under way.
#[derive(Debug, Default)]
pub(super) struct Reports {
    queue: VecDeque<Report>,
    /// Changes in the queue.
    waiting: usize,
    full: Option<FullSet>,
    /// The full set has its turn before the changes.
    turn: bool,
    /// Report when there is something to take.
    more: Rc<Notify>,
}

/// How far a full set is told.
#[derive(Debug)]
pub(super) struct FullSet {
    generation: u64,
    /// Rooms below this number are to be told: downwards, as a room that goes is replaced by the last one.
    rooms: usize,
    /// Connections from this place on are to be told. Who comes is told as a change.
    slot: usize,
    whole: bool,
}

impl Reports {
    /// Told when there is something to take.
    pub(super) fn more(&self) -> Rc<Notify> {
        Rc::clone(&self.more)
    }

    /// A change; too many that wait are forgotten, and a full set is told instead.
    pub(super) fn push(&mut self, change: StatusChange) {
        if self.waiting >= STATUS_QUEUE_MAX {
            // The end stays: who flushes counts the shards that have reached it.
            self.queue.retain(|told| matches!(told, Report::End));
            self.waiting = 0;
            self.queue.push_back(Report::Lost);
        }
        self.waiting += 1;
        // Only with the last: a change must not be told before what stands between.
        match self.queue.back_mut() {
            Some(Report::Changes(changes)) if changes.len() < STATUS_ITEMS_MAX => changes.push(change),
            Some(
                Report::Changes(_)
                | Report::FullSetPart(..)
                | Report::FullSetEnd(_)
                | Report::Lost
                | Report::Mark(_)
                | Report::End,
            )
            | None => {
                self.queue.push_back(Report::Changes(vec![change]));
            }
        }
        self.more.notify_one();
    }

    /// Whoever waits for the answer hears when everything up to here is told, or that nobody will say so.
    pub(super) fn mark(&mut self) -> oneshot::Receiver<()> {
        let (told, answer) = oneshot::channel();
        self.queue.push_back(Report::Mark(told));
        self.more.notify_one();
        answer
    }

    /// Everything is to be told, from the beginning.
    pub(super) fn begin(&mut self, generation: u64) {
        self.full = Some(FullSet { generation, rooms: usize::MAX, slot: 0, whole: false });
        self.more.notify_one();
    }

    /// The full set is told, or given up.
    pub(super) fn end(&mut self) {
        self.full = None;
    }

    /// Whether a full set is being told.
    pub(super) fn full_set_under_way(&self) -> bool {
        self.full.is_some()
    }

    /// The gateway ends: says where the changes end, and tells no more parts.
    pub(super) fn finish(&mut self) {
        self.full = None;
        self.queue.push_back(Report::End);
        self.more.notify_one();
    }

    /// The next thing for the reporter. `part` gives the next part of the full set, empty at its end.
    pub(super) fn next(&mut self, part: impl FnOnce(&mut FullSet) -> Vec<StatusChange>) -> Option<Report> {
        // In turn: in a large gateway a full set takes seconds, and changes must not wait for its end.
        self.turn = !self.turn;
        let full = self.full.as_mut().filter(|full| !full.whole);
        if let Some(full) = full.filter(|_| self.turn || self.queue.is_empty()) {
            let part = part(full);
            full.whole = part.is_empty();
            let generation = full.generation;
            return Some(if full.whole {
                Report::FullSetEnd(generation)
            } else {
                Report::FullSetPart(generation, part)
            });
        }
        let told = self.queue.pop_front()?;
        if let Report::Changes(changes) = &told {
            self.waiting = self.waiting.saturating_sub(changes.len());
        }
        Some(told)
    }
}

impl FullSet {
    /// The next part: rooms, then connections with theirs. One connection's rooms stay together, so that a
    /// part may have more than [`STATUS_ITEMS_MAX`] only by one connection alone.
    pub(super) fn part(&mut self, home: &Home, connections: &Connections) -> Vec<StatusChange> {
        let mut part = Vec::new();
        for (number, room) in home.interested(self.rooms) {
            if part.len() >= STATUS_ITEMS_MAX {
                return part;
            }
            part.push(change::interested(room));
            self.rooms = number;
        }
        self.rooms = 0;
        while let Some((slot, connection)) = connections.from_slot(self.slot) {
            self.slot = slot;
            let items = 1 + connection.subscriptions.len();
            if !part.is_empty() && part.len() + items > STATUS_ITEMS_MAX {
                return part;
            }
            tell(connection, &mut part);
            self.slot += 1;
        }
        part
    }
}

impl Shard {
    /// A change for logic.
    pub(super) fn report(&mut self, change: StatusChange) {
        self.reports.push(change);
    }

    /// The next thing for the reporter.
    pub(super) fn next_report(&mut self) -> Option<Report> {
        let (home, connections) = (self.driver.home(), &self.connections);
        self.reports.next(|full| full.part(home, connections))
    }
}

fn tell(connection: &Connection, part: &mut Vec<StatusChange>) {
    // Not identified yet, or gone already: that will be, or was, told as a change.
    let Some(identity) = connection.session.identity().filter(|_| !connection.detached) else { return };
    let about = change::About {
        session: connection.session.link().session,
        user: &identity.user,
        since_ms: connection.since_ms,
        info: identity.info.as_ref().map_or("", UserInfo::as_str),
    };
    part.push(change::connected(&about));
    part.extend(connection.joined_rooms().map(|(room, watches)| change::joined(&about, room, watches)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> StatusChange {
        StatusChange::default()
    }

    #[test]
    fn too_many_changes_do_not_stop_a_full_set() {
        let mut reports = Reports::default();
        reports.begin(7);
        (0..=STATUS_QUEUE_MAX).for_each(|_| reports.push(change()));
        let mut parts = vec![vec![], vec![change()], vec![change()]];
        let told: Vec<Report> = std::iter::from_fn(|| reports.next(|_| parts.pop().unwrap())).collect();
        assert_eq!(told.iter().filter(|told| matches!(told, Report::FullSetPart(7, _))).count(), 2);
        assert_eq!(told.iter().filter(|told| matches!(told, Report::FullSetEnd(7))).count(), 1);
        assert_eq!(told.iter().filter(|told| matches!(told, Report::Lost)).count(), 1);
        assert!(reports.full_set_under_way(), "until the reporter says so");
        assert_eq!(reports.waiting, 0);
    }

    #[test]
    fn changes_and_parts_take_turns() {
        let mut reports = Reports::default();
        (0..3 * STATUS_ITEMS_MAX).for_each(|_| reports.push(change()));
        reports.begin(1);
        let mut kinds = String::new();
        while let Some(told) = reports.next(|_| if kinds.len() < 5 { vec![change()] } else { vec![] }) {
            kinds.push(match told {
                Report::Changes(_) => 'c',
                Report::FullSetPart(..) => 'p',
                Report::FullSetEnd(_) => 'w',
                Report::Lost | Report::Mark(_) | Report::End => '?',
            });
        }
        assert_eq!(kinds, "pcpcpcw");
    }
}
