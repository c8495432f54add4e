//! What the product promises of its speed under faults, and whether it was seen. Pure.

use super::measures::{KindMeasure, TargetResult};
use super::spread::Spread;

/// A stopped task or logic may add this to the silence that is there anyway.
const STOP_ADDS_US: u64 = 50_000;

/// After the moment a gateway told a client to come back at, it may hear nothing for this long.
const BEYOND_TOLD_US: u64 = 300_000;

/// A killed task is made up for within this.
const KILLED_TASK_US: u64 = 1_000_000;

/// A client that sees its connection break hears again within this.
const AFTER_NOTICE_US: u64 = 2_000_000;

/// A crowd is back, with everything in all its rooms, within this.
const CROWD_BACK_US: u64 = 10_000_000;

/// One of it is away for this long beyond the time it was told.
const CROWD_BEYOND_TOLD_US: u64 = 500_000;

impl TargetResult {
    /// Whether it was met; `None` when that cannot be said.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        Some(self.seen_us? <= self.limit_us?)
    }
}

/// All targets, measured or not.
pub(super) fn judge(kinds: &[KindMeasure], steady: Option<&Spread>) -> Vec<TargetResult> {
    let of = |name: &str, which: fn(&KindMeasure) -> &Option<Spread>| {
        kinds.iter().find(|kind| kind.kind == name).and_then(|kind| which(kind).as_ref())
    };
    let target = |what: &str, limit_us, seen: Option<&Spread>, value: fn(&Spread) -> u64| TargetResult {
        what: what.to_owned(),
        limit_us,
        seen_us: seen.map(value),
        n: seen.map_or(0, |seen| seen.n),
    };
    let p99: fn(&Spread) -> u64 = |seen| seen.p99_us;
    let max: fn(&Spread) -> u64 = |seen| seen.max_us;
    let stop_limit = steady.map(|steady| steady.p99_us + STOP_ADDS_US);
    let term_gateway = of("term gateway", |kind| &kind.beyond_told);
    let (term_task, term_logic) =
        (of("term task", |kind| &kind.silence), of("term logic", |kind| &kind.silence));
    let (kill_task, kill_gateway) =
        (of("kill task", |kind| &kind.silence), of("kill gateway", |kind| &kind.after_notice));
    let told = "SIGTERM of a gateway: silence beyond the told reconnect time";
    let mut targets = vec![
        target("SIGTERM of a task: p99 silence, steady p99 + 50 ms", stop_limit, term_task, p99),
        target("SIGTERM of a logic: p99 silence, steady p99 + 50 ms", stop_limit, term_logic, p99),
        target(&format!("{told}, p99"), Some(BEYOND_TOLD_US), term_gateway, p99),
        target(&format!("{told}, longest"), Some(BEYOND_TOLD_US), term_gateway, max),
        target("SIGKILL of a task: longest silence", Some(KILLED_TASK_US), kill_task, max),
        target(
            "SIGKILL of a gateway: longest silence after the client notices",
            Some(AFTER_NOTICE_US),
            kill_gateway,
            max,
        ),
    ];
    // only a herd has a crowd
    for kind in kinds.iter().filter(|kind| kind.away.is_some()) {
        let name = format!("crowd, {}: longest until it is back and caught up", kind.kind);
        targets.push(target(&name, Some(CROWD_BACK_US), kind.away.as_ref(), max));
        if kind.away_beyond_told.is_some() {
            let name = format!("crowd, {}: away beyond the told time, p99", kind.kind);
            targets.push(target(&name, Some(CROWD_BEYOND_TOLD_US), kind.away_beyond_told.as_ref(), p99));
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_unmeasured() {
        let kind = |kind: &str, values: Vec<u64>| KindMeasure {
            kind: kind.into(),
            silence: Spread::of(values.clone()),
            beyond_told: Spread::of(values),
            ..KindMeasure::default()
        };
        let kinds = [kind("term task", vec![120_000]), kind("kill task", vec![5, 1_000_001])];
        let steady = Spread::of(vec![70_000]);
        let met: Vec<_> = judge(&kinds, steady.as_ref()).iter().map(TargetResult::met).collect();
        assert_eq!(met, [Some(true), None, None, None, Some(false), None]);
        assert_eq!(judge(&kinds, None)[0].met(), None);
    }
}
