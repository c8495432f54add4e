//! How long one client heard nothing in the beacon room: per fault, and while all was quiet. Pure.

use super::windows::TimeWindow;
use sluice_judge::record::ClientEvent;

/// What a part's listeners listen through.
pub(super) struct MeasureWindows {
    pub(super) beacon_room: String,
    /// Of faults, in order.
    pub(super) faults: Vec<TimeWindow>,
    pub(super) quiet: Vec<TimeWindow>,
    /// When the load was over: nothing is expected after it.
    pub(super) end: u64,
}

/// What one client heard, or did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Silences {
    /// Window of a fault → longest silence.
    pub(super) faults: Vec<(usize, u64)>,
    /// Window of a fault → `reconnect_ms` told in it, in µs.
    pub(super) told: Vec<(usize, u64)>,
    /// Window of a fault → from a broken connection to the next beacon.
    pub(super) noticed: Vec<(usize, u64)>,
    /// Longest silences of quiet windows.
    pub(super) quiet: Vec<u64>,
}

/// A client that opens another connection so soon after it closed one has moved, not left: the other was there before.
const MOVED_US: u64 = 20_000;

/// A client's ear. A silence begins with a beacon, or with the client's first subscription, and ends with the next
/// beacon; silences that the client chose (it paused, left, ended) do not count.
#[derive(Debug, Default)]
pub(super) struct SilenceMeter {
    since: Option<u64>,
    /// The connection over which it is subscribed; others say nothing about what it hears.
    conn: u32,
    /// It closed that connection, maybe to leave.
    left_at: Option<u64>,
    faults: Longest,
    quiet: Longest,
    told: Vec<(u64, u64)>,
    broke_at: Option<u64>,
    noticed: Vec<(u64, u64)>,
    paused_at: Option<u64>,
    pauses: Vec<TimeWindow>,
}

/// Longest silence per window. Silences come in order, so windows that have passed need not be looked at again.
#[derive(Debug, Default)]
struct Longest {
    passed: usize,
    /// 0 = none yet.
    of: Vec<u64>,
}

impl Longest {
    fn pass(&mut self, windows: &[TimeWindow], to: u64) {
        while windows.get(self.passed).is_some_and(|window| window.to < to) {
            self.passed += 1;
        }
    }

    /// Whole to the window that it lies in most: what the next fault does belongs not to the one before it.
    fn add(&mut self, windows: &[TimeWindow], silence: TimeWindow) {
        let length = (silence.to - silence.from).max(1);
        let met = windows.iter().enumerate().skip(self.passed).take_while(|(_, met)| met.from <= silence.to);
        let shared =
            |window: &TimeWindow| silence.to.min(window.to).saturating_sub(silence.from.max(window.from));
        let Some((i, _)) = met.max_by_key(|(_, window)| shared(window)) else { return };
        if self.of.len() <= i {
            self.of.resize(i + 1, 0);
        }
        if let Some(longest) = self.of.get_mut(i) {
            *longest = length.max(*longest);
        }
    }

    fn found(&self) -> impl Iterator<Item = (usize, u64)> {
        self.of.iter().copied().enumerate().filter(|(_, longest)| *longest > 0)
    }
}

impl SilenceMeter {
    /// A beacon came.
    pub(super) fn beacon(&mut self, plan: &MeasureWindows, at: u64) {
        if self.paused_at.is_some() {
            return;
        }
        self.leave(plan);
        self.silent(plan, at);
        self.since = Some(at);
        if let Some(broke_at) = self.broke_at.take() {
            self.noticed.push((broke_at, at.saturating_sub(broke_at)));
        }
    }

