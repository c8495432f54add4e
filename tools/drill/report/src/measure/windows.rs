//! Which stretches of a run belong to which fault, and which are quiet. Pure.

use sluice_judge::record::FaultRecord;

/// After everything is whole again a fault may still be felt for this long.
const ECHO_US: u64 = 5_000_000;

/// Length of quiet windows when there is no fault to compare with.
const QUIET_US: u64 = 5_000_000;

/// A stretch of time; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeWindow {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl TimeWindow {
    pub(super) fn meets(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    pub(super) fn has(self, at: u64) -> bool {
        self.from <= at && at <= self.to
    }
}

/// What was felt of a fault, or of several that were done as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Felt {
    /// The first of them.
    pub(super) fault: usize,
    /// From the beginning of the first until none is felt any more, or the next begins.
    pub(super) window: TimeWindow,
}

/// The windows of faults, which are in order of `began_us`. Faults of one kind and round that overlap were done as one:
/// a client is silent once for all of them.
pub(super) fn of_faults(faults: &[FaultRecord]) -> Vec<Felt> {
    let mut felt: Vec<Felt> = Vec::new();
    for (i, fault) in faults.iter().enumerate() {
        let to = fault.healed_us.max(fault.began_us).saturating_add(ECHO_US);
        if let Some(before) = felt.last_mut() {
            let as_one = faults.get(before.fault).is_some_and(|first| {
                (&first.kind, first.round) == (&fault.kind, fault.round)
                    && fault.began_us <= before.window.to.saturating_sub(ECHO_US)
            });
            if as_one {
                before.window.to = to.max(before.window.to);
                continue;
            }
            before.window.to = before.window.to.min(fault.began_us);
        }
        felt.push(Felt { fault: i, window: TimeWindow { from: fault.began_us, to } });
    }
    felt
}

/// The windows of `0..=end` in which nothing was done, as long as the median window of a fault, so that a longest
/// silence means the same in both. Cut from the end of each quiet stretch backwards: what is left over at its
/// beginning, where a run still warms up, is dropped.
pub(super) fn quiet(faults: &[TimeWindow], end: u64) -> Vec<TimeWindow> {
    let mut lengths: Vec<u64> =
        faults.iter().map(|window| window.to - window.from).filter(|length| *length > 0).collect();
    lengths.sort_unstable();
    let length = lengths.get(lengths.len() / 2).copied().unwrap_or(QUIET_US);
    let mut windows = Vec::new();
    let mut free_from = 0;
    for next in faults.iter().copied().chain([TimeWindow { from: end, to: end }]) {
        let mut to = next.from.min(end);
        let mut stretch = Vec::new();
        while to >= free_from + length {
            stretch.push(TimeWindow { from: to - length, to });
            to -= length;
        }
        windows.extend(stretch.into_iter().rev());
        free_from = free_from.max(next.to);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(began_us: u64, healed_us: u64) -> FaultRecord {
        FaultRecord {
            round: 1,
            kind: "kill task".into(),
            target: "task-0".into(),
            began_us,
            healed_us,
            hit: true,
            exit: None,
            copied_us: None,
            note: String::new(),
        }
    }

    fn windows(faults: &[FaultRecord]) -> Vec<(usize, u64, u64)> {
        of_faults(faults).iter().map(|felt| (felt.fault, felt.window.from, felt.window.to)).collect()
    }

    #[test]
    fn a_window_ends_with_its_echo_or_with_the_next_fault() {
        let faults = [fault(10, 20), fault(9_000_000, 8_000_000), fault(10_000_000, 11_000_000)];
        assert_eq!(
            windows(&faults),
            [(0, 10, 5_000_020), (1, 9_000_000, 10_000_000), (2, 10_000_000, 16_000_000)]
        );
    }

    #[test]
    fn faults_done_as_one_share_a_window() {
        let mut other = fault(40, 50);
        other.kind = "kill logic".into();
        let faults = [fault(10, 30), fault(10, 20), fault(25, 35), other];
        assert_eq!(windows(&faults), [(0, 10, 40), (3, 40, 5_000_050)]);
    }

    #[test]
    fn quiet_windows_touch_no_fault_and_are_as_long() {
        let faults = [TimeWindow { from: 25, to: 35 }, TimeWindow { from: 70, to: 80 }];
        let quiet: Vec<_> = quiet(&faults, 94).iter().map(|window| (window.from, window.to)).collect();
        assert_eq!(quiet, [(5, 15), (15, 25), (40, 50), (50, 60), (60, 70), (84, 94)]);
    }

    #[test]
    fn without_faults_all_is_quiet() {
        assert_eq!(quiet(&[], 12_000_000).len(), 2);
    }
}
