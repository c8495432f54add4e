//! What a subscription promises: from its position on every message, in order, once, across connections; and where
//! that cannot be kept, the truth about it.

mod answered;
mod progress;
mod room;

use std::collections::BTreeMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{
    ClientHistory, ClientStep, History, HistoryPage, KEPT_US, SkippedRange, StepKind, SubSent,
};
use crate::record::ClientEvent;
use crate::verdict::AnomalyKind;
use progress::{DeliveryOrder, SubscriptionProgress};
use room::{AskedPosition, RoomSubscriptions, SeenPosition};

/// Whoever was up to date is told of a gap only when it is longer than this, if the run does not say otherwise: what
/// gateways do by themselves.
const MAX_BEHIND: u64 = 100_000;

/// How far a client has come in a room that it did not leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Index of the client.
    pub client: u32,
    /// The room.
    pub room: u32,
    /// Last seq delivered or told of.
    pub after: u64,
    /// Its epoch.
    pub epoch: u32,
    /// The step that says so.
    pub step: u32,
}

/// What was seen on the way.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Where clients ended.
    pub reaches: Vec<Reach>,
    /// Gaps that were told of.
    pub honest_gaps: u64,
}

/// A client on its way through its records.
struct Walk<'a> {
    history: &'a History,
    findings: &'a mut Findings,
    client: u32,
    it: &'a ClientHistory,
    rooms: BTreeMap<u32, RoomSubscriptions>,
    /// It stopped reading at some time.
    paused: bool,
    honest_gaps: u64,
}

pub(super) fn judge(history: &History, findings: &mut Findings) -> Walked {
    let mut walked = Walked::default();
    for (client, it) in (0..).zip(&history.clients) {
        let rooms = BTreeMap::new();
        let mut walk = Walk { history, findings, client, it, rooms, paused: false, honest_gaps: 0 };
        for (index, step) in (0..).zip(&it.steps) {
            walk.step(index, step);
        }
        walk.finish(&mut walked);
    }
    walked
}