    /// Something else happened.
    pub(super) fn see(&mut self, plan: &MeasureWindows, at: u64, what: &ClientEvent) {
        if !self.moves(at, what) {
            self.leave(plan);
        }
        match what {
            ClientEvent::Subscribed { room, conn, .. } if *room == plan.beacon_room => {
                self.conn = *conn;
                if self.paused_at.is_none() {
                    self.since.get_or_insert(at);
                }
            }
            ClientEvent::Drain { conn, reconnect_ms, .. }
            | ClientEvent::Bye { conn, reconnect_ms: Some(reconnect_ms), .. }
                if *conn == self.conn =>
            {
                self.told.push((at, reconnect_ms * 1_000));
            }
            // A server never says 1000.
            ClientEvent::Closed { conn, code: Some(1000), .. } if *conn == self.conn => {
                self.left_at = Some(at)
            }
            ClientEvent::Closed { conn, code: None | Some(1006), .. }
                if *conn == self.conn && self.since.is_some() =>
            {
                self.broke_at.get_or_insert(at);
            }
            ClientEvent::Paused { .. } => {
                self.stop(plan, at);
                self.paused_at.get_or_insert(at);
            }
            ClientEvent::Unpaused { .. } => {
                if let Some(from) = self.paused_at.take() {
                    self.pauses.push(TimeWindow { from, to: at });
                }
            }
            ClientEvent::End => self.stop(plan, at),
            // Nobody wishes not to hear beacons: an unsubscription is the server's doing.
            ClientEvent::Unsubscribed { .. }
            | ClientEvent::Client { .. }
            | ClientEvent::Open { .. }
            | ClientEvent::Failed { .. }
            | ClientEvent::Sub { .. }
            | ClientEvent::Subscribed { .. }
            | ClientEvent::Send { .. }
            | ClientEvent::Answer { .. }
            | ClientEvent::Got { .. }
            | ClientEvent::Skipped { .. }
            | ClientEvent::History { .. }
            | ClientEvent::Drain { .. }
            | ClientEvent::Bye { .. }
            | ClientEvent::Closed { .. }
            | ClientEvent::Error { .. }
            | ClientEvent::UserJoined { .. }
            | ClientEvent::UserLeft { .. }
            | ClientEvent::Stale { .. } => {}
        }
    }

    /// It closed its connection, and this shows that it has another.
    fn moves(&mut self, at: u64, what: &ClientEvent) -> bool {
        let moves = matches!(what, ClientEvent::Open { .. })
            && self.left_at.is_some_and(|left_at| at.saturating_sub(left_at) < MOVED_US);
        if moves {
            self.left_at = None;
        }
        moves
    }

    /// It closed its connection, and has left.
    fn leave(&mut self, plan: &MeasureWindows) {
        if let Some(left_at) = self.left_at.take() {
            self.stop(plan, left_at);
        }
    }

    /// The client listens no more; what it has not heard by `at`, it has not heard.
    fn stop(&mut self, plan: &MeasureWindows, at: u64) {
        self.silent(plan, at);
        self.since = None;
        self.broke_at = None;
    }

    fn silent(&mut self, plan: &MeasureWindows, to: u64) {
        let to = to.min(plan.end);
        let Some(from) = self.since.filter(|from| *from <= to) else { return };
        let silence = TimeWindow { from, to };
        self.faults.pass(&plan.faults, from);
        self.quiet.pass(&plan.quiet, from);
        self.faults.add(&plan.faults, silence);
        // What reaches into a fault's window is the fault's.
        if !plan.faults.get(self.faults.passed).is_some_and(|window| window.meets(silence)) {
            self.quiet.add(&plan.quiet, silence);
        }
    }

    /// The end: the last beacon of the run was sent at `end`.
    pub(super) fn finish(mut self, plan: &MeasureWindows, end: u64) -> Silences {
        self.leave(plan);
        self.silent(plan, end);
        if let Some(broke_at) = self.broke_at {
            self.noticed.push((broke_at, end.saturating_sub(broke_at)));
        }
        if let Some(from) = self.paused_at {
            self.pauses.push(TimeWindow { from, to: u64::MAX });
        }
        // Who did not read, by its own wish, says nothing about a fault.
        let listened = |window: &TimeWindow| !self.pauses.iter().any(|pause| pause.meets(*window));
        let attended = |fault: usize| plan.faults.get(fault).is_some_and(listened);
        let fault_at = |at: u64| plan.faults.iter().rposition(|window| window.has(at));
        let faults: Vec<_> = self.faults.found().filter(|(fault, _)| attended(*fault)).collect();
        let told = faults.iter().filter_map(|(fault, _)| {
            let window = plan.faults.get(*fault)?;
            let (_, told) = self.told.iter().rev().find(|(at, _)| window.has(*at))?;
            Some((*fault, *told))
        });
        let noticed = self.noticed.iter().filter_map(|(at, took)| Some((fault_at(*at)?, *took)));
        let quiet = self.quiet.found().filter(|(i, _)| plan.quiet.get(*i).is_some_and(listened));
        Silences {
            told: told.collect(),
            noticed: noticed.filter(|(fault, _)| attended(*fault)).collect(),
            quiet: quiet.map(|(_, silence)| silence).collect(),
            faults,
        }
    }
}

#[cfg(test)]
mod tests;
