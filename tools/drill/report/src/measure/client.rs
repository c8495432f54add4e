//! One client while its lines are read: what it sent and has no answer to, since when it is in which room, what it
//! hears. Pure.

use std::collections::HashMap;

use super::{
    comeback::{Absence, ComebackMeter},
    deliveries::{Deliveries, name, short},
    folder::DeliveryEntry,
    silence::{MeasureWindows, SilenceMeter, Silences},
};
use sluice_judge::record::{ClientEvent, PublishOutcome};

/// A publish that was answered `ok`.
pub(super) struct Acked {
    /// When it was first sent.
    pub(super) at: u64,
    /// How long the answer took.
    pub(super) took: u64,
}

/// A client. Lines come in the order in which things happened to it.
#[derive(Default)]
pub(super) struct MeasuredClient {
    id: u32,
    user: u64,
    user_name: String,
    /// It reads slowly, not at all or not always on purpose: its silence says nothing. One that leaves may lose its
    /// connection in the middle of that, so the way it ended does not tell.
    absent: bool,
    /// It paused once: what comes to it late says nothing.
    paused: bool,
    listener: SilenceMeter,
    /// Of one of the crowd.
    comeback: Option<ComebackMeter>,
    /// First send of what was not answered yet.
    unanswered: HashMap<u64, u64>,
    newest_n: u64,
    /// Room → when it was subscribed first.
    rooms: HashMap<u64, u64>,
    pub(super) published: u64,
    pub(super) got: u64,
}

impl MeasuredClient {
    pub(super) fn new(id: u32) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn got(
        &mut self,
        plan: &MeasureWindows,
        deliveries: &mut Deliveries,
        at: u64,
        got: &DeliveryEntry<'_>,
    ) {
        self.got += 1;
        if let Some(comeback) = &mut self.comeback {
            comeback.got(at, got);
        }
        if got.room == plan.beacon_room {
            self.listener.beacon(plan, at);
        }
        // Who is slow or away by design would be measured as late; what it sent itself is no delivery.
        if self.absent || self.paused || got.from == self.user_name.as_str() {
            return;
        }
        let room = short(&got.room);
        if let Some(since) = self.rooms.get(&room) {
            deliveries.got(name(room, short(&got.from), got.hash), at, *since);
        }
    }

    /// Anything but a delivery; `Some` when a publish was accepted.
    pub(super) fn see(
        &mut self,
        plan: &MeasureWindows,
        deliveries: &mut Deliveries,
        at: u64,
        what: &ClientEvent,
    ) -> Option<Acked> {
        self.listener.see(plan, at, what);
        if let Some(comeback) = &mut self.comeback {
            comeback.see(at, what);
        }
        match what {
            ClientEvent::Client { user, role, .. } => {
                self.user = short(user);
                self.user_name.clone_from(user);
                self.comeback = (role == "crowd").then(ComebackMeter::default);
                self.absent = matches!(role.as_str(), "slow" | "stopped" | "churn");
            }
            ClientEvent::Paused { .. } => self.paused = true,
            ClientEvent::Subscribed { room, .. } => {
                self.rooms.entry(short(room)).or_insert(at);
            }
            ClientEvent::Send { n, room, hash, .. } => {
                // The same number is the same message sent again: it counts from its first try.
                if *n > self.newest_n {
                    self.newest_n = *n;
                    self.published += 1;
                    self.unanswered.insert(*n, at);
                }
                deliveries.sent(name(short(room), self.user, *hash), self.id, *n, at);
            }
            ClientEvent::Answer { n, outcome, .. } => return self.answer(at, *n, outcome),
            ClientEvent::Open { .. }
            | ClientEvent::Failed { .. }
            | ClientEvent::Sub { .. }
            | ClientEvent::Unsubscribed { .. }
            | ClientEvent::Got { .. }
            | ClientEvent::Skipped { .. }
            | ClientEvent::History { .. }
            | ClientEvent::Drain { .. }
            | ClientEvent::Bye { .. }
            | ClientEvent::Closed { .. }
            | ClientEvent::Unpaused { .. }
            | ClientEvent::Error { .. }
            | ClientEvent::UserJoined { .. }
            | ClientEvent::UserLeft { .. }
            | ClientEvent::Stale { .. }
            | ClientEvent::End => {}
        }
        None
    }

    /// The first final answer counts.
    fn answer(&mut self, at: u64, n: u64, outcome: &PublishOutcome) -> Option<Acked> {
        match outcome {
            PublishOutcome::Ok(_) => {
                let sent = self.unanswered.remove(&n)?;
                Some(Acked { at: sent, took: at.saturating_sub(sent) })
            }
            PublishOutcome::Refused(_) | PublishOutcome::GaveUp => {
                self.unanswered.remove(&n);
                None
            }
            PublishOutcome::Again(_) => None,
        }
    }

    /// Window of a fault → how long it was away.
    pub(super) fn absences(&mut self, plan: &MeasureWindows, end: u64) -> Vec<(usize, Absence)> {
        self.comeback.take().map(|comeback| comeback.finish(&plan.faults, end)).unwrap_or_default()
    }

    /// What it heard when the last beacon of the run was sent at `end`; nothing of one that was away on purpose.
    pub(super) fn finish(self, plan: &MeasureWindows, end: u64) -> Silences {
        if self.absent { Silences::default() } else { self.listener.finish(plan, end) }
    }
}