impl Walk<'_> {
    fn step(&mut self, index: u32, step: &ClientStep) {
        let at_us = step.at_us;
        match &step.act {
            StepKind::Got { seq, room, conn, .. } => self.got(index, *room, *seq, *conn),
            StepKind::Sub(sub) => self.sub(index, at_us, sub),
            StepKind::Subscribed(told) => self.subscribed(index, at_us, told),
            StepKind::Skipped(gap) => self.skipped(index, gap),
            StepKind::Unsubscribed { conn, room } => {
                let lane = self.lane(*conn);
                if let Some(progress) = self.rooms.entry(*room).or_default().lane(lane) {
                    progress.ended = true;
                }
            }
            StepKind::Other(what) => {
                // For the library a closed connection ends nothing: it resumes on the next one.
                if let ClientEvent::Closed { conn, .. } = &**what
                    && !self.it.library
                {
                    self.closed(*conn);
                }
                self.paused |= matches!(**what, ClientEvent::Paused { .. });
            }
            StepKind::Page(page) => self.page(index, page),
            StepKind::Send(_) | StepKind::Answer(_) => {}
        }
    }

    fn lane(&self, conn: u32) -> u32 {
        if self.it.library { 0 } else { conn }
    }

    /// A finding at this client and a step of it.
    fn find(
        &mut self,
        kind: AnomalyKind,
        room: u32,
        step: u32,
        lines: &[u32],
        text: impl FnOnce(&str) -> String,
    ) {
        let (history, client) = (self.history, self.client);
        self.findings.add(kind, || {
            let text = format!("client {} {}", self.it.id, text(history.rooms.name(room)));
            let at_us = self.it.steps.get(step as usize).map_or(0, |step| step.at_us);
            let lines = lines.iter().chain([&step]).map(|step| RecordLine::Step(client, *step));
            Finding::new(text).at(at_us).room(room).client(client).lines(lines)
        });
    }

    fn got(&mut self, index: u32, room: u32, seq: u64, conn: u32) {
        let lane = self.lane(conn);
        let Some(progress) = self.rooms.entry(room).or_default().lane(lane) else {
            self.find(AnomalyKind::Phantom, room, index, &[], |room| {
                format!("got {seq} of {room:?} on connection {conn}, which has no subscription to it")
            });
            return;
        };
        let (begun, last, after) = (progress.begun, progress.last, progress.after);
        match progress.arrive(seq, index) {
            DeliveryOrder::Onward => {}
            DeliveryOrder::Late => self.find(AnomalyKind::Reordered, room, index, &[begun, last], |room| {
                format!("got {seq} of {room:?} after {after}")
            }),
            DeliveryOrder::Again => {
                let is_shown = !self.findings.is_full(AnomalyKind::Duplicate); // looking back takes time
                let first = is_shown.then(|| self.delivered(room, seq, lane, begun, index)).flatten();
                self.find(
                    AnomalyKind::Duplicate,
                    room,
                    index,
                    &[begun, last, first.unwrap_or(begun)],
                    |room| {
                        format!(
                            "got {seq} of {room:?} again, or from before its position: it had come to {after}"
                        )
                    },
                );
            }
        }
    }

    /// The step that delivered this before.
    fn delivered(&self, room: u32, seq: u64, lane: u32, from: u32, to: u32) -> Option<u32> {
        let steps = &self.it.steps[from as usize..to as usize];
        let is_it = |step: &ClientStep| {
            matches!(step.act, StepKind::Got { seq: s, room: r, conn, .. }
                if (s, r) == (seq, room) && self.lane(conn) == lane)
        };
        steps.iter().rposition(is_it).and_then(|place| u32::try_from(place).ok()).map(|place| from + place)
    }

    fn sub(&mut self, index: u32, at_us: u64, sub: &SubSent) {
        let lane = self.lane(sub.conn);
        let view = self.rooms.entry(sub.room).or_default();
        let seen = view.seen();
        // Asked again before it was answered: the answer that comes is to the last one.
        view.take_asked(lane);
        view.asked
            .push((lane, AskedPosition { after: sub.after, epoch: sub.epoch, at_us, step: index, seen }));
    }

    fn skipped(&mut self, index: u32, gap: &SkippedRange) {
        let SkippedRange { room, from, to, conn } = *gap;
        self.honest_gaps += 1;
        let lane = self.lane(conn);
        // An honest gap needs a reason: the client was slow or far behind, or the messages are gone.
        let max_behind = match self.history.run.max_behind {
            0 => MAX_BEHIND,
            set => set,
        };
        let may_be_behind = self.it.is_slow() || self.paused || to.saturating_sub(from) >= max_behind;
        let is_trimmed = self.history.end_us >= KEPT_US && to < self.history.oldest(room);
        let Some(progress) = self.rooms.entry(room).or_default().lane(lane) else {
            self.find(AnomalyKind::Dishonest, room, index, &[], |room| {
                format!("was told of a gap {from}…{to} in {room:?} without a subscription to it")
            });
            return;
        };
        let (begun, last, after) = (progress.begun, progress.last, progress.after);
        // Believed all the same: one lie must not make each later delivery a finding of its own.
        progress.after = after.max(to);
        progress.last = index;
        if from != after + 1 || to < from {
            self.find(AnomalyKind::Dishonest, room, index, &[begun, last], |room| {
                format!("was told of a gap {from}…{to} in {room:?}, but had come to {after}")
            });
        } else if !may_be_behind && !is_trimmed && self.history.restores.is_empty() {
            self.find(AnomalyKind::Dishonest, room, index, &[begun, last], |room| {
                let why = "nothing was trimmed or restored and it was not far behind";
                format!("was told that {from}…{to} of {room:?} are gone, but {why}")
            });
        }
    }

    fn page(&mut self, index: u32, page: &HistoryPage) {
        // Pages are contiguous by themselves; what lies between two of them nobody promised.
        for pair in page.messages.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            let kind = match after {
                _ if after == before + 1 => continue,
                _ if after > before => AnomalyKind::Gap,
                _ => AnomalyKind::Reordered,
            };
            self.find(kind, page.room, index, &[], |room| {
                format!("got a page of the history of {room:?} with {after} behind {before}")
            });
        }
        let (last, bound) = (page.messages.last().map_or(0, |last| last.0), page.before.unwrap_or(u64::MAX));
        if last >= bound {
            self.find(AnomalyKind::Dishonest, page.room, index, &[], |room| {
                format!("asked for the history of {room:?} before {bound} and got {last}")
            });
        }
    }

    fn closed(&mut self, conn: u32) {
        let mut broken = Vec::new();
        for (room, view) in &mut self.rooms {
            view.take_asked(conn);
            if let Some(progress) = view.take(conn) {
                view.leave(&progress);
                broken.push((*room, progress));
            }
        }
        for (room, progress) in broken {
            self.holes(room, &progress);
        }
    }

    /// What is still missing of a subscription that ends or begins anew.
    fn holes(&mut self, room: u32, progress: &SubscriptionProgress) {
        for hole in progress.holes.values() {
            let (from, to) = (hole.from, hole.to);
            self.find(AnomalyKind::Gap, room, hole.shown, &[progress.begun, hole.before], |room| {
                format!("never got {from}…{to} of {room:?}, and nobody told it of a gap")
            });
        }
    }

    fn finish(mut self, walked: &mut Walked) {
        for (room, view) in std::mem::take(&mut self.rooms) {
            for (_, progress) in &view.lanes {
                self.holes(room, progress);
            }
            if let Some(SeenPosition { after, epoch, last, .. }) = view.reach() {
                walked.reaches.push(Reach { client: self.client, room, after, epoch, step: last });
            }
        }
        walked.honest_gaps += self.honest_gaps;
    }
}
